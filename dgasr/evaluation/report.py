"""The report of an evaluation: scored utterances in, figures out. Knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dgasr.errors import ConfigError
from dgasr.evaluation.calibration import calibration_figures, judge
from dgasr.evaluation.groups import group_rows, non_speech_rows, rows_beside
from dgasr.evaluation.interval import bootstrap_interval, drawn_units, paired_interval
from dgasr.evaluation.normalise import check_normalizer
from dgasr.evaluation.scores import ScoredUtterance, character_edits, summarise, word_edits
from dgasr.evaluation.tables import figures_table
from dgasr.evaluation.timing import TimingErrors, timing_errors, timing_figures
from dgasr.evaluation.wer import EditCounts

METRICS = ("wer", "cer")

LEAVING_STEPS = (1, 2, 3, 4)
"""Steps after which the share of segments that need no more is told."""


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
    """How the text was found: `diffusion`, `ctc` or `ar`; or `faster-whisper`, another system."""
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

    def to_json_beside(self, baseline: "Evaluation", num_threads: int) -> dict[str, Any]:
        """Give all figures with those of another system on the same utterances.

        Args:
            baseline: the other system's evaluation of the same utterances, in the same order.
            num_threads: that each of them could use.

        Returns:
            What `to_json` gives, with the rows of `groups` as `groups.rows_beside` gives them, and `baseline`: all
            figures of the other system, and `threads`.
        """
        groups = rows_beside(self.utterances, baseline.utterances, self.normalizer)
        return self.to_json() | {"groups": groups, "baseline": baseline.to_json(), "threads": num_threads}

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


def compare_with(baseline: Evaluation, evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Set evaluations against one of the same manifest, word by word.

    Args:
        baseline: what the others are measured against; it becomes the first row.
        evaluations: the others.

    Returns:
        What `Evaluation.to_json` gives of each, with `difference` (WER less the baseline's), `difference_95` (its
        interval), `left_after` (steps → share of the segments that took no more) and `same_text` (share of the
        utterances with the baseline's very text).
    """
    return [_compared(baseline, evaluation) for evaluation in (baseline, *evaluations)]


def _compared(baseline: Evaluation, evaluation: Evaluation) -> dict[str, Any]:
    figures = evaluation.to_json()
    steps = [steps for utterance in evaluation.utterances for steps in utterance.num_steps]
    texts = zip(evaluation.utterances, baseline.utterances, strict=True)
    same = sum(utterance.hypothesis == other.hypothesis for utterance, other in texts)
    edits, theirs = _edits(evaluation), _edits(baseline)
    words = sum(count.reference_words for count in edits)
    more = sum(count.errors for count in edits) - sum(count.errors for count in theirs)
    return figures | {
        "difference": more / words if words else None,
        "difference_95": paired_interval(edits, theirs),
        "left_after": {
            limit: sum(spent <= limit for spent in steps) / len(steps) if steps else None for limit in LEAVING_STEPS
        },
        "same_text": same / len(evaluation.utterances),
    }


def _edits(evaluation: Evaluation) -> list[EditCounts]:
    return [word_edits(utterance, evaluation.normalizer) for utterance in evaluation.utterances]
