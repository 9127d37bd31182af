from datetime import UTC, datetime
from pathlib import Path

import pytest

from dgasr.errors import ConfigError
from dgasr.lake.commit import append_rows
from dgasr.lake.rows import run_row
from dgasr.stages.forecast import ASSUMED_RTFX, Forecast, forecast
from tests.stages.conftest import Place

NEW_RECIPE = "0123456789abcdef"


def forecast_of(place: Place, recipe_id: str = NEW_RECIPE, price: float = 0.0, **selection: object) -> Forecast:
    return forecast(place.backlog(recipe_id=recipe_id, **selection), place.lake, recipe_id, price)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_measured(lake: str, run_id: str, audio_s: float, wall_s: float, stage: str | None, recipe_id: str) -> None:
    row = run_row(
        run_id=run_id, recipe_id=recipe_id, recipe="{}", versions="{}", source="/a", device="cuda:0",
        started_at=datetime.now(UTC), num_recordings=1, num_partial=0, num_rejected=0, num_segments=1, num_words=1,
        audio_s=audio_s, wall_s=wall_s, peak_memory_bytes=1, stage=stage,
    )  # fmt: skip
    append_rows(lake, "runs", [row])


def test_without_a_lake_all_is_estimated_and_says_so(place: Place):
    found = forecast_of(place, price=3600.0)
    rates = {"a.flac": 16_000, "b.wav": 32_000, "cut.wav": 32_000, "text.mp3": 8_000}
    expected_s = sum((place.archive / name).stat().st_size / rate for name, rate in rates.items())
    assert (found.num_new, found.num_known, found.known_s) == (4, 0, 0.0)
    assert found.estimated_s == pytest.approx(expected_s)
    assert found.gpu_s == pytest.approx(expected_s / ASSUMED_RTFX)
    rows = dict(found.rows())
    assert "assumed: the lake holds no run of this recipe" in rows["GPU time, estimated"]
    assert rows["cost, estimated"] == f"{expected_s / ASSUMED_RTFX:,.2f} at 3600 an hour"
    with pytest.raises(ConfigError, match="must not be negative"):
        forecast_of(place, price=-1.0)


def test_nothing_is_written(place: Place):
    before = contents(place.archive.parent)
    forecast_of(place)
    assert contents(place.archive.parent) == before
    place.transcribe()
    (place.archive / "b.wav").unlink()
    before = contents(place.archive.parent)
    forecast_of(place, place.recipe.recipe_id, force=True)
    assert contents(place.archive.parent) == before


def test_durations_that_any_recipe_measured_are_known_and_what_is_held_or_not_selected_costs_nothing(place: Place):
    place.transcribe("a.flac")
    found = forecast_of(place, place.recipe.recipe_id, path_pattern="*[!3]")
    assert (found.num_listed, found.num_held, found.num_recordings) == (4, 1, 2)
    assert dict(found.rows())["not selected"] == "1"
    place.transcribe()
    found = forecast_of(place)
    assert (found.num_new, found.num_known) == (4, 3)  # the fourth is no audio: nobody knows how long it would be
    ((decoded_s,),) = place.ask("select sum(decoded_s) from recordings")
    assert found.known_s == pytest.approx(decoded_s)
    assert found.estimated_s == pytest.approx((place.archive / "text.mp3").stat().st_size / 8_000)


def test_speed_is_the_recipes_own_and_that_of_decoding_where_it_is_known(place: Place):
    write_measured(place.lake, "whole", 100.0, 50.0, None, NEW_RECIPE)
    write_measured(place.lake, "other", 9000.0, 1.0, "decode", "ffffffffffffffff")
    found = forecast_of(place)
    assert (found.rtfx, found.rtfx_origin) == (2.0, "measured on cuda:0, whole runs of this recipe: 1")
    write_measured(place.lake, "child1", 300.0, 10.0, "decode", NEW_RECIPE)
    write_measured(place.lake, "child2", 100.0, 10.0, "decode", NEW_RECIPE)
    write_measured(place.lake, "reader", 400.0, 1.0, "prepare", NEW_RECIPE)
    found = forecast_of(place)
    assert (found.rtfx, found.rtfx_origin) == (20.0, "measured on cuda:0, decode runs of this recipe: 2")
