"""Segment rows of one recording in; text, subtitles, JSON or a manifest out. Knows rows, not where they come from.

A row is a mapping with the columns of `segments` (dgasr/lake/schema.py), as pyarrow and DuckDB return them.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dgasr.records import join_words

SegmentRow = Mapping[str, Any]

LINE_CHARACTERS = 42
"""Longest line of a subtitle, as broadcasters use it."""

CUE_LINES = 2
"""Most lines of a subtitle."""

CUE_MS = 7000
"""Longest time that a subtitle stands."""

SHORTEST_CUE_MS = 833
"""Shortest time that a subtitle stands where the next one leaves it. Source: Netflix's style guide, 5/6 s."""

READING_SPEED = 20
"""Most characters a second that a subtitle asks to be read, where the next one leaves it the time. Source: as above."""

PAUSE_MS = 1500
"""A pause between words after which a new subtitle begins, so that no text stands through a silence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cue:
    """One subtitle: lines that stand from `start_ms` to `end_ms`, exclusive."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def export_txt(segments: Iterable[SegmentRow]) -> str:
    """Write the text, one line a segment that holds any."""
    return "".join(f"{row['text']}\n" for row in _ordered(segments) if row["text"])


def export_srt(segments: Iterable[SegmentRow]) -> str:
    """Write SubRip subtitles; a recording without text gives an empty file, which players accept."""
    blocks = (
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(segments), 1)
    )
    return "\n".join(blocks)


def export_vtt(segments: Iterable[SegmentRow]) -> str:
    """Write WebVTT subtitles; a recording without text gives the header alone, which is valid."""
    blocks = (
        f"\n{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n" + _escape("\n".join(cue.lines)) + "\n"
        for cue in cues(segments)
    )
    return "WEBVTT\n" + "".join(blocks)


def export_json(segments: Iterable[SegmentRow], language: str | None) -> str:
    """Write segments and words with WhisperX's keys; `score` is our confidence, seconds are the recording's."""
    spoken = [row for row in _ordered(segments) if row["text"]]
    parts = [
        {
            "start": row["start_s"],
            "end": row["end_s"],
            "text": row["text"],
            "words": [_scored(word) for word in row["words"]],
            "score": row["confidence"],
            "flags": list(row["flags"]),
        }
        for row in spoken
    ]
    words = [_scored(word) for row in spoken for word in row["words"]]
    document = {"segments": parts, "word_segments": words, "language": language}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def export_manifest(segments: Iterable[SegmentRow], audio_filepath: str) -> str:
    """Write a NeMo manifest, one line a segment that holds text; word times count from the segment's start.

    Args:
        segments: rows of one recording.
        audio_filepath: the recording, as the manifest's readers will find it.
    """
    lines = []
    for row in _ordered(segments):
        if not row["text"]:
            continue
        start_s = row["start_s"]
        words = [
            {"word": w["word"], "start_s": round(w["start_s"] - start_s, 6), "end_s": round(w["end_s"] - start_s, 6)}
            for w in row["words"]
        ]
        entry = {
            "audio_filepath": audio_filepath,
            "offset": start_s,
            "duration": round(row["end_s"] - start_s, 6),
            "text": row["text"],
            "language": row["language"],
            "words": words,
        }
        lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    return "".join(lines)


def cues(segments: Iterable[SegmentRow]) -> list[Cue]:
    """Build subtitles from words.

    Args:
        segments: rows of one recording, in any order.

    Returns:
        Cues in order without overlap, of at most `CUE_LINES` lines of `LINE_CHARACTERS` and at most `CUE_MS` each.
        Speech that is faster than `READING_SPEED` without a pause stays so: no word is left out.
    """
    found: list[Cue] = []
    pending: list[tuple[str, int, int]] = []
    for piece in _pieces(segments):
        if pending and not _fits(pending, piece):
            found.append(_cue(pending, piece[1]))
            pending = []
        pending.append(piece)
    return [*found, _cue(pending, None)] if pending else found


def _ordered(segments: Iterable[SegmentRow]) -> list[SegmentRow]:
    """Sort segments by their place in the recording."""
    return sorted(segments, key=lambda row: row["segment_index"])


def _pieces(segments: Iterable[SegmentRow]) -> Iterator[tuple[str, int, int]]:
    """Yield words as (text, start, end in ms), what is longer than a line in several pieces of even speed.

    Text without words (`timing_source` none) counts as one long word. No two pieces start at the same millisecond, so
    that no cue is empty.
    """
    last_start = -1
    for row in _ordered(segments):
        for word in row["words"] or [{**row, "word": row["text"]}]:
            texts = textwrap.wrap(str(word["word"]), LINE_CHARACTERS)
            start, end = word["start_s"] * 1000, word["end_s"] * 1000
            done, total = 0, sum(map(len, texts))
            for text in texts:
                piece_start = max(round(start + (end - start) * done / total), last_start + 1)
                done += len(text)
                yield text, piece_start, max(round(start + (end - start) * done / total), piece_start)
                last_start = piece_start


def _fits(pending: Sequence[tuple[str, int, int]], piece: tuple[str, int, int]) -> bool:
    """Return whether a cue may take one more piece."""
    text, start_ms, end_ms = piece
    is_short = end_ms - pending[0][1] <= CUE_MS and start_ms - pending[-1][2] <= PAUSE_MS
    return is_short and len(_lines([*(p[0] for p in pending), text])) <= CUE_LINES


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    """Fill lines with words; no word is longer than a line."""
    lines: list[str] = []
    for text in texts:
        longer = join_words([*lines[-1:], text])
        if lines and len(longer) <= LINE_CHARACTERS:
            lines[-1] = longer
        else:
            lines.append(text)
    return tuple(lines)


def _cue(pieces: Sequence[tuple[str, int, int]], next_start_ms: int | None) -> Cue:
    """Make a cue of pieces that fit; it stays for as long as it takes to read it, but never into the next one."""
    start_ms, lines = pieces[0][1], _lines(piece[0] for piece in pieces)
    readable_ms = max(SHORTEST_CUE_MS, 1000 * sum(map(len, lines)) // READING_SPEED)
    end_ms = min(max(pieces[-1][2], start_ms + readable_ms), start_ms + CUE_MS)
    end_ms = end_ms if next_start_ms is None else min(end_ms, next_start_ms)
    return Cue(start_ms=start_ms, end_ms=end_ms, lines=lines)


def _clock(time_ms: int, separator: str) -> str:
    """Write a time as hours:minutes:seconds and milliseconds."""
    total_s, milliseconds = divmod(time_ms, 1000)
    minutes, second = divmod(total_s, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{separator}{milliseconds:03d}"


def _escape(text: str) -> str:
    """Escape what WebVTT would read as markup or as an arrow."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _scored(word: Mapping[str, Any]) -> dict[str, Any]:
    """Name a word's fields as WhisperX does."""
    return {"word": word["word"], "start": word["start_s"], "end": word["end_s"], "score": word["confidence"]}
