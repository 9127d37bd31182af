"""The report of an evaluation: scored utterances in, figures out. Knows no model."""

from dataclasses import dataclass
from typing import Any

from dgasr.errors import ConfigError
from dgasr.evaluation.calibration import Judgements, judge
from dgasr.evaluation.interval import bootstrap_interval
from dgasr.evaluation.normalise import check_normalizer
from dgasr.evaluation.scores import ScoredUtterance, character_edits, summarise, word_edits
from dgasr.evaluation.tables import figures_table
from dgasr.evaluation.timing import TimingErrors, timing_errors

METRICS = ("wer", "cer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Every utterance of a manifest, scored, with how it was done."""

    utterances: tuple[ScoredUtterance, ...]
    """In the manifest's order; broken audio is among them."""
    normalizer: str
    """`whisper` or `basic`."""
    metric: str
    """`wer` or `cer`: what the table leads with and the interval is for."""
    max_steps: int
    """Denoising steps allowed a canvas."""
    path: str
    """How the text was found: `diffusion`, `ctc` or `ar`."""
    wall_s: float
    """Time from the first byte of audio to the last word, after warm-up, s."""
    seed_canvas: str = "random"
    """What a canvas started from, `random` tokens or what `ctc` heard; says nothing about other paths."""
    rescore: str = "none"
    """Whether CTC could overrule the decoder, `joint` or `none`; says nothing about other paths."""

    def __post_init__(self) -> None:
        """Refuse what cannot be scored."""
        check_request(self.normalizer, self.metric)

    def to_json(self) -> dict[str, Any]:
        """Give all figures; a rate or time that nothing determines is `None`."""
        figures = summarise(self.utterances, self.normalizer)
        steps = [steps for utterance in self.utterances for steps in utterance.num_steps]
        timing = TimingErrors.total(
            timing_errors(utterance.reference_words, utterance.hypothesis_words)
            for utterance in self.utterances
            if utterance.reference_words
        )
        judgements = Judgements.total(
            judge(utterance.reference, utterance.hypothesis_words) for utterance in self.utterances
        )
        return figures | {
            "rtfx": figures["audio_s"] / self.wall_s,
            "wall_s": self.wall_s,
            "mean_clip_s": figures["audio_s"] / len(self.utterances),
            "steps": self.max_steps,
            "mean_steps": sum(steps) / len(steps) if steps else None,
            "path": self.path,
            "seed_canvas": self.seed_canvas if self.path == "diffusion" else None,
            "rescore": self.rescore if self.path == "diffusion" else None,
            "normalizer": self.normalizer,
            "metric": self.metric,
            "interval_95": self._interval(),
            "timing": timing.summary(),
            "calibration": judgements.summary(),
            "per_language": self._per_language(),
            "num_flagged": sum(bool(utterance.flags) for utterance in self.utterances),
            "failures": [
                {"audio_filepath": utterance.audio_filepath, "message": utterance.failure}
                for utterance in self.utterances
                if utterance.failure
            ],
        }

    def table(self) -> str:
        """Lay the figures out for a terminal."""
        return figures_table(self.to_json())

    def _interval(self) -> tuple[float, float] | None:
        edits = word_edits if self.metric == "wer" else character_edits
        return bootstrap_interval([edits(utterance, self.normalizer) for utterance in self.utterances])

    def _per_language(self) -> dict[str, dict[str, Any]]:
        languages = sorted({utterance.language for utterance in self.utterances})
        return {
            language: summarise([u for u in self.utterances if u.language == language], self.normalizer)
            for language in languages
        }


def check_request(normalizer: str, metric: str) -> None:
    """Refuse a way of scoring that does not exist, before any work.

    Raises:
        ConfigError: an unknown normaliser or metric.
    """
    check_normalizer(normalizer)
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} is not known. Choose one of {', '.join(METRICS)}.")
