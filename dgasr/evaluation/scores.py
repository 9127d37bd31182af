"""Scores of a set of utterances: texts in, word and character edits out, and the rates they come to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dgasr.evaluation.normalise import has_no_spaces, loses_marks, normalise
from dgasr.evaluation.wer import EditCounts, count_edits
from dgasr.records import Word


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSegment:
    """A segment that was decoded."""

    num_words: int
    """Words recognised in it."""
    flags: tuple[str, ...]
    """Reasons to doubt it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredUtterance:
    """An utterance with what was said in it and what was recognised."""

    audio_filepath: str
    """Which audio, for a person."""
    language: str
    """Code, `en`."""
    audio_s: float
    """Audio that was decoded, s; 0 where it could not be read."""
    reference: str
    """What was said."""
    hypothesis: str
    """What was recognised; empty where the audio could not be read, so that its words count as deleted."""
    reference_words: tuple[Word, ...] | None = None
    """Words with true times, `None` where times are unknown."""
    hypothesis_words: tuple[Word, ...] = ()
    """Recognised words with times and confidence."""
    num_steps: tuple[int, ...] = ()
    """Denoising steps spent on each segment that was decoded."""
    flags: tuple[str, ...] = ()
    """Reasons to doubt one of its segments."""
    segments: tuple["ScoredSegment", ...] = ()
    """Each segment that was decoded."""
    speaker: str | None = None
    """Who speaks, `None` where unknown."""
    set_name: str | None = None
    """Corpus that the utterance comes from, `None` where the manifest names none."""
    failure: str | None = None
    """Why the audio was rejected or ended early; `None` where nothing is wrong with it."""


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
    """Give the rates of a set of utterances.

    Returns:
        `wer`, `cer`, `edits`, `num_utterances` and `audio_s`; and, where Whisper's normaliser takes vowel signs out of
        these texts, `wer_marks_kept` and `cer_marks_kept` of the plain one beside them.
    """
    edits = sum((word_edits(utterance, normalizer) for utterance in utterances), EditCounts())
    figures: dict[str, Any] = {
        "wer": edits.rate,
        "cer": sum((character_edits(utterance, normalizer) for utterance in utterances), EditCounts()).rate,
        "edits": {
            "substitutions": edits.substitutions,
            "deletions": edits.deletions,
            "insertions": edits.insertions,
            "reference_words": edits.reference_words,
        },
        "num_utterances": len(utterances),
        "audio_s": sum(utterance.audio_s for utterance in utterances),
    }
    if normalizer != "basic" and any(loses_marks(utterance.reference, utterance.language) for utterance in utterances):
        kept = summarise(utterances, "basic")
        figures |= {"wer_marks_kept": kept["wer"], "cer_marks_kept": kept["cer"]}
    return figures
