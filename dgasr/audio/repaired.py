"""Headers that keep decoders from a recording's samples, and what takes their place; no sample is changed.

Lengths of W64, CAF and AIFF files that their writers did not know, since they wrote into a pipe; and WAV files with
several chunks of audio, of which decoders read the first or the last, or with a list of them, which they refuse.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from dgasr.audio.headers import AUDIO_LIST, UNKNOWN_LENGTH, W64_RIFF, chunks, is_unknown_size, wide_chunks
from dgasr.audio.source import Source

SILENT_BYTES = {(1, 8): b"\x80", (6, 8): b"\xd5", (7, 8): b"\xff"}
"""What silence is made of, by a WAV file's format and bits of a sample: 8 bits, A-law, µ-law; zeros in all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated:
    """A byte that stands so many times in a file."""

    byte: bytes
    num_bytes: int


Piece = bytes | tuple[int, int] | Repeated
"""Part of a file: bytes, where they lie in another, [start, end), or one byte again and again."""


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
    pieces: list[Piece] = []
    end = 0
    for offset, data in patches:
        pieces += [(end, offset), data]
        end = offset + len(data)
    new = _spliced(source, [*pieces, (end, source.num_bytes)])
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
    """Return a WAV file with one chunk of audio in place of several, or of a list of them with silence between.

    Source:
        Multimedia Programming Interface and Data Specifications 1.0 (`LIST wavl`; `slnt` counts silent frames).
    """
    form, first, num_bytes, has_list = bytes(16), 0, 0, False
    audio: list[Piece] = []
    for name, offset, size in chunks(source, "little"):
        if name == b"fmt ":
            form = source.bytes_at(offset, 16).ljust(16, b"\0")
        elif name == b"LIST" and source.bytes_at(offset, 4) == AUDIO_LIST:
            first, has_list = first or offset - 8, True
        elif name == b"data":
            if not 0 < size < 2**31:
                return source
            first, num_bytes = first or offset - 8, num_bytes + size
            audio.append((offset, min(offset + size, source.num_bytes)))
        elif name == b"slnt" and has_list:
            audio.append(_silence(form, int.from_bytes(source.bytes_at(offset, 4), "little")))
            num_bytes += _size(audio[-1])
    if len(audio) < 2 and not has_list:
        return source
    riff_bytes, data_bytes = (min(size, 2**32 - 1).to_bytes(4, "little") for size in (first + num_bytes, num_bytes))
    return _spliced(source, [b"RIFF" + riff_bytes + b"WAVE", (12, first), b"data" + data_bytes, *audio])


def _silence(form: bytes, num_frames: int) -> Repeated:
    """Make silence in a WAV file's format; none where frames have no bytes of their own."""
    kind, num_channels, _, _, frame_bytes, num_bits = struct.unpack("<HHIIHH", form)
    is_plain = frame_bytes * 8 == num_channels * num_bits
    return Repeated(byte=SILENT_BYTES.get((kind, num_bits), b"\0"), num_bytes=num_frames * frame_bytes * is_plain)


def _spliced(source: Source, pieces: Sequence[Piece]) -> Source:
    return Source(Spliced(source, pieces), source.label)  # type: ignore[arg-type]


class Spliced:
    """A file made of pieces of another, in order."""

    def __init__(self, source: Source, pieces: Sequence[Piece]) -> None:
        self._source, self._pieces = source, pieces
        self._sizes = [_size(piece) for piece in pieces]
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._position = offset + sum(self._sizes) * (whence == os.SEEK_END)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, num_bytes: int) -> bytes:
        """Read at most so many bytes; raises the storage's own error."""
        data, start = b"", 0
        for piece, size in zip(self._pieces, self._sizes, strict=True):
            skip, want = self._position - start, num_bytes - len(data)
            if want > 0 and 0 <= skip < size:
                part = self._part(piece, skip, min(want, size - skip))
                data += part
                self._position += len(part)
            start += size
        return data

    def _part(self, piece: Piece, skip: int, num_bytes: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[skip : skip + num_bytes]
        return (
            piece.byte * num_bytes if isinstance(piece, Repeated) else self._source.bytes_at(piece[0] + skip, num_bytes)
        )


def _size(piece: Piece) -> int:
    if isinstance(piece, Repeated):
        return piece.num_bytes
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
