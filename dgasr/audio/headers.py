"""What headers claim that decoders do not pass on: lengths beyond the end of the file, impossible rates."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from dgasr.audio.source import Source
from dgasr.errors import InvalidHeaderError

LARGEST_CHUNK_BYTES = 0x7FFF0000
"""Writers that cannot seek back put a size from here up when they do not know it."""

MOST_CHUNKS = 1000
"""Chunks looked at before the audio; a file made of empty ones would take hours to walk through."""

LONGEST_TRAILER_BYTES = 4096
"""Bytes after the audio that need not be a chunk: padding, or a tag of another format."""

LONGEST_MATROSKA_HEAD_BYTES = 16_384
"""Within this the segment's Info element lies: it comes before the first cluster."""

MP3_LENGTH_MARKS = (b"Xing", b"Info", b"VBRI")
"""What the first frame of an MP3 holds when it states the number of frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkClaim:
    """What a WAV or AIFF header says of its audio bytes."""

    claimed_bytes: int | None
    """Length of the audio by the header, `None` where its writer did not know it."""
    present_bytes: int
    """Bytes from the first of audio to the end of the file."""
    is_followed_by_chunk: bool
    """Whether what comes after the claimed audio is what may come there."""
    second_bytes: int
    """Length of a second chunk of audio behind the first."""

    @property
    def share_present(self) -> float | None:
        """How much of the claimed audio is there; `None` where nothing is claimed."""
        return None if not self.claimed_bytes else min(1.0, self.present_bytes / self.claimed_bytes)

    @property
    def is_too_small(self) -> bool:
        """Whether audio goes on after what the header claims."""
        return self.claimed_bytes is not None and not self.is_followed_by_chunk


def read_chunk_claim(source: Source) -> ChunkClaim | None:
    """Read the chunks of a WAV or AIFF file up to its audio.

    Args:
        source: the recording.

    Returns:
        The claim; `None` for another format, and where the file ends before its audio.

    Raises:
        InvalidHeaderError: the format chunk of a WAV file says 0 Hz or no channels.

    Source:
        Multimedia Programming Interface and Data Specifications 1.0 (RIFF), EBU Tech 3306 (RF64), AIFF 1.3.
    """
    kind = source.bytes_at(0, 12)
    if kind[:4] not in (b"RIFF", b"RF64", b"FORM") or kind[8:] not in (b"WAVE", b"AIFF", b"AIFC"):
        return None
    long_size = None
    claim: ChunkClaim | None = None
    for name, offset, size in _chunks(source, "big" if kind[:4] == b"FORM" else "little"):
        if name == b"fmt ":
            _check_format(source.bytes_at(offset, 8), source.label)
        elif name == b"ds64":
            long_size = int.from_bytes(source.bytes_at(offset + 8, 8), "little")
        elif name in (b"data", b"SSND") and claim is None:
            claim = _claim(source, offset, size if long_size is None else long_size)
            if claim.claimed_bytes is None or claim.is_too_small or long_size is not None:
                break  # nobody knows what comes after it
        elif name == b"data" and claim is not None:
            return replace(claim, second_bytes=min(size, source.num_bytes - offset))
    return claim


def ends_inside_ogg_page(source: Source) -> bool:
    """Say whether an Ogg file breaks off in the middle of its last page.

    Source:
        RFC 3533, section 6: 27 bytes, as many lacing values as the last of them says, their sum of payload.
    """
    start = max(0, source.num_bytes - 2 * 65307)
    tail = source.bytes_at(start, source.num_bytes - start)
    page = tail[tail.rfind(b"OggS") :]
    if not page.startswith(b"OggS") or len(page) < 27:
        return True
    lacing = page[27 : 27 + page[26]]
    return len(page) < 27 + page[26] + sum(lacing)


def states_mp3_length(source: Source) -> bool:
    """Say whether the first frame of an MP3 counts the frames; without that, any duration is a guess."""
    head = source.bytes_at(0, 10)
    offset = 0
    if head[:3] == b"ID3" and len(head) == 10:
        # Four bytes of seven bits each, ID3v2.4 section 3.1.
        offset = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    frame = source.bytes_at(offset, 4096)
    return any(mark in frame for mark in MP3_LENGTH_MARKS)


def states_matroska_length(source: Source) -> bool:
    """Say whether a Matroska or WebM file holds its duration; without it, libav divides the size by a bit rate.

    Source:
        RFC 8794 (EBML: ids and sizes of variable length), RFC 9559 (Segment 18538067, Info 1549A966, Duration 4489).
    """
    head = source.bytes_at(0, LONGEST_MATROSKA_HEAD_BYTES)
    path = [b"\x18\x53\x80\x67", b"\x15\x49\xa9\x66", b"\x44\x89"]
    start = 0
    while start < len(head):
        name, body, size = _ebml_element(head, start)
        if name == path[0]:
            path.pop(0)
            if not path:
                return True
            start = body
        else:
            start = body + size
    return False


def _ebml_element(data: bytes, start: int) -> tuple[bytes, int, int]:
    """Read an element's id, and where its body begins and how long it is."""
    id_width = 9 - data[start].bit_length()
    offset = start + id_width
    first = data[offset] if offset < len(data) else 0
    width = 9 - first.bit_length()
    size = int.from_bytes(data[offset : offset + width]) & ((1 << 7 * width) - 1)
    return data[start:offset], offset + width, size


def _chunks(source: Source, byte_order: Literal["big", "little"]) -> Iterator[tuple[bytes, int, int]]:
    """Walk over chunks: name, offset of the body, claimed size of the body."""
    offset = 12
    for _ in range(MOST_CHUNKS):
        if offset + 8 > source.num_bytes:
            return
        header = source.bytes_at(offset, 8)
        size = int.from_bytes(header[4:], byte_order)
        yield header[:4], offset + 8, size
        offset += 8 + size + size % 2


def _check_format(body: bytes, label: str) -> None:
    num_channels, sample_rate_hz = int.from_bytes(body[2:4], "little"), int.from_bytes(body[4:8], "little")
    if num_channels == 0 or sample_rate_hz == 0:
        raise InvalidHeaderError(
            f"{label}: its header claims {sample_rate_hz} Hz and {num_channels} channels. "
            "Write the file anew from its source, or repair the header if you know the right values."
        )


def _claim(source: Source, offset: int, size: int) -> ChunkClaim:
    present = source.num_bytes - offset
    is_unknown = present > 0 and (size == 0 or (size >= LARGEST_CHUNK_BYTES and size > present))
    return ChunkClaim(
        claimed_bytes=None if is_unknown else size,
        present_bytes=present,
        second_bytes=0,
        is_followed_by_chunk=present - size <= LONGEST_TRAILER_BYTES or _is_chunk(source, offset + size + size % 2),
    )


def _is_chunk(source: Source, offset: int) -> bool:
    """Say whether a chunk that fits into the file begins here; some writers leave out the padding byte before it."""
    for start in (offset, offset - 1):
        header = source.bytes_at(start, 8)
        size = min(int.from_bytes(header[4:], order) for order in ("little", "big"))
        if re.fullmatch(rb"[\x20-\x7e]{4}", header[:4]) and size <= source.num_bytes - start - 8:
            return True
    return False
