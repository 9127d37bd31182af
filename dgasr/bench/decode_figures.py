"""What a benchmark of decoding found, in figures and as a table. Knows no model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One measurement; `null` where the memory did not hold it."""

    engine: str
    clip_s: float
    batch: int
    canvas: int
    is_largest: bool = False
    """The batch is the largest that the memory holds."""
    rtfx: float | None = None
    """Seconds of audio per second."""
    ms_per_step: float | None = None
    """All of a batch's time but what is done before denoising, by step; for `transformers` the whole."""
    share_of_bound: float | None = None
    """Least time of what the engine does, by the machine's rates / measured time."""
    peak_bytes: int | None = None
    """Of the device's memory, weights with it; on a CPU of the whole process, where the system counts that."""
    phases_s: dict[str, float] | None = None
    """Seconds of one batch by phase, in a run of its own in which each phase waits for the device; `ours` only."""
    tokens_per_expert: dict[str, float] | None = None
    """Mean, least and most in one step, and the share of experts with any; `ours` only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Ours / transformers in one run, for one length of clips."""

    clip_s: float
    batch: int
    """Of ours."""
    batch_ratio: float
    """Other than 1 where each engine has the largest batch that it can hold."""
    rtfx_ratio: float


HEAD = f"{'engine':<13}{'clip s':>7}{'batch':>6}{'canvas':>7}{'RTFx':>9}{'ms/step':>9}{'of bound':>9}{'peak GB':>8}\n"


def line_of(row: Measured) -> str:
    """Write a measurement as lines of the table under `HEAD`."""
    start = f"{row.engine:<13}{row.clip_s:>7.0f}{row.batch:>6}{row.canvas:>7}"
    if row.rtfx is None:
        return f"{start}  out of memory\n"
    peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.1f}"
    line = f"{start}{row.rtfx:>9.1f}{row.ms_per_step:>9.2f}{row.share_of_bound:>9.1%}{peak:>8}\n"
    if row.phases_s is not None:
        whole = sum(row.phases_s.values())
        line += "    " + ", ".join(f"{name} {part / whole:.0%}" for name, part in row.phases_s.items()) + "\n"
    if row.tokens_per_expert is not None:
        each = row.tokens_per_expert
        line += f"    tokens per expert {each['mean']:.0f} ({each['least']:.0f} to {each['most']:.0f}), "
        line += f"{each['used']:.0%} of experts used\n"
    return line


def compare(measured: Sequence[Measured]) -> list[Comparison]:
    """Set ours beside transformers wherever both were measured."""
    rows = {(row.engine, row.clip_s, row.is_largest or row.batch): row for row in measured if row.rtfx}
    found = []
    for (engine, clip_s, batch), ours in rows.items():
        theirs = rows.get(("transformers", clip_s, batch))
        if engine == "ours" and theirs is not None and ours.rtfx and theirs.rtfx:
            found.append(
                Comparison(
                    clip_s=clip_s, batch=ours.batch, batch_ratio=round(ours.batch / theirs.batch, 2),
                    rtfx_ratio=round(ours.rtfx / theirs.rtfx, 2),
                )
            )  # fmt: skip
    return found


def lines_of(comparisons: Iterable[Comparison]) -> str:
    """Write comparisons, a line each."""
    return "".join(
        f"ours / transformers, {each.clip_s:.0f} s, batch {each.batch}: {each.rtfx_ratio:.2f} times the RTFx"
        + ("" if each.batch_ratio == 1 else f", {each.batch_ratio:.2f} times the batch")
        + "\n"
        for each in comparisons
    )
