"""The report of an evaluation: scored utterances in, figures out, and read back. Knows no model.

Recognised words are laid beside those that were said: how right their confidences are, and how far off their times.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from dgasr.errors import ConfigError
from dgasr.evaluation.normalise import basic, normalise
from dgasr.evaluation.scores import (
    ScoredUtterance,
    align,
    character_edits,
    drawn_units,
    group_rows,
    non_speech_rows,
    rate_interval,
    statistics_intervals,
    summarise,
    word_edits,
)
from dgasr.records import Word, seconds

KEPT_FIELDS = ("audio_filepath", "language", "audio_s", "reference", "hypothesis", "speaker", "set_name")
"""Of `ScoredUtterance`, in JSON: what errors are counted from, and whose they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Every utterance of a manifest, scored, with how it was done.

    utterances: in the manifest's order; broken audio is among them.
    normalizer: one of `normalise.Normalizer`.
    metric: `wer` or `cer`: what the table leads with and the interval is for.
    max_steps: denoising steps allowed a canvas.
    path: `diffusion`, or the name of another system.
    wall_s: time from the first byte of audio to the last word, after warm-up, s.
    rescore: whether CTC could overrule the decoder, `joint` or `none`; `None` for another system.
    timed: length and time from first byte to last word of utterances that were transcribed alone, s.
    """

    utterances: tuple[ScoredUtterance, ...]
    normalizer: str
    metric: str
    max_steps: int
    path: str
    wall_s: float
    rescore: str | None = None
    timed: tuple[tuple[float, float], ...] = ()

    def to_json(self, baseline: "Evaluation | None" = None, name: str = "") -> dict[str, Any]:
        """Give all figures as plain JSON; a rate or time that nothing determines is `None`.

        With a `baseline`, another system's or run's evaluation of the same utterances in the same order, also
        `baseline`, all figures of the other and its `name`, and `ratio_95`, the interval of the ratio of both WER.
        """
        utterances, normalizer = self.utterances, self.normalizer
        segments = [segment for utterance in utterances for segment in utterance.segments]
        steps = [segment.num_steps for segment in segments if segment.num_steps is not None]
        units = drawn_units([utterance.speaker for utterance in utterances])
        edits = word_edits if self.metric == "wer" else character_edits
        figures = summarise(utterances, normalizer)
        figures |= {
            "rtfx": figures["audio_s"] / self.wall_s,
            "wall_s": self.wall_s,
            "mean_clip_s": figures["audio_s"] / len(utterances),
            "steps": self.max_steps,
            "mean_steps": sum(steps) / len(steps) if steps else None,
            "path": self.path,
            "rescore": self.rescore,
            "normalizer": normalizer,
            "metric": self.metric,
            "interval_95": rate_interval(utterances, normalizer, edits),
            "latency": self._latency(),
            "timing": timing_figures(
                [timing_errors(u.reference_words or (), u.hypothesis_words) for u in utterances], units
            ),
            "calibration": calibration_figures(
                [judge(u.reference, u.hypothesis_words, u.language, normalizer) for u in utterances], units
            ),
            "groups": group_rows(utterances, normalizer, baseline.utterances if baseline else None),
            "non_speech": non_speech_rows(utterances),
            "num_flagged": sum(any(own.flags for own in utterance.segments) for utterance in utterances),
            "failures": [
                {"audio_filepath": utterance.audio_filepath, "message": utterance.failure}
                for utterance in utterances
                if utterance.failure
            ],
        }
        if baseline is not None:
            figures["baseline"] = baseline.to_json() | {"name": name}
            figures["ratio_95"] = rate_interval(utterances, normalizer, baseline=baseline.utterances)
        return figures

    def _latency(self) -> dict[str, float] | None:
        if not self.timed:
            return None
        lengths, latencies = np.array(self.timed).T  # [utterances] each
        p50, p95 = np.percentile(latencies, (50, 95))
        return {
            "num_clips": len(lengths), "mean_clip_s": float(lengths.mean()), "p50_s": float(p50), "p95_s": float(p95)
        }  # fmt: skip


def utterance_rows(utterances: Sequence[ScoredUtterance]) -> list[dict[str, Any]]:
    """Give what `read_run` needs of utterances, as plain JSON."""
    return [{name: getattr(utterance, name) for name in KEPT_FIELDS} for utterance in utterances]


def read_run(path: Path, utterances: Sequence[tuple[str, str]]) -> Evaluation:
    """Read the evaluation that another run wrote with `dgasr evaluate --json`.

    `utterances` are audio and reference of those that are scored now, in order; folders do not matter.

    Raises:
        ConfigError: no such file, or it is of other utterances: a paired bootstrap needs the same ones.
    """
    same = ("normalizer", "metric", "path", "wall_s", "rescore")
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(ScoredUtterance(**row) for row in figures["utterances"])
        run = Evaluation(
            utterances=found, max_steps=figures["steps"], **{name: figures[name] for name in same}
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: no figures of `dgasr evaluate --json` ({error!r}). Score the other run with --json first."
        ) from error
    theirs = [(Path(utterance.audio_filepath).name, utterance.reference) for utterance in found]
    if theirs != [(Path(audio).name, reference) for audio, reference in utterances]:
        raise ConfigError(
            f"{path}: is of other utterances ({len(theirs)}; now {len(utterances)}). Choose the same with --subset, "
            "--languages and --limit."
        )
    return run


NUM_BINS = 10

HISTOGRAM_EDGES_MS = (-np.inf, *range(-300, 301, 20), np.inf)
"""Between the bars of errors, ms; the outer two bars hold whatever is further off."""


def judge(reference: str, hypothesis: Sequence[Word], language: str = "en", normalizer: str = "basic") -> np.ndarray:
    """Decide for every recognised word, but those of punctuation, whether it stands in the reference at its place.

    A word is right if the plain normaliser or the given one finds it so. Whisper's joins spoken digits of the reference
    ("one two" is "12"), which no single word of the hypothesis can equal, and the plain one takes "Mr." and "mister"
    for two words: with either alone, right words would count as wrong.

    Returns:
        Confidence, and 1 for a right word or 0 for a wrong one.  [words, 2]
    """
    ways = [_right_words(reference, hypothesis, language, way) for way in dict.fromkeys(("basic", normalizer))]
    judged = zip(hypothesis, *ways, strict=True)
    return _pairs((word.confidence, any(rights)) for word, *rights in judged if rights[0] is not None)


def calibration_figures(parts: Sequence[np.ndarray], units: np.ndarray) -> dict[str, Any]:
    """Give the keys of `dgasr evaluate`'s `calibration`; a figure that words do not tell is `None`.

    Args:
        parts: what `judge` gives of each utterance.  [words, 2] each
        units: utterances that are drawn together, see `drawn_units`.  [utterances]
    """
    judged = np.concatenate(list(parts))
    confidences, is_right = judged.T
    bins = [judged[_bins(confidences) == number] for number in range(NUM_BINS)]
    intervals = statistics_intervals(parts, _error_and_area, units) if len(judged) else [None, None]
    return {
        "words": len(judged),
        "mean_confidence": _mean(confidences),
        "accuracy": _mean(is_right),
        "expected_calibration_error": expected_calibration_error(confidences, is_right),
        "expected_calibration_error_95": intervals[0],
        "auroc": area_under_roc(confidences, is_right),
        "auroc_95": intervals[1],
        "bins": [
            {"confidence": _mean(own[:, 0]), "accuracy": _mean(own[:, 1]), "words": len(own)}
            for own in bins if len(own)
        ],
    }  # fmt: skip


def expected_calibration_error(confidences: np.ndarray, is_right: np.ndarray) -> float | None:
    """Average |accuracy - confidence| over bins of confidence, weighted by how many words fall into each: 0 is perfect.

    Both have an entry for each word, [words]: a confidence in [0, 1], and whether it is right. `None` without words.

    Source:
        Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    if not len(confidences):
        return None
    # Summed over the words of each bin.  [bins]
    gaps = np.bincount(_bins(confidences), weights=is_right - confidences, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def area_under_roc(confidences: np.ndarray, is_right: np.ndarray) -> float | None:
    """Probability that a right word has more confidence than a wrong one; equal confidences count half.

    0.5 for confidences that say nothing, `None` unless there are both right and wrong words. Shapes are as above.

    Source:
        Hanley and McNeil 1982: the area under the ROC curve is the rank-sum statistic of Mann and Whitney, scaled.
    """
    num_right = int(np.count_nonzero(is_right))
    num_wrong = len(is_right) - num_right
    if not num_right or not num_wrong:
        return None
    rank_sum = rankdata(confidences)[is_right.astype(bool)].sum()
    return float((rank_sum - num_right * (num_right + 1) / 2) / (num_right * num_wrong))


def timing_errors(reference: Sequence[Word], hypothesis: Sequence[Word]) -> np.ndarray:
    """Measure how far the words of a hypothesis lie from where they were said, both counted from the same sample.

    Returns:
        Hypothesis minus reference at start and end, ms, of the words that the alignment pairs and that read the same
        but for case and punctuation; all other words have no timing error.  [words, 2]
    """
    expected, recognised = ([basic(word.word).replace(" ", "") for word in own] for own in (reference, hypothesis))
    matched = [(reference[i], hypothesis[j]) for i, j in _equal(expected, recognised)]
    return 1000 * _pairs(
        (seconds(found.start_sample - true.start_sample), seconds(found.end_sample - true.end_sample))
        for true, found in matched
    )


def timing_figures(parts: Sequence[np.ndarray], units: np.ndarray) -> dict[str, Any]:
    """Give the keys of `dgasr evaluate`'s `timing`, ms: medians with 95 % intervals, 90th percentiles, a histogram.

    Args:
        parts: what `timing_errors` gives of each utterance, nothing of those whose true times are unknown.
        units: utterances that are drawn together, see `drawn_units`.  [utterances]
    """
    errors_ms = np.concatenate(list(parts))
    histogram: dict[str, Any] = {"edges_ms": list(HISTOGRAM_EDGES_MS[1:-1])}
    figures: dict[str, Any] = {"matched_words": len(errors_ms), "histogram": histogram}
    intervals = statistics_intervals(parts, _absolute_medians, units) if len(errors_ms) else [None, None]
    for name, own, interval in zip(("start", "end"), errors_ms.T, intervals, strict=True):
        histogram[name] = np.histogram(own, HISTOGRAM_EDGES_MS)[0].tolist()
        figures |= {
            f"{name}_median_ms": _percentile(abs(own), 50), f"{name}_p90_ms": _percentile(abs(own), 90),
            f"{name}_bias_ms": _percentile(own, 50), f"{name}_median_95_ms": interval,
        }  # fmt: skip
    return figures


def _right_words(reference: str, hypothesis: Sequence[Word], language: str, normalizer: str) -> list[bool | None]:
    """Tell which words are right under one normaliser; `None` for words that it leaves nothing of.

    A normaliser may make several words of one ("won't", "ill-disposed"): all of them have to be right.
    """
    spelled = [normalise(word.word, language, normalizer) for word in hypothesis]
    recognised = [piece for pieces in spelled for piece in pieces]
    right = {j for _, j in _equal(normalise(reference, language, normalizer), recognised)}
    position, found = 0, list[bool | None]()
    for pieces in spelled:
        places = range(position, position + len(pieces))
        found.append(all(place in right for place in places) if pieces else None)
        position += len(pieces)
    return found


def _equal(expected: Sequence[str], recognised: Sequence[str]) -> list[tuple[int, int]]:
    pairs = align(expected, recognised)
    return [(i, j) for i, j in pairs if i is not None and j is not None and expected[i] == recognised[j]]


def _pairs(values: Iterable[tuple[float, float]]) -> np.ndarray:
    """Make an array of pairs, of none as well.  [pairs, 2]"""
    return np.array(list(values), dtype=float).reshape(-1, 2)


def _bins(confidences: np.ndarray) -> np.ndarray:
    """Number the bins that confidences fall into.  [words]"""
    return np.minimum((confidences * NUM_BINS).astype(int), NUM_BINS - 1)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _percentile(values: np.ndarray, percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 3) if len(values) else None


def _error_and_area(judged: np.ndarray) -> list[float]:
    """Give calibration error and AUROC of drawn words, NaN for what they do not determine.  [words, 2] -> [2]"""
    figures = expected_calibration_error(*judged.T), area_under_roc(*judged.T)
    return [np.nan if figure is None else figure for figure in figures]


def _absolute_medians(errors: np.ndarray) -> list[float]:
    return np.median(np.abs(errors), axis=0).tolist() if len(errors) else [np.nan, np.nan]
