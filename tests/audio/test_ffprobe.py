"""Durations beside ffprobe's, where it is installed: equal within 20 ms but where docs/time.md says why not."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from dgasr.audio import AudioConfig
from dgasr.records import SAMPLE_RATE_HZ
from tests.audio.containers import KINDS, make_file
from tests.audio.test_property import read

EXPLAINED = {
    "mp3 libmp3lame", "adts aac", "caf alac", "matroska aac", "matroska libmp3lame", "avi pcm_s16le", "asf wmav2"
}  # fmt: skip
"""Kinds in the section "Beside ffprobe" of docs/time.md."""


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if str(kind) not in EXPLAINED], ids=str)
def test_a_recording_lasts_as_long_as_ffprobe_says(tmp_path, kind):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 3 * kind.rate_hz)).astype(np.float32)
    (tmp_path / "a").write_bytes(make_file(kind, noise))
    command = ["ffprobe", "-v", "quiet", "-of", "json", "-show_format", tmp_path / "a"]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["format"]
    _, messages, report = read((tmp_path / "a").read_bytes(), AudioConfig())
    assert messages == []
    assert report.decoded_samples / SAMPLE_RATE_HZ == pytest.approx(float(shown["duration"]), abs=0.02)
