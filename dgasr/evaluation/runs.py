"""What `dgasr evaluate --json` keeps of each utterance, and an evaluation made of it, for another to be beside."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dgasr.errors import ConfigError
from dgasr.evaluation.report import Evaluation
from dgasr.evaluation.scores import ScoredUtterance

FIELDS = ("audio_filepath", "language", "audio_s", "reference", "hypothesis", "speaker", "set_name")
"""Of `ScoredUtterance`: what errors are counted from, and whose they are."""


def utterance_rows(utterances: Sequence[ScoredUtterance]) -> list[dict[str, Any]]:
    """Give what `read_run` needs of utterances, as plain JSON."""
    return [{name: getattr(utterance, name) for name in FIELDS} for utterance in utterances]


def read_run(path: Path, utterances: Sequence[tuple[str, str]]) -> Evaluation:
    """Read the evaluation that another run wrote.

    Args:
        path: JSON file of `dgasr evaluate --json`.
        utterances: audio and reference of each utterance that is scored now, in order; folders do not matter.

    Raises:
        ConfigError: no such file, or it is of other utterances: a paired bootstrap needs the same ones.
    """
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(ScoredUtterance(**row) for row in figures["utterances"])
        theirs = [(Path(utterance.audio_filepath).name, utterance.reference) for utterance in found]
        run = Evaluation(
            utterances=found, normalizer=figures["normalizer"], metric=figures["metric"], max_steps=figures["steps"],
            path=figures["path"], wall_s=figures["wall_s"], seed_canvas=figures["seed_canvas"] or "random",
            rescore=figures["rescore"] or "none",
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: no figures of `dgasr evaluate --json` ({error!r}). Score the other run with --json first."
        ) from error
    if theirs != [(Path(audio).name, reference) for audio, reference in utterances]:
        raise ConfigError(
            f"{path}: is of other utterances ({len(theirs)}; now {len(utterances)}). Choose the same with --subset, "
            "--languages and --limit."
        )
    return run
