"""The samples are what their manifest says: enough of them, of many kinds, small, and broken only on purpose."""

import json
from pathlib import Path

import pytest

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import TruncatedError, UnknownFormatError
from dgasr.manifests import read_manifest
from dgasr.samples import MANIFEST, SAMPLES, SPEECH
from tools.make_samples import DIGITS, SPOKEN

ROWS = [json.loads(line) for line in MANIFEST.read_text().splitlines()]
MAX_BYTES = 1_500_000


def read(path: Path):
    with path.open("rb") as file:
        stream = open_audio(file, path.name, AudioConfig())
        for _ in stream.blocks():
            pass
        return stream.report()


def test_the_manifest_has_every_sample_and_together_they_are_small():
    assert len(read_manifest(MANIFEST)) == len(ROWS) >= 10
    audio = {path.name for path in SAMPLES.iterdir() if path.suffix not in (".py", ".jsonl", ".pyc") and path.is_file()}
    assert audio == {row["audio_filepath"] for row in ROWS}
    assert sum((SAMPLES / name).stat().st_size for name in audio) < MAX_BYTES
    assert {word for row in ROWS for word in row["text"].split()} <= set(DIGITS)  # all that the bundled model knows


@pytest.mark.parametrize("row", [row for row in ROWS if row["expected"] == "ok"], ids=lambda row: row["audio_filepath"])
def test_a_whole_sample_lasts_as_long_as_its_manifest_says(row: dict):
    report = read(SAMPLES / row["audio_filepath"])
    assert report.decoded_samples / 16_000 == pytest.approx(row["duration"], abs=0.07)  # codecs pad their frames


@pytest.mark.parametrize(("status", "error"), [("partial", TruncatedError), ("rejected", UnknownFormatError)])
def test_broken_samples_are_broken_as_their_manifest_says(status: str, error: type[Exception]):
    (row,) = (row for row in ROWS if row["expected"] == status)
    with pytest.raises(error):
        read(SAMPLES / row["audio_filepath"])
    assert not row["words"] or row["words"][-1]["end_s"] < row["duration"]


def test_there_are_many_voices_rates_and_containers():
    assert len({sample.voice for sample in SPOKEN}) >= 8
    assert {8_000, 16_000, 44_100} <= {sample.rate_hz for sample in SPOKEN}
    assert {sample.channels for sample in SPOKEN} == {1, 2}
    assert {"flac", "mp3", "ogg", "m4a", "webm", "wav"} <= {sample.name.split(".")[-1] for sample in SPOKEN}
    assert max(row["duration"] for row in ROWS) > 180


def test_speech_with_its_text_is_bundled_for_calibration():
    rows = [json.loads(line) for line in SPEECH.read_text().splitlines()]
    assert {"Public Domain (LJSpeech)"} == {row["licence"] for row in rows}
    for row in rows:
        assert read(SPEECH.parent / row["audio_filepath"]).decoded_samples / 16_000 == pytest.approx(
            row["duration"], abs=0.1
        )
    assert sum(path.stat().st_size for path in SPEECH.parent.iterdir()) < 100_000
