"""Figures of an evaluation as text for people: lines and tables, for a terminal in Markdown, for a page as cells."""

from collections.abc import Iterator, Sequence
from typing import Any

from dgasr.tables import markdown_table

Cells = tuple[list[str], list[list[object]]]
"""Names of columns, and rows."""


def figures_table(figures: dict[str, Any]) -> str:
    """Lay the figures of one evaluation, what `Evaluation.to_json` gives, out for a terminal."""
    blocks = ["".join(f"{name:<9} {value}\n" for name, value in figures_lines(figures))]
    if "by_steps" in figures:
        blocks.append(markdown_table(*steps_cells(figures["by_steps"])))
    groups = groups_cells(figures["groups"])
    if len(groups[1]) > 1 or (groups[1] and "baseline" in figures):
        blocks.append(markdown_table(*groups))
    if figures["non_speech"]:
        blocks.append(markdown_table(*non_speech_cells(figures["non_speech"])))
    return "\n".join(blocks)


def figures_lines(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Say the figures of one evaluation, each with its name."""
    first = figures["metric"]
    between = _between(figures["interval_95"], "95 % interval: {:.2f} to {:.2f} %", 100)
    yield first.upper(), _percent(figures[first]) + between
    second = "cer" if first == "wer" else "wer"
    yield second.upper(), _percent(figures[second])
    edits = figures["edits"]
    kinds = ", ".join(f"{edits[kind]} {kind}" for kind in ("substitutions", "deletions", "insertions"))
    yield "edits", f"{kinds}; {edits['reference_words']} reference words"
    audio = f"{figures['num_utterances']} utterances, {figures['audio_s']:.1f} s"
    yield "audio", f"{audio}; {figures['mean_clip_s']:.1f} s on average"
    yield "speed", _speed(figures)
    if figures["latency"]:
        yield "latency", _latency(figures["latency"])
    yield "decoder", f"{_decoder(figures)}; normaliser {figures['normalizer']}"
    timing, calibration = figures["timing"], figures["calibration"]
    if timing["matched_words"]:
        edges = f"start {_edge(timing, 'start')}, end {_edge(timing, 'end')} ms"
        yield "times", f"{edges} (median / p90 of {timing['matched_words']} words)"
    if calibration["words"]:
        yield "doubt", _calibration(calibration)
    if "baseline" in figures:
        yield from _baseline(figures, figures["baseline"])
    for failure in figures["failures"]:
        yield "failed", failure["message"]


def groups_cells(groups: Sequence[dict[str, Any]]) -> Cells:
    """Lay rows of `scores.group_rows` that have a rate out, with the baseline's beside where there is one."""
    rows = [row for row in groups if row["rate"] is not None]
    head = ["", "utterances", "min", "people", "rate", "% (95 % interval)"]
    if any("baseline_rate" in row for row in rows):
        head += ["baseline % (95 % interval)", "ratio (95 % interval)"]
    return head, [list(_group_cells(row)) for row in rows]


def _group_cells(row: dict[str, Any]) -> Iterator[object]:
    yield group_name(row)
    yield from (row["num_utterances"], f"{row['audio_s'] / 60:.1f}", row["num_speakers"] or "")
    yield row["metric"].upper() + (", marks kept" if row["keeps_marks"] else "")
    yield _rate_between(row, "") + (", people drawn" if row["interval_over"] == "speakers" else "")
    if "baseline_rate" in row:
        yield _rate_between(row, "baseline_")
        yield "" if row["ratio"] is None else f"{row['ratio']:.2f}" + _between(row["ratio_95"], "{:.2f} to {:.2f}")


def group_name(row: dict[str, Any]) -> str:
    """Name a row of `scores.group_rows`."""
    return str(row["name"]) if row["group"] == "set" else f"language {row['name']}"


def non_speech_cells(rows: Sequence[dict[str, Any]]) -> Cells:
    """Lay rows of `scores.non_speech_rows` out: how often words were recognised where the reference is empty."""
    head = ["nobody speaks", "utterances", "min", "segments decoded", "with words", "of these flagged", "words"]
    counts = ("num_segments", "with_words", "with_words_flagged", "num_words")
    return head, [
        [row["name"], row["num_utterances"], f"{row['audio_s'] / 60:.1f}", *(row[n] for n in counts)] for row in rows
    ]


def steps_cells(evaluations: Sequence[dict[str, Any]]) -> Cells:
    """Lay evaluations of one manifest below each other, a row for each number of denoising steps."""
    head = ["steps", "WER", "CER", "RTFx", "latency p50 / p95 s", "start, median / p90 ms", "end, median / p90 ms"]
    return head, [
        [
            row["steps"], _percent(row["wer"]), _percent(row["cer"]), f"{row['rtfx']:.1f}",
            "{p50_s:.2f} / {p95_s:.2f}".format(**row["latency"]) if row["latency"] else "",
            _edge(row["timing"], "start"), _edge(row["timing"], "end"),
        ]
        for row in evaluations
    ]  # fmt: skip


def _decoder(figures: dict[str, Any]) -> str:
    if figures["path"] != "diffusion":
        return str(figures["path"])
    spent = "" if figures["mean_steps"] is None else f", {figures['mean_steps']:.1f} a segment"
    rescored = ", rescored" if figures["rescore"] == "joint" else ""
    return f"diffusion{rescored}, at most {figures['steps']} steps a canvas{spent}"


def _speed(figures: dict[str, Any]) -> str:
    return f"RTFx {figures['rtfx']:.1f} ({figures['wall_s']:.1f} s after warm-up)"


def _latency(latency: dict[str, Any]) -> str:
    clips = f"{latency['num_clips']} utterances one by one, {latency['mean_clip_s']:.1f} s on average"
    return f"p50 {latency['p50_s']:.2f} s, p95 {latency['p95_s']:.2f} s ({clips})"


def _edge(timing: dict[str, Any], edge: str) -> str:
    median, p90 = timing[f"{edge}_median_ms"], timing[f"{edge}_p90_ms"]
    return "" if median is None else f"{median:.0f} / {p90:.0f}"


def _calibration(figures: dict[str, Any]) -> str:
    error = f"expected calibration error {100 * figures['expected_calibration_error']:.1f} %"
    line = error + _between(figures["expected_calibration_error_95"], "{:.1f} to {:.1f}", 100)
    if figures["auroc"] is not None:
        area = _between(figures["auroc_95"], "{:.3f} to {:.3f}")
        line += f", AUROC for word errors {figures['auroc']:.3f}{area}"
    return f"{line}; {figures['words']} words, {100 * figures['accuracy']:.1f} % right"


def _baseline(figures: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, str]]:
    rate = f"WER {_percent(other['wer'])}" + _between(other["interval_95"], "{:.2f} to {:.2f}", 100)
    latency = f", latency {_latency(other['latency'])}" if other["latency"] else ""
    yield "baseline", f"{other['name']}: {rate}, {_speed(other)}{latency}"
    times = _quotient(figures["wer"], other["wer"]) + _between(figures["ratio_95"], "{:.2f} to {:.2f}")
    yield "beside", f"WER {times} times the baseline's, RTFx {_quotient(figures['rtfx'], other['rtfx'])} times"


def _quotient(value: float | None, other: float | None) -> str:
    return "undefined" if value is None or not other else f"{value / other:.2f}"


def _rate_between(row: dict[str, Any], prefix: str) -> str:
    rate, interval = row[f"{prefix}rate"], row[f"{prefix}interval_95"]
    return "" if rate is None else f"{100 * rate:.1f}" + _between(interval, "{:.1f} to {:.1f}", 100)


def _between(interval: Sequence[float] | None, form: str, times: float = 1) -> str:
    """Write an interval in brackets where there is one, its ends multiplied."""
    return "" if interval is None else f" ({form.format(*(times * end for end in interval))})"


def _percent(rate: float | None) -> str:
    return "undefined" if rate is None else f"{100 * rate:.2f} %"
