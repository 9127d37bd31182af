"""The files of a lake's tables as DuckDB may open them: read-only, nothing else of the machine, folders and S3 alike.

DuckDB asks for ranges of bytes; pyarrow fetches them. Names and lengths come from the tables' logs, so that opening a
file costs no request.
"""

import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
from fsspec import AbstractFileSystem

from dgasr.errors import DgasrError, IntegrityError
from dgasr.lake.location import Lake, storage_error

PROTOCOL = "lake"
"""How the files' paths begin for DuckDB: `lake://transcripts/…`."""

UNCHANGING = datetime(2000, 1, 1, tzinfo=UTC)
"""When any file was last written, as far as DuckDB's cache of footers is concerned: none is ever overwritten."""

READ_ONLY = "reads the lake, and never writes to it"
"""What the error says of a statement that would write."""

DAMAGE = re.compile(r"lake://|magic bytes|[Dd]ecompress|TProtocol|[Tt]hrift|[Cc]orrupt|page header|Parquet file")
"""What DuckDB's errors have in them where a file is to blame and not the question."""

DAMAGE_ERRORS = (duckdb.Error, duckdb.IOException, duckdb.InternalException, duckdb.FatalException)
"""Errors that no question causes; that of a reader of Parquet is the first of them and no more."""


class LakeFiles(AbstractFileSystem):  # type: ignore[misc]
    """What `duckdb.register_filesystem` takes: files by key with their length in bytes, and no other file."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, lake: Lake, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.failure: OSError | None = None
        """Why the store did not give what DuckDB asked for; DuckDB itself passes on no more than text."""
        self._lake, self._sizes = lake, sizes
        self._opened: set[str] = set()
        self._remote: dict[str, Any] = {}
        self.stays_open = "://" in lake.uri
        """Whether files stay open once they were read from; in a folder each would hold a file descriptor."""

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe a file."""
        return {"name": path, "size": self._size(path), "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Say whether a path is a file of the lake."""
        return _key(path) in self._sizes

    def modified(self, path: str) -> datetime:
        """Say when a file was written."""
        return UNCHANGING

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the file; DuckDB asks so of each path that it is given."""
        return [path] if self.exists(path) else []

    def open(self, path: str, mode: str = "rb", **_: Any) -> "_PartFile":
        """Open a file; nothing is fetched before it is read."""
        if mode != "rb":
            raise PermissionError(f"{_key(path)}: a question {READ_ONLY}")
        self._opened.add(_key(path))
        return _PartFile(self, _key(path), self._size(path))

    def open_input(self, key: str) -> Any:
        """Open a file in pyarrow, for any number of threads.

        One on S3 stays open for the next question: every opening is a request for its length.
        """
        file = self._remote.get(key)
        if file is None:
            file = self._lake.filesystem.open_input_file(self._lake.path(key))
            if self.stays_open:
                self._remote[key] = file
        return file

    def sort_error(self, error: duckdb.Error) -> DgasrError | None:
        """Return what an error of DuckDB says of the lake; `None` where the question is to blame."""
        failure, self.failure = self.failure, None
        if isinstance(failure, FileNotFoundError):
            return IntegrityError(
                f"{self._lake.uri}: a file is missing ({failure}). Ask again if a vacuum ran meanwhile; otherwise "
                "restore it from a copy: `dgasr lake check` lists all damage, and what to do without a copy."
            )
        if failure is not None:
            return storage_error(self._lake.uri, failure)
        text = str(error).strip().replace(f"{PROTOCOL}://", f"{self._lake.uri}/")
        is_damage = type(error) in DAMAGE_ERRORS or DAMAGE.search(str(error))
        if READ_ONLY in text or not is_damage:
            return None
        where = ", ".join(f"{self._lake.uri}/{key}" for key in self._broken_keys()) or self._lake.uri
        return IntegrityError(
            f"{where}: a part cannot be read ({text}). Restore the file from a copy, or move it out of the "
            "lake if another program put it there; `dgasr lake check` lists all damage, and what to do without a copy."
        )

    def _broken_keys(self) -> list[str]:
        """Return the opened files whose footer cannot be read: DuckDB's errors do not name them."""
        broken = []
        for key in sorted(self._opened):
            try:
                pyarrow.parquet.read_metadata(self._lake.path(key), filesystem=self._lake.filesystem)
            except (pa.ArrowException, OSError):
                broken.append(key)
        return broken

    def _size(self, path: str) -> int:
        try:
            return self._sizes[_key(path)]
        except KeyError:
            raise FileNotFoundError(f"{self._lake.uri}/{_key(path)}: is no part that readers see") from None


class _PartFile:
    """A file, open at a position, one for each thread: DuckDB's threads share a file, and seek before every read."""

    def __init__(self, files: LakeFiles, key: str, size_bytes: int) -> None:
        self._files, self._key, self._size_bytes = files, key, size_bytes
        self._local = threading.local()
        self._file: Any = None

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes, all of them where the size is negative."""
        num_left = self._size_bytes - self.tell()
        size = num_left if size < 0 else min(size, num_left)
        if size <= 0:
            return b""
        try:
            data = self._fetch(size, self.tell())
        except OSError as error:
            self._files.failure = error
            raise
        self._local.position = self.tell() + len(data)
        return data

    def _fetch(self, size: int, offset: int) -> bytes:
        if self._file is None:
            self._file = self._files.open_input(self._key)
        return bytes(self._file.read_at(size, offset))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position."""
        self._local.position = offset + (0, self.tell(), self._size_bytes)[whence]
        return self.tell()

    def tell(self) -> int:
        """Return where this thread reads next."""
        return getattr(self._local, "position", 0)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None and not self._files.stays_open:
            self._file.close()


def _key(path: str) -> str:
    return path.removeprefix(f"{PROTOCOL}://")
