"""Train a bundled model further without writing its weights anew: low-rank updates of ear, projector and backbone.

In: a model folder, speech with text, spoken numbers, sentences. Out: `update.pt`, resumable after a kill at any step,
and with `--bundle` an `update.safetensors` in the model folder, a thirtieth of its weights' size. What an update is on
is shared between the backbone's two stacks, as its matrices are, and loading adds it to them: nothing is slower for it.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import UPDATE_FILE
from dgasr.prompt import build_prompt
from dgasr.training.objective import CanvasNoiseConfig, LossWeights, batch_losses
from tools.base.bundle import save_update
from tools.base.digits import DigitWindows
from tools.base.fast import average_gradients, compile_elementwise
from tools.base.optimizer import PartsOptimizer, rate_share
from tools.base.sizes import WINDOW_S
from tools.base.speech import AUGMENTATION, Speech
from tools.base.text import SimulatedEar, read_sentences
from tools.base.together import SpeechBatches


class Updated(nn.Module):
    """A linear layer or convolution with an update of a low rank.

    Args:
        layer: stays as it is.
        left: [outputs, rank]
        right: [rank, inputs], of a convolution with its kernel behind the inputs.
    """

    def __init__(self, layer: nn.Linear | nn.Conv1d, left: nn.Parameter, right: nn.Parameter) -> None:
        super().__init__()
        self.layer, self.left, self.right = layer, left, right

    @property
    def weight(self) -> Tensor:
        """Of the layer, whose type others look at."""
        return self.layer.weight

    def forward(self, states: Tensor) -> Tensor:
        """Run the layer as if the update were added to its weight."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return layer(states) + F.linear(F.linear(states, self.right), self.left)
        weight = layer.weight + (self.left @ self.right).view_as(layer.weight)
        return F.conv1d(states, weight, layer.bias, layer.stride, layer.padding)


def put_updates(
    model: AsrModel, rank_of: Callable[[str], int], generator: torch.Generator
) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Put updates that change nothing yet on a model's layers, in place.

    Args:
        model: frozen.
        rank_of: rank of the update of the layer of this name; 0 for none.
        generator: of the right factors' first values.

    Returns:
        Both factors, by the first name of the matrix that they update.
    """
    found: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    factors: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        rank = rank_of(name)
        if not rank or type(layer) not in (nn.Linear, nn.Conv1d):
            continue
        if id(layer.weight) not in found:
            width = layer.weight[0].numel()
            right = torch.randn(rank, width, generator=generator) / width**0.5
            pair = nn.Parameter(torch.zeros(len(layer.weight), rank)), nn.Parameter(right)
            found[id(layer.weight)] = factors[f"{name}.weight"] = pair
        model.set_submodule(name, Updated(layer, *found[id(layer.weight)]))
    return factors


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="folder without an update")
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="manifests")
    parser.add_argument("--digits", type=Path, required=True, help="manifest of single digits")
    parser.add_argument("--numbers", type=Path, required=True, help="manifest of `voices.py --numbers`")
    parser.add_argument("--digit-share", type=float, default=0.35, help="of the windows that say digits")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-windows", type=int, default=4)
    parser.add_argument("--rank", type=int, default=12, help="of the backbone's updates")
    parser.add_argument("--ear-rank", type=int, default=16, help="of the encoder's upper layers and the projector")
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--ear-rate", type=float, default=3e-4)
    parser.add_argument("--held-out", type=int, default=400, help="sentences that no training reads, the first ones")
    parser.add_argument("--text-every", type=int, default=8, help="one step in so many is on text alone")
    parser.add_argument("--save-steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=15)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", action="store_true", help="also write the update into the model folder, at the end")
    options = parser.parse_args()
    if (options.model / UPDATE_FILE).exists():
        parser.error(
            f"{options.model / UPDATE_FILE} is there already, and updates are of the other files alone: move it."
        )
    options.out.mkdir(parents=True, exist_ok=True)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        torch.distributed.init_process_group("gloo")
    if options.compile:
        compile_elementwise()
    model = load_model(options.model)
    model.encoder.config._attn_implementation = "eager"  # as the ear: a CPU's fused attention is slow backwards
    num_layers = len(model.encoder.layers)
    upper = tuple(f"encoder.layers.{index}." for index in range(num_layers // 2, num_layers))

    def rank_of(name: str) -> int:
        if name.startswith("backbone.") and ".layers." in name:
            return int(options.rank)
        return int(options.ear_rank) if name.startswith((*upper, "projector.")) else 0

    factors = put_updates(model, rank_of, torch.Generator().manual_seed(options.seed))
    learning = {f"{name}.{side}": own for name, pair in factors.items() for side, own in enumerate(pair)}
    peaks = {"backbone.": options.rate, "encoder.": options.ear_rate, "projector.": options.ear_rate}
    optimizer = PartsOptimizer(learning, peaks, is_muons=lambda name: False)
    state_path = options.out / "update.pt"
    first = optimizer.resume(state_path)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    train, takes, numbers = (
        Speech(manifests, options.cache, ("en",)) for manifests in (options.train, options.digits, options.numbers)
    )
    windows = DigitWindows(
        takes=takes, numbers=numbers, share=options.digit_share, speech=train, window_s=WINDOW_S,
        batch_windows=options.batch_windows, augmentation=AUGMENTATION, ramp_steps=60, tokenizer=tokenizer,
        seed=options.seed + 4242,  # another than those of earlier stages: other mixtures of the same clips
    )  # fmt: skip
    loader = iter(
        torch.utils.data.DataLoader(
            SpeechBatches(windows, model, world * options.steps), batch_size=None, num_workers=1, prefetch_factor=3,
            sampler=range(world * first + rank, world * options.steps, world),
            worker_init_fn=lambda _: torch.set_num_threads(1),
        )
    )  # fmt: skip
    sentences = SimulatedEar(
        model, tokenizer, read_sentences(options.text)[options.held_out :], 1600, options.seed + 77
    )
    prompt = build_prompt(model.tokenizer, model.config.prompt, model.config.num_audio_tokens, "en")
    noise = CanvasNoiseConfig(full_noise=0.35, self_conditioning=0.5, draws=1)

    def losses(step: int) -> dict[str, Tensor]:
        batch, number = next(loader), world * step + rank  # drawn at each step, so that batches keep their numbers
        if step % options.text_every == options.text_every - 1:
            found = {f"text_{name}": loss for name, loss in sentences.losses(number, noise).items()}
            return {**found, "total": found["text_autoregressive"] + 0.3 * found["text_diffusion"]}
        # Denoising is the dearest: every third step is enough for what it shares to stay in step.
        weights = LossWeights(diffusion=0.5 * (step % 3 == 0), autoregressive=1.0, ctc=0.3)
        generator = torch.Generator().manual_seed(options.seed * 7919 + number)
        return batch_losses(model, batch, torch.tensor(prompt), weights, noise, generator)

    log, means, began = (options.out / "update.jsonl").open("a"), dict[str, float](), time.time()
    model.train()
    for step in range(first, options.steps):
        optimizer.set_share(rate_share(step, options.warmup, options.steps))
        torch.manual_seed(options.seed * 1_000_003 + world * step + rank)
        found = losses(step)
        found.pop("total").backward()
        for parameter in learning.values():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        norm = average_gradients(list(learning.values()), 1.0)
        optimizer.step()
        for name, loss in found.items():
            means[name] = 0.95 * means.get(name, loss.item()) + 0.05 * loss.item()
        if (step + 1) % 5 == 0 and rank == 0:
            row: dict[str, Any] = {"step": step + 1, **{name: round(mean, 3) for name, mean in means.items()}}
            row |= {"norm": round(norm, 2), "s_per_step": round((time.time() - began) / (step + 1 - first), 2)}
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)
        if rank == 0 and ((step + 1) % options.save_steps == 0 or step + 1 == options.steps):
            optimizer.save(state_path, step + 1)
    if options.bundle and rank == 0:
        save_update(factors, options.model)
        print(f"{options.model / UPDATE_FILE}: written", flush=True)


if __name__ == "__main__":
    main()
