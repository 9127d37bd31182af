"""Scores by corpus and by language, of one system or of two beside each other, with 95 % intervals.

Utterances with an empty reference, where nobody speaks the model's language, have rows of their own.
"""

from collections.abc import Sequence
from typing import Any

from dgasr.evaluation.interval import bootstrap_interval, drawn_units, ratio_interval
from dgasr.evaluation.normalise import base_language, has_no_spaces, loses_marks
from dgasr.evaluation.scores import ScoredUtterance, word_edits
from dgasr.evaluation.wer import EditCounts

Group = tuple[str, str, list[int]]
"""`set` or `language`, its name, and which utterances are in it."""


def group_rows(utterances: Sequence[ScoredUtterance], normalizer: str) -> list[dict[str, Any]]:
    """Score each set and each language by itself.

    Args:
        utterances: of one evaluation.
        normalizer: one of `normalise.Normalizer`.

    Returns:
        For each set, then for each language: `group`, `name`, `metric` (`cer` for languages without spaces, else
        `wer`), `rate`, `interval_95`, `interval_over` (`utterances` or `speakers`), `normalizer`, `keeps_marks`
        (whether that is the plain one though Whisper's was asked for), `edits`, `num_utterances`, `num_speakers` and
        `audio_s`. A rate is `None` where the references hold no word.
    """
    return [
        {"group": kind, "name": name, **_row([utterances[n] for n in members], normalizer)}
        for kind, name, members in _groups(utterances)
    ]


def rows_beside(
    utterances: Sequence[ScoredUtterance], baseline: Sequence[ScoredUtterance], normalizer: str
) -> list[dict[str, Any]]:
    """Score each set and each language of two systems on the same utterances.

    Args:
        utterances: of the system that is evaluated.
        baseline: the same utterances as another system recognised them.
        normalizer: one of `normalise.Normalizer`.

    Returns:
        The rows of `group_rows`, with the baseline's `baseline_rate` and `baseline_interval_95`, and with `ratio` (rate
        over the baseline's rate) and `ratio_95`, its interval; `None` where the baseline makes no error.
    """
    return [
        {"group": kind, "name": name}
        | _row_beside([utterances[n] for n in members], [baseline[n] for n in members], normalizer)
        for kind, name, members in _groups(utterances)
    ]


def group_normalizer(utterances: Sequence[ScoredUtterance], normalizer: str) -> str:
    """Choose the plain normaliser where Whisper's would take vowel signs out of the references, as in Hindi."""
    loses = normalizer != "basic" and any(loses_marks(said.reference, said.language) for said in utterances)
    return "basic" if loses else normalizer


def _groups(utterances: Sequence[ScoredUtterance]) -> list[Group]:
    sets: dict[str, list[int]] = {}
    languages: dict[str, list[int]] = {}
    for n, utterance in enumerate(utterances):
        if utterance.set_name is not None:
            sets.setdefault(utterance.set_name, []).append(n)
        languages.setdefault(base_language(utterance.language), []).append(n)
    return [
        (kind, name, members)
        for kind, groups in (("set", sets), ("language", languages))
        for name, members in sorted(groups.items())
    ]


def _row(utterances: Sequence[ScoredUtterance], normalizer: str) -> dict[str, Any]:
    way = group_normalizer(utterances, normalizer)
    counts = [word_edits(utterance, way) for utterance in utterances]
    total = sum(counts, EditCounts())
    units = drawn_units([utterance.speaker for utterance in utterances])
    return {
        "metric": "cer" if all(has_no_spaces(utterance.language) for utterance in utterances) else "wer",
        "rate": total.rate,
        "interval_95": bootstrap_interval(counts, units),
        "interval_over": "speakers" if units.max() + 1 < len(utterances) else "utterances",
        "normalizer": way,
        "keeps_marks": way != normalizer,
        "edits": {
            "substitutions": total.substitutions,
            "deletions": total.deletions,
            "insertions": total.insertions,
            "reference_words": total.reference_words,
        },
        "num_utterances": len(utterances),
        "num_speakers": len({utterance.speaker for utterance in utterances} - {None}),
        "audio_s": sum(utterance.audio_s for utterance in utterances),
    }


def _row_beside(
    utterances: Sequence[ScoredUtterance], baseline: Sequence[ScoredUtterance], normalizer: str
) -> dict[str, Any]:
    row, other = _row(utterances, normalizer), _row(baseline, normalizer)
    way = group_normalizer(utterances, normalizer)
    ours, theirs = ([word_edits(utterance, way) for utterance in system] for system in (utterances, baseline))
    return row | {
        "baseline_rate": other["rate"],
        "baseline_interval_95": other["interval_95"],
        "ratio": row["rate"] / other["rate"] if other["rate"] else None,
        "ratio_95": ratio_interval(ours, theirs, drawn_units([utterance.speaker for utterance in utterances])),
    }


def non_speech_rows(utterances: Sequence[ScoredUtterance]) -> list[dict[str, Any]]:
    """Count segments that got words though their utterance's reference is empty, and how many of those are flagged.

    Args:
        utterances: of one evaluation; those with a reference are left out.

    Returns:
        For each set, then for all: `name`, `num_utterances`, `audio_s`, `num_segments` (that were decoded: what
        segmentation finds silent is not), `with_words`, `with_words_flagged` and `num_words`. Empty where every
        utterance has a reference.
    """
    empty = [utterance for utterance in utterances if not utterance.reference.strip()]
    if not empty:
        return []
    names = sorted({utterance.set_name for utterance in empty if utterance.set_name is not None})
    rows = [_non_speech_row(name, [utterance for utterance in empty if utterance.set_name == name]) for name in names]
    return [*rows, _non_speech_row("all", empty)]


def _non_speech_row(name: str, utterances: Sequence[ScoredUtterance]) -> dict[str, Any]:
    segments = [segment for utterance in utterances for segment in utterance.segments]
    with_words = [segment for segment in segments if segment.num_words]
    return {
        "name": name,
        "num_utterances": len(utterances),
        "audio_s": sum(utterance.audio_s for utterance in utterances),
        "num_segments": len(segments),
        "with_words": len(with_words),
        "with_words_flagged": sum(bool(segment.flags) for segment in with_words),
        "num_words": sum(segment.num_words for segment in with_words),
    }
