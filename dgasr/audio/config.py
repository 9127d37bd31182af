"""How recordings are read."""

from dataclasses import dataclass
from typing import ClassVar

from dgasr.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioConfig:
    """Limits within which bytes count as usable audio.

    Attributes:
        max_channels: a recording with more is rejected.
        min_sample_rate_hz: a header that claims less is taken for wrong.
        max_sample_rate_hz: a header that claims more is taken for wrong.
        min_samples: a recording with less than this at 16 kHz is rejected.
        tolerance_s: how far decoded and declared duration may differ before the recording is `partial`, and how far
            timestamps may run ahead of the samples before the gap between them is filled with silence.
        max_gap_s: a longer jump of timestamps is taken for wrong timestamps and not followed.
        max_duration_s: a longer recording is rejected, as soon as that is known.
        block_values: samples times channels that are decoded at once; has no influence on the waveform.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    max_channels: int = 32
    min_sample_rate_hz: int = 1000
    max_sample_rate_hz: int = 1_000_000
    min_samples: int = 400
    tolerance_s: float = 0.1
    max_gap_s: float = 43_200.0
    max_duration_s: float = 172_800.0
    block_values: int = 2**18

    def __post_init__(self) -> None:
        """Refuse limits that no recording can keep."""
        if min(self.max_channels, self.min_sample_rate_hz, self.min_samples, self.block_values) < 1:
            raise ConfigError("AudioConfig: max_channels, min_sample_rate_hz, min_samples, block_values must be ≥ 1.")
        if self.max_sample_rate_hz < self.min_sample_rate_hz or self.max_gap_s < 0:
            raise ConfigError(
                "AudioConfig: max_sample_rate_hz must not be below min_sample_rate_hz, and max_gap_s not negative."
            )
        if min(self.tolerance_s, self.max_duration_s) <= 0:
            raise ConfigError("AudioConfig: tolerance_s and max_duration_s must be positive.")
