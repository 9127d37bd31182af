"""Train ear and backbone together on speech: diffusion, next-token and CTC losses, with text mixed in.

In: `ear.pt`, `text.pt`, speech with text, sentences. Out: `together.pt`, resumable after a kill at any step, and with
`--bundle` a model folder that `dgasr evaluate --model` takes. This is the reference's own recipe; what departs from it
is that the encoder's upper layers and all of the small backbone learn.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import WhisperConfig

from dgasr.model.asr import AsrModel
from dgasr.prompt import WORD_LIST_FILE, build_prompt, canvas_ids
from dgasr.prompt import Tokenizer as PromptTokenizer
from dgasr.training.batches import Batch
from dgasr.training.objective import CanvasNoiseConfig, LossWeights, batch_losses
from tools.base.bundle import save_bundle
from tools.base.ear import Ear, trained
from tools.base.fast import COMPUTE_DTYPE, Masters, cast_parameters, compile_elementwise
from tools.base.optimizer import PartsOptimizer, rate_share
from tools.base.sizes import WINDOW_FRAMES, WINDOW_S, base_config, load_gemma, num_frozen
from tools.base.speech import AUGMENTATION, PackedWindows, Speech
from tools.base.text import SimulatedEar, backbone_weights, load_backbone, read_sentences
from tools.gemma import load_gemma3


def compose(
    gemma_folder: Path, layers: Sequence[int] | None, whisper: Path, vocabulary: Path, ear_state: Path | None
) -> AsrModel:
    """Put `base` together from its pretrained parts and the ear's state, in float32."""
    rows = json.loads((vocabulary / "gemma_rows.json").read_text())
    gemma = load_gemma(gemma_folder, layers)
    config = base_config(WhisperConfig.from_pretrained(whisper), gemma.config, len(rows))
    model = AsrModel(config, PromptTokenizer.load(vocabulary))
    load_gemma3(model.backbone, gemma, rows)
    ear = Ear(whisper, gemma_folder, rows)
    if ear_state is not None:
        stored = torch.load(ear_state, weights_only=True)["weights"]
        with torch.no_grad():
            for name, parameter in trained(ear).items():
                parameter.copy_(stored[name])
    encoder = ear.encoder.state_dict()
    encoder["embed_positions.weight"] = encoder["embed_positions.weight"][:WINDOW_FRAMES]
    model.encoder.load_state_dict(encoder)
    model.projector.load_state_dict(ear.projector.state_dict())
    return model


class SpeechBatches(torch.utils.data.Dataset[Batch]):
    """Windows of speech as training batches; batch `step` is a pure function of the seed and the step."""

    def __init__(self, windows: PackedWindows, model: AsrModel, steps: int) -> None:
        self._windows, self._config, self._steps = windows, model.config, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        features, ids, labels = self._windows.batch(step)
        canvas, prompt = self._config.canvas, self._config.prompt
        ids = [own[: canvas.buckets[-1] - 1] for own in ids]
        bucket = canvas.bucket_holding(max(map(len, ids)) + 1) or canvas.buckets[-1]
        return Batch(
            log_mel=torch.from_numpy(features).to(COMPUTE_DTYPE),
            canvas=torch.tensor([canvas_ids(own, bucket, prompt.end_text_ids[0], prompt.pad_id) for own in ids]),
            text_lengths=torch.tensor([len(own) for own in ids]),
            frame_labels=torch.from_numpy(labels),
        )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--gemma", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--ear", type=Path, required=True, help="ear.pt")
    parser.add_argument(
        "--backbone", type=Path, required=True, help="text.pt, or the state of an earlier such training"
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="manifests")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs="+", help="which of Gemma's layers are kept (default: all)")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch-windows", type=int, default=4)
    parser.add_argument("--encoder-rate", type=float, default=8e-5)
    parser.add_argument("--projector-rate", type=float, default=3e-4)
    parser.add_argument("--backbone-rate", type=float, default=2e-4)
    parser.add_argument("--held-out", type=int, default=400, help="sentences that no training reads, the first ones")
    parser.add_argument("--save-steps", type=int, default=100)
    parser.add_argument("--draws", type=int, default=2, help="differently noised canvases of each row")
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--text-every", type=int, default=6, help="one step in so many is on text alone")
    parser.add_argument("--frozen-ear", action="store_true", help="only the backbone learns")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", type=Path, help="also write a model folder, after the last step")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    # By torchrun each core has a process of its own, which is quicker than one process of several threads.
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        torch.distributed.init_process_group("gloo")
    torch.manual_seed(options.seed)
    if options.compile:
        compile_elementwise()
    model = compose(options.gemma, options.layers, options.whisper, options.vocabulary, options.ear)
    load_backbone(model, options.backbone)
    model.requires_grad_(False)
    model.encoder.config._attn_implementation = "eager"  # as the ear: a CPU's fused attention is slow backwards
    layers = range(num_frozen(WhisperConfig.from_pretrained(options.whisper)), len(model.encoder.layers))
    upper = tuple(f"encoder.layers.{index}." for index in layers)
    groups: dict[str, dict[str, torch.nn.Parameter]] = {
        "encoder": {n: p for n, p in model.named_parameters() if n.startswith((*upper, "encoder.layer_norm"))},
        "projector": {f"projector.{n}": p for n, p in model.projector.named_parameters()},
        "backbone": {f"backbone.{n}": p for n, p in backbone_weights(model).items()},
    }
    if options.frozen_ear:
        groups = {"backbone": groups["backbone"]}
    for group in groups.values():
        for parameter in group.values():
            parameter.requires_grad_(True)
    cast_parameters(model)
    learning = {name: parameter for group in groups.values() for name, parameter in group.items()}
    masters = Masters(list(learning.values()))
    by_name = dict(zip(learning, masters.masters, strict=True))
    peaks = {"encoder.": options.encoder_rate, "projector.": options.projector_rate, "backbone.": options.backbone_rate}
    # Muon would take a second a step for the backbone's matrices, and they are trained already.
    optimizer = PartsOptimizer(by_name, peaks, is_muons=lambda name: not name.startswith("backbone."))
    state_path = options.out / "together.pt"
    first = optimizer.resume(state_path)
    masters.publish()
    tokenizer = Tokenizer.from_file(str(options.vocabulary / "tokenizer.json"))
    speech = Speech(options.train, options.cache, ("en",))
    # Another seed than the ear's, so that it meets other mixtures of the same clips.
    windows = PackedWindows(
        speech, WINDOW_S, options.batch_windows, AUGMENTATION, options.seed + 100, options.steps, tokenizer
    )
    loader = iter(
        torch.utils.data.DataLoader(
            SpeechBatches(windows, model, world * options.steps), batch_size=None, num_workers=1, prefetch_factor=4,
            sampler=range(world * first + rank, world * options.steps, world),
            worker_init_fn=lambda _: torch.set_num_threads(1),
        )
    )  # fmt: skip
    sentences = SimulatedEar(model, tokenizer, read_sentences(options.text)[options.held_out :], 1200, options.seed + 7)
    prompt = build_prompt(model.tokenizer, model.config.prompt, model.config.num_audio_tokens, "en")
    prompt_ids = torch.tensor(prompt)
    weights = LossWeights(diffusion=1.0, autoregressive=1.0, ctc=0.5, frame=0.05, pad=0.2)
    if options.frozen_ear:
        weights = replace(weights, ctc=0.0, frame=0.0)
    noise = CanvasNoiseConfig(full_noise=0.35, self_conditioning=0.5, draws=options.draws)

    def losses(step: int) -> dict[str, Tensor]:
        batch, number = next(loader), world * step + rank  # drawn at each step, so that batches keep their numbers
        if step % options.text_every == options.text_every - 1:
            return {f"text_{name}": loss for name, loss in sentences.losses(number, noise).items()}
        generator = torch.Generator().manual_seed(options.seed * 7919 + number)
        return batch_losses(model, batch, prompt_ids, weights, noise, generator)

    log, means, began = (options.out / "together.jsonl").open("a"), dict[str, float](), time.time()
    model.train()
    for step in range(first, options.steps):
        optimizer.set_share(rate_share(step, options.warmup, options.steps))
        torch.manual_seed(options.seed * 1_000_003 + world * step + rank)
        found = losses(step)
        total = found.pop("total", None)
        (sum(found.values()) if total is None else total).backward()
        norm = masters.take_gradients(1.0)
        optimizer.step()
        masters.publish()
        for name, loss in found.items():
            means[name] = 0.97 * means.get(name, loss.item()) + 0.03 * loss.item()
        if (step + 1) % 20 == 0 and rank == 0:
            row = {"step": step + 1, **{n: round(v, 3) for n, v in means.items()}, "norm": round(norm, 2),
                   "s_per_step": round((time.time() - began) / (step + 1 - first), 2)}  # fmt: skip
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)
        if rank == 0 and ((step + 1) % options.save_steps == 0 or step + 1 == options.steps):
            optimizer.save(state_path, step + 1)
    if options.bundle and rank == 0:
        model.float()
        with torch.no_grad():
            for name, parameter in learning.items():
                parameter.copy_(by_name[name])
        # The encoder keeps its bits: its frozen half is then in the history already.
        save_bundle(model, options.bundle, coarse=("backbone.", "projector."))
        for name in ("tokenizer.json", WORD_LIST_FILE):
            shutil.copy(options.vocabulary / name, options.bundle / name)


if __name__ == "__main__":
    main()
