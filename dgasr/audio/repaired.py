"""Headers that keep decoders from a recording's samples, and what takes their place; no sample is changed.

Lengths of W64, CAF and AIFF files that their writers did not know, since they wrote into a pipe; and WAV files with
several chunks of audio, of which decoders read the first or the last.
"""

import os
from collections.abc import Sequence

from dgasr.audio.headers import UNKNOWN_LENGTH, W64_RIFF, chunks, is_unknown_size, wide_chunks
from dgasr.audio.source import Source


def repaired(source: Source) -> Source:
    """Return a recording with a header that decoders can use; itself where it has one."""
    head = source.bytes_at(0, 16)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _with_data_joined(source)
    patches: list[tuple[int, bytes]] = []
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        patches = _aiff_lengths(source)
    elif head[:4] == b"caff":
        found = next((place for place in wide_chunks(source, 8, 4, "big") if place[0] == b"data"), None)
        if found is not None and not 4 < found[2] < UNKNOWN_LENGTH:
            patches = [(found[1] - 8, (source.num_bytes - found[1]).to_bytes(8))]
    elif head == W64_RIFF:
        found = next((place for place in wide_chunks(source, 40, 16, "little") if place[0][:4] == b"data"), None)
        if found is not None and not 0 < found[2] < UNKNOWN_LENGTH:
            size = source.num_bytes - found[1] + 24
            patches = [(16, source.num_bytes.to_bytes(8, "little")), (found[1] - 8, size.to_bytes(8, "little"))]
    if not patches:
        return source
    pieces: list[bytes | tuple[int, int]] = []
    end = 0
    for offset, data in patches:
        pieces += [(end, offset), data]
        end = offset + len(data)
    new = Source(Spliced(source, [*pieces, (end, source.num_bytes)]), source.label)  # type: ignore[arg-type]
    new.states_length = False
    return new


def _aiff_lengths(source: Source) -> list[tuple[int, bytes]]:
    """Make the lengths of an AIFF file that has none: of the file, its frames, and its chunk of audio."""
    common = None
    for name, offset, size in chunks(source, "big"):
        if name == b"COMM":
            common = offset
        elif name == b"SSND":
            present = source.num_bytes - offset
            if common is None or not is_unknown_size(size, present) or present >= 2**32:
                return []
            form = source.bytes_at(common, 8)
            frame_bytes = max(1, int.from_bytes(form[:2]) * ((int.from_bytes(form[6:8]) + 7) // 8))
            return [
                (4, (source.num_bytes - 8).to_bytes(4)), (common + 2, ((present - 8) // frame_bytes).to_bytes(4)),
                (offset - 4, present.to_bytes(4)),
            ]  # fmt: skip
    return []


def _with_data_joined(source: Source) -> Source:
    """Return a WAV file with one chunk of audio in place of several."""
    found = [(offset, size) for name, offset, size in chunks(source, "little") if name == b"data"]
    if len(found) < 2 or not all(0 < size < 2**31 for _, size in found):
        return source
    num_bytes, first = sum(size for _, size in found), found[0][0] - 8
    spans = [(offset, min(offset + size, source.num_bytes)) for offset, size in found]
    pieces: list[bytes | tuple[int, int]] = [
        b"RIFF" + min(first + num_bytes, 2**32 - 1).to_bytes(4, "little") + b"WAVE", (12, first),
        b"data" + min(num_bytes, 2**32 - 1).to_bytes(4, "little"), *spans,
    ]  # fmt: skip
    return Source(Spliced(source, pieces), source.label)  # type: ignore[arg-type]


class Spliced:
    """A file made of pieces of another.

    Args:
        source: the other.
        pieces: bytes, or where they lie in it, [start, end).
    """

    def __init__(self, source: Source, pieces: Sequence[bytes | tuple[int, int]]) -> None:
        self._source, self._pieces = source, pieces
        self._sizes = [len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces]
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._position = offset + sum(self._sizes) * (whence == os.SEEK_END)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, num_bytes: int) -> bytes:
        """Read at most so many bytes.

        Raises:
            DgasrError: the storage's own error.
        """
        data, start = b"", 0
        for piece, size in zip(self._pieces, self._sizes, strict=True):
            skip, want = self._position - start, num_bytes - len(data)
            if want > 0 and 0 <= skip < size:
                part = (
                    piece[skip : skip + want]
                    if isinstance(piece, bytes)
                    else self._source.bytes_at(piece[0] + skip, min(want, size - skip))
                )
                data += part
                self._position += len(part)
            start += size
        return data
