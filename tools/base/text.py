"""Turn Gemma into a denoiser on text alone: diffusion and next-token losses on sentences, read from a simulated ear.

In: sentences. Out: `text.pt` with the backbone's weights, resumable after a kill at any step. The prompt is what CTC
leaves of a sentence: through the tied language head an audio embedding lies near the embedding of the piece it says, so
a row's pieces, with blanks between and the mistakes a recogniser makes, stand in for audio and cost no encoder.
"""

import argparse
import json
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rapidfuzz.distance import Levenshtein
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import WhisperConfig

from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import replacing
from dgasr.prompt import Tokenizer as PromptTokenizer
from dgasr.prompt import build_prompt, canvas_ids
from dgasr.training.batches import Batch
from dgasr.training.objective import CanvasNoiseConfig, LossWeights, backbone_losses
from tools.base.fast import Masters, cast_parameters, compile_elementwise
from tools.base.optimizer import rate_share
from tools.base.sizes import BLANK_ID, base_config, load_gemma
from tools.base.vocabulary import SPECIAL_TOKENS, is_spoken_form, plain, read_lines
from tools.gemma import load_gemma3

AUDIO_RMS = 1.2
"""Size of the audio embeddings' values at the end of the ear's training; the simulated ones have it too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptionConfig:
    """How wrong a simulated hypothesis is.

    highest_rate: largest share of pieces that a row gets wrong; each row draws its own, from 0.
    substitute, drop, double: what happens to a wrong piece, as shares; the rest gets a piece put behind it.
    misspelt: share of rows whose text is misspelt letter by letter, and then cut into pieces, in place of the above.
    unheard: share of rows with an empty prompt: the language alone.
    """

    highest_rate: float = 0.5
    substitute: float = 0.6
    drop: float = 0.2
    double: float = 0.1
    misspelt: float = 0.5
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


SOUND_ALIKE = ("aeiouy", "ae", "iey", "ou", "aw", "pb", "td", "kgcq", "fvp", "szcx", "mn", "lrw", "jgh", "th")
"""Letters that are heard for each other."""

LETTERS_A_PIECE = 4
"""A row with a given share of wrong pieces has a quarter of that share of wrong letters."""


def misspell(text: str, rate: float, rng: random.Random) -> str:
    """Spell a text as a recogniser does that heard it well and knows no words.

    Args:
        text: plain text.
        rate: share of letters that go wrong.
        rng: of all choices.
    """
    out = []
    for letter in text:
        if rng.random() >= rate:
            out.append(letter)
            continue
        groups = [group for group in SOUND_ALIKE if letter in group]
        kind = rng.random()
        if kind < 0.55 and groups:
            out.append(rng.choice(rng.choice(groups)))
        elif kind < 0.75:
            continue
        elif kind < 0.85:
            out += [letter, " "]
        else:
            out += [letter, letter]
    return " ".join("".join(out).split())


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


def read_sentences(paths: list[Path]) -> list[str]:
    """Read plain sentences that can be read aloud in one way only, from `.xz` files with one a line."""
    return [text for text in map(plain, read_lines(paths)) if text and is_spoken_form(text)]


def backbone_weights(model: AsrModel) -> dict[str, nn.Parameter]:
    """Name what learns of the backbone: all but the embeddings, through which the ear was trained."""
    return {n: p for n, p in model.backbone.named_parameters() if "embed" not in n and "lm_head" not in n}


def load_backbone(model: AsrModel, state: Path) -> None:
    """Put the backbone of a training of this stage or of `together` into a model, in place."""
    stored = torch.load(state, weights_only=True, mmap=True)["weights"]
    with torch.no_grad():
        for name, parameter in backbone_weights(model).items():
            parameter.copy_(stored[name] if name in stored else stored[f"backbone.{name}"])


class SimulatedEar:
    """Losses of the backbone on sentences behind simulated audio embeddings.

    Args:
        model: gives the backbone and its embeddings.
        tokenizer: of the small vocabulary.
        lines: plain sentences.
        batch_tokens: prompt and canvas tokens of a batch, about.
        seed: of all choices; the losses of a step are a pure function of seed, step and weights.
    """

    def __init__(self, model: AsrModel, tokenizer: Tokenizer, lines: list[str], batch_tokens: int, seed: int) -> None:
        self._model, self._batch_tokens, self._seed = model, batch_tokens, seed
        self._tokenizer = tokenizer
        self._ids = [encoded.ids for encoded in tokenizer.encode_batch(lines)]
        self._near = LookAlikes(tokenizer, first_piece=len(SPECIAL_TOKENS))
        self._corruption = CorruptionConfig()

    def losses(self, step: int, noise: CanvasNoiseConfig) -> dict[str, Tensor]:
        """Compute the diffusion and the next-token loss of a step."""
        model, config = self._model, self._model.config
        generator = torch.Generator().manual_seed(self._seed * 7919 + step)
        rng = random.Random(self._seed * 1_000_003 + step)
        bucket, texts = self._texts(rng)
        # Few lengths: every shape leaves blocks of its own size behind, and memory grows until it has met them all.
        num_audio = min(config.num_audio_tokens, round(bucket * rng.uniform(1.5, 2.5) / 16) * 16)
        audio = self._audio(texts, num_audio, rng, generator)
        prompt = build_prompt(model.tokenizer, config.prompt, num_audio, "en")
        end, pad = config.prompt.end_text_ids[0], config.prompt.pad_id
        canvas = torch.tensor([canvas_ids(text, bucket, end, pad) for text in texts])
        batch = Batch(torch.empty(0), canvas, torch.tensor([len(text) for text in texts]), torch.empty(0))
        weights = LossWeights(ctc=0.0, pad=0.2)
        return backbone_losses(model, audio, batch, torch.tensor(prompt), weights, noise, generator)

    def _texts(self, rng: random.Random) -> tuple[int, list[list[int]]]:
        """Draw a canvas length, and sentences joined until they fill a good part of it."""
        buckets = self._model.config.canvas.buckets
        bucket = rng.choices(buckets, weights=buckets)[0]
        texts = []
        for _ in range(max(2, self._batch_tokens // (bucket * 3))):
            wanted, own = rng.uniform(0.3, 1.0) * (bucket - 2), list[int]()
            while len(own) < wanted:
                own += rng.choice(self._ids)
            start = rng.randrange(max(1, len(own) - bucket + 2)) if rng.random() < 0.3 else 0
            texts.append(own[start : start + bucket - 1])
        return bucket, texts

    def _audio(self, texts: list[list[int]], num_audio: int, rng: random.Random, generator: torch.Generator) -> Tensor:
        """Make embeddings that say a corrupted text each, with noise on them.  [rows, audio tokens, hidden]"""
        paths = []
        for text in texts:
            rate = rng.random() * self._corruption.highest_rate
            kind = rng.random()
            if kind < self._corruption.unheard:
                heard = []
            elif kind < self._corruption.unheard + self._corruption.misspelt:
                spelled = misspell(self._tokenizer.decode(text), rate / LETTERS_A_PIECE, rng)
                heard = self._tokenizer.encode(spelled).ids
            else:
                heard = corrupt(text, rate, self._corruption, self._near, rng)
            paths.append(simulated_path(heard, num_audio, rng))
        said = self._model.head_weight[torch.tensor(paths)].float()
        said = F.rms_norm(said, said.shape[-1:])
        noise = torch.randn(said.shape, generator=generator) * rng.uniform(0.1, 1.2)
        return (AUDIO_RMS * F.rms_norm(said + noise, said.shape[-1:])).to(self._model.head_weight.dtype)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--gemma", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="sentences, one a line, .xz")
    parser.add_argument("--layers", type=int, nargs="+", help="which of Gemma's layers are kept (default: all)")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch-tokens", type=int, default=2400)
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--start", type=Path, help="state of a training whose backbone this one begins with")
    parser.add_argument("--draws", type=int, default=1, help="differently noised canvases of each row")
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--held-out", type=int, default=400, help="sentences to validate on, the first ones")
    parser.add_argument("--save-steps", type=int, default=100)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    if options.compile:
        compile_elementwise()
    rows = json.loads((options.vocabulary / "gemma_rows.json").read_text())
    gemma = load_gemma(options.gemma, options.layers)
    prompt_tokenizer = PromptTokenizer.load(options.vocabulary)
    # Any small encoder will do: no audio is read here.
    whisper = WhisperConfig(d_model=8, encoder_layers=1, encoder_attention_heads=1, encoder_ffn_dim=8)
    model = AsrModel(base_config(whisper, gemma.config, len(rows)), prompt_tokenizer)
    load_gemma3(model.backbone, gemma, rows)
    del gemma
    if options.start:
        load_backbone(model, options.start)
    tokenizer = Tokenizer.from_file(str(options.vocabulary / "tokenizer.json"))
    lines = read_sentences(options.text)
    train, validation = (
        SimulatedEar(model, tokenizer, own, options.batch_tokens, options.seed)
        for own in (lines[options.held_out :], lines[: options.held_out])
    )
    model.requires_grad_(False)
    learning = backbone_weights(model)
    for parameter in learning.values():
        parameter.requires_grad_(True)
    cast_parameters(model)
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
    noise = CanvasNoiseConfig(full_noise=0.3, self_conditioning=0.5, draws=options.draws)
    log, means, began = (options.out / "text.jsonl").open("a"), dict[str, float](), time.time()
    model.train()
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * rate_share(step, options.warmup, options.steps)
        found = train.losses(step, noise)
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
                once = replace(noise, draws=1)
                held_out = [validation.losses(10_000_000 + index, once) for index in range(6)]
            model.train()
            row = {"step": step + 1, **{f"validation_{n}": round(float(np.mean([h[n].item() for h in held_out])), 3)
                                        for n in held_out[0]}}  # fmt: skip
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)
            weights = dict(zip(learning, masters.masters, strict=True))
            with replacing(state_path) as partial:
                torch.save({"step": step + 1, "weights": weights, "optimizer": optimizer.state_dict()}, partial)


if __name__ == "__main__":
    main()
