"""Objects that are files: listed, read, and written whole or not at all."""

import errno
import io
import logging
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import BinaryIO
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dgasr.errors import (
    ChangedDuringReadError,
    ConfigError,
    NotAFileError,
    ObjectError,
    ObjectMissingError,
    TransientError,
    printable,
)
from dgasr.records import EPOCH, MISSING_ETAG, Recording

logger = logging.getLogger(__name__)

FILE_SCHEME = "file://"

PASSING_ERRORS = (
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE,
    errno.ENOMEM, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH,
)  # fmt: skip
"""Errors of network file systems, full disks and short memory; another time the same call may work."""


def local_path(uri: str) -> str:
    """Turn a path or `file://` URI into an absolute path; ConfigError where the scheme is none that is read here."""
    if uri.startswith(FILE_SCHEME):
        return os.path.abspath(os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE_SCHEME))))
    scheme, separator, _ = uri.partition("://")
    if separator and scheme.isalnum():
        raise ConfigError(f"{uri}: {scheme}:// cannot be read. Give a path, or s3://bucket/prefix.")
    return os.path.abspath(uri)


def local_uri(path: str) -> str:
    """Turn an absolute path into a URI that is valid UTF-8: the path itself, or `file://` with its bytes encoded."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return FILE_SCHEME + quote_from_bytes(os.fsencode(path))
    return path


def list_files(source: str) -> Iterator[Recording]:
    """List a file, or the files under a folder in the order of their paths; a warning says what is left out."""
    path = local_path(source)
    if source.endswith(os.sep) and not os.path.isdir(path):
        raise ConfigError(f"{source}: there is no such folder. Check the path.")
    left_out: dict[str, str] = {}
    for found in _walk(path, left_out) if os.path.isdir(path) else [path]:
        yield _recording(found)
    for what, first in left_out.items():
        logger.warning("%s: %s in it are left out, %s among them.", printable(source), what, printable(first))


def list_file_uris(folder: str) -> Iterator[str]:
    """List the URIs of the files in a folder, in order; none where it is missing. Hidden ones are left out."""
    path = local_path(folder)
    return map(local_uri, _walk(path, {}) if os.path.isdir(path) else ())


def open_file(recording: Recording) -> BinaryIO:
    """Open the version of a file that was listed."""
    path, label = local_path(recording.uri), recording.uri
    with _errors(label):
        # Opening a pipe would wait for a writer for ever.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            _check_access(path, label)
            raise NotAFileError(f"{label}: is a folder or a device, not a file. Name a file, or a folder to list.")
        if _etag(status) != recording.etag:
            raise ChangedDuringReadError(f"{label}: was replaced after it was listed. Run again: it is a new version.")
        return io.BufferedReader(_LocalFile(path, "rb"), buffer_size=2**18)


def read_file(uri: str) -> bytes:
    """Read a whole file."""
    with _errors(uri), open(local_path(uri), "rb") as file:
        return file.read()


def write_file(uri: str, data: bytes) -> None:
    """Write a whole file, or replace it; readers see the old one or the new one."""
    path = local_path(uri)
    with _errors(uri):
        os.replace(_write_beside(path, data), path)


def write_file_if_absent(uri: str, data: bytes) -> bool:
    """Write a whole file unless there is one, and say whether it was written."""
    path = local_path(uri)
    try:
        temporary = _write_beside(path, data)
        try:
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise ConfigError(f"{uri}: this file system has no hard links; the lake needs them.") from error
        raise _translated(error, uri) from error
    return True


def delete_file(uri: str) -> None:
    """Delete a file; nothing happens where there is none."""
    with _errors(uri), suppress(FileNotFoundError):
        os.unlink(local_path(uri))


class _LocalFile(io.FileIO):
    """A file whose read errors are this project's."""

    def readinto(self, buffer: object) -> int:  # type: ignore[override]
        with _errors(local_uri(str(self.name))):
            return super().readinto(buffer)  # type: ignore[arg-type]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _errors(local_uri(str(self.name))):  # files of /proc have no end to go to
            return super().seek(offset, whence)


def _walk(folder: str, left_out: dict[str, str]) -> Iterator[str]:
    """Yield the files under a folder in the order in which S3 lists them.

    `left_out` takes the first path of what is hidden, and of the links to folders, which may lead in circles.
    """
    waiting = [folder + os.sep]  # a stack, since folders may be nested deeper than Python calls functions
    while waiting:
        path = waiting.pop()
        if not path.endswith(os.sep):
            if os.path.isdir(path):
                left_out.setdefault("links to folders", path)
            else:
                yield path
            continue
        try:
            with os.scandir(path[:-1] or os.sep) as found:
                entries = [entry.path + os.sep * entry.is_dir(follow_symlinks=False) for entry in found]
        except PermissionError:
            # It becomes a rejected recording: what is in it is not lost in silence.
            yield path.rstrip(os.sep)
        except (FileNotFoundError, NotADirectoryError):
            pass  # gone since its parent was listed
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise _translated(error, path) from error
            yield path.rstrip(os.sep)  # likewise a rejected recording
        else:
            visible = {entry for entry in entries if not entry[len(path) :].startswith(".")}
            waiting += sorted(visible, reverse=True)
            for hidden in set(entries) - visible:
                left_out.setdefault("hidden files and folders", hidden)


def _recording(path: str) -> Recording:
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno in PASSING_ERRORS:
            # Not taken for missing: that would be a row, and the recording would never be looked at again.
            raise _translated(error, path) from error
        return Recording(uri=local_uri(path), etag=MISSING_ETAG, size_bytes=0, modified_at=EPOCH)
    modified_at = EPOCH + timedelta(seconds=status.st_mtime)
    return Recording(uri=local_uri(path), etag=_etag(status), size_bytes=status.st_size, modified_at=modified_at)


def _etag(status: os.stat_result) -> str:
    # Not the inode: a copy that keeps size and time of modification is the same version, on whatever disk.
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def _check_access(path: str, label: str) -> None:
    if not os.access(path, os.R_OK):
        raise ObjectError(f"{label}: may not be read by this user. Change its permissions and run again.")


def _write_beside(path: str, data: bytes) -> str:
    """Write a hidden file next to its final place, so that it can be moved there in one step."""
    folder, name = os.path.split(path)
    _make_folders(folder)
    temporary = os.path.join(folder, f".{name[:100]}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)  # on a full disk, half of it would take the room that is needed
        raise
    return temporary


def _make_folders(folder: str) -> None:
    """Make a folder and those above it, however many: `os.makedirs` calls itself for each."""
    missing = []
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        missing.append(folder)
        folder = os.path.dirname(folder)
    for one in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(one)


@contextmanager
def _errors(label: str) -> Iterator[None]:
    """Turn errors of the operating system into ours."""
    try:
        yield
    except OSError as error:
        raise _translated(error, label) from error


def _translated(error: OSError, label: str) -> Exception:
    """Turn an error of the operating system into one that says who acts."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ObjectMissingError(f"{label}: there is no such file. Check the path, or list the folder again.")
    if isinstance(error, IsADirectoryError):
        return NotAFileError(f"{label}: is a folder. Name a file, or a folder to list.")
    if error.errno in PASSING_ERRORS:
        return TransientError(f"{label}: the file system fails ({error.strerror}). Try again later.")
    remedy = "Change its permissions" if isinstance(error, PermissionError) else "Mend that"
    return ObjectError(f"{label}: cannot be used ({error.strerror}). {remedy} and run again.")
