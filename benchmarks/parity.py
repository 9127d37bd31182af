"""Decoding beside transformers' own `generate`, with the same noise: the largest difference of logits, step by step.

Both see the same prompts: in `generate`, which takes ids alone, the audio embeddings are scattered over the ids of
their slots. Its random numbers are replaced by the segments' own. Steps are compared up to the first one at which the
two canvases differ, and then which canvases came out, and where their texts end. The model has the published structure
in small; `--device cuda` compares what runs on a GPU.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks import print_table
from benchmarks.decode_model import noise_segments
from benchmarks.published import reduced, write_checkpoints
from dgasr.diffusion import Canvas, CanvasJob, DecodeConfig
from dgasr.diffusion.denoise import denoise
from dgasr.diffusion.noise import SegmentNoise, key_words, segment_key
from dgasr.diffusion.vocabulary import BLOCK, VocabularyHead, num_chunks
from dgasr.features import segment_features
from dgasr.model.adapter import add_lora, merge_lora
from dgasr.model.asr import AsrModel
from dgasr.model.identity import read_config
from dgasr.model.presets import LoraSize
from dgasr.model.pretrained import load_pretrained
from dgasr.recipe import Recipe, build_recipe
from dgasr.records import SegmentFeatures
from dgasr.transcriber.encoding import EncodedSegment, SegmentEncoder
from dgasr.transcriber.loading import choose_device
from dgasr.transcriber.segments import CachedDecoder

CANVAS, NUM_SEGMENTS = 16, 7

SPREAD = 4.0
"""With weights this large, some positions are sure, and canvases end at different steps."""

DECODE = DecodeConfig(max_steps=8, confidence_threshold=0.35, entropy_bound=4.0)

FLOAT32_TOLERANCE = 1e-3
"""In logits, whose bound is 30: sums in another order, over six layers and eight steps."""

BFLOAT16_TOLERANCE = 6.0
"""From the second step on, where transformers rounds the logits that it makes soft embeddings of to bfloat16 and we do
not; random weights then swap experts. The first step has no such embeddings, and has the tolerance of float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is compared: how many rows, weights of which type, what is done with an adapter, the schedule."""

    name: str
    num_rows: int = NUM_SEGMENTS
    dtype: str = "float32"
    lora: str = "none"
    """`none`, `unmerged`, or `merged`: ours merged beside theirs unmerged."""
    decode: DecodeConfig = DECODE

    @property
    def tolerance(self) -> float:
        """Of the largest difference of logits."""
        return FLOAT32_TOLERANCE if self.dtype == "float32" else BFLOAT16_TOLERANCE


CASES = (
    Case(name="audio embeddings scattered in"),
    Case(name="rows refilled from 7 segments", num_rows=2),
    Case(name="LoRA unmerged", lora="unmerged"),
    Case(name="LoRA merged", lora="merged"),
    Case(name="bfloat16", dtype="bfloat16", num_rows=1),
)
"""In bfloat16 one row at a time, as `generate` has it: a GPU's products of another number of rows round otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far the two were apart."""

    case: str
    first_logits: float
    """Largest difference in a canvas's first step, of logits bounded by 30."""
    logits: float
    """Largest difference in any step."""
    tolerance: float
    num_steps: int
    """Steps of canvases that were compared."""
    other_canvases: int
    """Canvases of which some token differs in the end."""
    other_ends: int
    """Canvases with the same tokens and another end of text."""
    num_canvases: int

    @property
    def holds(self) -> bool:
        """Whether they agree: in float32 to the token, in bfloat16 as far as logits go."""
        agrees = self.other_canvases == 0 or self.tolerance == BFLOAT16_TOLERANCE
        is_near = self.first_logits <= FLOAT32_TOLERANCE and self.logits <= self.tolerance
        return is_near and agrees and self.other_ends == 0


class TheirDraws:
    """Stands in for torch's generator inside `generate`: the noise of one segment, one step after the other."""

    def __init__(self, key: int, vocab_size: int, chunk: int) -> None:
        self._keys, self._vocab_size, self._chunk = key_words([key], torch.device("cpu")), vocab_size, chunk
        self._num_canvases = self._num_samples = 0

    def noise(self, step: int) -> SegmentNoise:
        """Give the noise of one step."""
        return SegmentNoise(self._keys, torch.tensor([step]))

    def randint(self, *_: Any, device: Any = None, **named: Any) -> Tensor:
        """Draw the canvas that begins, and then what every step renoises."""
        assert named.get("size", _[-1] if _ else None) == (1, CANVAS)
        step, self._num_canvases = self._num_canvases - 1, self._num_canvases + 1
        size = CANVAS, self._vocab_size
        drawn = self.noise(0).initial_ids(*size) if step < 0 else self.noise(step).renoise_ids(*size)
        return drawn.to(device)

    def multinomial(self, probabilities: Tensor, num_samples: int) -> Tensor:
        """Draw a token for every position."""
        chunks = num_chunks(self._vocab_size, self._chunk)
        uniforms = self.noise(self._num_samples).sample_uniforms(CANVAS, chunks)[0]
        self._num_samples += 1
        pairs = zip(probabilities.cpu(), uniforms, strict=True)
        return torch.tensor([sample(*pair, self._chunk) for pair in pairs], device=probabilities.device)[:, None]


def sample(probabilities: Tensor, uniforms: Tensor, chunk: int) -> int:
    """Draw as `read_vocabulary` documents it, on one position's whole distribution, in float64, without streaming."""

    def draw(weights: Tensor, uniform: float) -> int:
        cumulated = weights.cumsum(-1)
        return int((cumulated <= uniform * cumulated[-1]).sum())

    seen, kept = 0.0, -1
    for index, start in enumerate(range(0, len(probabilities), chunk)):
        part = probabilities[start : start + chunk].double()
        accept, choose_block, choose_token = uniforms[index, :3].tolist()
        blocks = part.split(BLOCK)
        chosen = draw(torch.stack([piece.sum() for piece in blocks]), choose_block)
        candidate = start + chosen * BLOCK + draw(blocks[chosen], choose_token)
        seen += float(part.sum())
        if accept * seen < float(part.sum()):
            kept = candidate
    return kept


Steps = list[tuple[Tensor, Tensor]]
"""Canvas [canvas] and logits [canvas, vocab] of every step of one segment."""


class NotingDecoder(CachedDecoder):
    """Keeps canvases and logits of every step, by segment."""

    def __init__(self, model: AsrModel, recipe: Recipe, num_rows: int) -> None:
        super().__init__(model, recipe, num_rows)
        self._in_row: dict[int, str] = {}
        self.steps: dict[str, Steps] = {}

    def admit(self, rows: Sequence[int], encoded: Sequence[EncodedSegment]) -> None:
        """Also take down whose rows these are; copies that fill the batch up are nobody's."""
        super().admit(rows, encoded)
        for row, own in zip(rows, encoded, strict=True):
            name = own.features.segment.recording_id
            self._in_row[row] = name if name not in self.steps else ""
            self.steps.setdefault(name, [])

    def __call__(self, ids: Tensor, soft_embeddings: Tensor) -> Tensor:
        """Also keep what is seen and said."""
        hidden = super().__call__(ids, soft_embeddings)
        softcap = self._model.config.softcap
        products = (hidden.to(self._model.head_weight.dtype) @ self._model.head_weight.T).float()
        logits = softcap * torch.tanh(products / softcap)
        for row, name in self._in_row.items():
            if name:
                self.steps[name].append((ids[row].cpu(), logits[row].cpu()))
        return hidden


def decode_ours(
    model: AsrModel, recipe: Recipe, features: Sequence[SegmentFeatures], num_rows: int
) -> tuple[dict[str, Canvas], dict[str, Steps]]:
    """Denoise as the product does; canvases and steps by segment, whose row goes on stepping after its end."""
    decoder = NotingDecoder(model, recipe, num_rows)
    head = VocabularyHead(weight=model.head_weight, softcap=model.config.softcap, embed_scale=model.embed_scale)
    jobs = [
        CanvasJob(noise_key=segment_key(own.segment.recording_id, 0), canvas_tokens=CANVAS, payload=own)
        for own in features
    ]
    found = denoise(
        decoder, head, jobs, num_rows=num_rows, buckets=(CANVAS,),
        end_token_ids=model.config.prompt.end_text_ids, config=recipe.decode,
    )  # fmt: skip
    return {canvas.job.payload.segment.recording_id: canvas for canvas in found}, decoder.steps


@torch.no_grad()
def generate(
    model: AsrModel, prompt_ids: Tensor, audio: Tensor, key: int, config: DecodeConfig
) -> tuple[Tensor, Steps]:
    """Run transformers' `generate` for one canvas of one segment.

    Args:
        model: whose backbone generates.
        prompt_ids: with the audio's id in its slots.  [prompt]
        audio: embeddings for the slots.  [audio tokens, hidden]
        key: of the segment's noise.
        config: schedule and thresholds.

    Returns:
        The final canvas [canvas], and every step.
    """
    from transformers import DiffusionGemmaGenerationConfig
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

    backbone, steps = model.backbone, Steps()
    draws = TheirDraws(key, model.head_weight.shape[0], config.vocabulary_chunk)
    forward = backbone.forward

    def noting(**named: Any) -> Any:
        output = forward(**named)
        steps.append((named["decoder_input_ids"][0].cpu(), output.logits[0].float().cpu()))
        return output

    settings = DiffusionGemmaGenerationConfig(
        max_new_tokens=CANVAS, max_denoising_steps=config.max_steps, t_min=config.t_min, t_max=config.t_max,
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=config.entropy_bound),
        stability_threshold=config.stability_threshold, confidence_threshold=config.confidence_threshold,
        pad_token_id=model.config.prompt.pad_id, eos_token_id=list(model.config.prompt.end_text_ids),
    )  # fmt: skip
    backbone.config.canvas_length = CANVAS
    with (
        _audio_in_slots(model, prompt_ids, audio),
        mock.patch.object(torch, "randint", draws.randint),
        mock.patch.object(torch, "multinomial", draws.multinomial),
        mock.patch.object(backbone, "forward", noting),
    ):
        run: Any = backbone.generate  # annotated for a LongTensor, which no tensor is
        output = run(prompt_ids[None], generation_config=settings)
    return output.sequences[0, len(prompt_ids) :].cpu(), steps


@contextmanager
def _audio_in_slots(model: AsrModel, prompt_ids: Tensor, audio: Tensor) -> Iterator[None]:
    """Let the backbone's encoder see audio embeddings where a prompt has the audio's id, as the reference does."""

    def scatter(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if args[0].shape[-1] != len(prompt_ids):
            return output
        slots = (args[0] == model.config.prompt.audio_id).unsqueeze(-1)
        return output.masked_scatter(slots, audio.to(output.dtype))

    encoder: Any = model.backbone.model.encoder
    handle = encoder.get_input_embeddings().register_forward_hook(scatter)
    try:
        yield
    finally:
        handle.remove()


def compare(case: Case, device: torch.device) -> Difference:
    """Decode the same segments both ways."""
    ours, theirs = (_model(case, device, is_ours=is_ours) for is_ours in (True, False))
    recipe = replace(build_recipe(ours.config, ours.identity, segmentation="loudness"), decode=case.decode)
    clips = noise_segments(ours.config, 4.0, NUM_SEGMENTS)
    features = [segment_features(segment, wave * (0.2 + n), recipe.features) for n, (segment, wave) in enumerate(clips)]
    canvases, steps = decode_ours(ours, recipe, features, case.num_rows)
    encoder = SegmentEncoder(theirs, recipe, 1)
    apart: list[list[float]] = []
    other_canvases = other_ends = 0
    for own in features:
        name = own.segment.recording_id
        audio = encoder.hear([own])[1][0]
        wanted, wanted_steps = generate(theirs, encoder.prompt_ids, audio, segment_key(name, 0), recipe.decode)
        found = canvases[name]
        apart.append([])
        for (ids, logits), (their_ids, their_logits) in zip(steps[name][: found.num_steps], wanted_steps, strict=False):
            if not torch.equal(ids, their_ids):
                break
            apart[-1].append(float((logits - their_logits).abs().max()))
        text = slice(found.num_tokens + (not found.is_overflowed))
        if found.ids[text].tolist() != wanted[text].tolist():
            other_canvases += 1
        else:  # behind its end transformers writes pads
            other_ends += bool((wanted[text.stop :] != theirs.config.prompt.pad_id).any())
    return Difference(
        case=case.name, first_logits=max(own[0] for own in apart), logits=max(map(max, apart)),
        tolerance=case.tolerance, num_steps=sum(map(len, apart)), other_canvases=other_canvases,
        other_ends=other_ends, num_canvases=len(features),
    )  # fmt: skip


def _model(case: Case, device: torch.device, *, is_ours: bool) -> AsrModel:
    """Load a checkpoint in the published format, with LoRA that counts where the case has some."""
    with tempfile.TemporaryDirectory() as name:
        config = replace(reduced(), canvas=replace(reduced().canvas, buckets=(CANVAS,)))
        write_checkpoints(Path(name), config, getattr(torch, case.dtype), SPREAD)
        torch.manual_seed(1)  # the projector's first weights, the same for both
        bare = load_pretrained(read_config(name), dtype=getattr(torch, case.dtype), device=device)
        bare.projector.to(device, getattr(torch, case.dtype))
    if case.lora != "none":
        add_lora(bare, LoraSize(rank=2, alpha=4))
        generator = torch.Generator().manual_seed(3)
        for parameter_name, parameter in bare.named_parameters():
            if "lora_" in parameter_name:
                parameter.data = (0.2 * torch.randn(parameter.shape, generator=generator)).to(parameter)
        if case.lora == "merged" and is_ours:
            merge_lora(bare)
    return bare.eval().requires_grad_(False)


COLUMNS = ("case", "first step", "any step", "tolerance", "steps", "canvases equal", "other ends", "holds")


def row(found: Difference) -> tuple[object, ...]:
    """Write a row of the table: largest differences of logits, and what of the canvases is equal."""
    equal = f"{found.num_canvases - found.other_canvases} of {found.num_canvases}"
    apart = found.first_logits, found.logits, found.tolerance
    return found.case, *(f"{value:.1g}" for value in apart), found.num_steps, equal, found.other_ends, found.holds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where to decode."""
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default: auto")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare every case."""
    found = [compare(case, choose_device(options.device)) for case in CASES]
    print_table(COLUMNS, [row(each) for each in found])
    return {"cases": [asdict(each) for each in found], "failed": [each.case for each in found if not each.holds]}
