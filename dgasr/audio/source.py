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
    """

    def __init__(self, file: BinaryIO, label: str) -> None:
        self._file = file
        self._error: Exception | None = None
        self.label = label
        self.num_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)

    def check(self) -> None:
        """Raise what went wrong while a decoder was reading.

        Raises:
            DgasrError: the storage's own error.
        """
        if self._error is not None:
            raise self._error

    def read(self, num_bytes: int = -1) -> bytes:
        """Read at most `num_bytes`; nothing after an error."""
        if self._error is not None:
            return b""
        try:
            return self._file.read(num_bytes)
        except (DgasrError, OSError) as error:
            self._error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        if whence == os.SEEK_END:
            # Asked for again and again to learn the size; a buffered file would drop its buffer each time.
            offset, whence = self.num_bytes + offset, os.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

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
