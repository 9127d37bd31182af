"""`python -m benchmarks sql` to its end, on two days of an archive, and the verdicts it passes."""

from dataclasses import replace

import pytest

from benchmarks import sql
from benchmarks.archive import ArchiveConfig
from benchmarks.sql import Question, has_rows, measure_archive, questions
from dgasr.lake.views import view_statements

SEARCH = Question(text="search('a')", is_full_scan=False, warm_s=1.0)


def test_every_view_and_macro_is_asked():
    asked = [question.text for question in questions()]
    names = [name for name, text in view_statements().items() if has_rows(text)]
    assert all(any(text.partition("(")[0] == name for text in asked) for name in names)


@pytest.mark.parametrize(
    ("question", "verdict"),
    [
        (SEARCH, "within 1 s"),
        (replace(SEARCH, warm_s=1.1), "MISSED 1 s"),
        (replace(SEARCH, text="coverage", warm_s=1.9), "within 2 s"),
        (replace(SEARCH, text="words", is_full_scan=True, warm_s=99.0), "a full scan"),
    ],
)
def test_a_question_is_held_to_its_budget(question: Question, verdict: str):
    assert question.verdict() == verdict


def test_all_questions_are_measured(capfd, monkeypatch):
    monkeypatch.setattr(sql, "measure_apart", sql.measure)
    monkeypatch.setattr(sql, "REPEATS", 1)
    config = ArchiveConfig(
        num_days=2, shards_per_day=2, recordings_per_shard=10, segments_per_recording=5, num_types=300
    )
    figures = measure_archive(config)
    assert [row["text"] for row in figures["questions"]] == [question.text for question in questions()]
    assert figures["archive"]["num_segments"] == 2 * 2 * 10 * 5
    assert "memory under 2 GB" not in figures["missed"]
    assert "search('harbour pilot')" in capfd.readouterr().out
