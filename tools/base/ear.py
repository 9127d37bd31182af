"""Train the ear: Whisper base's upper encoder layers and the projector, by CTC through Gemma's frozen language head.

In: Whisper base, Gemma's embedding rows, speech with text. Out: `ear.pt` with the trained tensors, resumable after a
kill at any step. Knows nothing of the backbone's layers.

Beside the pieces that the projector says, the encoder's own output has to spell (a second CTC, on letters, whose head
is not kept): in 11 h of speech a piece of the vocabulary's middle occurs some thirty times, a letter thousands.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rapidfuzz.distance import Levenshtein
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from dgasr.features import FeatureConfig, log_mel
from dgasr.model.projector import Projector
from tools.base.fast import COMPUTE_DTYPE, MULTIPLIES_BFLOAT16
from tools.base.optimizer import PartsOptimizer, rate_share
from tools.base.sizes import BLANK_ID, WINDOW_S, WINDOW_SAMPLES, num_frozen, projector_config
from tools.base.speech import AUGMENTATION, IGNORED, PackedWindows, Speech

LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
"""What the encoder has to spell; class 0 of its head is CTC's blank."""


def spelled(text: str) -> list[int]:
    """Return the classes of a text's letters; what is not in LETTERS is left out."""
    return [LETTERS.index(letter) + 1 for letter in text if letter in LETTERS]


class Ear(nn.Module):
    """Whisper's encoder and the projector, with the rows of Gemma's head that are kept."""

    def __init__(self, whisper: Path, gemma: Path, rows: list[int]) -> None:
        super().__init__()
        # Plain attention: on a CPU the backward pass of the fused one takes twice as long as the rest of the layer.
        config = WhisperConfig.from_pretrained(whisper, attn_implementation="eager")
        self.encoder = WhisperEncoder(config)
        with safe_open(whisper / "model.safetensors", framework="pt") as file:
            prefix = "model.encoder."
            self.encoder.load_state_dict(
                {key.removeprefix(prefix): file.get_tensor(key) for key in file.offset_keys() if key.startswith(prefix)}
            )
        with safe_open(gemma / "model.safetensors", framework="pt") as file:
            embeddings = file.get_tensor("model.embed_tokens.weight")[rows].float()
        self.register_buffer("head", embeddings, persistent=False)
        self.projector = Projector(projector_config(config, embeddings.shape[1]), config.d_model, embeddings.shape[1])
        self.letters = nn.Linear(config.d_model, len(LETTERS) + 1)
        self.num_frozen = num_frozen(config)

    def lower(self, log_mel: Tensor) -> Tensor:
        """Run what stays frozen; [batch, mels, frames] → [batch, frames / 2, width]"""
        encoder = self.encoder
        states = F.gelu(encoder.conv2(F.gelu(encoder.conv1(log_mel)))).transpose(1, 2)
        states = states + encoder.embed_positions.weight[: states.shape[1]].to(states.dtype)
        for layer in encoder.layers[: self.num_frozen]:
            states = layer(states, None)
            states = states[0] if isinstance(states, tuple) else states
        return states

    def upper(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Run what learns.

        Returns:
            Audio embeddings [batch, frames / 8, hidden] and logits of letters [batch, frames / 2, letters].
        """
        for layer in self.encoder.layers[self.num_frozen :]:
            states = layer(states, None)
            states = states[0] if isinstance(states, tuple) else states
        heard = self.encoder.layer_norm(states)
        return self.projector(heard), self.letters(heard)

    def log_probs(self, audio: Tensor) -> Tensor:
        """Read the vocabulary; → [batch, frames, vocabulary] float32"""
        logits = audio.float() @ self.head.T
        return logits.log_softmax(-1)


def trained(ear: Ear) -> dict[str, Tensor]:
    """Name what learns."""
    layers = range(ear.num_frozen, len(ear.encoder.layers))
    names = [f"encoder.layers.{n}." for n in layers] + ["encoder.layer_norm.", "projector.", "letters."]
    return {name: p for name, p in ear.named_parameters() if any(name.startswith(prefix) for prefix in names)}


def greedy(log_probs: Tensor, blank: int) -> list[int]:
    """Collapse the likeliest path of one window."""
    path = log_probs.argmax(-1).tolist()
    return [b for a, b in zip([blank, *path], path, strict=False) if b not in (a, blank)]


@torch.no_grad()
def evaluate(ear: Ear, tokenizer: Tokenizer, speech: Speech, limit: int) -> dict[str, dict[str, float]]:
    """Return greedy WER and CER by set, of pieces and of letters, of clips that fit the window."""
    ear.eval()
    edits: dict[str, list[int]] = {}
    seen: dict[str, int] = {}
    clips = []
    for clip in speech.clips:
        seen[clip.set_name] = seen.get(clip.set_name, 0) + 1
        if seen[clip.set_name] <= limit:
            clips.append(clip)
    config = FeatureConfig(window_samples=WINDOW_SAMPLES)
    own = [clip for clip in clips if clip.num_samples <= WINDOW_SAMPLES]
    for start in range(0, len(own), 8):
        part = own[start : start + 8]
        windows = np.empty((len(part), 80, config.window_frames), np.float32)
        for row, clip in enumerate(part):
            audio, pad = log_mel(speech.waveform(clip), config)
            windows[row] = pad
            windows[row, :, : audio.shape[1]] = audio
        with torch.autocast("cpu", torch.bfloat16, enabled=MULTIPLIES_BFLOAT16):
            audio, spelling = ear.upper(ear.lower(torch.from_numpy(windows)))
        for clip, pieces, letters in zip(part, ear.log_probs(audio), spelling, strict=True):
            spelled_out = "".join(LETTERS[index - 1] for index in greedy(letters, 0))
            counts = edits.setdefault(clip.set_name, [0] * 6)
            for place, text in enumerate((tokenizer.decode(greedy(pieces, BLANK_ID)), spelled_out)):
                counts[2 * place] += Levenshtein.distance(clip.text.split(), text.split())
                counts[2 * place + 1] += Levenshtein.distance(clip.text, text)
            counts[4] += len(clip.text.split())
            counts[5] += len(clip.text)
    ear.train()
    names = ("wer", "cer", "letters_wer", "letters_cer")
    return {
        name: {
            key: round(100 * count / counts[4 + index % 2], 1)
            for index, (key, count) in enumerate(zip(names, counts[:4], strict=True))
        }
        for name, counts in sorted(edits.items())
    }


class Loader(torch.utils.data.Dataset):
    """Batch after batch, with the letters of its texts."""

    def __init__(self, windows: PackedWindows, tokenizer: Tokenizer, steps: int) -> None:
        self._windows, self._tokenizer, self._steps = windows, tokenizer, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[Tensor, list[list[int]], list[list[int]], Tensor]:
        features, ids, labels = self._windows.batch(step)
        letters = [spelled(self._tokenizer.decode(own)) for own in ids]
        return torch.from_numpy(features).to(COMPUTE_DTYPE), ids, letters, torch.from_numpy(labels)


def ctc_sum(log_probs: Tensor, ids: list[list[int]], blank: int) -> Tensor:
    """Sum the CTC losses of rows, nats; log_probs [batch, frames, classes]"""
    lengths = torch.tensor([len(own) for own in ids])
    return F.ctc_loss(
        log_probs.transpose(0, 1), torch.tensor([i for own in ids for i in own]),
        torch.full_like(lengths, log_probs.shape[1]), lengths, blank=blank, reduction="none", zero_infinity=True,
    ).sum()  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--gemma", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="manifests")
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-windows", type=int, default=8)
    parser.add_argument("--encoder-rate", type=float, default=2e-4)
    parser.add_argument("--projector-rate", type=float, default=1.2e-3)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--start", type=Path, help="trained tensors to begin from")
    parser.add_argument("--save-steps", type=int, default=100)
    parser.add_argument("--validation-steps", type=int, default=400)
    parser.add_argument("--validation-clips", type=int, default=40, help="of each set")
    parser.add_argument("--frame-weight", type=float, default=2.0)
    parser.add_argument("--letter-weight", type=float, default=0.7)
    parser.add_argument("--frame-steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    tokenizer = Tokenizer.from_file(str(options.vocabulary / "tokenizer.json"))
    ear = Ear(options.whisper, options.gemma, json.loads((options.vocabulary / "gemma_rows.json").read_text()))
    ear.requires_grad_(False)
    learning = trained(ear)
    for parameter in learning.values():
        parameter.requires_grad_(True)
    if options.start:
        missing = torch.load(options.start, weights_only=True)["weights"]
        with torch.no_grad():
            for name, parameter in learning.items():
                parameter.copy_(missing[name])
    else:
        with torch.no_grad():
            ear.projector.norms["output"].weight.fill_(0.5)
    peaks = {"encoder.": options.encoder_rate, "projector.": options.projector_rate, "letters.": options.projector_rate}
    optimizer = PartsOptimizer(learning, peaks, is_muons=lambda name: True)
    state_path = options.out / "ear.pt"
    first = optimizer.resume(state_path)
    speech = Speech(options.train, options.cache, ("en",))
    validation = Speech(options.validation, options.cache, ("en",))
    windows = PackedWindows(speech, WINDOW_S, options.batch_windows, AUGMENTATION, options.seed, 600, tokenizer)
    loader = iter(
        torch.utils.data.DataLoader(
            Loader(windows, tokenizer, options.steps), batch_size=None, sampler=range(first, options.steps),
            num_workers=1, prefetch_factor=4, worker_init_fn=lambda _: torch.set_num_threads(1),
        )
    )  # fmt: skip
    # Frozen layers need no autocast: they run in COMPUTE_DTYPE altogether.
    frozen = copy.deepcopy(ear).to(COMPUTE_DTYPE).requires_grad_(False).eval()
    for module in ear.encoder.layers:
        module.dropout = options.dropout
        module.activation_dropout = options.dropout
    log = (options.out / "ear.jsonl").open("a")
    ear.train()
    warmup, means, began = 200, np.zeros(3), time.time()
    for step in range(first, options.steps):
        optimizer.set_share(rate_share(step, warmup, options.steps))
        torch.manual_seed(options.seed * 1_000_003 + step)
        features, ids, letters, labels = next(loader)
        with torch.no_grad():
            states = frozen.lower(features)
        with torch.autocast("cpu", torch.bfloat16, enabled=MULTIPLIES_BFLOAT16):
            audio, spelling = ear.upper(states)
        log_probs, num_pieces = ear.log_probs(audio), max(1, sum(map(len, ids)))
        loss = ctc_sum(log_probs, ids, BLANK_ID) / num_pieces
        spelling_loss = ctc_sum(spelling.float().log_softmax(-1), letters, 0) / num_pieces
        frame = F.nll_loss(log_probs.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        # Word times break CTC's first plateau; later CTC knows better where a piece is heard.
        frame_weight = max(0.1, options.frame_weight * (1 - step / options.frame_steps))
        (loss + options.letter_weight * spelling_loss + frame_weight * frame).backward()
        norm = nn.utils.clip_grad_norm_(list(learning.values()), 1.0)
        optimizer.step()
        losses = np.array([loss.item(), spelling_loss.item(), frame.item()])
        means = losses if step == first else 0.98 * means + 0.02 * losses
        if (step + 1) % 20 == 0:
            named = dict(zip(("loss", "letters", "frame"), means.round(4).tolist(), strict=True))
            row = {"step": step + 1, **named,
                   "norm": round(float(norm), 2),
                   "s_per_step": round((time.time() - began) / (step + 1 - first), 3)}  # fmt: skip
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)
        if (step + 1) % options.save_steps == 0 or step + 1 == options.steps:
            optimizer.save(state_path, step + 1)
        if (step + 1) % options.validation_steps == 0 or step + 1 == options.steps:
            row = {"step": step + 1, "wer": evaluate(ear, tokenizer, validation, options.validation_clips)}
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)


if __name__ == "__main__":
    main()
