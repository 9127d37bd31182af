"""Everything that changes text or times, in one value; its fingerprint is `recipe_id`. Knows settings, no tensors."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import ClassVar

from dgasr.alignment.config import AlignmentConfig
from dgasr.audio import AudioConfig
from dgasr.diffusion.config import DecodeConfig, SeedCanvas
from dgasr.features import FeatureConfig
from dgasr.model.presets import ModelIdentity
from dgasr.segmentation import SegmentationConfig

REVISION = 1
"""Raised whenever code changes text or times under equal settings, so that old and new rows stay apart."""

SEED_CANVAS: SeedCanvas = DecodeConfig().seed_canvas
"""For those who pass it on and do not know the decoder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How audio becomes text.

    model: which weights.
    language: ISO 639-1 code that is put into the prompt and into the rows.
    audio, segmentation, features, decode, alignment: settings of the rooms of those names.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: ModelIdentity
    language: str
    audio: AudioConfig
    segmentation: SegmentationConfig
    features: FeatureConfig
    decode: DecodeConfig
    alignment: AlignmentConfig

    @property
    def recipe_id(self) -> str:
        """Fingerprint: 16 hex digits over all settings and the revision of the code."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()

    def to_json(self) -> str:
        """Write all settings as JSON with sorted keys."""
        return json.dumps({"revision": REVISION, **asdict(self)}, sort_keys=True)
