"""Train the bundled model in its phases, one run after the other: each goes on from the one before.

In: a fresh model folder and manifests. Out: a folder with a folder for each phase, and `model`, what the last one came
to. A killed run goes on in the phase it was in.
"""

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import TypeAdapter

from dgasr.errors import DgasrError
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import CONFIG_FILE
from dgasr.training.manifests import Utterance, read_manifest
from dgasr.training.run import train_run
from dgasr.training.settings import RunConfig, TrainConfig
from tools.calibration import fit_word_offsets

PLAN = Path(__file__).parent / "plan.json"
"""The phases that the bundled model is trained in."""


def read_phases(path: Path = PLAN, share: float = 1.0) -> list[TrainConfig]:
    """Read the settings of each phase, with a share of its steps."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    phases = TypeAdapter(list[TrainConfig]).validate_python([{**plan["all"], **phase} for phase in plan["phases"]])
    return [replace(phase, steps=max(1, round(phase.steps * share))) for phase in phases]


def train_phases(
    fresh: Path, phases: list[TrainConfig], train: list[Utterance], validation: list[Utterance], run: RunConfig
) -> Path:
    """Train every phase into a folder of its own below the run's; return the folder of the last one's model."""
    start = fresh
    for number, phase in enumerate(phases):
        own = replace(run, out=run.out / f"phase{number}", is_half=number == len(phases) - 1)
        train_run(load_model(start), train, validation, phase, own)
        start = own.out / "final"
    return start


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("fresh", type=Path, help="from tools.tiny.fresh")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--calibration", type=Path, required=True, help="training data with word times")
    parser.add_argument("--share", type=float, default=1.0, help="of every phase's steps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        train = [utterance for path in options.manifests for utterance in read_manifest(path)]
        validation = read_manifest(options.validation) if options.validation else []
        phases = [replace(phase, seed=options.seed) for phase in read_phases(share=options.share)]
        run = RunConfig(out=options.out, shows_progress=sys.stderr.isatty())
        last = train_phases(options.fresh, phases, train, validation, run)
        model = load_model(last)
        start_ms, end_ms = fit_word_offsets(model, read_manifest(options.calibration))
    except DgasrError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    shutil.copytree(last, options.out / "model", dirs_exist_ok=True)
    calibrated = replace(model.config, start_offset_ms=round(start_ms, 1), end_offset_ms=round(end_ms, 1))
    calibrated.save(options.out / "model" / CONFIG_FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
