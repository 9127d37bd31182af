"""Figures of evaluations as text for people: for a terminal, and in Markdown."""

from collections.abc import Sequence
from typing import Any


def figures_table(figures: dict[str, Any]) -> str:
    """Lay the figures of one evaluation out for a terminal.

    Args:
        figures: what `Evaluation.to_json` gives.
    """
    lines = [*_rates(figures), *_circumstances(figures)]
    if figures["timing"]["matched_words"]:
        lines.append(f"times     {_times(figures['timing'])}")
    if len(figures["per_language"]) > 1 or any("wer_marks_kept" in part for part in figures["per_language"].values()):
        lines += [_language(language, part) for language, part in figures["per_language"].items()]
    lines += [f"failed    {failure['message']}" for failure in figures["failures"]]
    return "\n".join(lines)


def steps_table(evaluations: Sequence[dict[str, Any]]) -> str:
    """Lay evaluations of one manifest below each other in Markdown, a row for each path and number of steps.

    Args:
        evaluations: what `Evaluation.to_json` gives, for each.
    """
    rows = [
        "| path | steps | WER | CER | RTFx | start, median / p90 ms | end, median / p90 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for figures in evaluations:
        steps = figures["steps"] if figures["path"] == "diffusion" else ""
        path = figures["path"] + (", rescored" if figures["rescore"] == "joint" else "")
        times = [_edge(figures["timing"], edge) for edge in ("start", "end")]
        rows.append(
            f"| {path} | {steps} | {_percent(figures['wer'])} | {_percent(figures['cer'])}"
            f" | {figures['rtfx']:.0f} | {times[0]} | {times[1]} |"
        )
    return "\n".join(rows)


def seeds_table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay canvases of noise and seeded ones below each other in Markdown, each beside the first.

    Args:
        rows: what `seeds.compare_with` gives.
    """
    lines = [
        "| steps | seed | WER (95 % interval) | less the first | mean steps | left after 1 / 2 / 3 / 4 | same text |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        steps = "" if row["mean_steps"] is None else f"{row['mean_steps']:.2f}"
        left = " / ".join("" if share is None else f"{100 * share:.0f}" for share in row["left_after"].values())
        lines.append(
            f"| {row['steps']} | {row['seed_canvas']} | {_percent(row['wer'])}{_between(row['interval_95'])}"
            f" | {_points(row['difference'])}{_between(row['difference_95'])} | {steps} | {left} %"
            f" | {100 * row['same_text']:.1f} % |"
        )
    return "\n".join(lines)


def _between(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" ({100 * interval[0]:.2f} to {100 * interval[1]:.2f})"


def _points(difference: float | None) -> str:
    return "undefined" if difference is None else f"{100 * difference:+.2f}"


def _rates(figures: dict[str, Any]) -> list[str]:
    lines = {metric: f"{metric.upper()}       {_percent(figures[metric])}" for metric in ("wer", "cer")}
    if figures["interval_95"]:
        low, high = figures["interval_95"]
        lines[figures["metric"]] += f" (95 % interval: {_percent(low)} to {_percent(high)})"
    edits = figures["edits"]
    kinds = ", ".join(f"{edits[kind]} {kind}" for kind in ("substitutions", "deletions", "insertions"))
    first = figures["metric"]
    second = "cer" if first == "wer" else "wer"
    return [lines[first], lines[second], f"edits     {kinds}; {edits['reference_words']} reference words"]


def _circumstances(figures: dict[str, Any]) -> list[str]:
    decoder = figures["path"]
    if decoder == "diffusion":
        spent = f", {figures['mean_steps']:.1f} a segment" if figures["mean_steps"] is not None else ""
        decoder += " seeded by CTC" if figures["seed_canvas"] == "ctc" else ""
        decoder += ", rescored" if figures["rescore"] == "joint" else ""
        decoder += f", at most {figures['steps']} steps a canvas{spent}"
    return [
        f"audio     {figures['num_utterances']} utterances, {figures['audio_s']:.1f} s;"
        f" {figures['mean_clip_s']:.1f} s on average",
        f"speed     RTFx {figures['rtfx']:.1f} ({figures['wall_s']:.1f} s after warm-up)",
        f"decoder   {decoder}; normaliser {figures['normalizer']}",
    ]


def _times(timing: dict[str, Any]) -> str:
    start, end = (_edge(timing, edge) for edge in ("start", "end"))
    return f"start {start}, end {end} ms (median / p90 of {timing['matched_words']} words)"


def _edge(timing: dict[str, Any], edge: str) -> str:
    if not timing["matched_words"]:
        return ""
    return f"{timing[f'{edge}_median_ms']:.0f} / {timing[f'{edge}_p90_ms']:.0f}"


def _language(language: str, figures: dict[str, Any]) -> str:
    line = f"{language:9} WER {_percent(figures['wer'])}, CER {_percent(figures['cer'])}"
    if "wer_marks_kept" in figures:
        line += f"; marks kept: WER {_percent(figures['wer_marks_kept'])}, CER {_percent(figures['cer_marks_kept'])}"
    return f"{line}; {figures['num_utterances']} utterances"


def _percent(rate: float | None) -> str:
    return "undefined" if rate is None else f"{100 * rate:.2f} %"
