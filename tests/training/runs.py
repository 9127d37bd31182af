"""What the tests of training runs share: small settings, and what a run wrote."""

import json
from dataclasses import replace

import torch

from dgasr.model.checkpoint import unique_tensors
from dgasr.training import TrainConfig
from dgasr.training.batches import BatchConfig
from dgasr.training.objective import CanvasNoiseConfig
from dgasr.training.trainer import METRICS_FILE

CONFIG = TrainConfig(
    steps=2, learning_rate=1e-3, warmup_steps=1, train=("encoder", "projector", "backbone"),
    batches=BatchConfig(batch_size=2), strength=(0.0, 0.0),
)  # fmt: skip
WHOLE = replace(
    CONFIG, steps=7, batches=BatchConfig(batch_size=2, non_speech_probability=0.2), strength=(0.0, 1.0),
    noise=CanvasNoiseConfig(own_steps=0.5, draws=2), grad_accumulation=2, seed=3,
)  # fmt: skip
"""All that is random in a run; checkpoints after steps 2, 4, 6 and 7."""


def rows_in(out):
    rows = [json.loads(line) for line in (out / METRICS_FILE).read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "step_s"} for row in rows]


def forget_the_end(out):
    """Leave a run as if it had been killed before it wrote that it had ended."""
    written = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(written | {"finished": 0}))


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in unique_tensors(model).items()}


def equal(ours, others):
    return ours.keys() == others.keys() and all(torch.equal(ours[name], others[name]) for name in ours)
