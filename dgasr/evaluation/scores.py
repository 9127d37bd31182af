"""Scores of utterances: texts in, edits out, and the rates they come to, of all, of each corpus and of each language.

Utterances with an empty reference, where nobody speaks the model's language, have rows of their own. How far a figure
may lie from the true one, given so many utterances, is told by an interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from dgasr.evaluation.normalise import base_language, has_no_spaces, loses_marks, normalise
from dgasr.records import Word

RESAMPLES = 1000
LEVEL = 0.95

MIN_SPEAKERS = 10
"""Speakers needed before they are drawn in place of utterances. An interval from a handful of speakers is far too
narrow (one speaker: no width at all), because so few draws never leave the speakers that were recorded."""

Interval = tuple[float, float] | None
"""Lower and upper end at `LEVEL`; `None` where too few draws determine the figure."""

Pair = tuple[int | None, int | None]
"""Positions of a reference word and its hypothesis word; `None` stands for a word inserted or deleted."""


@dataclass(frozen=True, slots=True)
class EditCounts:
    """Edits between reference and hypothesis; counts of several utterances add, and are divided once."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_words: int = 0

    def __add__(self, other: "EditCounts") -> "EditCounts":
        return EditCounts(
            self.substitutions + other.substitutions, self.deletions + other.deletions,
            self.insertions + other.insertions, self.reference_words + other.reference_words,
        )  # fmt: skip

    @property
    def errors(self) -> int:
        """Edits of all three kinds."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors per reference word; `None` where the references hold no word at all, so that no rate exists."""
        return self.errors / self.reference_words if self.reference_words else None


def count_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> EditCounts:
    """Count the fewest edits that turn the reference into the hypothesis: words for WER, texts for CER.

    Source:
        Levenshtein 1966; where several shortest edits exist the split into kinds is rapidfuzz's, as in jiwer.
    """
    edits = [edit.tag for edit in Levenshtein.editops(reference, hypothesis)]
    return EditCounts(edits.count("replace"), edits.count("delete"), edits.count("insert"), len(reference))


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """Pair the words of reference and hypothesis along the edits that `count_edits` counts, in order, each once."""
    pairs: list[Pair] = []
    for edit in Levenshtein.opcodes(reference, hypothesis):
        # The two stretches are equally long, but for a deletion or an insertion, where one of them is empty.
        said, heard = range(edit.src_start, edit.src_end), range(edit.dest_start, edit.dest_end)
        pairs += zip_longest(said, heard)
    return pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSegment:
    """A segment that was decoded: words recognised in it, reasons to doubt it, and denoising steps spent on it."""

    num_words: int
    flags: tuple[str, ...] = ()
    num_steps: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredUtterance:
    """An utterance with what was said in it and what was recognised; what is unknown is `None`.

    audio_s: audio that was decoded, s; 0 where it could not be read.
    hypothesis: what was recognised; empty where the audio could not be read, so that its words count as deleted.
    reference_words: words with true times.
    hypothesis_words: recognised words with times and confidence.
    set_name: corpus that the utterance comes from.
    failure: why the audio was rejected or ended early; `None` where nothing is wrong with it.
    """

    audio_filepath: str
    language: str
    audio_s: float
    reference: str
    hypothesis: str
    reference_words: tuple[Word, ...] | None = None
    hypothesis_words: tuple[Word, ...] = ()
    segments: tuple[ScoredSegment, ...] = ()
    speaker: str | None = None
    set_name: str | None = None
    failure: str | None = None


def word_edits(utterance: ScoredUtterance, normalizer: str) -> EditCounts:
    """Count word edits of one utterance; characters are the words of languages without spaces."""
    return _edits(utterance, normalizer, lambda words: words)


def character_edits(utterance: ScoredUtterance, normalizer: str) -> EditCounts:
    """Count character edits of one utterance; a space between words is a character, as in jiwer."""
    return _edits(utterance, normalizer, ("" if has_no_spaces(utterance.language) else " ").join)


def _edits(
    utterance: ScoredUtterance, normalizer: str, units: Callable[[tuple[str, ...]], Sequence[str]]
) -> EditCounts:
    reference, hypothesis = (
        units(normalise(text, utterance.language, normalizer)) for text in (utterance.reference, utterance.hypothesis)
    )
    if normalizer == "leaderboard" and not reference:
        return EditCounts()
    return count_edits(reference, hypothesis)


def summarise(utterances: Sequence[ScoredUtterance], normalizer: str) -> dict[str, Any]:
    """Give the rates of a set of utterances: `wer`, `cer`, `edits`, `num_utterances` and `audio_s`.

    Where Whisper's normaliser takes vowel signs out of these texts, also `wer_marks_kept` and `cer_marks_kept` of the
    plain one beside them.
    """
    edits = sum((word_edits(utterance, normalizer) for utterance in utterances), EditCounts())
    characters = sum((character_edits(utterance, normalizer) for utterance in utterances), EditCounts())
    figures = {
        "wer": edits.rate, "cer": characters.rate, "edits": asdict(edits), "num_utterances": len(utterances),
        "audio_s": sum(utterance.audio_s for utterance in utterances),
    }  # fmt: skip
    if group_normalizer(utterances, normalizer) != normalizer:
        kept = summarise(utterances, "basic")
        figures |= {"wer_marks_kept": kept["wer"], "cer_marks_kept": kept["cer"]}
    return figures


def group_normalizer(utterances: Sequence[ScoredUtterance], normalizer: str) -> str:
    """Choose the plain normaliser where Whisper's would take vowel signs out of the references, as in Hindi."""
    loses = normalizer != "basic" and any(loses_marks(said.reference, said.language) for said in utterances)
    return "basic" if loses else normalizer


def group_rows(
    utterances: Sequence[ScoredUtterance], normalizer: str, baseline: Sequence[ScoredUtterance] | None = None
) -> list[dict[str, Any]]:
    """Score each set, then each language, by itself, and beside a `baseline`: the same utterances of another system.

    Returns:
        For each: `group`, `name`, `metric` (`cer` for languages without spaces, else `wer`), `rate`, `interval_95`,
        `interval_over` (`utterances` or `speakers`), `normalizer`, `keeps_marks` (whether that is the plain one though
        Whisper's was asked for), `edits`, `num_utterances`, `num_speakers` and `audio_s`. A rate is `None` where the
        references hold no word. With a baseline also its `baseline_rate` and `baseline_interval_95`, and `ratio` (rate
        over the baseline's rate) with `ratio_95`, its interval; `None` where the baseline makes no error.
    """
    rows = []
    for kind, name, members in _groups(utterances):
        ours = [utterances[n] for n in members]
        row = _group_row(ours, normalizer)
        if baseline is not None:
            row |= _beside(row, ours, [baseline[n] for n in members])
        rows.append({"group": kind, "name": name} | row)
    return rows


def _groups(utterances: Sequence[ScoredUtterance]) -> list[tuple[str, str, list[int]]]:
    """Give `set` or `language`, its name, and which utterances are in it."""
    groups: dict[tuple[bool, str], list[int]] = {}
    for n, utterance in enumerate(utterances):
        if utterance.set_name is not None:
            groups.setdefault((False, utterance.set_name), []).append(n)
        groups.setdefault((True, base_language(utterance.language)), []).append(n)
    return [("language" if is_last else "set", name, members) for (is_last, name), members in sorted(groups.items())]


def _group_row(utterances: Sequence[ScoredUtterance], normalizer: str) -> dict[str, Any]:
    way = group_normalizer(utterances, normalizer)
    total = sum((word_edits(utterance, way) for utterance in utterances), EditCounts())
    speakers = [utterance.speaker for utterance in utterances]
    return {
        "metric": "cer" if all(has_no_spaces(utterance.language) for utterance in utterances) else "wer",
        "rate": total.rate,
        "interval_95": rate_interval(utterances, way),
        "interval_over": "speakers" if drawn_units(speakers).max() + 1 < len(utterances) else "utterances",
        "normalizer": way,
        "keeps_marks": way != normalizer,
        "edits": asdict(total),
        "num_utterances": len(utterances),
        "num_speakers": len(set(speakers) - {None}),
        "audio_s": sum(utterance.audio_s for utterance in utterances),
    }


def rate_interval(
    utterances: Sequence[ScoredUtterance],
    normalizer: str,
    edits: Callable[[ScoredUtterance, str], EditCounts] = word_edits,
    baseline: Sequence[ScoredUtterance] | None = None,
) -> Interval:
    """Give the 95 % interval of an error rate or, with a baseline, of its ratio to that of another system.

    The reference words of both systems are the same, so that errors alone are divided.
    """
    units = drawn_units([utterance.speaker for utterance in utterances])
    counts = [edits(utterance, normalizer) for utterance in utterances]
    if baseline is None:
        below = [count.reference_words for count in counts]
    else:
        below = [edits(utterance, normalizer).errors for utterance in baseline]
    return ratio_interval([count.errors for count in counts], below, units)


def _beside(row: dict[str, Any], ours: Sequence[ScoredUtterance], theirs: Sequence[ScoredUtterance]) -> dict[str, Any]:
    other = _group_row(theirs, row["normalizer"])
    return {
        "baseline_rate": other["rate"],
        "baseline_interval_95": other["interval_95"],
        "ratio": row["rate"] / other["rate"] if other["rate"] else None,
        "ratio_95": rate_interval(ours, row["normalizer"], baseline=theirs),
    }


def non_speech_rows(utterances: Sequence[ScoredUtterance]) -> list[dict[str, Any]]:
    """Count segments that got words though their utterance's reference is empty, and how many of those are flagged.

    Returns:
        For each set, then for all: `name`, `num_utterances`, `audio_s`, `num_segments` (that were decoded: what
        segmentation finds silent is not), `with_words`, `with_words_flagged` and `num_words`. Empty where every
        utterance has a reference.
    """
    empty = [utterance for utterance in utterances if not utterance.reference.strip()]
    names = sorted({utterance.set_name for utterance in empty if utterance.set_name is not None})
    rows = [_non_speech_row(name, [utterance for utterance in empty if utterance.set_name == name]) for name in names]
    return [*rows, _non_speech_row("all", empty)] if empty else []


def _non_speech_row(name: str, utterances: Sequence[ScoredUtterance]) -> dict[str, Any]:
    segments = [segment for utterance in utterances for segment in utterance.segments]
    with_words = [segment for segment in segments if segment.num_words]
    return {
        "name": name, "num_utterances": len(utterances), "audio_s": sum(own.audio_s for own in utterances),
        "num_segments": len(segments), "with_words": len(with_words),
        "with_words_flagged": sum(bool(segment.flags) for segment in with_words),
        "num_words": sum(segment.num_words for segment in with_words),
    }  # fmt: skip


def drawn_units(speakers: Sequence[str | None]) -> np.ndarray:
    """Number the units in which utterances are drawn, from 0: speakers, where enough are known.  [utterances]

    Utterances of one speaker are not independent: who is hard to recognise is so in all of them.
    """
    if None in speakers or len(set(speakers)) < MIN_SPEAKERS:
        return np.arange(len(speakers))
    return np.unique(np.array(speakers), return_inverse=True)[1]


def ratio_interval(above: Sequence[float], below: Sequence[float], units: np.ndarray) -> Interval:
    """Give the interval of a ratio of sums over utterances: errors over words, or one system's errors over another's.

    Drawing utterances (in the units of `drawn_units`), not the rates of both systems, keeps what is hard for both out
    of their ratio, and words of one utterance are not independent.

    Source:
        Bisani and Ney 2004, Bootstrap estimates for confidence intervals in ASR performance evaluation.
    """
    parts = [np.array([pair], dtype=float) for pair in zip(above, below, strict=True)]
    return statistics_intervals(parts, _ratio, units)[0]


def statistics_intervals(
    parts: Sequence[np.ndarray], statistics: Callable[[np.ndarray], Sequence[float]], units: np.ndarray
) -> list[Interval]:
    """Draw utterances with replacement, again and again, the same ones every time, and see where figures fall.

    Args:
        parts: values of each utterance, such as confidences beside right or wrong.  [values, columns] each
        statistics: values of all utterances that were drawn in; figures out, NaN for one that they do not determine.
        units: what `drawn_units` gives.  [utterances]

    Returns:
        The interval of each figure; none where many draws give no figure: those left out would be the extreme ones.
    """
    values = np.concatenate(list(parts))
    owners = np.repeat(units, [len(part) for part in parts])  # [values]
    num_units = int(units.max()) + 1
    generator = np.random.default_rng(0)
    figures = []
    for _ in range(RESAMPLES):
        times_drawn = np.bincount(generator.integers(num_units, size=num_units), minlength=num_units)  # [units]
        figures.append(statistics(values.repeat(times_drawn[owners], axis=0)))
    return [_quantiles(column[np.isfinite(column)]) for column in np.array(figures, dtype=float).T]


def _ratio(values: np.ndarray) -> list[float]:
    above, below = values.sum(axis=0)
    return [above / below if below else np.nan]


def _quantiles(figures: np.ndarray) -> Interval:
    if len(figures) < RESAMPLES * LEVEL:
        return None
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
