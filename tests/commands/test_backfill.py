import re
from pathlib import Path

import pytest

from dgasr.lake.views import connect


def rows(lake: Path) -> list[tuple]:
    with connect(str(lake)) as connection:
        return connection.execute("select split_part(uri, '/', -1), take from recordings order by uri").fetchall()


def test_what_the_lake_lacks_is_transcribed(dgasr, archive: Path, tmp_path: Path):
    code, _, err = dgasr("backfill", archive, "--lake", tmp_path / "lake", "--pattern", "*/one.wav")
    assert (code, rows(tmp_path / "lake")) == (0, [("one.wav", 0)])
    assert "2 recordings at the sources: 1 new, 0 again, 0 in the lake already" in err


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(dgasr, archive: Path, tmp_path: Path):
    code, out, _ = dgasr("backfill", archive, "--lake", tmp_path / "lake", "--dry-run", "--gpu-hour-price", "2")
    assert code == 0
    assert re.search(r"to transcribe +2 \(2 new, 0 again\)", out)
    assert re.search(r"GPU time, estimated +0.00 h at RTFx 54 \(assumed: the lake holds no run of this recipe\)", out)
    assert "at 2 an hour" in out
    assert not (tmp_path / "lake").exists()


def test_force_says_how_to_go_on_and_going_on_does_nothing_twice(dgasr, archive: Path, tmp_path: Path):
    dgasr("backfill", archive, "--lake", tmp_path / "lake")
    _, _, err = dgasr("backfill", archive, "--lake", tmp_path / "lake", "--force")
    assert rows(tmp_path / "lake") == [("one.wav", 1), ("two.wav", 1)]
    (again,) = re.findall(r"go on with (--redo-before \S+)", err)
    _, _, err = dgasr("backfill", archive, "--lake", tmp_path / "lake", *again.split())
    assert "0 new, 0 again, 2 in the lake already" in err


def test_what_could_not_be_used_is_exit_code_3_and_can_be_asked_for_again(dgasr, archive: Path, tmp_path: Path):
    (archive / "empty.wav").touch()
    code, _, err = dgasr("backfill", archive, "--lake", tmp_path / "lake")
    assert code == 3
    assert f"dgasr sql rejections --lake {tmp_path}/lake" in err
    code, _, err = dgasr("backfill", archive, "--lake", tmp_path / "lake", "--reason", "empty_file")
    assert (code, "0 new, 1 again, 2 in the lake already" in err) == (3, True)


def test_a_list_of_uris_is_a_source(dgasr, archive: Path, tmp_path: Path):
    (tmp_path / "list.txt").write_text(f"{archive}/two.wav\n")
    dgasr("backfill", "--uris", tmp_path / "list.txt", "--lake", tmp_path / "lake")
    assert rows(tmp_path / "lake") == [("two.wav", 0)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--reason", "tired"], "invalid choice: 'tired'"),
        (["--modified-from", "yesterday"], "'yesterday' is no time"),
        (["--modified-from", "2026-01-02", "--modified-until", "2026-01-01"], "nothing is modified from"),
        (["--force", "--redo-before", "2026-01-02"], "not allowed with"),
        (["--uris", "/nowhere/list.txt"], "is no list of URIs"),
        (["--gpu-hour-price", "-1", "--dry-run"], "must not be negative"),
    ],
)
def test_a_wrong_selection_is_refused_before_any_work(
    dgasr, archive: Path, tmp_path: Path, wrong: list[str], message: str
):
    code, _, err = dgasr("backfill", archive, "--lake", tmp_path / "lake", *wrong)
    assert code == 2
    assert message in err
    assert not (tmp_path / "lake").exists()


def test_sources_that_are_none_or_empty_are_refused(dgasr, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for sources, message in (([], "names no source"), ([tmp_path / "empty", "--dry-run"], "nothing lies there")):
        code, _, err = dgasr("backfill", *sources, "--lake", tmp_path / "lake")
        assert (code, message in err) == (2, True)
