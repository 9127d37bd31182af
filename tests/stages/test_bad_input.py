"""Every bad file that an archive may hold, end to end: each ends as a row with an enumerated reason and a message."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgasr.errors import ConfigError, Reason
from dgasr.recipe import Recipe
from dgasr.records import Shard
from dgasr.samples import SAMPLES
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.staging import read_outcomes
from dgasr.store import list_objects
from tests.stages.conftest import Place

RATE_HZ = 16_000
SOUND = 0.1 * np.random.default_rng(11).standard_normal(RATE_HZ * 2)


def wav(rate_hz: int = RATE_HZ, channels: int = 1, data: bytes = b"", claimed_bytes: int | None = None) -> bytes:
    """Write a PCM header by hand, true or not."""
    size = len(data) if claimed_bytes is None else claimed_bytes
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * channels * 2, channels * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body) + size - len(data)) + body


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def write_truncated_flac(path: Path) -> None:
    soundfile.write(path, SOUND, RATE_HZ, format="FLAC")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def write_nan(path: Path) -> None:
    soundfile.write(path, np.where(np.arange(SOUND.size) == 20_000, np.nan, SOUND), RATE_HZ, subtype="FLOAT")


def copied(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


BAD = {
    "empty.wav": (copied(b""), "rejected", "empty_file"),
    "text.mp3": (copied(b"no audio, only the name says so " * 50), "rejected", "unknown_format"),
    "random.m4a": (copied(np.random.default_rng(5).bytes(5000)), "rejected", "unknown_format"),
    "drm.m4a": (copied((SAMPLES / "encrypted.m4a").read_bytes()), "rejected", "unknown_format"),
    "truncated.wav": (copied(wav(data=pcm(SOUND[:RATE_HZ]), claimed_bytes=RATE_HZ * 8)), "partial", "truncated"),
    "claims_too_little.wav": (copied(wav(data=pcm(SOUND), claimed_bytes=RATE_HZ)), "partial", "invalid_header"),
    "truncated.flac": (write_truncated_flac, "partial", "truncated"),
    "zero_hz.wav": (copied(wav(rate_hz=0, data=pcm(SOUND))), "rejected", "invalid_header"),
    "nan.wav": (write_nan, "rejected", "not_finite"),
    "hundred_channels.wav": (copied(wav(channels=100, data=pcm(np.zeros(800_000)))), "rejected", "too_many_channels"),
    "one_sample.wav": (copied(wav(data=pcm(SOUND[:1]))), "rejected", "too_short"),
    "header_only.wav": (copied(wav()), "rejected", "too_short"),
}
"""What is written, and the row it gets."""


def test_all_of_them_in_one_archive_end_as_rows_and_none_stops_the_rest(tmp_path: Path, recipe: Recipe):
    place = Place(tmp_path, recipe)
    place.archive.mkdir()
    for name, (write, _, _) in BAD.items():
        write(place.archive / name)
    soundfile.write(place.archive / "good.wav", SOUND, RATE_HZ)
    place.transcribe("", "missing.wav")
    rows = place.ask("select uri, status, reason, message, decoded_s from recordings order by uri")
    found = {Path(uri).name: row for uri, *row in rows}
    assert found.pop("good.wav")[:2] == ["ok", None]
    assert found["truncated.wav"][3] == 1.0  # what could be decoded is kept
    missing = {"missing.wav": (None, "rejected", "object_missing")}
    for name, (_, status, reason) in (BAD | missing).items():
        found_status, found_reason, message, _ = found.pop(name)
        assert (name, found_status, found_reason) == (name, status, reason)
        assert found_reason in set(Reason)
        assert name in message
        assert message.count(". ") >= 1, f"{message!r} does not say what now"
    assert not found


def test_a_folder_that_took_the_place_of_a_file_is_no_file(tmp_path: Path, recipe: Recipe):
    soundfile.write(tmp_path / "file.wav", SOUND, RATE_HZ)
    shard = Shard(shard_id="s", recordings=tuple(list_objects(str(tmp_path / "file.wav"))))
    (tmp_path / "file.wav").unlink()
    (tmp_path / "file.wav").mkdir()
    prepare_shard(shard, recipe, f"{tmp_path}/staged")
    (outcome,) = read_outcomes(f"{tmp_path}/staged")
    assert (outcome.status, outcome.reason) == ("rejected", Reason.NOT_A_FILE)


def test_a_lake_that_cannot_be_written_is_no_fault_of_a_recording(tmp_path: Path, recipe: Recipe):
    soundfile.write(tmp_path / "file.wav", SOUND, RATE_HZ)
    shard = Shard(shard_id="s", recordings=tuple(list_objects(str(tmp_path / "file.wav"))))
    (tmp_path / "staged").touch()
    with pytest.raises(ConfigError, match="the lake cannot be written"):
        prepare_shard(shard, recipe, f"{tmp_path}/staged/part")
