"""Figures of evaluations as text for people: for a terminal, and in Markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from dgasr.tables import markdown_table

Cells = tuple[list[str], list[list[object]]]
"""Names of columns, and rows."""


def figures_table(figures: dict[str, Any]) -> str:
    """Lay the figures of one evaluation out for a terminal.

    Args:
        figures: what `Evaluation.to_json` or `Evaluation.to_json_beside` gives.
    """
    lines = [f"{name:<9} {value}" for name, value in figures_lines(figures)]
    if "by_steps" in figures:
        lines += ["", steps_table(figures["by_steps"])]
    spoken = [row for row in figures["groups"] if row["rate"] is not None]
    if len(spoken) > 1 or (spoken and "baseline" in figures):
        lines += ["", _markdown(*groups_cells(spoken))]
    if figures["non_speech"]:
        lines += ["", _markdown(*non_speech_cells(figures["non_speech"]))]
    return "\n".join(lines)


def figures_lines(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Say the figures of one evaluation, each with its name; arguments as of `figures_table`."""
    lines = [*_rates(figures), *_circumstances(figures)]
    if figures["timing"]["matched_words"]:
        lines.append(("times", _times(figures["timing"])))
    if figures["calibration"]["words"]:
        lines.append(("doubt", _calibration(figures["calibration"])))
    if "baseline" in figures:
        lines += _baseline(figures)
    return lines + [("failed", failure["message"]) for failure in figures["failures"]]


def groups_cells(rows: Sequence[dict[str, Any]]) -> Cells:
    """Lay scores of sets and languages out, with the baseline's beside where there is one.

    Args:
        rows: what `groups.group_rows` or `groups.rows_beside` gives.
    """
    is_beside = any("baseline_rate" in row for row in rows)
    head = ["", "utterances", "min", "people", "rate", "% (95 % interval)"]
    head += ["baseline % (95 % interval)", "ratio (95 % interval)"] if is_beside else []
    return head, [list(_group_cells(row)) for row in rows]


def _group_cells(row: dict[str, Any]) -> Iterator[object]:
    over = ", people drawn" if row["interval_over"] == "speakers" else ""
    yield row["name"] if row["group"] == "set" else f"language {row['name']}"
    yield from (row["num_utterances"], f"{row['audio_s'] / 60:.1f}", row["num_speakers"] or "")
    yield row["metric"].upper() + (", marks kept" if row["keeps_marks"] else "")
    yield _rate_between(row["rate"], row["interval_95"]) + over
    if "baseline_rate" in row:
        yield _rate_between(row["baseline_rate"], row["baseline_interval_95"])
        yield _ratio(row["ratio"], row["ratio_95"])


def non_speech_cells(rows: Sequence[dict[str, Any]]) -> Cells:
    """Lay out how often words were recognised where the reference is empty.

    Args:
        rows: what `groups.non_speech_rows` gives.
    """
    head = ["nobody speaks", "utterances", "min", "segments decoded", "with words", "of these flagged", "words"]
    counts = ("num_segments", "with_words", "with_words_flagged", "num_words")
    return head, [
        [row["name"], row["num_utterances"], f"{row['audio_s'] / 60:.1f}", *(row[n] for n in counts)] for row in rows
    ]


def steps_table(evaluations: Sequence[dict[str, Any]]) -> str:
    """Lay `steps_cells` out in Markdown."""
    return _markdown(*steps_cells(evaluations))


def steps_cells(evaluations: Sequence[dict[str, Any]]) -> Cells:
    """Lay evaluations of one manifest below each other, a row for each path and number of steps.

    Args:
        evaluations: what `Evaluation.to_json` gives, for each.
    """
    head = ["path", "steps", "WER", "CER", "RTFx", "latency p50 / p95 s", "start, median / p90 ms",
            "end, median / p90 ms"]  # fmt: skip
    return head, [list(_steps_cells(row)) for row in evaluations]


def _steps_cells(figures: dict[str, Any]) -> Iterator[object]:
    yield figures["path"] + (", rescored" if figures["rescore"] == "joint" else "")
    yield figures["steps"] if figures["path"] == "diffusion" else ""
    yield from (_percent(figures["wer"]), _percent(figures["cer"]), f"{figures['rtfx']:.0f}")
    latency = figures["latency"]
    yield f"{latency['p50_s']:.2f} / {latency['p95_s']:.2f}" if latency else ""
    yield from (_edge(figures["timing"], edge) for edge in ("start", "end"))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return markdown_table(head, rows).rstrip("\n")


def _between(interval: Sequence[float] | None, digits: int = 2) -> str:
    return "" if interval is None else f" ({100 * interval[0]:.{digits}f} to {100 * interval[1]:.{digits}f})"


def _rates(figures: dict[str, Any]) -> list[tuple[str, str]]:
    lines = {metric: _percent(figures[metric]) for metric in ("wer", "cer")}
    if figures["interval_95"]:
        low, high = figures["interval_95"]
        lines[figures["metric"]] += f" (95 % interval: {_percent(low)} to {_percent(high)})"
    edits = figures["edits"]
    kinds = ", ".join(f"{edits[kind]} {kind}" for kind in ("substitutions", "deletions", "insertions"))
    first = figures["metric"]
    second = "cer" if first == "wer" else "wer"
    return [
        (first.upper(), lines[first]),
        (second.upper(), lines[second]),
        ("edits", f"{kinds}; {edits['reference_words']} reference words"),
    ]


def _circumstances(figures: dict[str, Any]) -> list[tuple[str, str]]:
    decoder = figures["path"]
    if decoder == "diffusion":
        spent = f", {figures['mean_steps']:.1f} a segment" if figures["mean_steps"] is not None else ""
        decoder += " seeded by CTC" if figures["seed_canvas"] == "ctc" else ""
        decoder += ", rescored" if figures["rescore"] == "joint" else ""
        decoder += f", at most {figures['steps']} steps a canvas{spent}"
    spoken = f"{figures['num_utterances']} utterances, {figures['audio_s']:.1f} s"
    return [
        ("audio", f"{spoken}; {figures['mean_clip_s']:.1f} s on average"),
        ("speed", f"RTFx {figures['rtfx']:.1f} ({figures['wall_s']:.1f} s after warm-up)"),
        *([("latency", _latency(figures["latency"]))] if figures["latency"] else []),
        ("decoder", f"{decoder}; normaliser {figures['normalizer']}"),
    ]


def _latency(latency: dict[str, Any]) -> str:
    return (
        f"p50 {latency['p50_s']:.2f} s, p95 {latency['p95_s']:.2f} s ({latency['num_clips']} utterances one by one,"
        f" {latency['mean_clip_s']:.1f} s on average)"
    )


def _times(timing: dict[str, Any]) -> str:
    start, end = (_edge(timing, edge) for edge in ("start", "end"))
    return f"start {start}, end {end} ms (median / p90 of {timing['matched_words']} words)"


def _edge(timing: dict[str, Any], edge: str) -> str:
    if not timing["matched_words"]:
        return ""
    return f"{timing[f'{edge}_median_ms']:.0f} / {timing[f'{edge}_p90_ms']:.0f}"


def _calibration(figures: dict[str, Any]) -> str:
    error = 100 * figures["expected_calibration_error"]
    line = f"expected calibration error {error:.1f} %{_between(figures['expected_calibration_error_95'], 1)}"
    if figures["auroc"] is not None:
        interval = figures["auroc_95"]
        between = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        line += f", AUROC for word errors {figures['auroc']:.3f}{between}"
    return f"{line}; {figures['words']} words, {100 * figures['accuracy']:.1f} % right"


def _baseline(figures: dict[str, Any]) -> list[tuple[str, str]]:
    other = figures["baseline"]
    times = _quotient(figures["wer"], other["wer"])
    if figures["ratio_95"]:
        low, high = figures["ratio_95"]
        times += f" ({low:.2f} to {high:.2f})"
    latency = f", latency {_latency(other['latency'])}" if other["latency"] else ""
    rate = f"WER {_percent(other['wer'])}{_between(other['interval_95'])}"
    speed = f"RTFx {other['rtfx']:.1f} ({other['wall_s']:.1f} s after warm-up)"
    return [
        ("baseline", f"{other['name']}: {rate}, {speed}{latency}"),
        ("beside", f"WER {times} times the baseline's, RTFx {_quotient(figures['rtfx'], other['rtfx'])} times"),
    ]


def _quotient(value: float | None, other: float | None) -> str:
    return "undefined" if value is None or not other else f"{value / other:.2f}"


def _ratio(ratio: float | None, interval: Sequence[float] | None) -> str:
    between = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return "" if ratio is None else f"{ratio:.2f}{between}"


def _rate_between(rate: float | None, interval: Sequence[float] | None) -> str:
    return "" if rate is None else f"{100 * rate:.1f}{_between(interval, 1)}"


def _percent(rate: float | None) -> str:
    return "undefined" if rate is None else f"{100 * rate:.2f} %"
