"""Recordings one behind the other in one file, written by `cat` or chained in Ogg.

Where the first says how long it is, the next is found before it is read. Otherwise it is found by its first bytes, in
what a decoder is about to read or behind what it has read.
"""

import re
from collections.abc import Iterator

from dgasr.audio.headers import tag_bytes
from dgasr.audio.ogg import first_data_page, is_chained, stream_starts
from dgasr.audio.repaired import repaired
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
