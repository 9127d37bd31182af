"""Words where nobody speaks the model's language: utterances with an empty reference, counted by set."""

from collections.abc import Sequence
from typing import Any

from dgasr.evaluation.scores import ScoredUtterance


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
    rows = [_row(name, [utterance for utterance in empty if utterance.set_name == name]) for name in names]
    return [*rows, _row("all", empty)]


def _row(name: str, utterances: Sequence[ScoredUtterance]) -> dict[str, Any]:
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
