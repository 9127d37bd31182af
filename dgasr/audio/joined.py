"""How recordings lie in a file: one behind the other, in Ogg pages, under headers that hide samples from decoders.

Recordings are joined by `cat` or chained in Ogg. Where the first says how long it is, the next is found before it is
read. Otherwise it is found by its first bytes, in what a decoder is about to read or behind what it has read. No sample
is changed.
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dgasr.audio.headers import AUDIO_LIST, UNKNOWN_LENGTH, W64_RIFF, chunks, is_unknown_size, tag_bytes, wide_chunks
from dgasr.audio.source import LONGEST_START_BYTES, Source

MP3_START = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb].{2}(?:.{9}|.{17}|.{32})(?:Xing|Info)", re.DOTALL)
"""An MP3's first frame, where it tells of what was put before and behind the audio; other frames begin nothing new."""

STARTS = re.compile(
    rb"RIFF.{4}(?:WAVE|AVI )|RF64.{4}WAVE|FORM.{4}AIF[FC]|caff\0\x01|riff\x2e\x91\xcf\x11|\.snd\0\0|NIST_1A\n|"
    rb"fLaC\0\0\0\x22|OggS\0\x02|\x1a\x45\xdf\xa3.{1,8}\x42\x86|\0\0\0.ftyp(?!heic|mif1|avif)|FLV\x01.\0\0\0\x09|"
    rb"TTA1\x01\0|wvpk.{12}\0{4}|\x30\x26\xb2\x75\x8e\x66\xcf\x11|#!AMR|Creative Voice File\x1a|"
    rb"(?P<tag>ID3[\x02-\x04]\0.[\0-\x7f]{4})|" + MP3_START.pattern,
    re.DOTALL,
)
"""What recordings begin with; of a picture in a tag, which may be HEIF, not. A tag counts where frames follow it."""

BARE_FRAME = re.compile(rb"\xff[\xe2\xe3\xf1-\xf3\xf8-\xfb]|\x0b\x77")
"""First bytes of MP3, ADTS and AC-3; too few of them to be looked for elsewhere than where another recording ends."""

READ_ON = {
    b"fLaC": (re.compile(rb"fLaC\0\0\0\x22"), re.compile(rb"RIFF.{4}WAVEfmt", re.DOTALL)),
    b"OggS": (re.compile(rb"OggS\0[\x02\x03\x06\x07]"),),
    b"FLV\x01": (re.compile(rb"FLV\x01.\0\0\0\x09", re.DOTALL),),
    b"\x1a\x45\xdf\xa3": (re.compile(rb"\x1a\x45\xdf\xa3.{1,8}\x42\x86", re.DOTALL),),
}
"""First bytes of containers of which the decoder reads on and takes another recording for damage, and where it ends.

Patterns of their own, since each begins with a literal: alternatives in one are found 13 times more slowly.
"""

DECODERS_BUFFER_BYTES = 2**16
"""Decoders may have read so much more of the file than they used."""

LONGEST_SEARCH_BYTES = 2**26
"""Behind a recording the next is looked for within this; what comes later is no recording that was joined."""


def split_joined(source: Source) -> list[Source]:
    """Split a file into those of its recordings that can be found before they are read; the file itself if it is one.

    Source:
        RIFF: a file ends where its header says, and another may begin there. Ogg: RFC 3533, section 4 (chaining).
    """
    head = source.bytes_at(0, 12)
    starts = [0]
    if head[8:] == b"WAVE":
        starts = list(_riff_starts(source))
    elif head[:4] == b"OggS" and is_chained(source):
        starts = list(stream_starts(source))
    if len(starts) < 2:
        return [repaired(source)]
    starts[0] = 0  # what lies before the first is for its decoder to judge
    ends = [*starts[1:], source.num_bytes]
    return [repaired(source.part(start, end)) for start, end in zip(starts, ends, strict=True)]


def _riff_starts(source: Source) -> Iterator[int]:
    """Follow the sizes of RIFF headers, up to where something else than a recording follows, or one of another kind."""
    start = 0
    while start < source.num_bytes:  # sizes of 64 bits may be more than a file can be asked for
        head = source.bytes_at(start, LONGEST_START_BYTES)
        if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:12] != b"WAVE":
            if start and (STARTS.match(head) or BARE_FRAME.match(head)):
                yield start
            return
        yield start
        # A long file's size stands in its first chunk, `ds64`.
        size = int.from_bytes(head[4:8] if head[:4] == b"RIFF" else head[20:28], "little")
        start += 8 + size + size % 2


def end_before_next(source: Source) -> None:
    """Keep a decoder from reading on into another recording, and from holding zeros without end."""
    head = source.bytes_at(0, 4)
    source.ends_at_zeros = head == b"fLaC" or head[:2] == b"\x0b\x77"
    if head in READ_ON:
        source.end_before(READ_ON[head], first_data_page(source) if head == b"OggS" else 1)
    elif head[:3] == b"ID3" or head[:1] == b"\xff":
        start = tag_bytes(source.bytes_at(0, 10))
        first = MP3_START.search(source.bytes_at(start, 4096))
        source.end_before((MP3_START,), start + (first.start() if first else 0) + 1)


def next_start(source: Source, reached: int) -> int | None:
    """Find where a recording begins behind one that was read, from byte `reached` on as far as the decoder tells."""
    if source.num_bytes < source.whole_bytes:
        return source.num_bytes
    first = max(1, reached or source.furthest - DECODERS_BUFFER_BYTES)
    step = 2**20
    for offset in range(first, min(source.num_bytes, first + LONGEST_SEARCH_BYTES), step):
        for found in STARTS.finditer(source.bytes_at(offset, step + LONGEST_START_BYTES)):
            start = offset + found.start()
            if found["tag"] is None or BARE_FRAME.match(source.bytes_at(start + tag_bytes(found["tag"]), 2)):
                return start
    return None


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
    """Return a recording with a header that decoders can use; itself where it has one.

    Lengths are put into W64, CAF and AIFF files whose writers did not know them, since they wrote into a pipe. WAV
    files with several chunks of audio, of which decoders read the first or the last, or with a list of them, which
    they refuse, get one chunk.
    """
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


PAGE_HEADER_BYTES = 27
LARGEST_PAGE_BYTES = 65_307
"""Of an Ogg page: header, lacing values, and 255 segments of 255 bytes."""

BEGINS_STREAM = 2
"""Bit of a page's header type: the first page of a logical stream."""


def is_chained(source: Source) -> bool:
    """Say whether the last page belongs to a stream that does not begin at the file's start."""
    last = _last_page(source)
    first_streams = {header[14:18] for _, header, _ in pages(source.part(0, first_data_page(source)))}
    return len(last) >= PAGE_HEADER_BYTES and last[14:18] not in first_streams


def first_data_page(source: Source) -> int:
    """Return where the first page lies that begins no stream; the file's end without one."""
    return next((offset for offset, header, _ in pages(source) if not header[5] & BEGINS_STREAM), source.num_bytes)


def stream_starts(source: Source) -> Iterator[int]:
    """Find the pages that begin a stream after pages that did not."""
    was_beginning = False
    for offset, header, _ in pages(source):
        is_beginning = bool(header[5] & BEGINS_STREAM)
        if is_beginning and not was_beginning:
            yield offset
        was_beginning = is_beginning


def pages(source: Source) -> Iterator[tuple[int, bytes, int]]:
    """Walk over the pages of an Ogg file up to the first damaged one: offset, header, and where it ends."""
    offset = 0
    while offset < source.num_bytes:
        header = source.bytes_at(offset, PAGE_HEADER_BYTES + 255)
        if header[:4] != b"OggS" or len(header) < PAGE_HEADER_BYTES:
            return
        body = PAGE_HEADER_BYTES + header[26]
        end = offset + body + sum(header[PAGE_HEADER_BYTES:body])
        yield offset, header[:PAGE_HEADER_BYTES], end
        offset = end


def ends_inside_page(source: Source) -> bool:
    """Say whether an Ogg file breaks off in the middle of its last page.

    Source:
        RFC 3533, section 6: 27 bytes, as many lacing values as the last of them says, their sum of payload.
    """
    page = _last_page(source)
    if len(page) < PAGE_HEADER_BYTES:
        return True
    body = PAGE_HEADER_BYTES + page[26]
    return len(page) < body + sum(page[PAGE_HEADER_BYTES:body])


def _last_page(source: Source) -> bytes:
    """Return what there is from the last page's first byte on; nothing where the file's end holds no page."""
    start = max(0, source.num_bytes - 2 * LARGEST_PAGE_BYTES)
    tail = source.bytes_at(start, source.num_bytes - start)
    last = tail.rfind(b"OggS")
    return tail[last:] if last >= 0 else b""


def ends_with_page(source: Source) -> bool:
    """Say whether the last page is near an Ogg file's end; libav guesses a duration where it is not."""
    return b"OggS" in source.bytes_at(max(0, source.num_bytes - LARGEST_PAGE_BYTES), LARGEST_PAGE_BYTES)


def has_all_pages(source: Source) -> bool:
    """Say whether the pages of each stream of an Ogg file are numbered without a hole; reads the headers of all."""
    following: dict[bytes, int] = {}
    reached = 0
    for _, header, end in pages(source):
        reached, number = end, int.from_bytes(header[18:22], "little")
        if number != following.get(header[14:18], number):
            return False
        following[header[14:18]] = number + 1
    return reached == source.num_bytes
