"""`dgasr plan`: what an archive would cost in machines, requests, hours and money, and where each figure is from."""

import argparse
import json
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

from dgasr.commands.arguments import finite_float, positive_int
from dgasr.errors import ConfigError
from dgasr.scale import DAY_H, GB, SOURCES, Costs, Pace, Prices, cost_of

SIZES = (1e3, 1e4, 1e5, 1e6, 1e7)
PACE, PRICES = Pace(), Prices()
WEEK_D = 7


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("plan", help="work out what an archive takes: GPUs, cores, requests, hours, money")
    parser.add_argument("--hours", type=finite_float, nargs="+", default=SIZES, metavar="H", help="default: 10³ to 10⁷")
    parser.add_argument("--gpus", type=positive_int, default=8, metavar="N", help="default: 8")
    parser.add_argument("--cores", type=positive_int, default=64, metavar="N", help="default: 64")
    parser.add_argument("--bench", type=Path, metavar="FILE", help="take RTFx from `dgasr bench decode --json FILE`")
    for owner, title in ((PACE, "figures"), (PRICES, "prices in dollars")):
        group = parser.add_argument_group(title)
        for field in fields(owner):
            flag = "--" + field.name.replace("_", "-")
            text = f"{SOURCES[field.name]} (default: %(default)s)"
            group.add_argument(flag, type=finite_float, default=getattr(owner, field.name), metavar="X", help=text)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table, and the figures it rests on."""
    pace = Pace(**{field.name: getattr(options, field.name) for field in fields(PACE)})
    prices = Prices(**{field.name: getattr(options, field.name) for field in fields(PRICES)})
    measured = ""
    if options.bench is not None:
        rtfx, measured = _measured_rtfx(options.bench)
        pace = replace(pace, rtfx=rtfx)
    costs = [cost_of(hours, options.gpus, options.cores, pace, prices) for hours in options.hours]
    sys.stdout.write(table(costs, options.gpus, options.cores) + "\n" + sources(pace, prices, measured))
    return 0


def table(costs: list[Costs], gpus: int, cores: int) -> str:
    """Lay costs side by side, in Markdown."""
    rows = {
        "recordings": [f"{cost.num_recordings:,}" for cost in costs],
        "child runs": [f"{2 * cost.num_assignments:,}" for cost in costs],
        "GPU hours": [f"{cost.gpu_hours:,.1f}" for cost in costs],
        "core hours": [f"{cost.core_hours:,.1f}" for cost in costs],
        "GPUs for a week": [f"{cost.gpu_hours / DAY_H / WEEK_D:,.2f}" for cost in costs],
        "writes and lists": [f"{cost.writes:,}" for cost in costs],
        "reads": [f"{cost.reads:,}" for cost in costs],
        "audio read, GB": [f"{cost.audio_bytes / GB:,.0f}" for cost in costs],
        "staged for a while, GB": [f"{cost.staged_bytes / GB:,.0f}" for cost in costs],
        "lake, GB": [f"{cost.lake_bytes / GB:,.2f}" for cost in costs],
        "parent's memory, GB": [f"{cost.parent_bytes / GB:,.2f}" for cost in costs],
        f"wall time with {gpus} GPUs and {cores} cores": [_duration(cost.hours) for cost in costs],
        "it waits for": [cost.bottleneck for cost in costs],
        "dollars": [f"{cost.dollars:,.0f}" for cost in costs],
    }
    head = ["hours of audio", *(f"{cost.audio_hours:,.0f}" for cost in costs)]
    lines = [head, ["---", *("---:" for _ in costs)], *([name, *cells] for name, cells in rows.items())]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def sources(pace: Pace, prices: Prices, measured: str = "") -> str:
    """List the figures with where each is from; one that was given says so."""
    lines = []
    for owner, default in ((asdict(pace), asdict(PACE)), (asdict(prices), asdict(PRICES))):
        for name, value in owner.items():
            origin = SOURCES[name] if value == default[name] else "given"
            lines.append(f"- `{name}` {value:,g}: {measured if name == 'rtfx' and measured else origin}\n")
    return "".join(lines)


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:,.1f} h" if hours < 2 * DAY_H else f"{hours / DAY_H:,.1f} days"


def _measured_rtfx(path: Path) -> tuple[float, str]:
    """Take the best of this project's figures for the longest clips."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        ours = [row for row in found["measured"] if row["engine"] == "ours" and row["rtfx"] is not None]
        longest = max(row["clip_s"] for row in ours)
        best = max((row for row in ours if row["clip_s"] == longest), key=lambda row: row["rtfx"])
        source = f"measured: {path.name}, {found['machine']}, batch {best['batch']}, canvas {best['canvas']}"
        return float(best["rtfx"]), source
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--bench {path}: no figures of `dgasr bench decode --json` ({error}).") from error
