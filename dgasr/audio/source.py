"""The bytes of one recording, as decoders see them: no name, and no read error gets lost on the way through C code."""

import os
from typing import BinaryIO

from dgasr.errors import DgasrError


class Source:
    """A seekable file without its name.

    Decoders guess formats from names, and libsndfile swallows what its read callback raises: a storage error would look
    like the end of the audio. So errors are kept here, and `check` raises them.

    Args:
        file: seekable binary file at any position.
        label: how messages call it, in printable text.
        start, end: which of its bytes count; to its end where `end` is `None`.
    """

    def __init__(self, file: BinaryIO, label: str, start: int = 0, end: int | None = None) -> None:
        self._file = file
        self._error: Exception | None = None
        self._start = start
        self.label = label
        self.num_bytes = (file.seek(0, os.SEEK_END) if end is None else end) - start
        file.seek(start)

    def part(self, start: int, end: int) -> "Source":
        """Return some of the bytes as a source of their own; only one of the two may be read at a time."""
        return Source(self._file, f"{self.label} (bytes {start} to {end})", self._start + start, self._start + end)

    def check(self) -> None:
        """Raise what went wrong while a decoder was reading.

        Raises:
            DgasrError: the storage's own error.
        """
        if self._error is not None:
            raise self._error

    def read(self, num_bytes: int = -1) -> bytes:
        """Read at most `num_bytes`; nothing after an error."""
        left = max(0, self.num_bytes - self.tell())
        if self._error is not None or not left:
            return b""
        try:
            return self._file.read(left if num_bytes < 0 else min(num_bytes, left))
        except (DgasrError, OSError) as error:
            self._error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        if whence == os.SEEK_END:
            # Asked for again and again to learn the size; a buffered file would drop its buffer each time.
            offset, whence = self.num_bytes + offset, os.SEEK_SET
        return self._file.seek(offset if whence == os.SEEK_CUR else offset + self._start, whence) - self._start

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell() - self._start

    def bytes_at(self, offset: int, num_bytes: int) -> bytes:
        """Read at a position without moving there, and fail at once where that fails.

        Raises:
            DgasrError: the storage's own error.
        """
        before = self.tell()
        self.seek(offset)
        data = self.read(num_bytes)
        self.seek(before)
        self.check()
        return data
