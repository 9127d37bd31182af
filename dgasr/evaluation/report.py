"""The report of an evaluation: scored utterances in, figures out, and read back. Knows no model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgasr.errors import ConfigError
from dgasr.evaluation.interval import drawn_units
from dgasr.evaluation.scores import (
    ScoredUtterance,
    character_edits,
    group_rows,
    non_speech_rows,
    rate_interval,
    summarise,
    word_edits,
)
from dgasr.evaluation.words import calibration_figures, judge, timing_errors, timing_figures

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
