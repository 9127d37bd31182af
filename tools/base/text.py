"""Turn Gemma into a denoiser on text alone: diffusion and next-token losses on sentences, read from a simulated ear.

In: sentences. Out: `text.pt` with the backbone's weights, resumable after a kill at any step. The prompt is what CTC
leaves of a sentence: through the tied language head an audio embedding lies near the embedding of the piece it says, so
a row's pieces, with blanks between and the mistakes a recogniser makes, stand in for audio and cost no encoder.
"""

import argparse
import json
import lzma
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fast import Masters, compile_elementwise
from rapidfuzz.distance import Levenshtein
from sizes import BLANK_ID, base_config
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Gemma3ForCausalLM
from vocabulary import is_spoken_form, plain

from dgasr.model.asr import AsrModel
from dgasr.model.gemma import load_gemma3
from dgasr.prompt import Tokenizer as PromptTokenizer
from dgasr.prompt import build_prompt, canvas_ids
from dgasr.training.batches import Batch
from dgasr.training.canvas_noise import CanvasNoiseConfig
from dgasr.training.objective import LossWeights, backbone_losses

AUDIO_RMS = 0.6
"""Size of the audio embeddings' values at the end of the ear's training; the simulated ones have it too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptionConfig:
    """How wrong a simulated hypothesis is.

    highest_rate: largest share of pieces that a row gets wrong; each row draws its own, from 0.
    substitute, drop, double: what happens to a wrong piece, as shares; the rest gets a piece put behind it.
    unheard: share of rows with an empty prompt: the language alone.
    """

    highest_rate: float = 0.5
    substitute: float = 0.6
    drop: float = 0.2
    double: float = 0.1
    unheard: float = 0.1


class LookAlikes:
    """For each piece those that are written almost like it: what a recogniser confuses."""

    def __init__(self, tokenizer: Tokenizer, first_piece: int, count: int = 12) -> None:
        size = tokenizer.get_vocab_size()
        pieces = [tokenizer.id_to_token(index).replace("▁", " ") for index in range(size)]
        self._near: dict[int, list[int]] = {}
        for index in range(first_piece, size):
            distances = [
                (Levenshtein.distance(pieces[index], pieces[other], score_cutoff=2) / len(pieces[index]), other)
                for other in range(first_piece, size)
                if other != index and abs(len(pieces[other]) - len(pieces[index])) <= 1
            ]
            self._near[index] = [other for _, other in sorted(distances)[:count]]

    def draw(self, piece: int, rng: random.Random) -> int:
        """Draw a piece that might be heard instead."""
        return rng.choice(self._near.get(piece) or [piece])


def corrupt(ids: list[int], rate: float, config: CorruptionConfig, near: LookAlikes, rng: random.Random) -> list[int]:
    """Make a recogniser's mistakes at a rate."""
    out: list[int] = []
    for piece in ids:
        if rng.random() >= rate:
            out.append(piece)
            continue
        kind = rng.random()
        if kind < config.substitute:
            out.append(near.draw(piece, rng))
        elif kind < config.substitute + config.drop:
            continue
        elif kind < config.substitute + config.drop + config.double:
            out += [piece, piece]
        else:
            out += [piece, near.draw(piece, rng)]
    return out


def simulated_path(ids: list[int], num_tokens: int, rng: random.Random) -> list[int]:
    """Spread pieces over audio tokens with blanks between, as CTC's likeliest path has them."""
    ids = ids[:num_tokens]
    room = num_tokens - len(ids)
    longest = min(room, round(len(ids) * rng.uniform(0.8, 3.0)))
    gaps = [rng.random() for _ in range(len(ids) + 1)]
    scale = longest / max(sum(gaps), 1e-6)
    path: list[int] = []
    for piece, gap in zip(ids, gaps, strict=False):
        path += [BLANK_ID] * round(gap * scale) + [piece]
    return (path + [BLANK_ID] * num_tokens)[:num_tokens]


class Sentences:
    """Batches of sentences of one length each; batch `step` is a pure function of (seed, step)."""

    def __init__(self, lines: list[str], tokenizer: Tokenizer, batch_tokens: int, seed: int) -> None:
        self._ids = [encoded.ids for encoded in tokenizer.encode_batch(lines)]
        self._batch_tokens, self._seed = batch_tokens, seed

    def rows(self, step: int, buckets: tuple[int, ...]) -> tuple[int, list[list[int]]]:
        """Draw a canvas length and sentences, joined until they fill a good part of it."""
        rng = random.Random(self._seed * 1_000_003 + step)
        bucket = rng.choices(buckets, weights=buckets)[0]
        rows = []
        for _ in range(max(2, self._batch_tokens // (bucket * 3))):
            wanted, own = rng.uniform(0.3, 1.0) * (bucket - 2), list[int]()
            while len(own) < wanted:
                own += rng.choice(self._ids)
            start = rng.randrange(max(1, len(own) - bucket + 2)) if rng.random() < 0.3 else 0
            rows.append(own[start : start + bucket - 1])
        return bucket, rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--gemma", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="sentences, one a line, .xz")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch-tokens", type=int, default=2400)
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--save-steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    compile_elementwise()
    rows = json.loads((options.vocabulary / "gemma_rows.json").read_text())
    gemma = Gemma3ForCausalLM.from_pretrained(options.gemma, dtype=torch.float32)
    prompt_tokenizer = PromptTokenizer.load(options.vocabulary)
    model = AsrModel(base_config(gemma, len(rows)), prompt_tokenizer)
    load_gemma3(model.backbone, gemma, rows)
    del gemma
    tokenizer = Tokenizer.from_file(str(options.vocabulary / "tokenizer.json"))
    lines = []
    for path in options.text:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            lines += [text for text in map(plain, file) if text and is_spoken_form(text)]
    held, lines = lines[:400], lines[400:]
    train, validation = (Sentences(own, tokenizer, options.batch_tokens, options.seed) for own in (lines, held))
    near = LookAlikes(tokenizer, first_piece=14)
    model.requires_grad_(False)
    # Embeddings stay Gemma's: they are also the head through which the ear was trained.
    learning = {n: p for n, p in model.backbone.named_parameters() if "embed" not in n and "lm_head" not in n}
    for parameter in learning.values():
        parameter.requires_grad_(True)
    model.to(torch.bfloat16)
    masters = Masters(list(learning.values()))
    optimizer = torch.optim.AdamW(masters.masters, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    state_path, first = options.out / "text.pt", 0
    if state_path.is_file():
        state = torch.load(state_path, weights_only=True)
        with torch.no_grad():
            for name, master in zip(learning, masters.masters, strict=True):
                master.copy_(state["weights"][name])
        masters.publish()
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    config, corruption = model.config, CorruptionConfig()

    def losses(source: Sentences, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(options.seed * 7919 + step)
        rng = random.Random(options.seed * 104_729 + step)
        bucket, texts = source.rows(step, config.canvas.buckets)
        num_audio = min(config.num_audio_tokens, round(bucket * rng.uniform(1.5, 2.5)))
        paths = []
        for text in texts:
            rate = rng.random() * corruption.highest_rate
            heard = [] if rng.random() < corruption.unheard else corrupt(text, rate, corruption, near, rng)
            paths.append(simulated_path(heard, num_audio, rng))
        embeddings = model.head_weight[torch.tensor(paths)]  # [rows, audio tokens, hidden]
        embeddings = F.rms_norm(embeddings.float(), embeddings.shape[-1:])
        noise = torch.randn(embeddings.shape, generator=generator) * rng.uniform(0.1, 1.2)
        audio = (AUDIO_RMS * F.rms_norm(embeddings + noise, embeddings.shape[-1:])).to(model.head_weight.dtype)
        prompt = build_prompt(prompt_tokenizer, config.prompt, num_audio, "en")
        canvas = torch.tensor(
            [canvas_ids(t, bucket, config.prompt.end_text_ids[0], config.prompt.pad_id) for t in texts]
        )
        batch = Batch(torch.empty(0), canvas, torch.tensor([len(t) for t in texts]), torch.empty(0))
        return backbone_losses(
            model, audio, batch, torch.tensor(prompt.ids), LossWeights(ctc=0.0, pad=0.2),
            CanvasNoiseConfig(full_noise=0.3, self_conditioning=0.5), generator,
        )  # fmt: skip

    log, warmup, means, began = (options.out / "text.jsonl").open("a"), 300, {}, time.time()
    model.train()
    for step in range(first, options.steps):
        share = (
            (step + 1) / warmup
            if step < warmup
            else 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, options.steps - warmup)))
        )
        for group in optimizer.param_groups:
            group["lr"] = options.rate * max(share, 0.02)
        found = losses(train, step)
        sum(found.values()).backward()
        norm = masters.take_gradients(1.0)
        optimizer.step()
        masters.publish()
        for name, loss in found.items():
            means[name] = 0.97 * means.get(name, loss.item()) + 0.03 * loss.item()
        if (step + 1) % 20 == 0:
            row = {"step": step + 1, **{n: round(v, 3) for n, v in means.items()}, "norm": round(norm, 2),
                   "s_per_step": round((time.time() - began) / (step + 1 - first), 2)}  # fmt: skip
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)
        if (step + 1) % options.save_steps == 0 or step + 1 == options.steps:
            model.eval()
            with torch.no_grad():
                held_out = [losses(validation, 10_000_000 + index) for index in range(6)]
            model.train()
            row = {"step": step + 1, **{f"validation_{n}": round(float(np.mean([h[n].item() for h in held_out])), 3)
                                        for n in held_out[0]}}  # fmt: skip
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)
            torch.save(
                {"step": step + 1, "weights": dict(zip(learning, masters.masters, strict=True)),
                 "optimizer": optimizer.state_dict()},
                state_path.with_suffix(".partial"),
            )  # fmt: skip
            os.replace(state_path.with_suffix(".partial"), state_path)


if __name__ == "__main__":
    main()
