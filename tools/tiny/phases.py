"""Train the bundled model in its phases, one run after the other: each goes on from the one before.

In: a fresh model folder and manifests. Out: a folder with a folder for each phase, and `model`, what the last one came
to. A killed run goes on in the phase it was in.
"""

import argparse
import json
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter

from dgasr.errors import DgasrError
from dgasr.manifests import Utterance, read_manifest
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import CONFIG_FILE
from dgasr.training import RunConfig, TrainConfig
from dgasr.training.run import train_run
from tools.calibration import fit_word_offsets
from tools.tiny.drawn import DrawConfig, DrawnBatches

PLAN = Path(__file__).parent / "plan.json"
"""The phases that the bundled model is trained in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """What one phase learns, how its rows are drawn, and the share of the encoder's activations that it drops."""

    config: TrainConfig
    drawing: DrawConfig = field(default_factory=DrawConfig)
    dropout: float = 0.0


def read_phases(path: Path = PLAN, share: float = 1.0, seed: int = 0) -> list[Phase]:
    """Read the phases, each with a share of its steps."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    phases = []
    for row in plan["phases"]:
        own = {name: row.pop(name) for name in ("drawing", "dropout") if name in row}
        phases.append({"config": {**plan["all"], **row, "seed": seed}, **own})
    return [
        replace(phase, config=replace(phase.config, steps=max(1, round(phase.config.steps * share))))
        for phase in TypeAdapter(list[Phase]).validate_python(phases)
    ]


def drawn_batches(phase: Phase, utterances: list[Utterance], model: AsrModel) -> DrawnBatches:
    """Make the batches of a phase."""
    config = phase.config
    return DrawnBatches(
        utterances, model.config, model.tokenizer, config.batches, config.augmentation, config.strength,
        config.num_batches, config.seed, drawing=phase.drawing,
    )  # fmt: skip


def train_phases(
    fresh: Path, phases: list[Phase], train: list[Utterance], validation: list[Utterance], run: RunConfig
) -> Path:
    """Train every phase into a folder of its own below the run's; return the folder of the last one's model."""
    start = fresh
    for number, phase in enumerate(phases):
        own = replace(run, out=run.out / f"phase{number}", is_half=number == len(phases) - 1)
        model = load_model(start)
        for module in (model.encoder, *model.encoder.layers):
            module.dropout = phase.dropout  # transformers' layers read this number at every call
        train_run(model, train, validation, phase.config, own, batches=drawn_batches(phase, train, model))
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
        phases = read_phases(share=options.share, seed=options.seed)
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
