import csv
import io

import pytest

from dgasr.evaluation.scores import ScoredUtterance
from dgasr.evaluation.worst import COLUMNS, aligned_text, worst_markdown, worst_tsv, worst_utterances


def scored(reference, hypothesis, **fields):
    defaults = {"audio_filepath": "a.wav", "language": "en", "audio_s": 2.0}
    return ScoredUtterance(reference=reference, hypothesis=hypothesis, **(defaults | fields))


UTTERANCES = [
    scored("One, two three.", "one two three"),
    scored("one two", "one nine", set_name="calls", speaker="ann", flags=("low_confidence",)),
    scored("one two three four", "two three three five"),
    scored("one", "nine"),
]


@pytest.mark.parametrize(
    ("said", "heard", "text"),
    [
        ("a b c", "a b c", "a b c"),
        ("a b c", "a x c", "a [b → x] c"),
        ("a b c", "a c", "a [b →] c"),
        ("a c", "a b c", "a [→ b] c"),
        ("", "a", "[→ a]"),
    ],
)
def test_errors_are_shown_where_they_are(said, heard, text):
    assert aligned_text(said.split(), heard.split()) == text


def test_the_most_errors_come_first_then_the_higher_rate():
    rows = worst_utterances(UTTERANCES, "basic", 10)
    assert [(row["rank"], row["reference"]) for row in rows] == [(1, "one two three four"), (2, "one"), (3, "one two")]


def test_no_more_than_asked_for_are_shown():
    assert len(worst_utterances(UTTERANCES, "basic", 2)) == 2


def test_a_row_has_texts_as_written_and_as_compared():
    [row] = worst_utterances([scored("Mr. One", "mister Two")], "whisper", 1)
    assert (row["reference"], row["reference_normalised"]) == ("Mr. One", "mister one")
    assert (row["hypothesis"], row["hypothesis_normalised"]) == ("mister Two", "mister 2")


def test_another_systems_text_is_shown_beside():
    other = [scored("one two", "one too")] * 4
    assert {row["baseline"] for row in worst_utterances(UTTERANCES, "basic", 9, other)} == {"one too"}


def test_markdown_says_whose_and_where():
    text = worst_markdown(worst_utterances(UTTERANCES, "basic", 10))
    assert "### 3. 1 errors, 2 words (50 %) · calls · en · ann" in text
    assert "`a.wav`, 2.0 s, flags: low_confidence" in text
    assert "- errors: one [two → nine]" in text


def test_the_table_survives_a_spreadsheet():
    odd = [scored('one\t"two"', "nine")]
    rows = list(csv.DictReader(io.StringIO(worst_tsv(worst_utterances(odd, "basic", 1))), delimiter="\t"))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["reference"] == 'one\t"two"'
