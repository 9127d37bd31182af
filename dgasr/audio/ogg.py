"""The pages of an Ogg file: where its streams begin, and whether one is cut off or missing."""

from collections.abc import Iterator

from dgasr.audio.source import Source

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
