"""Everything that changes text or times, in one value; its fingerprint is `recipe_id`. Knows settings, no tensors."""

import hashlib
import json
from dataclasses import asdict
from typing import Literal, get_args

from pydantic import TypeAdapter

from dgasr.alignment.words import AlignmentConfig
from dgasr.audio import AudioConfig
from dgasr.diffusion import DecodeConfig
from dgasr.errors import ConfigError
from dgasr.features import FeatureConfig
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.records import settings
from dgasr.segmentation import SegmentationConfig, SegmentationMethod
from dgasr.segmentation.pauses import weights_path

REVISION = 7
"""Raised whenever code changes text or times under equal settings, so that old and new rows stay apart."""

Rescore = Literal["joint", "none"]

RESCORE: Rescore = "joint"

SEGMENTATION: SegmentationMethod = SegmentationConfig().method
"""For those who pass it on and do not know how audio is cut."""


@settings
class Recipe:
    """How audio becomes text.

    model: which weights.
    language: ISO 639-1 code that is put into the prompt and into the rows.
    rescore: `joint` takes CTC's text where it and the causal model find it likelier than the decoder's; `none` never.
    audio, segmentation, features, decode, alignment: settings of the packages of those names.
    """

    model: ModelIdentity
    language: str
    rescore: Rescore
    audio: AudioConfig
    segmentation: SegmentationConfig
    features: FeatureConfig
    decode: DecodeConfig
    alignment: AlignmentConfig

    def __post_init__(self) -> None:
        if self.rescore not in get_args(Rescore):
            raise ConfigError(f"--rescore {self.rescore}: choose one of {', '.join(get_args(Rescore))}.")

    @property
    def recipe_id(self) -> str:
        """Fingerprint: 16 hex digits over all settings that change text or times, and the revision of the code."""
        settings = json.loads(self.to_json())
        del settings["audio"]["limits"]  # what is rejected may be tried again with others, under the same recipe
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()

    def to_json(self) -> str:
        """Write all settings as JSON with sorted keys."""
        return json.dumps({"revision": REVISION, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read what `to_json` wrote; ConfigError where another revision did, or fields are unknown or missing."""
        try:
            settings = json.loads(text)
            revision = settings.pop("revision")
            recipe = TypeAdapter(cls).validate_python(settings)
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ConfigError(f"No recipe of this dgasr: {error}. Run one version on all machines.") from error
        if revision != REVISION:
            raise ConfigError(
                f"The recipe is of revision {revision}, and this dgasr works by revision {REVISION}: text would "
                "differ. Run one version on all machines."
            )
        if recipe.to_json() != text:
            raise ConfigError(
                "No recipe of this dgasr: settings are missing, for which its defaults would be taken. "
                "Run one version on all machines."
            )
        return recipe


def build_recipe(
    config: AsrConfig,
    identity: ModelIdentity,
    *,
    max_steps: int | None = None,
    language: str | None = None,
    rescore: Rescore = RESCORE,
    segmentation: SegmentationMethod = SEGMENTATION,
    audio: AudioConfig = AudioConfig(),  # noqa: B008
) -> Recipe:
    """Compose the recipe of a model.

    Args:
        config: its sizes; window, mel bins and timing calibration come from here.
        identity: which weights; with `config` from `model.identity.identify`, or of a loaded model.
        max_steps: denoising steps a canvas gets at most; the model's own number when `None`.
        language: ISO 639-1 code; the model's first language when `None`.
        rescore: `joint` or `none`, see `Recipe`; always `none` where the model's blank is unknown.
        segmentation: what tells pauses, a `speech` model or `loudness` alone.
        audio: which tracks and channels are read, and limits.

    Raises:
        ConfigError: the model does not know the language, a setting makes no sense, or the speech model that is to cut
            is not installed.
    """
    if language is not None and language not in config.languages:
        raise ConfigError(
            f"--language {language}: model {config.name} knows {', '.join(config.languages)}. Choose one of them."
        )
    if segmentation == "speech":
        weights_path()  # refused now, and not when the first recording is cut
    return Recipe(
        model=identity,
        language=language or config.languages[0],
        rescore=rescore if config.has_blank else "none",
        audio=audio,
        segmentation=SegmentationConfig(method=segmentation),
        features=FeatureConfig(window_samples=config.window_samples, num_mel_bins=config.encoder["num_mel_bins"]),
        decode=DecodeConfig(max_steps=config.max_steps if max_steps is None else max_steps),
        alignment=AlignmentConfig(
            frame_samples=config.frame_samples,
            start_offset_ms=config.start_offset_ms,
            end_offset_ms=config.end_offset_ms,
            confidence_power=config.confidence_power,
            confidence_shift=config.confidence_shift,
            min_confidence=config.min_confidence,
        ),
    )
