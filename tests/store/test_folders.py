"""Folders keep the store's promises."""

import errno
import os
import subprocess

import pytest

from dgasr.errors import ConfigError, NotAFileError, ObjectError, TransientError
from dgasr.records import EPOCH, Recording
from dgasr.store import list_objects, open_object, write_bytes, write_if_absent


def fill(folder, *names):
    for name in names:
        write_bytes(str(folder / name), name.encode())


def test_a_file_is_listed_with_its_size_and_an_absolute_uri_and_hidden_ones_are_not(tmp_path, monkeypatch):
    fill(tmp_path, ".hidden/a.wav", ".DS_Store", "a.wav")
    monkeypatch.chdir(tmp_path)
    for source in ("a.wav", str(tmp_path)):
        (recording,) = list_objects(source)
        assert (recording.uri, recording.size_bytes) == (str(tmp_path / "a.wav"), 5)


def test_what_is_left_out_is_named_once(tmp_path, caplog):
    fill(tmp_path, "b/.c/a.wav", "b/.d", "b/a.wav", ".\x1be")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    assert len(list(list_objects(str(tmp_path)))) == 1
    hidden, link = sorted(record.getMessage() for record in caplog.records)
    assert hidden == f"{tmp_path}: hidden files and folders in it are left out, {tmp_path}/.\\x1be among them."
    assert link == f"{tmp_path}: links to folders in it are left out, {tmp_path}/b/up among them."


@pytest.mark.parametrize(("source", "message"), [("{}/nothing/", "no such folder"), ("gs://bucket/a.wav", "gs://")])
def test_a_missing_folder_and_another_scheme_are_wrong_requests(tmp_path, source, message):
    with pytest.raises(ConfigError, match=message):
        list(list_objects(source.format(tmp_path)))


def test_a_name_that_is_no_text_gets_a_uri_that_is_text_and_opens_again(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9 100%.wav"
    with open(path, "wb") as file:
        file.write(b"audio")
    (recording,) = list_objects(str(tmp_path))
    assert recording.uri.encode("utf-8").endswith(b"/caf%E9%20100%25.wav")
    assert open_object(recording).read() == b"audio"


def test_a_folder_is_no_recording_and_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    (pipe,) = list_objects(str(tmp_path))
    folder = Recording(uri=str(tmp_path / "folder.wav"), etag="0", size_bytes=0, modified_at=EPOCH)
    for recording in (pipe, folder):
        with pytest.raises(NotAFileError):
            open_object(recording)


def test_a_file_without_an_end_is_refused_and_not_taken_for_a_fault_of_ours():
    (recording,) = list_objects("/proc/self/mem")
    with pytest.raises(ObjectError, match="cannot be used"):
        open_object(recording).seek(0, os.SEEK_END)


def test_permission_denied_becomes_an_object_error(tmp_path, monkeypatch):
    fill(tmp_path, "a.wav")
    (recording,) = list_objects(str(tmp_path))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dgasr.store.folders._LocalFile", refuse)
    with pytest.raises(ObjectError, match="permissions"):
        open_object(recording)


def test_writing_leaves_nothing_else_behind(tmp_path):
    write_bytes(str(tmp_path / "a"), b"1")
    write_if_absent(str(tmp_path / "a"), b"2")
    write_if_absent(str(tmp_path / "b"), b"3")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("call", ["stat", "scandir"])
def test_a_file_system_that_fails_while_it_is_listed_is_not_taken_for_an_empty_one(tmp_path, monkeypatch, call):
    (tmp_path / "a.wav").write_bytes(b"audio")
    found = list_objects(str(tmp_path))
    intact = getattr(os, call)

    def fail(path, *args, **kwargs):
        if str(path) == str(tmp_path / "a.wav" if call == "stat" else tmp_path):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return intact(path, *args, **kwargs)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(TransientError, match="not connected"):
        list(found)


def test_a_disk_that_fills_up_keeps_nothing_of_what_did_not_fit(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TransientError, match="No space left"):
        write_bytes(f"{tmp_path}/part", b"data")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def bottomless(tmp_path):
    """A folder whose content is taken away afterwards by `rm`: pytest's own tidying recurses, and not this deep."""
    yield tmp_path
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def nest(folder, name: str, depth: int):
    """Make folders in each other, deeper than their path may be given to the system; returns the innermost."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor, folder = below, folder / name
    os.close(descriptor)
    return folder


def test_folders_nested_deeper_than_python_calls_functions_are_listed(bottomless):
    folder = nest(bottomless, "d", 1200)  # one letter each: the path stays below the system's 4,096 bytes
    for place in (folder, bottomless):
        (place / "b.wav").write_bytes(b"audio")
    found = [recording.uri for recording in list_objects(str(bottomless))]
    assert found == [str(bottomless / "b.wav"), str(folder / "b.wav")]


def test_a_file_is_written_however_deep(bottomless):
    path = f"{bottomless}{'/d' * 1200}/a"
    assert write_if_absent(path, b"1")
    with open(path, "rb") as file:
        assert file.read() == b"1"


def test_a_path_too_long_for_the_system_is_listed_and_says_so_when_opened(bottomless):
    nest(bottomless, "d" * 200, 25)
    (recording,) = list_objects(str(bottomless))
    with pytest.raises(ObjectError, match="too long"):
        open_object(recording)
