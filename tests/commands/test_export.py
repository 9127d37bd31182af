"""`dgasr export`: files that other programs read, for a prefix, a question or a recipe."""

import json
import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import pysubs2
import pytest
import webvtt

from benchmarks.archive import OTHER_RECIPE_ID, ArchiveConfig, write_archive
from dgasr.commands.export import FileNames
from dgasr.exports import CUE_LINES, CUE_MS, LINE_CHARACTERS
from dgasr.manifests import read_manifest

DAY = "s3://archive/desk0/2026/01/01/"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four recordings of some minutes, and one that nothing can read."""
    lake = str(tmp_path_factory.mktemp("export") / "lake")
    config = ArchiveConfig(
        num_days=1, shards_per_day=1, recordings_per_shard=4, segments_per_recording=20, num_types=300
    )
    write_archive(lake, config)
    return lake


def test_srt_is_what_players_read(dgasr, lake: str, tmp_path: Path):
    code, out, err = dgasr("export", "--lake", lake, "--format", "srt", "--out", tmp_path / "srt")
    assert (code, out) == (0, "")
    assert err == "4 of 5 recordings exported, 1 have no transcript (see rejections)\n"
    files = sorted(str(path.relative_to(tmp_path / "srt")) for path in (tmp_path / "srt").rglob("*.*"))
    assert files == [f"desk{n}/2026/01/01/{n:05d}.flac.srt" for n in range(4)]
    events = pysubs2.load(str(tmp_path / "srt" / files[0]))
    assert len(events) > 10
    text = dgasr("export", "--lake", lake, "--format", "txt", "--prefix", f"{DAY}00000")[1]
    assert " ".join(event.plaintext for event in events).split() == text.split()
    assert all(event.duration <= CUE_MS for event in events)
    assert all(first.end <= second.start for first, second in pairwise(events))
    lines = [event.plaintext.splitlines() for event in events]
    assert max(len(line) for event in lines for line in event) <= LINE_CHARACTERS
    assert max(map(len, lines)) <= CUE_LINES


def test_vtt_is_what_players_read(dgasr, lake: str, tmp_path: Path):
    assert dgasr("export", "--lake", lake, "--format", "vtt", "--prefix", DAY, "--out", tmp_path)[0] == 0
    captions = webvtt.read(str(tmp_path / "00000.flac.vtt"))
    assert len(captions) > 10
    assert " ".join(captions[0].text.split()[:3]) == "harbour pilot ahoy"


def test_a_recipe_is_exported_as_it_heard(dgasr, lake: str):
    _, out, _ = dgasr("export", "--lake", lake, "--format", "txt", "--recipe", OTHER_RECIPE_ID, "--prefix", DAY)
    assert "zebra" in out
    assert "zebra" not in dgasr("export", "--lake", lake, "--format", "txt", "--prefix", DAY)[1]


def test_recordings_of_one_name_keep_their_rows_and_their_files_apart(dgasr, archive: Path, tmp_path: Path):
    for folder in ("a", "b"):
        (archive / folder).mkdir()
        (archive / folder / "one.wav").write_bytes((archive / f"{'one' if folder == 'a' else 'two'}.wav").read_bytes())
    lake = tmp_path / "lake"
    assert dgasr("transcribe", archive, "--lake", lake)[0] == 0
    assert dgasr("export", "--lake", lake, "--format", "txt", "--out", tmp_path / "txt")[0] == 0
    files = sorted(str(path.relative_to(tmp_path / "txt")) for path in (tmp_path / "txt").rglob("*.txt"))
    assert files == ["a/one.wav.txt", "b/one.wav.txt", "one.wav.txt", "two.wav.txt"]


def test_a_question_chooses_recordings(dgasr, lake: str):
    query = "select uri from phrase('harbour pilot')"
    code, out, err = dgasr("export", "--lake", lake, "--format", "json", "--query", query)
    (document,) = json.loads(out)
    assert (code, document["uri"], err) == (0, f"{DAY}00000.flac", "1 of 1 recordings exported\n")


def test_a_manifest_is_read_back_by_training(dgasr, lake: str, tmp_path: Path):
    assert dgasr("export", "--lake", lake, "--format", "manifest", "--out", tmp_path / "all.jsonl")[0] == 0
    utterances = list(read_manifest(tmp_path / "all.jsonl"))
    assert (len(utterances), len({u.audio_filepath for u in utterances})) == (64, 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--query", "select 1 as a"], "has no column uri, only a"),
        (["--prefix", "s3://elsewhere/"], "nothing was chosen"),
        (["--out", "/dev/null/under"], "cannot be written"),
    ],
)
def test_a_choice_of_nothing_and_a_place_that_is_none_are_wrong_requests(dgasr, lake: str, flags, message):
    code, _, err = dgasr("export", "--lake", lake, "--format", "txt", *flags)
    assert (code, message in err) == (2, True)


def test_a_key_that_leads_out_of_the_folder_does_not():
    assert FileNames().place("../../etc//passwd", "txt", "u") == ("_/_/etc/_/passwd.txt", False)


def test_names_that_do_not_fit_a_folder_are_changed_by_one_rule():
    names, long = FileNames(), "x" * 300
    placed = [
        names.place(name, "txt", name)[0]
        for name in ("a.wav", "A.wav", "a.wav.txt/b.wav", "a", "a/b", long, long + "y")
    ]
    assert placed[0] == "a.wav.txt"
    assert re.fullmatch(r"A\.wav~[0-9a-f]{12}\.txt", placed[1])
    assert re.fullmatch(r"a\.wav\.txt~[0-9a-f]{12}/b\.wav\.txt", placed[2])
    assert placed[3:5] == ["a.txt", "a/b.txt"]
    assert len({path.casefold() for path in placed}) == len(placed)
    assert all(len(step.encode()) <= 240 for path in placed for step in path.split("/"))


def test_names_that_only_compose_accents_differently_are_kept_apart():
    names = FileNames()
    placed = [names.place(name, "txt", name)[0] for name in ("caf\u00e9", "cafe\u0301", "CAFE\u0301")]
    assert len({unicodedata.normalize("NFC", path).casefold() for path in placed}) == 3


def test_names_do_not_depend_on_what_was_placed_before_where_nothing_collides():
    alone, after = FileNames(), FileNames()
    after.place("other/one.wav", "txt", "other/one.wav")
    assert alone.place("\u00e9" * 200, "txt", "u") == after.place("\u00e9" * 200, "txt", "u")


def test_a_changed_name_is_written_down(dgasr, archive: Path, tmp_path: Path):
    (archive / "ONE.wav").write_bytes((archive / "two.wav").read_bytes())
    lake, out = tmp_path / "lake", tmp_path / "txt"
    assert dgasr("transcribe", archive, "--lake", lake)[0] == 0
    assert "1 names do not fit" in dgasr("export", "--lake", lake, "--format", "txt", "--out", out)[2]
    (line,) = map(json.loads, (out / "renamed.jsonl").read_text().splitlines())
    assert line["uri"].endswith("one.wav")
    assert (out / line["file"]).is_file()


def test_names_that_are_ours_or_no_file_systems_are_changed_too():
    names = FileNames()
    keys = ("x.wav", "x.wav.txt.part/y", "renamed.jsonl/z", "aux.wav", "dir./a", "a:b?.wav", "a\nb", "a_b")
    placed = [re.sub("~[0-9a-f]{12}", "~#", names.place(key, "txt", key)[0]) for key in keys]
    assert placed == [
        "x.wav.txt", "x.wav.txt.part~#/y.txt", "renamed.jsonl~#/z.txt", "aux_.wav.txt", "dir_/a.txt", "a_b_.wav.txt",
        "a_b.txt", "a_b~#.txt",
    ]  # fmt: skip


def test_folders_nested_too_deep_become_one():
    names = FileNames()
    below, beside, other = (names.place(f"{'d/' * depth}{name}", "txt", name)[0] for depth, name in
                            ((1200, "a"), (1200, "b"), (1300, "a")))  # fmt: skip
    assert re.fullmatch(r"~[0-9a-f]{12}/a\.txt", below)
    assert beside == below.replace("a.txt", "b.txt") != other.replace("a.txt", "b.txt")


def test_a_hash_that_is_taken_is_hashed_again():
    names = FileNames()
    taken, _ = FileNames().place("é" * 200, "txt", "u")
    assert names.place(taken.removesuffix(".txt"), "txt", "v")[0] == taken
    assert names.place("é" * 200, "txt", "u")[0] != taken
