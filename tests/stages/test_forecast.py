from datetime import UTC, datetime
from pathlib import Path

import pytest

from dgasr.errors import ConfigError
from dgasr.lake.commit import append_rows
from dgasr.lake.rows import run_row
from dgasr.recipe import Recipe
from dgasr.stages.embedded import transcribe_sources
from dgasr.stages.forecast import Forecast, ForecastConfig, forecast
from dgasr.stages.heartbeat import Progress
from dgasr.stages.selection import Selection, find_backlog
from tests.stages.conftest import engine_of

NEW_RECIPE = "0123456789abcdef"


def forecast_of(archive: Path, recipe_id: str, config: ForecastConfig | None = None, **selection: object) -> Forecast:
    lake = f"{archive.parent}/lake"
    asked = Selection(sources=(str(archive),), **selection).starting_at(datetime.now(UTC))
    return forecast(find_backlog(asked, lake, recipe_id), lake, recipe_id, config or ForecastConfig())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_measured(lake: str, run_id: str, audio_s: float, wall_s: float, stage: str | None, recipe_id: str) -> None:
    row = run_row(
        run_id=run_id, recipe_id=recipe_id, recipe="{}", versions="{}", source="/a", device="cuda:0",
        started_at=datetime.now(UTC), recordings={"ok": 1, "partial": 0, "rejected": 0}, num_segments=1, num_words=1,
        audio_s=audio_s, wall_s=wall_s, peak_memory_bytes=1, stage=stage,
    )  # fmt: skip
    append_rows(lake, "runs", [row])


def test_without_a_lake_all_is_estimated_and_says_so(archive: Path):
    found = forecast_of(archive, NEW_RECIPE, ForecastConfig(assumed_rtfx=100.0, gpu_hour_price=3600.0))
    sizes = {path.name: path.stat().st_size for path in archive.iterdir()}
    expected_s = (
        sizes["a.flac"] / 16_000 + sizes["b.wav"] / 32_000 + sizes["cut.wav"] / 32_000 + sizes["text.mp3"] / 8_000
    )
    assert (found.num_new, found.num_known, found.known_s) == (4, 0, 0.0)
    assert found.estimated_s == pytest.approx(expected_s)
    assert found.gpu_s == pytest.approx(expected_s / 100)
    rows = dict(found.rows())
    assert "assumed: the lake holds no run of this recipe" in rows["GPU time, estimated"]
    assert rows["cost, estimated"] == f"{expected_s / 100:,.2f} at 3600 an hour"


def test_nothing_is_written(archive: Path, recipe: Recipe, transcriber):
    before = contents(archive.parent)
    forecast_of(archive, NEW_RECIPE)
    assert contents(archive.parent) == before
    transcribe_sources([str(archive)], f"{archive.parent}/lake", recipe, engine_of(recipe, transcriber), Progress())
    (archive / "b.wav").unlink()
    before = contents(archive.parent)
    forecast_of(archive, recipe.recipe_id, force=True)
    assert contents(archive.parent) == before


def test_durations_that_any_recipe_measured_are_known(archive: Path, recipe: Recipe, transcriber):
    lake = f"{archive.parent}/lake"
    summary = transcribe_sources([str(archive)], lake, recipe, engine_of(recipe, transcriber), Progress())
    found = forecast_of(archive, NEW_RECIPE)
    assert (found.num_new, found.num_known) == (4, 3)  # the fourth is no audio: nobody knows how long it would be
    assert found.known_s == pytest.approx(summary.audio_s)
    assert found.estimated_s == pytest.approx((archive / "text.mp3").stat().st_size / 8_000)


def test_what_is_held_or_not_selected_costs_nothing(archive: Path, recipe: Recipe, transcriber):
    lake = f"{archive.parent}/lake"
    transcribe_sources([f"{archive}/a.flac"], lake, recipe, engine_of(recipe, transcriber), Progress())
    found = forecast_of(archive, recipe.recipe_id, path_pattern="*[!3]")
    assert (found.num_listed, found.num_held, found.num_recordings) == (4, 1, 2)
    assert dict(found.rows())["not selected"] == "1"


def test_speed_is_the_recipes_own_and_that_of_decoding_where_it_is_known(archive: Path):
    lake = f"{archive.parent}/lake"
    write_measured(lake, "whole", 100.0, 50.0, None, NEW_RECIPE)
    write_measured(lake, "other", 9000.0, 1.0, "decode", "ffffffffffffffff")
    found = forecast_of(archive, NEW_RECIPE)
    assert (found.rtfx, found.rtfx_origin) == (2.0, "measured on cuda:0, whole runs of this recipe: 1")
    write_measured(lake, "child1", 300.0, 10.0, "decode", NEW_RECIPE)
    write_measured(lake, "child2", 100.0, 10.0, "decode", NEW_RECIPE)
    write_measured(lake, "reader", 400.0, 1.0, "prepare", NEW_RECIPE)
    found = forecast_of(archive, NEW_RECIPE)
    assert (found.rtfx, found.rtfx_origin) == (20.0, "measured on cuda:0, decode runs of this recipe: 2")


@pytest.mark.parametrize("wrong", [{"assumed_rtfx": 0.0}, {"gpu_hour_price": -1.0}])
def test_what_no_gpu_does_is_refused(wrong: dict):
    with pytest.raises(ConfigError, match="must be above 0"):
        ForecastConfig(**wrong)
