"""What aligning, placing and doubting words depends on. Knows no tensors."""

from dataclasses import dataclass
from typing import ClassVar

from dgasr.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentConfig:
    """How CTC spans become word times and confidences, and when a segment is flagged."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    frame_samples: int = 320
    """Samples from one CTC frame to the next; frame `i` is centred on the segment's sample `i * frame_samples`."""
    start_offset_ms: float = 0.0
    """Added to every start that CTC finds, ms: fitted on the model's training data, since peaks lie inside words."""
    end_offset_ms: float = 0.0
    """Added to every end that CTC finds, ms: fitted likewise."""
    max_snap_ms: float = 350.0
    """How far a word's edge may move to an edge of sound, ms: what CTC, which may hear half a word, is wrong by."""
    quiet_margin_db: float = 2.0
    """A frame this little above the segment's noise floor is quiet, dB: more cuts off weak consonants."""
    floor_percentile: float = 5.0
    """Percentile of a segment's frame energies that counts as its noise floor; speech leaves that many pauses."""
    min_quiet_ms: float = 30.0
    """Shortest quiet stretch between words, ms: a dip of one or two frames is a consonant's closure."""
    ctc_weight: float = 0.5
    """Share of the CTC posterior in a word's confidence, in [0, 1], as an exponent; the decoder has the rest."""
    max_words_per_s: float = 7.0
    """Words per second above which a text is too long for its audio; ordinary speech has 2 to 4."""
    max_repetitions: int = 3
    """How often a phrase of two words or more may follow itself; decoding loops go on for longer."""
    max_word_repetitions: int = 5
    """How often a single word may follow itself; numbers may well hold four zeros."""
    max_ctc_distance: float = 0.5
    """Word edits between CTC's text and the decoder's, over the longer one's words; 1 switches the flag off."""
    min_confidence: float = 0.5
    """Segment confidence below which the text is more likely wrong than right somewhere important."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.frame_samples < 1:
            raise ConfigError(f"alignment.frame_samples is {self.frame_samples}: give the samples per CTC frame, ≥ 1.")
        if min(self.max_snap_ms, self.quiet_margin_db, self.min_quiet_ms) < 0:
            raise ConfigError("alignment: max_snap_ms, quiet_margin_db and min_quiet_ms must not be negative.")
        if not 0 <= self.floor_percentile <= 100:
            raise ConfigError(f"alignment.floor_percentile is {self.floor_percentile}: give a value from 0 to 100.")
        for name in ("ctc_weight", "max_ctc_distance", "min_confidence"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"alignment.{name} is {getattr(self, name)}: give a value from 0 to 1.")
        if self.max_words_per_s <= 0 or min(self.max_repetitions, self.max_word_repetitions) < 1:
            raise ConfigError("alignment: max_words_per_s must be above 0, the two max_…repetitions 1 or more.")
