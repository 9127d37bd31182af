"""How fast a machine could decode at most: sizes of a model and two measured rates in, seconds by phase out.

Run by itself it tells what a window of the full model costs, and what each lever that is left would take off that.

A phase takes at least as long as its products at the machine's matrix rate, and as reading its weights once at its
bandwidth, whichever is longer. Elementwise work counts as free, so no program reaches the bound.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks import print_table
from benchmarks.machine import Rates
from dgasr.commands.arguments import positive_int
from dgasr.model.presets import AsrConfig, full
from dgasr.records import SAMPLE_RATE_HZ

PROMPT_TEXT_TOKENS = 32
"""Prompt tokens around the audio slots: 220 with the full model's 188."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Least work of one phase.

    flops: multiplications and additions of its matrix products.
    weights: numbers it must read at least once.
    """

    flops: float
    weights: float

    def seconds(self, rates: Rates, bytes_per_weight: int) -> float:
        """Least time on a machine of these rates, s."""
        return max(self.flops / rates.flops, self.weights * bytes_per_weight / rates.copy_bytes)


def window_work(config: AsrConfig, batch: int, canvas: int, clip_s: float | None = None) -> dict[str, Work]:
    """Count the work of a batch of windows, denoising for one step.

    Args:
        config: sizes.
        batch: windows.
        canvas: tokens of each canvas.
        clip_s: audio in each, s; whole windows when `None`.

    Returns:
        Work of `encoder`, `projector`, `ctc`, `prefill`, of one step's `body` and `tail`, and of `rescore`: both texts
        of every window, filled up to the canvas.
    """
    sizes, encoder = config.backbone, config.encoder
    prompt = config.num_audio_tokens + PROMPT_TEXT_TOKENS
    frames, hidden, vocab = encoder["max_source_positions"], sizes["hidden_size"], sizes["vocab_size"]
    head = hidden * vocab
    projector, subsampling = sum(_projector_sizes(config).values()), config.projector.subsampling
    audible = frames if clip_s is None else min(frames, round(clip_s * SAMPLE_RATE_HZ / config.frame_samples))
    # The unshifted embeddings of the whole window are the prompt's; those between them are read where audio is.
    passes = 1 + (subsampling - 1) * audible / frames
    text = _layers_work(config, batch, canvas, prompt + canvas / 2)
    return {
        "encoder": _encoder_work(config, batch),
        "projector": Work(flops=passes * batch * _projector_flops(config), weights=projector),
        "ctc": Work(flops=2.0 * batch * audible * head, weights=head),
        "prefill": _layers_work(config, batch, prompt, prompt / 2),
        "body": _layers_work(config, batch, canvas, prompt + canvas, extra=3 * hidden * sizes["intermediate_size"]),
        "tail": Work(flops=4.0 * batch * canvas * head, weights=head),
        "rescore": Work(
            flops=2 * (text.flops + 2.0 * batch * canvas * head), weights=2 * (text.weights + head)
        ),
    }  # fmt: skip


def _encoder_work(config: AsrConfig, batch: int) -> Work:
    encoder = config.encoder
    width, frames = encoder["d_model"], encoder["max_source_positions"]
    convs = 3 * encoder["num_mel_bins"] * width * 2 + 3 * width * width  # the first one at twice the frames
    layer = 4 * width * width + 2 * width * encoder["encoder_ffn_dim"]
    weights = convs + encoder["encoder_layers"] * layer
    attention = encoder["encoder_layers"] * 4.0 * frames * frames * width
    return Work(flops=batch * (2.0 * weights * frames + attention), weights=weights)


def _projector_sizes(config: AsrConfig) -> dict[str, int]:
    """Weights of each of the projector's layers."""
    layout = config.projector
    widths = layout.widths(config.encoder["d_model"], config.backbone["hidden_size"])
    before, found = config.encoder["d_model"], {}
    for name in layout.layers:
        is_conv = name.startswith("convs")
        inputs = before * (layout.kernel_size if is_conv else layout.stack if before == widths["input"] else 1)
        found[name], before = inputs * widths[name], widths[name]
    return found


def _projector_flops(config: AsrConfig) -> float:
    frames, total = config.encoder["max_source_positions"], 0.0
    for name, weights in _projector_sizes(config).items():
        frames = -(-frames // 2) if name.startswith("convs") else config.num_audio_tokens
        total += 2.0 * frames * weights
    return total


def _layers_work(config: AsrConfig, batch: int, tokens: int, keys: float, extra: int = 0) -> Work:
    """Count all layers of the backbone for `tokens` of each row that see `keys` others on average."""
    sizes = config.backbone
    hidden, heads, experts, chosen = (
        sizes[name] for name in ("hidden_size", "num_attention_heads", "num_experts", "top_k_experts")
    )
    expert = 3 * hidden * sizes["moe_intermediate_size"]
    # Of routed experts only those are read that some token chose; evenly routed, that many are expected.
    read = experts * (1 - (1 - chosen / experts) ** (batch * tokens))
    flops = weights = 0.0
    for is_full in config.is_full_attention:
        dim = sizes["global_head_dim" if is_full else "head_dim"]
        key_heads = sizes["num_global_key_value_heads" if is_full else "num_key_value_heads"]
        attention = hidden * dim * (2 * heads + key_heads * (1 if is_full else 2))
        dense = attention + 3 * hidden * sizes["intermediate_size"] + hidden * experts
        flops += 2.0 * (dense + chosen * expert) + 4.0 * keys * heads * dim
        weights += dense + read * expert
    return Work(flops=batch * tokens * (flops + 2.0 * extra), weights=weights + extra)


def window_flops(config: AsrConfig, canvas: int, steps: float, rescored: float = 1.0, gathered: float = 0.0) -> float:
    """Count the products of one window from audio to text.

    Args:
        config: sizes.
        canvas: tokens of the canvas.
        steps: of its denoising.
        rescored: share of windows whose two texts differ.
        gathered: share of positions, over all steps, whose soft embedding is one token's, gathered and not multiplied.
    """
    work = {phase: part.flops for phase, part in window_work(config, 1, canvas).items()}
    once = sum(work[phase] for phase in ("encoder", "projector", "ctc", "prefill"))
    return once + steps * (work["body"] + work["tail"] * (1 - gathered / 2)) + rescored * work["rescore"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add steps, and what a GPU does."""
    add = parser.add_argument
    add("--steps", type=positive_int, default=8, metavar="N", help="of every canvas (default: 8)")
    add("--tflops", type=positive_int, default=460, metavar="N", help="of a GPU, over all (default: 460)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Forecast a window of the full model, and what each lever takes off."""
    config, steps = full(), options.steps
    phases = {phase: round(part.flops / 1e12, 2) for phase, part in window_work(config, 1, 192).items()}
    levers = {
        f"canvas 192, {steps} steps, every text rescored": window_flops(config, 192, steps),
        "… rescored only where texts differ, 1 in 5": window_flops(config, 192, steps, 0.2),
        "… canvas 128: CTC's 100 tokens and a margin": window_flops(config, 128, steps, 0.2),
        "… soft embeddings gathered at settled positions, half": window_flops(config, 128, steps, 0.2, 0.5),
        "… and two steps fewer, as canvases settle": window_flops(config, 128, max(steps - 2, 1), 0.2, 0.5),
    }
    sys.stdout.write(f"full model, window of 30 s, canvas 192, TFLOP (body and tail: of a step): {phases}\n")
    rows = [(name, flops / 1e12, 30 * options.tflops * 1e12 / flops) for name, flops in levers.items()]
    print_table(("window", "TFLOP", f"RTFx at {options.tflops} TFLOP/s"), rows)
    return {"phases_tflop": phases, "levers_tflop": {name: round(tflop, 1) for name, tflop, _ in rows}}
