import pytest

from dgasr.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünï 天气.wav", "plain, ünï 天气.wav"),
        ("a\x1b[31mred.wav", "a\\x1b[31mred.wav"),
        ("two\nlines\tand\rmore", "two\\nlines\\tand\\rmore"),
        ("evil\u202egpj.wav", "evil\\u202egpj.wav"),
        ("\u200emark\u061c \udcff", "\\u200emark\\u061c \\udcff"),
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),  # joiners are spelling
    ],
)
def test_what_steers_a_terminal_is_escaped_and_the_rest_stays(text, shown):
    assert printable(text) == shown
