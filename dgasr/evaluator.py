"""A model scored on a manifest: the second composition beside `dgasr.transcriber`. Knows no command line."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, get_args

from dgasr.errors import ConfigError
from dgasr.evaluation.normalise import Normalizer, base_language
from dgasr.evaluation.report import Evaluation
from dgasr.evaluation.scores import ScoredUtterance
from dgasr.hypotheses import Transcribe, time_utterances, transcribe_utterances
from dgasr.model.asr import AsrModel
from dgasr.recipe import (
    RESCORE,
    SEGMENTATION,
    Recipe,
    Rescore,
    SegmentationMethod,
    build_recipe,
)
from dgasr.training.manifests import EVERYTHING, Selection, Utterance, read_manifest, select_utterances
from dgasr.transcriber import Transcriber
from dgasr.transcriber.memory import fitting_batch_size
from dgasr.transcriber.reading import transcribe_autoregressively, transcribe_by_ctc

PATHS = ("diffusion", "ctc", "ar")
"""Ways from a segment to its text: the product, the likeliest CTC labels, and token after token."""

METRICS = ("wer", "cer")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """What is scored, and how.

    normalizer: one of `normalise.Normalizer`.
    metric: `wer` or `cer`: what the table leads with and the interval is for.
    max_steps: denoising steps allowed a canvas, or `None` for the model's own number.
    language: code for every utterance, or `None` for the one in its manifest row.
    path: how the text is found, one of `PATHS`.
    rescore: whether CTC may overrule the decoder, `joint` or `none`; counts for the path `diffusion`.
    segmentation: what tells pauses, a `speech` model or `loudness` alone.
    selection: which utterances of the manifest are scored.
    num_timed: of these, how many are also transcribed alone, for latency; spread over the sets.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    normalizer: str
    metric: str
    max_steps: int | None
    language: str | None = None
    path: str = "diffusion"
    rescore: Rescore = RESCORE
    segmentation: SegmentationMethod = SEGMENTATION
    selection: Selection = EVERYTHING
    num_timed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be scored."""
        choices = {"normalizer": get_args(Normalizer), "metric": METRICS, "path": PATHS}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"{name} {value!r} is not known. Choose one of {', '.join(known)}.")


def evaluate(
    manifest: Path,
    model: AsrModel,
    config: EvaluationConfig,
    batch_size: int,
    on_utterance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score a model on a manifest.

    Args:
        manifest: JSONL file, see `dgasr.training.manifests`.
        model: what recognises.
        config: what is scored, and how.
        batch_size: segments decoded together, of any utterances; 0 for as many as fit the memory.
        on_utterance: called when an utterance's audio has been read; for progress.

    Raises:
        ConfigError: a manifest or language that cannot be used; before any work.
    """
    config = replace(config, max_steps=config.max_steps or model.config.max_steps)

    def decoder(code: str) -> tuple[Recipe, Transcribe]:
        recipe = build_recipe(
            model.config, model.identity, max_steps=config.max_steps, language=code,
            rescore=config.rescore, segmentation=config.segmentation,
        )  # fmt: skip
        num_rows = batch_size or fitting_batch_size(model, recipe)
        if config.path == "ctc":
            return recipe, partial(transcribe_by_ctc, model, recipe, num_rows)
        if config.path == "ar":
            return recipe, partial(transcribe_autoregressively, model, recipe, num_rows)
        return recipe, Transcriber(model, recipe, num_rows).transcribe

    return score_manifest(manifest, decoder, config, on_utterance)


def score_manifest(
    manifest: Path,
    decoder: Callable[[str], tuple[Recipe, Transcribe]],
    config: EvaluationConfig,
    on_utterance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score any path from segments to transcripts on a manifest.

    Args:
        manifest: JSONL file, see `dgasr.training.manifests`.
        decoder: language code in; how its audio is read, and what transcribes its segments, out.
        config: how to score.
        on_utterance: called when an utterance's audio has been read; for progress.

    Raises:
        ConfigError: a manifest that cannot be used, or a language that the decoder refuses; before any work.
    """
    utterances = select_utterances(read_manifest(manifest), config.selection)
    groups: dict[str, dict[int, Utterance]] = {}
    for n, utterance in enumerate(utterances):
        groups.setdefault(config.language or base_language(utterance.language), {})[n] = utterance
    decoders = {code: decoder(code) for code in groups}
    scored: dict[int, ScoredUtterance] = {}
    wall_s = 0.0
    for code, group in groups.items():
        part, part_s = transcribe_utterances(group, *decoders[code], on_utterance)
        scored |= part
        wall_s += part_s
    timed: list[tuple[float, float]] = []
    if config.num_timed:
        alone = select_utterances(utterances, Selection(limit=config.num_timed))
        for code in groups:
            own = [u for u in alone if (config.language or base_language(u.language)) == code]
            timed += time_utterances(own, *decoders[code])
    is_diffusion = config.path == "diffusion"
    return Evaluation(
        utterances=tuple(scored[n] for n in sorted(scored)), normalizer=config.normalizer, metric=config.metric,
        max_steps=config.max_steps or 0, path=config.path,
        rescore=config.rescore if is_diffusion else None, wall_s=wall_s, timed=tuple(timed),
    )  # fmt: skip
