"""A call of two people, one on each side of a stereo file, from the command line to rows, questions and exports."""

import json

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig, open_audio
from dgasr.lake.views import connect
from dgasr.samples import MANIFEST, SAMPLES

CALL = ("american_man.flac", "scottish_woman.ogg")
"""Bundled samples; the second begins while the first still speaks."""


@pytest.fixture(autouse=True)
def fake_engine() -> None:
    """Not here: the real one."""


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    sides = []
    for name in CALL:
        with (SAMPLES / name).open("rb") as file:
            sides.append(np.concatenate(list(open_audio(file, name, AudioConfig()).blocks())))
    samples = np.zeros((16_000 * 8, 2), np.float32)
    for channel, (side, start) in enumerate(zip(sides, (0, 32_000), strict=True)):
        samples[start : start + side.size, channel] = side
    path = tmp_path_factory.mktemp("calls") / "call.flac"
    soundfile.write(path, samples, 16_000)
    return path


def said(name):
    rows = map(json.loads, MANIFEST.read_text().splitlines())
    return next(row["text"] for row in rows if row["audio_filepath"] == name)


def test_each_person_of_a_call_has_a_transcript_whatever_the_batch(dgasr, call, tmp_path):
    lakes = [tmp_path / "one", tmp_path / "many"]
    for lake, batch_size in zip(lakes, (1, 8), strict=True):
        code, out, _ = dgasr(
            "transcribe", call, "--lake", lake, "--channels", "each", "--batch-size", batch_size, "--device", "cpu"
        )
        assert code == 0
        assert "call.flac (channel 1)" in out
    asked = "select * exclude (run_id, transcribed_at, read_s) from transcripts order by row_kind, segment_index"
    rows = []
    for lake in lakes:
        with connect(str(lake)) as connection:
            rows.append(connection.execute(asked).fetchall())
            texts = connection.execute("select channel, text from latest_transcripts").fetchall()
            covered = "select channel, sum(end_s - start_s) from segments group by channel order by channel"
            assert connection.execute(covered).fetchall() == [(0, 8.0), (1, 8.0)]
    assert texts == list(enumerate(map(said, CALL)))
    assert rows[0] == rows[1]
    srt = dgasr("export", "--lake", lakes[0], "--format", "srt")[1]
    assert "[channel 0]" in srt
    assert "[channel 1]" in srt
    ctm = dgasr("export", "--lake", lakes[0], "--format", "ctm")[1]
    heard = [[line.split()[4] for line in ctm.splitlines() if line.split()[1] == channel] for channel in "12"]
    assert heard == [said(name).split() for name in CALL]


def test_one_channel_alone_and_a_limit_are_asked_for(dgasr, call, tmp_path):
    for arguments in (("--channels", "1"), ("--channels", "1", "--limit", "max_duration_s=5")):
        dgasr("transcribe", call, "--lake", tmp_path / "lake", "--device", "cpu", *arguments)
    with connect(str(tmp_path / "lake")) as connection:
        # A limit is no other recipe: what the lake holds stays.
        assert connection.execute("select channel, text from latest_transcripts").fetchall() == [(1, said(CALL[1]))]
    code, _, err = dgasr("transcribe", call, "--lake", tmp_path / "short", "--limit", "max_duration_s=5")
    assert (code, "rejected (too_long)" in err, "max_duration_s=5" in err) == (3, True, True)


@pytest.mark.parametrize(
    "wrong", [("--channels", "left"), ("--track", "-1"), ("--limit", "max_speed=1"), ("--limit", "max_duration_s=0")]
)
def test_what_no_file_has_is_refused_by_name(dgasr, call, tmp_path, wrong):
    code, _, err = dgasr("transcribe", call, "--lake", tmp_path / "lake", *wrong)
    assert (code, wrong[1].partition("=")[0] in err) == (2, True)
