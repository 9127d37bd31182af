"""How many rows of a batch are in use, without a model: the denoising loop over canvases of scripted lengths and steps.

A canvas settles after three to eight steps, as trained ones do; how long clips are decides how many canvas lengths take
turns. A GPU computes idle rows like others, so a row that is idle is speed lost. Also what prompts take at the full
model's size.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import print_table
from dgasr.commands.arguments import positive_int
from dgasr.diffusion import CanvasJob, DecodeConfig
from dgasr.diffusion.denoise import Decoder, denoise
from dgasr.diffusion.vocabulary import VocabularyHead
from dgasr.model.presets import full
from dgasr.transcriber.encoding import ENCODED_AT_ONCE
from dgasr.transcriber.loading import held_bytes

END, VOCABULARY, STEPS = 1, 4, (3, 8)

SHRUNK = 32
"""Positions of a real canvas for one here: how many there are makes no difference to rows."""

LENGTHS_S: dict[str, Callable[[random.Random], float]] = {
    "uniform, 2 to 30 s": lambda draw: draw.uniform(2, 30),
    "exponential, mean 8 s": lambda draw: min(max(draw.expovariate(1 / 8), 0.5), 30),
    "calls: 1 to 4 s or 20 to 30 s": lambda draw: draw.choice([draw.uniform(1, 4), draw.uniform(20, 30)]),
    "log-normal, median 6 s": lambda draw: min(max(draw.lognormvariate(1.8, 0.7), 0.5), 30),
    "windows of 30 s": lambda draw: 30.0,
}
"""Distributions of segments' lengths."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Occupancy:
    """What a run gives: steps of rows with a canvas / all steps, and most encoded jobs that waited for a row."""

    share: float
    most_waiting: int


class ScriptedDecoder(Decoder):
    """Says nothing until the step that a row's job asks for; counts what is encoded and not admitted."""

    encoded_at_once = ENCODED_AT_ONCE

    def __init__(self, num_rows: int) -> None:
        self._unsure_steps = torch.zeros(num_rows, dtype=torch.int64)
        self.num_steps, self.most_waiting, self._waiting = 0, 0, 0

    def encode(self, jobs: Sequence[CanvasJob]) -> Sequence[Any]:
        """Count; nothing is made of a job."""
        self._waiting += len(jobs)
        self.most_waiting = max(self.most_waiting, self._waiting)
        return [job.payload for job in jobs]

    def admit(self, rows: Sequence[int], encoded: Sequence[Any]) -> None:
        """Take down how long rows stay unsure; copies that fill a batch up at first are none that waited."""
        self._waiting -= min(len(rows), self._waiting)
        self._unsure_steps[torch.tensor(rows)] = torch.tensor(encoded)

    def __call__(self, ids: Tensor, soft_embeddings: Tensor) -> Tensor:
        """Be sure of the end of text, or of nothing."""
        self.num_steps += 1
        hidden = torch.zeros(*ids.shape, VOCABULARY)
        hidden[..., END] = torch.where(self._unsure_steps > 0, 0.0, 1000.0)[:, None]
        self._unsure_steps -= 1
        return hidden


def measure(length_s: Callable[[random.Random], float], num_rows: int, num_jobs: int) -> Occupancy:
    """Run the loop over segments of drawn lengths, in the order in which they are drawn.

    Args:
        length_s: draws a segment's length, s.
        num_rows: rows of the batch.
        num_jobs: segments.
    """
    draw, canvas = random.Random(0), full().canvas

    def jobs() -> Iterator[CanvasJob]:
        for index in range(num_jobs):
            bucket = canvas.bucket_for(length_s(draw))
            # A canvas settles at the second step that is sure and equal to the one before.
            yield CanvasJob(noise_key=index, canvas_tokens=bucket // SHRUNK, payload=draw.randint(*STEPS) - 2)

    decoder = ScriptedDecoder(num_rows)
    head = VocabularyHead(weight=torch.eye(VOCABULARY), softcap=30.0, embed_scale=1.0)
    canvases = denoise(
        decoder, head, jobs(), num_rows=num_rows, buckets=tuple(bucket // SHRUNK for bucket in canvas.buckets),
        end_token_ids=(END,), config=DecodeConfig(max_steps=STEPS[1]),
    )  # fmt: skip
    in_use = sum(found.num_steps for found in canvases)
    return Occupancy(share=in_use / (num_rows * decoder.num_steps), most_waiting=decoder.most_waiting)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add rows and segments."""
    parser.add_argument("--batch", type=positive_int, default=64, metavar="N", help="rows (default: 64)")
    parser.add_argument("--jobs", type=positive_int, default=300, metavar="N", help="segments a row (default: 300)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every distribution of lengths."""
    found = {name: measure(own, options.batch, options.batch * options.jobs) for name, own in LENGTHS_S.items()}
    rows = [(name, own.share, own.most_waiting) for name, own in found.items()]
    print_table(("segments", "rows in use", "encoded segments that waited at most"), rows)
    held = held_bytes(full(), options.batch, 2)
    sys.stdout.write(f"prompt caches and audio embeddings of the full model: {held / 1e9:.1f} GB, beside the weights\n")
    return {"held_bytes": held} | {name: asdict(own) for name, own in found.items()}
