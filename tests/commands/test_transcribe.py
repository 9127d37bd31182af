import json
import os
from pathlib import Path

import boto3
import pytest

from dgasr.commands import output
from dgasr.lake.views import connect
from dgasr.stages import engine


def test_all_good_is_exit_code_0(dgasr, archive: Path, tmp_path: Path):
    code, out, err = dgasr("transcribe", archive, "--lake", tmp_path / "lake")
    assert code == 0
    assert out.count("hello") == 2
    assert "2 recordings (0 rejected, 0 partial)" in err


def test_a_rejected_recording_is_exit_code_3_and_is_named(dgasr, archive: Path, tmp_path: Path):
    (archive / "empty.wav").touch()
    code, out, err = dgasr("transcribe", archive, "--lake", tmp_path / "lake")
    assert code == 3
    assert "rejected: empty_file" in out
    assert f"rejected (empty_file): {archive}/empty.wav" in err


def test_a_rejected_recording_that_no_longer_fits_into_the_table_still_counts(
    dgasr, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (archive / "zero.wav").touch()
    monkeypatch.setattr(output, "TABLE_ROWS", 1)
    code, out, err = dgasr("transcribe", archive, "--lake", tmp_path / "lake")
    assert (code, "… and 2 more" in out, "zero.wav" in err) == (3, True, True)


def test_a_second_run_says_so_and_prints_the_same(dgasr, archive: Path, tmp_path: Path):
    _, first, _ = dgasr("transcribe", archive, "--lake", tmp_path / "lake")
    code, second, err = dgasr("transcribe", archive, "--lake", tmp_path / "lake")
    assert (code, second) == (0, first)
    assert "nothing new: the lake holds all 2 recordings" in err


def test_only_what_was_asked_for_is_printed(dgasr, archive: Path, tmp_path: Path):
    one, two = archive / "one.wav", archive / "two.wav"
    _, out, _ = dgasr("transcribe", one, two, "--lake", tmp_path / "lake", "--format", "txt")
    assert out == f"# {one}\nhello\n\n# {two}\nhello\n\n"
    assert dgasr("transcribe", two, "--lake", tmp_path / "lake", "--format", "txt")[1] == "hello\n"


def test_json_is_an_array_of_recordings(dgasr, archive: Path, tmp_path: Path):
    _, out, _ = dgasr("transcribe", archive, "--lake", tmp_path / "lake", "--format", "json")
    one, two = json.loads(out)
    assert (one["status"], one["text"], one["decoded_s"]) == ("ok", "hello", 2.0)
    assert two["word_segments"][0]["word"] == "hello"


@pytest.mark.parametrize(("format", "expected"), [("srt", "00:00:00,000 -->"), ("vtt", "WEBVTT\n\n00:00:00.000 -->")])
def test_subtitles_of_one_recording_are_a_valid_file(dgasr, archive: Path, tmp_path: Path, format: str, expected: str):
    _, out, _ = dgasr("transcribe", archive / "one.wav", "--lake", tmp_path / "lake", "--format", format)
    assert expected in out
    assert "#" not in out


@pytest.mark.parametrize(
    "wrong",
    ["--max-steps 0", "--batch-size x", "--batch-size 1000000", "--merge-adapter", "--format doc", "--device tpu",
     "--rescore never", "--colour red"],
)  # fmt: skip
def test_a_wrong_flag_is_exit_code_2_before_any_work(dgasr, archive: Path, tmp_path: Path, wrong: str):
    code, _, err = dgasr("transcribe", archive, "--lake", tmp_path / "lake", *wrong.split())
    assert (code, wrong.split()[0] in err) == (2, True)
    assert not (tmp_path / "lake").exists()


def test_what_is_asked_of_the_decoder_reaches_the_engine(
    dgasr, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked, start = [], engine.start_engine
    monkeypatch.setattr(engine, "start_engine", lambda config: asked.append(config.rescore) or start(config))
    dgasr("transcribe", archive, "--lake", tmp_path / "lake")
    dgasr("transcribe", archive, "--lake", tmp_path / "other", "--rescore", "none")
    assert list(dict.fromkeys(asked)) == ["joint", "none"]


def test_a_lake_in_the_folder_of_recordings_is_not_transcribed(dgasr, archive: Path):
    dgasr("transcribe", archive, "--lake", archive / "lake")
    code, _, err = dgasr("transcribe", archive, "--lake", archive / "lake")
    assert (code, err) == (0, "nothing new: the lake holds all 2 recordings\n")


def test_places_that_cannot_be_read_or_written_are_refused(dgasr, archive: Path, tmp_path: Path, s3_endpoint: str):
    (tmp_path / "empty").mkdir()
    places = [(tmp_path / "empty", "lake", "nothing lies there"), (archive, archive / "one.wav", "is no folder"),
              (archive, "s3://nowhere/lake", "nowhere")]  # fmt: skip
    for source, lake, message in places:
        code, _, err = dgasr("transcribe", source, "--lake", lake)
        assert (code, message in err) == (2, True)


def test_s3_serves_as_source_and_as_lake(dgasr, archive: Path, s3_endpoint: str):
    client = boto3.client("s3")
    client.create_bucket(Bucket="flow")
    for path in archive.iterdir():
        client.upload_file(str(path), "flow", f"in/{path.name}")
    code, out, _ = dgasr("transcribe", "s3://flow/in/", "--lake", "s3://flow/lake")
    assert (code, out.count("hello")) == (0, 2)
    with connect("s3://flow/lake") as connection:
        assert connection.execute("select count(*)::int from words").fetchall() == [(2,)]
    assert client.list_objects_v2(Bucket="flow", Prefix="lake/staging")["KeyCount"] == 0


def test_a_file_that_changes_between_listing_and_reading_is_named(dgasr, archive: Path, tmp_path: Path, monkeypatch):
    recipe_of = engine.recipe_of
    monkeypatch.setattr(engine, "recipe_of", lambda config: os.utime(archive / "one.wav", (1, 1)) or recipe_of(config))
    code, out, err = dgasr("transcribe", archive, "--lake", tmp_path / "lake", "--format", "json")
    assert (code, out.count('"uri"')) == (3, 1)
    assert "one.wav: changed since it was listed" in err


def test_names_that_steer_a_terminal_are_shown_escaped(dgasr, archive: Path, tmp_path: Path):
    (archive / "\x1b[2Jone.wav").write_bytes((archive / "one.wav").read_bytes())
    (archive / "bad\x1b[31m.wav").write_bytes(b"no audio at all")
    code, out, err = dgasr("transcribe", archive, "--lake", tmp_path / "lake")
    assert code == 3
    assert "\x1b" not in out + err
    assert "\\x1b[2Jone.wav" in out
    assert "bad\\x1b[31m.wav" in err
    code, out, err = dgasr("transcribe", "/no\x1b[31m/such/", "--lake", tmp_path / "lake")
    assert (code, "\x1b" in err) == (2, False)
