"""What the demo prints at its end: the lake's answers beside what was really said. Figures are read from the lake."""

import re
from pathlib import Path
from typing import Any, TextIO

import duckdb

from dgasr.evaluation.timing import TimingErrors, timing_errors
from dgasr.evaluation.wer import EditCounts, count_edits
from dgasr.lake.views import connect
from dgasr.records import Word
from dgasr.samples import MANIFEST
from dgasr.training.manifests import Utterance, num_samples, read_manifest

TIMED_RECORDINGS = 2
"""Recordings whose words are printed with their times."""

TEXT_WIDTH = 96
"""Characters of a text before it is cut."""


def write_report(lake: Path, source: str, out: TextIO) -> None:
    """Print what the lake says of the samples.

    Args:
        lake: the demo's lake.
        source: prefix of the samples in the store.
        out: where to.
    """
    with connect(str(lake)) as connection:
        heard = {row["uri"].removeprefix(source): row for row in _ask(connection, "select * from latest_transcripts")}
        words = _words(connection, source)
        said = {Path(utterance.audio_filepath).name: utterance for utterance in read_manifest(MANIFEST)}
        _write_texts(said, heard, out)
        _write_times(said, heard, words, out)
        _write_scores(said, heard, words, out)
        _write_coverage(connection, out)
        _write_broken(connection, source, out)
    out.write(f"\nthe lake stays in {lake}; go on with:\n")
    for query in ("latest_transcripts", "coverage", "select * from search('three one four')", "select * from words"):
        out.write(f'  dgasr sql "{query}" --lake {lake}\n')


def _write_texts(said: dict[str, Utterance], heard: dict[str, dict[str, Any]], out: TextIO) -> None:
    out.write("\nwhat was said, and what was heard\n")
    for name, row in heard.items():
        flagged = f", {row['num_flagged']} flagged" if row["num_flagged"] else ""
        out.write(f"  {name}  ({row['status']}, {row['decoded_s']:.1f} s{flagged})\n")
        out.write(f"    said   {_cut(said[name].text) or '(nothing)'}\n")
        out.write(f"    heard  {_cut(row['text']) or '(nothing)'}\n")


def _write_times(
    said: dict[str, Utterance], heard: dict[str, dict[str, Any]], words: dict[str, list[Any]], out: TextIO
) -> None:
    out.write("\nwords with times (s) and confidence\n")
    with_text = [name for name, row in heard.items() if row["text"]]
    for name in with_text[:TIMED_RECORDINGS]:
        out.write(f"  {name}\n")
        for word in words[name]:
            out.write(f"    {word['start_s']:6.2f} to {word['end_s']:6.2f}  {word['confidence']:.2f}  {word['word']}\n")


def _write_scores(
    said: dict[str, Utterance], heard: dict[str, dict[str, Any]], words: dict[str, list[Any]], out: TextIO
) -> None:
    edits = sum(
        (count_edits(said[name].text.split(), row["text"].split()) for name, row in heard.items()), EditCounts()
    )
    timing = TimingErrors.total(
        timing_errors(said[name].words or (), [_record(word) for word in words.get(name, [])]) for name in heard
    ).summary()
    out.write(
        f"\nWER {edits.rate:.1%} ({edits.substitutions} substituted, {edits.deletions} deleted, "
        f"{edits.insertions} inserted of {edits.reference_words} words)\n"
    )
    if timing["matched_words"]:
        out.write(
            f"word times: median error {timing['start_median_ms']:.0f} ms at starts, "
            f"{timing['end_median_ms']:.0f} ms at ends, over {timing['matched_words']} words\n"
        )


def _write_coverage(connection: duckdb.DuckDBPyConnection, out: TextIO) -> None:
    run = _ask(connection, "select * from throughput")[0]
    sums = ", ".join(f"sum({column}) as {column}" for column in ("decoded_s", "speech_s", "dropped_s"))
    total = _ask(connection, f"select {sums} from coverage")[0]
    out.write(
        f"RTFx {run['rtfx']:.1f}: {total['decoded_s']:.1f} s of audio in {run['wall_s']:.1f} s on {run['device']}\n"
        f"coverage: {total['decoded_s']:.1f} s decoded = {total['speech_s']:.1f} s speech "
        f"+ {total['dropped_s']:.1f} s silence, to the sample\n"
    )


def _write_broken(connection: duckdb.DuckDBPyConnection, source: str, out: TextIO) -> None:
    out.write("\nbroken on purpose\n")
    for row in _ask(connection, "select * from rejections"):
        out.write(f"  {row['uri'].removeprefix(source)}: {row['status']}, {row['reason']}\n    {row['message']}\n")


def _words(connection: duckdb.DuckDBPyConnection, source: str) -> dict[str, list[dict[str, Any]]]:
    """Read all words by recording, in order."""
    words: dict[str, list[dict[str, Any]]] = {}
    for row in _ask(connection, "select * from words order by uri, segment_index, word_index"):
        words.setdefault(row["uri"].removeprefix(source), []).append(row)
    return words


def _record(row: dict[str, Any]) -> Word:
    return Word(
        word=row["word"],
        start_sample=num_samples(row["start_s"]),
        end_sample=num_samples(row["end_s"]),
        confidence=row["confidence"],
    )


def _ask(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    result = connection.execute(query)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_WIDTH else re.sub(r"\s+\S*$", " …", text[:TEXT_WIDTH])
