"""Segment rows of one recording in; text, subtitles, CTM, JSON or a manifest out. Knows rows, not where they come from.

A row is a mapping with the columns of `segments` (dgasr/lake/schema.py), as pyarrow and DuckDB return them. Where
channels or tracks were transcribed each by itself, all say of which one each text is, in the order of time.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from dgasr.records import join_words
from dgasr.tables import text_width

SegmentRow = Mapping[str, Any]

LINE_CHARACTERS = 42
"""Longest line of a subtitle, as broadcasters use it; wide characters (Han, Kana, Hangul) count as two."""

CUE_LINES = 2
"""Most lines of a subtitle."""

CUE_MS = 7000
"""Longest time that a subtitle stands."""

SHORTEST_CUE_MS = 833
"""Shortest time that a subtitle stands where the next one leaves it. Source: Netflix's style guide, 5/6 s."""

READING_SPEED = 20
"""Most characters a second that a subtitle asks to be read, where the next one leaves it the time; wide ones count as
two. Source: as above."""

PAUSE_MS = 1500
"""A pause between words after which a new subtitle begins, so that no text stands through a silence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cue:
    """One subtitle: lines that stand from `start_ms` to `end_ms`, exclusive."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    speaker: str = ""
    """Channel that it is of, where there are several."""


def by_channel(segments: Iterable[SegmentRow]) -> list[tuple[str, list[SegmentRow]]]:
    """Part segments by what was transcribed by itself, each with a name; the name is empty where there is one only."""
    parts: dict[tuple[int, int], list[SegmentRow]] = {}
    for row in sorted(segments, key=lambda row: row["segment_index"]):
        parts.setdefault((row.get("audio_track") or 0, row.get("channel") or 0), []).append(row)
    return [(_name(place, list(parts)), rows) for place, rows in sorted(parts.items())]


def _name(place: tuple[int, int], places: Sequence[tuple[int, int]]) -> str:
    varying = [len({other[index] for other in places}) > 1 for index in range(2)]
    names = zip(("track", "channel"), place, varying, strict=True)
    return ", ".join(f"{what} {number}" for what, number, varies in names if varies)


def export_txt(segments: Iterable[SegmentRow]) -> str:
    """Write the text, one line a segment that holds any."""
    return "".join(f"[{name}] {row['text']}\n" if name else f"{row['text']}\n" for name, row in _spoken(segments))


def export_ctm(segments: Iterable[SegmentRow], name: str) -> str:
    """Write the words as NIST's time-marked conversation: file, channel from 1, start, duration, word, confidence.

    A space in the recording's name becomes `_`, as in words.
    """
    lines = []
    for speaker, row in _spoken(segments):
        channel = (row.get("channel") or 0) + 1
        place = f"{(row.get('audio_track') or 0) + 1}.{channel}" if "track" in speaker else str(channel)
        for word in row["words"] or [{**row, "word": row["text"]}]:
            text = "_".join(str(word["word"]).split())
            times = f"{word['start_s']:.3f} {word['end_s'] - word['start_s']:.3f}"
            lines.append(f"{'_'.join(name.split())} {place} {times} {text} {word['confidence']:.3f}\n")
    return "".join(lines)


def export_srt(segments: Iterable[SegmentRow]) -> str:
    """Write SubRip subtitles; a recording without text gives an empty file, which players accept."""
    blocks = (
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(segments, are_named=True), 1)
    )
    return "\n".join(blocks)


def export_vtt(segments: Iterable[SegmentRow]) -> str:
    """Write WebVTT subtitles; a recording without text gives the header alone, which is valid."""
    blocks = (
        f"\n{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n"
        + (f"<v {cue.speaker}>" if cue.speaker else "")
        + escape("\n".join(cue.lines), quote=False)
        + "\n"
        for cue in cues(segments)
    )
    return "WEBVTT\n" + "".join(blocks)


def export_json(segments: Iterable[SegmentRow], language: str | None) -> str:
    """Write segments and words with WhisperX's keys; `score` is our confidence, seconds are the recording's."""
    parts = [
        {
            "start": row["start_s"],
            "end": row["end_s"],
            "text": row["text"],
            "words": [
                {"word": word["word"], "start": word["start_s"], "end": word["end_s"], "score": word["confidence"]}
                | _place(speaker, row)
                for word in row["words"]
            ],
            "score": row["confidence"],
            "flags": list(row["flags"]),
        }
        | _place(speaker, row)
        for speaker, row in _spoken(segments)
    ]
    words = [word for part in parts for word in part["words"]]
    document = {"segments": parts, "word_segments": words, "language": language}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def export_manifest(segments: Iterable[SegmentRow], audio_filepath: str) -> str:
    """Write a NeMo manifest, one line a segment that holds text; word times count from the segment's start."""
    lines = []
    for speaker, row in _spoken(segments):
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
        } | _place(speaker, row)
        lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    return "".join(lines)


def cues(segments: Iterable[SegmentRow], *, are_named: bool = False) -> list[Cue]:
    """Build subtitles from words; each begins with the name of its channel if `are_named` and there are several.

    Returns:
        Cues in order, those of one channel without overlap, of at most `CUE_LINES` lines of `LINE_CHARACTERS` and at
        most `CUE_MS` each. Speech that is faster than `READING_SPEED` without a pause stays so: no word is left out.
    """
    found: list[Cue] = []
    for speaker, rows in by_channel(segments):
        head = [f"[{speaker}]"] if speaker and are_named else []
        pending: list[tuple[str, int, int]] = []
        for piece in _pieces(rows):
            if pending and not _fits(head, pending, piece):
                found.append(_cue(head, pending, piece[1], speaker))
                pending = []
            pending.append(piece)
        if pending:
            found.append(_cue(head, pending, None, speaker))
    return sorted(found, key=lambda cue: cue.start_ms)


def _spoken(segments: Iterable[SegmentRow]) -> list[tuple[str, SegmentRow]]:
    """List the segments that hold text by their time, each with the name of its channel where there are several."""
    named = [(name, row) for name, rows in by_channel(segments) for row in rows if row["text"]]
    return sorted(named, key=lambda found: (found[1]["start_s"], found[1]["segment_index"]))


def _place(speaker: str, row: SegmentRow) -> dict[str, Any]:
    """Name the channel of a segment or word, where there are several."""
    if not speaker:
        return {}
    return {"speaker": speaker, "audio_track": row.get("audio_track") or 0, "channel": row.get("channel") or 0}


def _pieces(segments: Iterable[SegmentRow]) -> Iterator[tuple[str, int, int]]:
    """Yield words as (text, start, end in ms), what is longer than a line in several pieces of even speed.

    Text without words (`timing_source` none) is parted at its spaces. No two pieces start at the same millisecond, so
    that no cue is empty.
    """
    last_start = -1
    for row in segments:
        for word in row["words"] or [{**row, "word": row["text"]}]:
            texts = [piece for part in str(word["word"]).split() for piece in _cut(part)]
            start, end = word["start_s"] * 1000, word["end_s"] * 1000
            done, total = 0, sum(map(len, texts))
            for text in texts:
                piece_start = max(round(start + (end - start) * done / total), last_start + 1)
                done += len(text)
                yield text, piece_start, max(round(start + (end - start) * done / total), piece_start)
                last_start = piece_start


def _cut(word: str) -> list[str]:
    """Cut a word into pieces that fit a line; a mark stays with what is before it."""
    pieces = [""]
    for character in word:
        if text_width(pieces[-1] + character) > LINE_CHARACTERS and unicodedata.category(character) != "Mc":
            pieces.append("")
        pieces[-1] += character
    return pieces


def _fits(head: Sequence[str], pending: Sequence[tuple[str, int, int]], piece: tuple[str, int, int]) -> bool:
    """Return whether a cue that begins with `head` may take one more piece."""
    text, start_ms, end_ms = piece
    is_short = end_ms - pending[0][1] <= CUE_MS and start_ms - pending[-1][2] <= PAUSE_MS
    return is_short and len(_lines([*head, *(p[0] for p in pending), text])) <= CUE_LINES


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    """Fill lines with words; no word is longer than a line."""
    lines: list[str] = []
    for text in texts:
        longer = join_words([*lines[-1:], text])
        if lines and text_width(longer) <= LINE_CHARACTERS:
            lines[-1] = longer
        else:
            lines.append(text)
    return tuple(lines)


def _cue(head: Sequence[str], pieces: Sequence[tuple[str, int, int]], next_start_ms: int | None, speaker: str) -> Cue:
    """Make a cue of pieces that fit; it stays for as long as it takes to read it, but never into the next one."""
    start_ms, lines = pieces[0][1], _lines([*head, *(piece[0] for piece in pieces)])
    readable_ms = max(SHORTEST_CUE_MS, 1000 * sum(map(text_width, lines)) // READING_SPEED)
    end_ms = min(max(pieces[-1][2], start_ms + readable_ms), start_ms + CUE_MS)
    end_ms = end_ms if next_start_ms is None else min(end_ms, next_start_ms)
    return Cue(start_ms=start_ms, end_ms=end_ms, lines=lines, speaker=speaker)


def _clock(time_ms: int, separator: str) -> str:
    total_s, milliseconds = divmod(time_ms, 1000)
    minutes, second = divmod(total_s, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{separator}{milliseconds:03d}"
