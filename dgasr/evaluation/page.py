"""An evaluation as one page of HTML that asks for nothing else: figures, plots, the worst utterances to listen to."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgasr.errors import ConfigError, printable
from dgasr.evaluation.normalise import normalise
from dgasr.evaluation.scores import ScoredUtterance, align, group_normalizer, word_edits
from dgasr.evaluation.tables import figures_lines, group_name, groups_cells, non_speech_cells, steps_cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("page.html")

OURS, OTHERS = "#1f6f8b", "#c0562f"
"""Colours of the model and of what it is laid beside; apart for those who see no red, and in print."""

STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "dgasr", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True,
}  # fmt: skip
"""Text stays text, and equal figures give equal files."""


def evaluation_page(
    figures: dict[str, Any], worst: Sequence[dict[str, Any]], audio: Mapping[int, bytes | None], title: str, made: str
) -> str:
    """Lay an evaluation out for a browser.

    Args:
        figures: what `Evaluation.to_json` gives, with `by_steps` where there is one.
        worst: rows of `worst_utterances`.
        audio: MP3 of utterances, by their `number`; those without one have no player.
        title: of the page.
        made: by what command, with which version, when.

    Raises:
        ConfigError: matplotlib or Jinja is not installed.
    """
    try:
        import matplotlib as mpl
        from jinja2 import Environment
    except ImportError as error:
        raise ConfigError(f"--html: {error}. Run `pip install 'dgasr[report]'`.") from error
    spoken = [row for row in figures["groups"] if row["rate"] is not None]
    by_steps, histogram = figures.get("by_steps", ()), figures["timing"]["histogram"]
    bins = figures["calibration"]["bins"]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    page = environment.from_string(TEMPLATE.read_text("utf-8"))
    with mpl.rc_context(STYLE):
        plots = {
            "groups_plot": _plot_rates(spoken) if spoken else "",
            "steps_plot": _plot_steps(by_steps) if by_steps else "",
            "reliability_plot": _plot_reliability(bins) if bins else "",
            "times_plot": _plot_time_errors(histogram) if figures["timing"]["matched_words"] else "",
        }
    return page.render(
        title=title,
        made=made,
        lines=[(name, value) for name, value in figures_lines(figures) if name != "failed"],
        groups=groups_cells(spoken),
        steps=steps_cells(by_steps),
        non_speech=non_speech_cells(figures["non_speech"]),
        worst=[row | {"mp3": base64.b64encode(audio.get(row["number"]) or b"").decode()} for row in worst],
        failures=figures["failures"],
        **plots,
    )


def worst_utterances(
    utterances: Sequence[ScoredUtterance],
    normalizer: str,
    limit: int,
    baseline: Sequence[ScoredUtterance] | None = None,
) -> list[dict[str, Any]]:
    """Choose the utterances with the most errors, `limit` at most, and show where the errors are.

    Errors are counted, not divided by the reference's length: the first rows are those that cost most of the score.
    Of equal counts the higher rate comes first.

    Returns:
        The worst first: `number` of the utterance, from 0, the utterance itself, its `counts` of edits, `pieces`, the
        words of reference and hypothesis in pairs (an empty one is missing on its side), and the `baseline`'s text.
    """
    rows: list[dict[str, Any]] = []
    for number, utterance in enumerate(utterances):
        way = group_normalizer([utterance], normalizer)
        counts = word_edits(utterance, way)
        if not counts.errors:
            continue
        said, heard = (normalise(text, utterance.language, way) for text in (utterance.reference, utterance.hypothesis))
        rows.append({
            "number": number, "utterance": utterance, "counts": counts,
            "pieces": [("" if i is None else said[i], "" if j is None else heard[j]) for i, j in align(said, heard)],
            "baseline": baseline[number].hypothesis if baseline else "",
        })  # fmt: skip
    return sorted(rows, key=lambda row: (-row["counts"].errors, row["counts"].reference_words))[:limit]


def _shown(value: Any) -> Any:
    """Escape what would steer a reader's eye in a name or a text; what is HTML already (`Markup`) stays."""
    return printable(value) if type(value) is str else value


def _plot_rates(rows: Sequence[dict[str, Any]]) -> str:
    """Draw the error rate of each set and language with its 95 % interval, and the baseline's where there is one."""
    figure, axes = _axes(height=1.3 + 0.5 * len(rows))
    is_beside = any("baseline_rate" in row for row in rows)
    systems = (("", 0.0, OURS, "this model"), ("baseline_", 0.25, OTHERS, "baseline"))
    for prefix, shift, colour, label in systems if is_beside else systems[:1]:
        rates = [_percent(row[f"{prefix}rate"]) for row in rows]
        bars = _bars(rates, [row[f"{prefix}interval_95"] for row in rows])
        places = [place + shift for place in range(len(rows))]
        axes.errorbar(rates, places, xerr=bars, fmt="o", color=colour, capsize=3, label=label)
    if is_beside:
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes.set_yticks(range(len(rows)), [printable(group_name(row)) for row in rows])
    axes.set_xlim(left=0)
    axes.set_ylim(len(rows) - 0.3, -0.5)
    axes.set_xlabel("word errors, % (characters where a language has no spaces); bars: 95 % intervals")
    return _svg(figure)


def _plot_steps(evaluations: Sequence[dict[str, Any]]) -> str:
    figure, axes = _axes(height=3.2)
    counts = [str(row["steps"]) for row in evaluations]
    rates = [_percent(row["wer"]) for row in evaluations]
    bars = _bars(rates, [row["interval_95"] for row in evaluations])
    axes.errorbar(counts, rates, yerr=bars, marker="o", color=OURS, capsize=3)
    axes.set_xlabel("denoising steps at most")
    axes.set_ylabel("word error rate, %", color=OURS)
    axes.set_ylim(bottom=0)
    speed = axes.twinx()
    speed.plot(counts, [row["rtfx"] for row in evaluations], marker="s", linestyle="--", color=OTHERS)
    speed.set_ylabel("RTFx: audio seconds a second", color=OTHERS)
    speed.set_ylim(bottom=0)
    speed.grid(visible=False)
    return _svg(figure)


def _plot_reliability(bins: Sequence[dict[str, Any]]) -> str:
    """Draw how many of the words of a confidence are right; below, how many words have it."""
    figure, (axes, counts) = _axes(3.6, 2, height_ratios=(4, 1), sharex=True)
    confidences = [row["confidence"] for row in bins]
    axes.plot((0, 1), (0, 1), linestyle=":", color="grey")
    axes.plot(confidences, [row["accuracy"] for row in bins], marker="o", color=OURS)
    axes.set_ylabel("share of right words")
    axes.set_ylim(0, 1.03)
    counts.bar(confidences, [row["words"] for row in bins], width=0.04, color=OURS)
    counts.set_yscale("log")
    counts.set_ylabel("words")
    counts.set_xlabel("confidence; dotted: as it should be")
    return _svg(figure)


def _plot_time_errors(histogram: dict[str, Any]) -> str:
    figure, axes = _axes(height=3.2)
    edges = histogram["edges_ms"]
    width = edges[1] - edges[0]
    places = [edges[0] - width / 2, *(edge + width / 2 for edge in edges)]
    for name, colour, shift in (("start", OURS, -0.25), ("end", OTHERS, 0.2)):
        lefts = [place + shift * width for place in places]
        axes.bar(lefts, histogram[name], width=0.45 * width, color=colour, label=f"{name}s")
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("found minus true time, ms; the outer bars hold all that is further off")
    axes.set_ylabel("words")
    axes.legend(frameon=False)
    return _svg(figure)


def _percent(rate: float | None) -> float:
    return float("nan") if rate is None else 100 * rate


def _bars(rates: Sequence[float], intervals: Sequence[Sequence[float] | None]) -> list[list[float]]:
    """Give how far intervals reach below and above rates, %.  [2, rates]"""
    both = list(zip(rates, intervals, strict=True))
    below = [0.0 if own is None else max(0.0, rate - 100 * own[0]) for rate, own in both]
    above = [0.0 if own is None else max(0.0, 100 * own[1] - rate) for rate, own in both]
    return [below, above]


def _axes(height: float, rows: int = 1, **more: Any) -> "tuple[Figure, Any]":
    """Make a figure, so many inches high, and its axes: one, or an array of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), layout="constrained")
    return figure, figure.subplots(rows, **more)


def _svg(figure: "Figure") -> str:
    """Write a figure as an SVG element, without the head of a file and the time that it was made."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True, bbox_inches="tight")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
