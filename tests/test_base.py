"""The bundled model that hears English, on people's voices that no training has read."""

import json
from functools import partial

import pytest

from dgasr.audio import AudioConfig, open_audio
from dgasr.evaluation.normalise import normalise
from dgasr.evaluation.wer import EditCounts, count_edits
from dgasr.frontend import cut_channels
from dgasr.model.identity import PART_FILES, model_folder
from dgasr.recipe import build_recipe
from dgasr.samples import PEOPLE
from dgasr.transcriber import Transcriber, load, transcribe

MOST_MEGABYTES = 130
LARGEST_FILE_MEGABYTES = 60
ROWS = [json.loads(line) for line in PEOPLE.read_text(encoding="utf-8").splitlines()]
SPOKEN = [row for row in ROWS if row["text"] and row["expected"] == "ok" and row["duration"] < 8]
SILENT = [row for row in ROWS if not row["text"] and row["expected"] == "ok"]
plain = partial(normalise, language="en", normalizer="basic")

pytestmark = pytest.mark.xdist_group("base")


@pytest.fixture(scope="module")
def base():
    return load("base")


@pytest.fixture(scope="module")
def segments(base):
    """Features of all segments of the short recordings."""
    recipe, found = build_recipe(base.config, base.identity), []
    for row in SPOKEN:
        with (PEOPLE.parent / row["audio_filepath"]).open("rb") as file:
            channels = open_audio(file, row["audio_filepath"], AudioConfig()).channels()
            found += [
                features
                for _, features in cut_channels(channels, row["audio_filepath"], recipe)
                if features is not None
            ]
    return found


def test_its_weights_are_small_enough_for_a_repository():
    sizes = [(model_folder("base") / name).stat().st_size / 1e6 for name in PART_FILES.values()]
    assert max(sizes) < LARGEST_FILE_MEGABYTES
    assert sum(sizes) < MOST_MEGABYTES


def test_it_hears_people(base):
    edits = sum(
        (
            count_edits(plain(row["text"]), plain(transcribe(PEOPLE.parent / row["audio_filepath"], base).text))
            for row in SPOKEN
            if "call" not in row["audio_filepath"]
        ),
        EditCounts(),
    )
    assert edits.reference_words > 40
    assert edits.rate < 0.6


@pytest.mark.parametrize("row", SILENT, ids=lambda row: row["audio_filepath"])
def test_it_says_nothing_unflagged_where_nobody_speaks(base, row):
    transcript = transcribe(PEOPLE.parent / row["audio_filepath"], base)
    assert all(segment.flags for segment in transcript.segments if segment.text)


def test_its_bits_depend_on_no_neighbour(base, segments):
    recipe = build_recipe(base.config, base.identity)
    alone, few, many = (
        {transcript.segment: transcript for transcript in Transcriber(base, recipe, size).transcribe(order)}
        for size, order in ((1, segments), (3, segments[::-1]), (16, segments[2:] + segments[:2]))
    )
    assert alone == few == many
