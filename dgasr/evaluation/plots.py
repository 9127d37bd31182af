"""Figures of an evaluation as plots: what `Evaluation.to_json` gives in, SVG for a page out. Needs matplotlib."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dgasr.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, OTHERS = "#1f6f8b", "#c0562f"
"""Colours of the model and of what it is laid beside; apart for those who see no red, and in print."""

STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "dgasr", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True,
}  # fmt: skip
"""Text stays text, and equal figures give equal files."""


def error_rates(rows: Sequence[dict[str, Any]]) -> str:
    """Draw the error rate of each set and language with its 95 % interval, and the baseline's where there is one.

    Args:
        rows: of `groups`, those with a rate.
    """
    figure, axes = _axes(height=1.3 + 0.5 * len(rows))
    places = list(range(len(rows)))
    is_beside = any("baseline_rate" in row for row in rows)
    _rates(axes, rows, "", places, OURS, "this model")
    if is_beside:
        _rates(axes, rows, "baseline_", [place + 0.25 for place in places], OTHERS, "baseline")
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes.set_yticks(places, [row["name"] if row["group"] == "set" else f"language {row['name']}" for row in rows])
    axes.set_xlim(left=0)
    axes.set_ylim(len(rows) - 0.3, -0.5)
    axes.set_xlabel("word errors, % (characters where a language has no spaces); bars: 95 % intervals")
    return _svg(figure)


def steps(evaluations: Sequence[dict[str, Any]]) -> str:
    """Draw denoising steps against WER and against speed.

    Args:
        evaluations: `by_steps`.
    """
    figure, axes = _axes(height=3.2)
    counts = [str(row["steps"]) for row in evaluations]
    rates = [_percent(row["wer"]) for row in evaluations]
    axes.errorbar(counts, rates, yerr=_bars(rates, [row["interval_95"] for row in evaluations]), marker="o",
                  color=OURS, capsize=3)  # fmt: skip
    axes.set_xlabel("denoising steps at most")
    axes.set_ylabel("word error rate, %", color=OURS)
    axes.set_ylim(bottom=0)
    speed = axes.twinx()
    speed.plot(counts, [row["rtfx"] for row in evaluations], marker="s", linestyle="--", color=OTHERS)
    speed.set_ylabel("RTFx: audio seconds a second", color=OTHERS)
    speed.set_ylim(bottom=0)
    speed.grid(visible=False)
    return _svg(figure)


def reliability(bins: Sequence[dict[str, Any]]) -> str:
    """Draw how many of the words of a confidence are right; below, how many words have it.

    Args:
        bins: of `calibration`.
    """
    figure = _figure(height=3.6)
    axes, counts = figure.subplots(2, height_ratios=(4, 1), sharex=True)
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


def time_errors(histogram: dict[str, Any]) -> str:
    """Draw how far word starts and ends lie from where they were said.

    Args:
        histogram: of `timing`.
    """
    figure, axes = _axes(height=3.2)
    edges = histogram["edges_ms"]
    width = edges[1] - edges[0]
    places = [edges[0] - width / 2, *(edge + width / 2 for edge in edges)]
    for name, colour, shift in (("start", OURS, 0.0), ("end", OTHERS, 0.45)):
        axes.bar([place - width / 4 + shift * width for place in places], histogram[name], width=0.45 * width,
                 color=colour, label=f"{name}s")  # fmt: skip
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("found minus true time, ms; the outer bars hold all that is further off")
    axes.set_ylabel("words")
    axes.legend(frameon=False)
    return _svg(figure)


def _rates(
    axes: "Axes", rows: Sequence[dict[str, Any]], prefix: str, places: Sequence[float], colour: str, label: str
) -> None:
    rates = [_percent(row[f"{prefix}rate"]) for row in rows]
    bars = _bars(rates, [row[f"{prefix}interval_95"] for row in rows])
    axes.errorbar(rates, places, xerr=bars, fmt="o", color=colour, capsize=3, label=label)


def _percent(rate: float | None) -> float:
    return float("nan") if rate is None else 100 * rate


def _bars(rates: Sequence[float], intervals: Sequence[Sequence[float] | None]) -> list[list[float]]:
    """Give how far intervals reach below and above rates, %."""
    both = zip(rates, intervals, strict=True)
    ends = [(rate, rate) if own is None else (100 * own[0], 100 * own[1]) for rate, own in both]
    return [
        [max(0.0, rate - low) for rate, (low, _) in zip(rates, ends, strict=True)],
        [max(0.0, high - rate) for rate, (_, high) in zip(rates, ends, strict=True)],
    ]


def _figure(height: float) -> "Figure":
    """Make an empty figure, `height` inches high."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"matplotlib is not installed ({error}). Run `pip install 'dgasr[report]'`.") from error
    mpl.rcParams.update(STYLE)
    return Figure(figsize=(7.2, height), layout="constrained")


def _axes(height: float) -> "tuple[Figure, Axes]":
    figure = _figure(height)
    return figure, figure.subplots()


def _svg(figure: "Figure") -> str:
    """Write a figure as an SVG element, without the head of a file and the time that it was made."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True, bbox_inches="tight")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
