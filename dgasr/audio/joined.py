"""Files that are several recordings one behind the other: written by `cat`, or Ogg streams that were chained.

In: the bytes of a file. Out: the bytes of each recording in it. Knows headers of containers only.
"""

from collections.abc import Iterator

from dgasr.audio.source import Source

PAGE_HEADER_BYTES = 27
LARGEST_PAGE_BYTES = 65_307
"""Of an Ogg page: header, lacing values, and 255 segments of 255 bytes."""

BEGINS_STREAM = 2
"""Bit of a page's header type: the first page of a logical stream."""


def split_joined(source: Source) -> list[Source]:
    """Split a file into the recordings that were joined in it.

    Args:
        source: the file.

    Returns:
        Its recordings in order; the file itself where there is one only.

    Source:
        RIFF: a file ends where its header says, and another may begin there. Ogg: RFC 3533, section 4 (chaining).
    """
    head = source.bytes_at(0, 12)
    starts = [0]
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        starts = list(_riff_starts(source))
    elif head[:4] == b"OggS" and _is_chained(source):
        starts = list(_ogg_starts(source))
    if len(starts) < 2:
        return [source]
    starts[0] = 0  # what lies before the first is for its decoder to judge
    return [source.part(start, end) for start, end in zip(starts, [*starts[1:], source.num_bytes], strict=True)]


def _riff_starts(source: Source) -> Iterator[int]:
    """Follow the sizes of RIFF headers for as long as one stands behind the other."""
    start = 0
    while True:
        head = source.bytes_at(start, 12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        yield start
        size = int.from_bytes(head[4:8], "little")
        start += 8 + size + size % 2


def _is_chained(source: Source) -> bool:
    """Say whether the last page belongs to a stream that does not begin at the file's start."""
    start = max(0, source.num_bytes - 2 * LARGEST_PAGE_BYTES)
    tail = source.bytes_at(start, source.num_bytes - start)
    last = tail.rfind(b"OggS")
    first_streams = set()
    for _, header in _pages(source):
        if not header[5] & BEGINS_STREAM:
            break
        first_streams.add(header[14:18])
    return last >= 0 and len(tail) - last >= PAGE_HEADER_BYTES and tail[last + 14 : last + 18] not in first_streams


def _ogg_starts(source: Source) -> Iterator[int]:
    """Find the pages that begin a stream after pages that did not."""
    was_beginning = False
    for offset, header in _pages(source):
        is_beginning = bool(header[5] & BEGINS_STREAM)
        if is_beginning and not was_beginning:
            yield offset
        was_beginning = is_beginning


def _pages(source: Source) -> Iterator[tuple[int, bytes]]:
    """Walk over the pages of an Ogg file: offset and header."""
    offset = 0
    while offset < source.num_bytes:
        header = source.bytes_at(offset, PAGE_HEADER_BYTES + 255)
        if header[:4] != b"OggS" or len(header) < PAGE_HEADER_BYTES:
            return
        yield offset, header[:PAGE_HEADER_BYTES]
        num_segments = header[26]
        offset += PAGE_HEADER_BYTES + num_segments + sum(header[PAGE_HEADER_BYTES : PAGE_HEADER_BYTES + num_segments])
