"""The shell of `dgasr sql`, as its user meets it."""

import io

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from dgasr.lake.console import Console, NameCompleter
from dgasr.lake.query import Questions


@pytest.fixture(scope="module")
def questions(small_lake):
    with Questions(small_lake) as found:
        yield found


@pytest.fixture
def talk(questions):
    """Function that types lines into the shell; returns what was answered, and what was said beside it."""

    def talk(*lines: str | type[BaseException]) -> tuple[str, str]:
        typed, out, err = iter(lines), io.StringIO(), io.StringIO()

        def read_line(prompt: str) -> str:
            line = next(typed, EOFError)
            if isinstance(line, str):
                return line
            raise line

        Console(questions, "csv", out, err).run(read_line)
        return out.getvalue(), err.getvalue()

    return talk


@pytest.mark.parametrize(
    ("lines", "out"),
    [
        (("select count(*) as n", "from words", ";"), "n\n6\n"),  # over as many lines as it takes
        (("select broken", KeyboardInterrupt, "select 1 as a;"), "a\n1\n"),  # forgotten at Ctrl-C
        ((".quit", "select 1 as a;"), ""),
        ((".format json", "select 1 as a;"), '[\n{"a": 1}\n]\n'),
        (("set variable x = 7;", "select getvariable('x') as x;"), "x\n7\n"),
        (("select nope;", ".nope", "select 1 as a;"), "a\n1\n"),  # a mistake, and the talk goes on
    ],
)
def test_what_is_typed_is_answered(talk, lines, out):
    assert talk(*lines)[0] == out


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("flag_counts", "flag,num_segments"),
        (".views", "  coverage                Where each recording's seconds went"),
        (".columns words", "  start_s                 DOUBLE\n"),
        (".show words", "-- Every word with its time."),
    ],
)
def test_views_are_shown_by_name(talk, line, shown):
    assert shown in talk(line)[0]


def test_what_goes_wrong_and_how_long_it_took_stands_beside_the_answers(talk):
    assert talk("select 1 as a;")[1].endswith(" s\n")
    assert talk(".timing off", "select 1 as a;")[1] == ""
    err = talk("select nope;", ".nope")[1]
    assert "nope" in err
    assert ".views" in err


def test_names_of_the_lake_and_commands_are_completed(questions):
    completer = NameCompleter([*questions.names(), *questions.column_names()])

    def complete(text: str) -> list[str]:
        return [found.text for found in completer.get_completions(Document(text), CompleteEvent())]

    assert "latest_transcripts" in complete("from late")
    assert complete("from sear") == ["search("]
    assert complete("select sum(decod") == ["decoded_s"]
    assert complete(".vi") == [".views"]
