"""The report of an evaluation: scored utterances in, figures out. Knows no model."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dgasr.errors import ConfigError
from dgasr.evaluation.calibration import calibration_figures, judge
from dgasr.evaluation.groups import group_rows, non_speech_rows, rows_beside
from dgasr.evaluation.interval import bootstrap_interval, drawn_units, ratio_interval
from dgasr.evaluation.normalise import check_normalizer
from dgasr.evaluation.scores import ScoredUtterance, character_edits, summarise, word_edits
from dgasr.evaluation.tables import figures_table
from dgasr.evaluation.timing import TimingErrors, timing_errors, timing_figures

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
    """How the text was found: `diffusion`, `ctc` or `ar`; or the name of another system."""
    wall_s: float
    """Time from the first byte of audio to the last word, after warm-up, s."""
    seed_canvas: str = "random"
    """What a canvas started from, `random` tokens or `ctc`'s text; says nothing about other paths."""
    rescore: str = "none"
    """Whether CTC could overrule the decoder, `joint` or `none`; says nothing about other paths."""
    timed: tuple[tuple[float, float], ...] = ()
    """Length and time from first byte to last word of utterances that were transcribed alone, s."""

    def __post_init__(self) -> None:
        """Refuse what cannot be scored."""
        check_request(self.normalizer, self.metric)

    def to_json(self) -> dict[str, Any]:
        """Give all figures; a rate or time that nothing determines is `None`."""
        figures = summarise(self.utterances, self.normalizer)
        steps = [steps for utterance in self.utterances for steps in utterance.num_steps]
        units = drawn_units([utterance.speaker for utterance in self.utterances])
        timing = [
            timing_errors(utterance.reference_words, utterance.hypothesis_words)
            if utterance.reference_words
            else TimingErrors()
            for utterance in self.utterances
        ]
        judgements = [
            judge(utterance.reference, utterance.hypothesis_words, utterance.language, self.normalizer)
            for utterance in self.utterances
        ]
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
            "latency": self._latency(),
            "timing": timing_figures(timing, units),
            "calibration": calibration_figures(judgements, units),
            "per_language": self._per_language(),
            "groups": group_rows(self.utterances, self.normalizer),
            "non_speech": non_speech_rows(self.utterances),
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

    def to_json_beside(self, baseline: "Evaluation", name: str) -> dict[str, Any]:
        """Give all figures with those of another system, or of another run, on the same utterances.

        Args:
            baseline: the other's evaluation of the same utterances, in the same order.
            name: of the other, for people.

        Returns:
            What `to_json` gives, with the rows of `groups` as `groups.rows_beside` gives them; `baseline`: all figures
            of the other and its `name`; and `ratio_95`, the interval of the ratio of both word error rates.
        """
        ours, theirs = ([word_edits(u, self.normalizer) for u in own.utterances] for own in (self, baseline))
        return self.to_json() | {
            "groups": rows_beside(self.utterances, baseline.utterances, self.normalizer),
            "baseline": baseline.to_json() | {"name": name},
            "ratio_95": ratio_interval(ours, theirs, drawn_units([u.speaker for u in self.utterances])),
        }

    def _latency(self) -> dict[str, float] | None:
        if not self.timed:
            return None
        lengths, latencies = np.array(self.timed).T  # [utterances] each
        p50, p95 = np.percentile(latencies, (50, 95))
        return {
            "num_clips": len(lengths), "mean_clip_s": float(lengths.mean()), "p50_s": float(p50), "p95_s": float(p95)
        }  # fmt: skip

    def _interval(self) -> tuple[float, float] | None:
        edits = word_edits if self.metric == "wer" else character_edits
        counts = [edits(utterance, self.normalizer) for utterance in self.utterances]
        return bootstrap_interval(counts, drawn_units([utterance.speaker for utterance in self.utterances]))

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
