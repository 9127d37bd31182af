"""`python -m benchmarks sql` to its end, on a day of an archive, and the verdicts it passes."""

import json
from dataclasses import replace

import pytest

from benchmarks import sql
from benchmarks.archive import ArchiveConfig
from benchmarks.sql import OF_A_LOOSE_LAKE, questions, report
from benchmarks.sql_report import Timing
from dgasr.lake.views import has_rows, view_statements

TIMING = Timing(question="search('a')", is_full_scan=False, num_rows=1, first_s=9.0, warm_s=1.0, cpu_s=2.0)


def test_every_view_and_macro_is_asked():
    asked = [question.text for question in questions()]
    names = [name for name, text in view_statements().items() if has_rows(text)]
    assert all(any(text.partition("(")[0] == name for text in asked) for name in names)
    assert set(OF_A_LOOSE_LAKE) <= set(asked)


@pytest.mark.parametrize(
    ("timing", "verdict"),
    [
        (TIMING, "within 1 s"),
        (replace(TIMING, warm_s=1.1), "MISSED 1 s"),
        (replace(TIMING, question="coverage", warm_s=1.9), "within 2 s"),
        (replace(TIMING, question="words", is_full_scan=True, warm_s=99.0), "a full scan"),
    ],
)
def test_a_question_is_held_to_its_budget(timing: Timing, verdict: str):
    assert timing.verdict() == verdict


def test_the_figures_of_both_states_are_written(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sql, "measure_apart", sql.measure)
    monkeypatch.setattr(sql, "REPEATS", 1)
    config = ArchiveConfig(
        num_days=2, shards_per_day=2, recordings_per_shard=10, segments_per_recording=5, num_types=300
    )
    report(config, tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["loose"]["num_files"] > figures["compacted"]["num_files"]
    assert set(figures["penalties"]) == set(OF_A_LOOSE_LAKE)
    assert figures["budgets"]["memory under 2 GB"]
    assert "small files: " in capfd.readouterr().out
