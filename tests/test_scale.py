from dataclasses import fields, replace
from pathlib import Path

import pytest

from dgasr.cli import main
from dgasr.errors import ConfigError
from dgasr.scale import READ_BYTES, SOURCES, Pace, Prices, cost_of
from dgasr.stages.plan import AssignmentConfig
from dgasr.store.s3 import READ_BUFFER_BYTES

DOCUMENT = Path(__file__).parents[1] / "docs" / "scale.md"


def cost(hours=1e5, gpus=8, cores=64, **changes):
    return cost_of(hours, gpus, cores, replace(Pace(), **changes), Prices())


def test_the_document_holds_what_the_command_prints(capsys):
    assert main(["plan"]) == 0
    assert capsys.readouterr().out.strip() in DOCUMENT.read_text(encoding="utf-8")


def test_every_figure_says_where_it_is_from():
    assert {field.name for field in (*fields(Pace), *fields(Prices))} == SOURCES.keys()
    kinds = ("measured", "derived", "configured", "published", "assumed")
    assert all(source.startswith(kinds) for source in SOURCES.values())


def test_figures_that_stand_elsewhere_too_are_the_same():
    assert AssignmentConfig().target_s == Pace().assignment_s
    assert READ_BUFFER_BYTES == READ_BYTES


def test_twice_the_audio_costs_twice_as_much():
    once, twice = cost(1e5), cost(2e5)
    assert twice.gpu_hours == pytest.approx(2 * once.gpu_hours, rel=1e-3)
    assert twice.dollars == pytest.approx(2 * once.dollars, rel=1e-3)


def test_gpu_hours_are_speech_by_speed_and_a_start_for_each_assignment():
    found = cost(640, rtfx=100.0, speech_share=0.5, assignment_s=64 * 3600.0, start_s=36.0)
    assert found.gpu_hours == pytest.approx(640 * 0.5 / 100 + 10 * 0.01)


@pytest.mark.parametrize(
    ("bottleneck", "changes"),
    [
        ("GPUs", {}),
        ("cores", {"core_rtfx": 1.0}),
        ("network", {"machine_bytes_s": 1e6}),
        ("listing", {"recording_s": 1.0, "page_s": 1.0}),
        ("starting", {"start_s": 36_000.0, "assignment_s": 1e12, "rtfx": 1e6, "core_rtfx": 1e6}),
    ],
)
def test_the_slowest_resource_is_named(bottleneck, changes):
    assert cost(**changes).bottleneck == bottleneck


def test_no_more_gpus_work_than_there_are_assignments():
    assert cost(64, gpus=8).hours == cost(64, gpus=1).hours


@pytest.mark.parametrize("change", [{"rtfx": 0.0}, {"speech_share": 1.5}])
def test_figures_that_cannot_be_are_refused(change):
    with pytest.raises(ConfigError, match="must be above 0"):
        replace(Pace(), **change)


def test_a_measured_speed_takes_the_derived_ones_place(tmp_path, capsys):
    path = tmp_path / "bench.json"
    rows = [(7, 900.0), (30, 300.0), (30, None)]
    measured = [
        f'{{"engine": "ours", "clip_s": {clip}, "batch": 4, "canvas": 64, "rtfx": {"null" if rtfx is None else rtfx}}}'
        for clip, rtfx in rows
    ]
    path.write_text(f'{{"machine": "a GPU", "measured": [{", ".join(measured)}]}}')
    assert main(["plan", "--hours", "1", "--bench", str(path)]) == 0
    assert "`rtfx` 300: measured: bench.json, a GPU, batch 4" in capsys.readouterr().out


def test_a_file_without_figures_is_refused(tmp_path, capsys):
    (tmp_path / "bench.json").write_text("{}")
    assert main(["plan", "--bench", str(tmp_path / "bench.json")]) == 2
    assert "no figures of" in capsys.readouterr().err
