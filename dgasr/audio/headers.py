"""What headers claim that decoders do not pass on: lengths beyond the end of the file, impossible rates."""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dgasr.audio.source import Source
from dgasr.errors import InvalidHeaderError

LARGEST_CHUNK_BYTES = 0x7F000000
"""Writers that cannot seek back put a size from here up when they do not know it."""

UNKNOWN_LENGTH = 2**62
"""From here up a size of 64 bits stands for one that nobody knew."""

MOST_CHUNKS = 1000
"""Chunks looked at before the audio; a file made of empty ones would take hours to walk through."""

EXTENSIBLE_FORMAT = 0xFFFE
"""Tag of a WAV format that says how many bits of a sample are used."""

JUDGED_PLACES, JUDGED_BYTES = 16, 2**16
"""So many places of a file, and so much at each, show whether samples lie in the high or the low bits of words."""

AUDIO_LIST = b"wavl"
"""Type of a WAV file's list of chunks with audio (`data`) and of lengths of silence (`slnt`)."""

LONGEST_TRAILER_BYTES = 4096
"""Bytes after the audio that need not be a chunk: padding, or a tag of another format."""

LONGEST_MATROSKA_HEAD_BYTES = 16_384
"""Within this the segment's Info element lies: it comes before the first cluster."""

ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""Id of the object in an ASF header that holds lengths."""

MP3_LENGTH_MARKS = (b"Xing", b"Info", b"VBRI")
"""What the first frame of an MP3 holds when it states the number of frames."""


W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
"""First bytes of a W64 file; the ids of its chunks begin with the same four letters as those of WAV."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkClaim:
    """What a header says of its audio bytes."""

    claimed_bytes: int | None
    """Length of the audio by the header, `None` where its writer did not know it."""
    present_bytes: int
    """Bytes from the first of audio to the end of the file."""
    is_followed_by_chunk: bool
    """Whether what comes after the claimed audio is what may come there."""
    second_bytes: int
    """Length of a second chunk of audio behind the first."""
    is_read_on: bool = False
    """Whether the decoder reads what lies behind it too, as if it were claimed."""
    is_riff: bool = True
    """Whether it is a WAV or AIFF file, which can be read on where its header says nothing true."""
    scale: float = 1.0
    """What brings its samples to full scale."""

    @property
    def share_present(self) -> float | None:
        """How much of the claimed audio is there, above 1 where more is read; `None` where nothing is claimed."""
        if not self.claimed_bytes:
            return None
        share = self.present_bytes / self.claimed_bytes
        return share if self.is_read_on else min(1.0, share)

    @property
    def is_too_small(self) -> bool:
        """Whether audio goes on after what the header claims."""
        return self.claimed_bytes is not None and not self.is_followed_by_chunk


def read_chunk_claim(source: Source) -> ChunkClaim | None:
    """Read the header of an uncompressed file up to its audio: decoders shorten what it says to what is there.

    `None` for another format, and where the file ends before its audio. InvalidHeaderError where the format chunk of a
    WAV file says 0 Hz or no channels.

    Source:
        Multimedia Programming Interface and Data Specifications 1.0 (RIFF), EBU Tech 3306 (RF64), AIFF 1.3; others see
        `_read_other_claim`.
    """
    kind = source.bytes_at(0, 12)
    other = _read_other_claim(source)
    if other is not None:
        return other
    if kind[:4] not in (b"RIFF", b"RF64", b"FORM") or kind[8:] not in (b"WAVE", b"AIFF", b"AIFC"):
        return None
    long_size, num_unused_bits = None, 0
    claim: ChunkClaim | None = None
    for name, offset, size in chunks(source, "big" if kind[:4] == b"FORM" else "little"):
        if name == b"fmt ":
            form = source.bytes_at(offset, min(size, 40))
            _check_format(form, source.label)
            num_unused_bits = _unused_bits(form)
        elif name == b"ds64":
            long_size = int.from_bytes(source.bytes_at(offset + 8, 8), "little")
        elif name in (b"data", b"SSND") and claim is None:
            claim = _claim(source, offset, size if long_size is None else long_size)
            if num_unused_bits and _is_right_justified(source, offset, num_unused_bits):
                claim = replace(claim, scale=2.0**num_unused_bits)
            if name == b"SSND" and claim.is_too_small:
                return _plain_claim(source, offset, size, has_chunks=False)
            if claim.claimed_bytes is None or claim.is_too_small or long_size is not None:
                break  # nobody knows what comes after it
    return claim


def _read_other_claim(source: Source) -> ChunkClaim | None:
    """Read the header of an AU, SPHERE, CAF or W64 file.

    Source:
        Sun's audio(5) (AU), NIST SPHERE's header in text, Apple's Core Audio Format 1.0, Sonic Foundry's Wave 64.
    """
    head = source.bytes_at(0, 1024)
    offset, size = None, 0
    if head[:4] == b".snd":
        offset, size = int.from_bytes(head[4:8]), int.from_bytes(head[8:12])
        size = 0 if size == 0xFFFFFFFF else size
    elif head[:8] == b"NIST_1A\n":
        fields = {name: int(value) for name, value in re.findall(rb"(\w+) -i (\d{1,18})\n", head)}
        offset = int(head[8:16]) if head[8:16].strip().isdigit() else 1024
        size = math.prod(fields.get(name, 0) for name in (b"sample_count", b"sample_n_bytes", b"channel_count"))
    elif head[:4] == b"caff":
        offset, size = next(
            ((body + 4, size - 4) for name, body, size in wide_chunks(source, 8, 4, "big") if name == b"data"),
            (None, 0),
        )
    elif head[:16] == W64_RIFF:
        offset, size = next(
            ((body, size) for name, body, size in wide_chunks(source, 40, 16, "little") if name[:4] == b"data"),
            (None, 0),
        )
    if offset is None or offset > source.num_bytes:
        return None
    claim = _plain_claim(
        source, offset, size if 0 < size < UNKNOWN_LENGTH else None, has_chunks=head[:4] in (b"caff", b"riff")
    )
    # Of these two libsndfile takes all that follows for audio.
    is_read_on = head[:4] in (b"NIST", b"riff") and claim.second_bytes > 0
    return replace(claim, second_bytes=0, is_read_on=True) if is_read_on else claim


def _plain_claim(source: Source, offset: int, size: int | None, *, has_chunks: bool) -> ChunkClaim:
    """Make the claim of a file of which no decoder reads more than its header says; the rest is told of."""
    present = source.num_bytes - offset
    surplus = 0 if size is None else present - size
    if has_chunks and surplus > 0:
        end = source.bytes_at(offset + (size or 0), 12)  # a chunk may be aligned to eight bytes
        surplus = 0 if re.search(rb"[\x20-\x7e]{4}", end) else surplus
    return ChunkClaim(
        claimed_bytes=size,
        present_bytes=present,
        is_followed_by_chunk=True,
        second_bytes=surplus if surplus > LONGEST_TRAILER_BYTES else 0,
        is_riff=False,
    )


def wide_chunks(
    source: Source, offset: int, id_bytes: int, byte_order: Literal["big", "little"]
) -> Iterator[tuple[bytes, int, int]]:
    """Walk over chunks with sizes of 64 bits: name, offset of the body, size of the body; W64 counts the header too."""
    for _ in range(MOST_CHUNKS):
        header = source.bytes_at(offset, id_bytes + 8)
        if len(header) < id_bytes + 8:
            return
        size, is_w64 = int.from_bytes(header[id_bytes:], byte_order), id_bytes == 16
        body = offset + id_bytes + 8
        yield header[:id_bytes], body, size - (24 if is_w64 else 0)
        if size < (24 if is_w64 else 0) or size >= UNKNOWN_LENGTH:
            return
        offset = offset + (size + 7) // 8 * 8 if is_w64 else body + size


def is_whole_riff(source: Source) -> bool:
    """Say whether all RIFF chunks of an AVI file, of which there is one for each gigabyte, end within it."""
    end = 0
    while source.bytes_at(end, 4) == b"RIFF":
        size = int.from_bytes(source.bytes_at(end + 4, 4), "little")
        end += 8 + (size if size < LARGEST_CHUNK_BYTES else 0)  # a writer into a pipe does not know it
    return end <= source.num_bytes


def tag_bytes(head: bytes) -> int:
    """Return the length of an ID3v2 tag by its first 10 bytes, 0 where there is none (ID3v2.4, section 3.1)."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def states_mp3_length(source: Source) -> bool:
    """Say whether the first frame of an MP3 counts the frames; without that, any duration is a guess."""
    offset = tag_bytes(source.bytes_at(0, 10))
    frame = source.bytes_at(offset, 4096)
    mark = next((mark for mark in MP3_LENGTH_MARKS if mark in frame), None)
    if mark in (None, b"VBRI"):
        return mark is not None
    # Where much more follows than it counts bytes, several were joined, and libav falls back on a guess.
    body = frame[frame.index(mark) + 4 :][:12]
    num_bytes = int.from_bytes(body[8:12] if body[3:4] and body[3] & 1 else body[4:8])
    return not (body[3:4] and body[3] & 2) or source.num_bytes - offset <= num_bytes + num_bytes // 16


def asf_length_s(source: Source) -> float | None:
    """Read how long an ASF file is; libav guesses by a bit rate where the file's size is not that of its header.

    Source:
        Advanced Systems Format 1.2, section 3.2: after id, size, file id, file size, date and packets the play
        duration in 100 ns, send duration, preroll in ms, and flags, of which the first says that it is live.
    """
    head = source.bytes_at(0, LONGEST_MATROSKA_HEAD_BYTES)
    body = head[head.find(ASF_FILE_PROPERTIES) :][64:92]
    if ASF_FILE_PROPERTIES not in head or len(body) < 28 or body[24] & 1:
        return None
    return int.from_bytes(body[:8], "little") / 1e7 - int.from_bytes(body[16:24], "little") / 1e3 or None


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


def chunks(source: Source, byte_order: Literal["big", "little"]) -> Iterator[tuple[bytes, int, int]]:
    """Walk over chunks, also over those in a list of audio: name, offset of the body, claimed size of the body."""
    offset = 12
    for _ in range(MOST_CHUNKS):
        if offset + 8 > source.num_bytes:
            return
        header = source.bytes_at(offset, 8)
        size = int.from_bytes(header[4:], byte_order)
        yield header[:4], offset + 8, size
        is_audio_list = header[:4] == b"LIST" and source.bytes_at(offset + 8, 4) == AUDIO_LIST
        offset += 12 if is_audio_list else 8 + size + size % 2


def _check_format(body: bytes, label: str) -> None:
    num_channels, sample_rate_hz = int.from_bytes(body[2:4], "little"), int.from_bytes(body[4:8], "little")
    if num_channels == 0 or sample_rate_hz == 0:
        raise InvalidHeaderError(
            f"{label}: its header claims {sample_rate_hz} Hz and {num_channels} channels. "
            "Write the file anew from its source, or repair the header if you know the right values."
        )


def _unused_bits(form: bytes) -> int:
    """Count the bits that a format chunk says each sample of 32 bits does not use.

    Source:
        Microsoft's "Multiple channel audio data and WAVE files" (valid bits of an extensible format); in a plain one
        the bits of a sample may be less than those of its share of a block.
    """
    kind, num_channels, _, _, block_bytes, bits = struct.unpack("<HHIIHH", form.ljust(16, b"\0")[:16])
    used = int.from_bytes(form[18:20], "little") if kind == EXTENSIBLE_FORMAT and len(form) == 40 else bits
    is_integer = kind == 1 or (kind == EXTENSIBLE_FORMAT and form[24:26] == b"\x01\0")
    return 32 - used if is_integer and block_bytes == 4 * num_channels and 16 <= used < 32 else 0


def _is_right_justified(source: Source, offset: int, num_unused_bits: int) -> bool:
    """Say whether samples of 32 bits use the low ones, which are 0 by a true header, or nowhere use the high ones."""
    step = max(JUDGED_BYTES, (source.num_bytes - offset) // JUDGED_PLACES // 4 * 4)
    least = most = 0
    for place in range(offset, source.num_bytes - 3, step):
        data = source.bytes_at(place, JUDGED_BYTES)
        samples = np.frombuffer(data[: len(data) // 4 * 4], "<i4")
        if (samples & (2**num_unused_bits - 1)).any():
            return True
        least, most = min(least, int(samples.min())), max(most, int(samples.max()))
    return bool(least or most) and -(2 ** (31 - num_unused_bits)) <= least and most < 2 ** (31 - num_unused_bits)


def is_unknown_size(size: int, present: int) -> bool:
    """Say whether the size of a chunk of which so many bytes are present was left open by its writer."""
    return size == 0 or (size >= LARGEST_CHUNK_BYTES and size > present)


def _claim(source: Source, offset: int, size: int) -> ChunkClaim:
    present = source.num_bytes - offset
    is_unknown = present > 0 and is_unknown_size(size, present)
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
