"""Where recordings are cut."""

from typing import Literal, get_args

from dgasr.errors import ConfigError
from dgasr.records import settings

SegmentationMethod = Literal["speech", "loudness"]


@settings
class SegmentationConfig:
    """What counts as a pause, and which pauses become cuts.

    Attributes:
        method: what tells pauses: a `speech` model, with loudness for the exact place of a cut, or `loudness` alone.
        min_silence_s: a silence at least this long, and longer than twice the padding, becomes a segment of its own,
            which is not decoded.
        loudness_padding_s: context that speech keeps on either side of such a silence, by loudness alone.
        speech_padding_s: the same by the speech model, which is later than loudness at the first sound of a word.
        min_pause_s: a shorter dip in level is no place to cut.
        good_pause_s: a longer pause is no better place to cut than one of this length.
        min_segment_s: no cut leaves less than this on either side, where that can be avoided.
        context_s: stretch of audio around a segment by which pauses are told from speech.
        pause_share: a pause lies below this share of the way from the background's level to the speech's, in dB.
        silence_dbfs: a silence may be told by level alone below this, dB relative to full scale.
        steady_db: else it must be steady: nothing but clicks in it further than this above its median. White noise
            stays within 1 dB, pink noise within 2 dB; of read speech hardly any 2 s do.
        speech_begin: probability that a stretch must reach somewhere to count as speech.
        speech_end: probability below which speech ends.
        sure_silence_s: a pause this long is silence by the speech model's word alone; a shorter one only if
            it is silent by level too.
    """

    method: SegmentationMethod = "speech"
    min_silence_s: float = 2.0
    loudness_padding_s: float = 0.2
    speech_padding_s: float = 0.4
    min_pause_s: float = 0.1
    good_pause_s: float = 0.5
    min_segment_s: float = 1.0
    context_s: float = 20.0
    pause_share: float = 0.3
    silence_dbfs: float = -70.0
    steady_db: float = 4.0
    speech_begin: float = 0.3
    speech_end: float = 0.1
    sure_silence_s: float = 6.0

    def __post_init__(self) -> None:
        if self.method not in get_args(SegmentationMethod):
            raise ConfigError(f"--segmentation {self.method}: choose {' or '.join(get_args(SegmentationMethod))}.")

    @property
    def padding_s(self) -> float:
        """Context that speech keeps on either side of a silence."""
        return self.speech_padding_s if self.method == "speech" else self.loudness_padding_s
