"""A subset of a corpus in; a manifest of what can be used, a list of what cannot, and a summary out.

Every clip is decoded to its end by the reader that training and transcription use, so that a length in the manifest is
the length they meet. A run that was interrupted goes on behind the last clip that it wrote down.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from dgasr.audio import AudioConfig, open_audio
from dgasr.corpora.layouts import CORPORA, Clip, Found, Refused, Subset
from dgasr.errors import ConfigError, RecordingError, printable
from dgasr.records import seconds
from dgasr.training.manifests import Utterance, write_manifest

AT_ONCE = 32
"""Clips for each process between two writes: what an interruption costs."""

NOT_UTF8 = "\ufffd"
"""What stands in a text where bytes were no UTF-8."""

LENGTH_STEP_S = 5.0
"""Width of the summary's bars, s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """How a corpus is prepared.

    max_duration_s: longer clips are refused; a model's window, s.
    min_duration_s: shorter clips are refused, s.
    processes: that decode side by side.
    """

    max_duration_s: float = 30.0
    min_duration_s: float = 0.1
    processes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a subset came to; also `NAME.summary.json`.

    name: of its files.
    num_clips, hours, num_speakers: of the manifest; speakers are 0 where the corpus names none.
    lengths: clips by length, `5` for those from 5 to 10 s.
    refused: clips by reason.
    """

    name: str
    num_clips: int
    hours: float
    num_speakers: int
    lengths: dict[str, int]
    refused: dict[str, int]


def prepare(
    kind: str, subset: Subset, out: Path, config: PrepareConfig, on_clip: Callable[[], None] = lambda: None
) -> Summary:
    """Prepare one subset.

    Args:
        kind: a name of `CORPORA`.
        subset: which part of it.
        out: folder for `NAME.jsonl`, `NAME.refused.jsonl` and `NAME.summary.json`.
        config: limits.
        on_clip: called for each clip that has been looked at.

    Raises:
        ConfigError: the corpus is not there, or nothing of it can be used.
    """
    name = "-".join(part for part in (kind, subset.language, subset.name) if part)
    out.mkdir(parents=True, exist_ok=True)
    manifest, progress, listed = (out / f"{name}{kind_of}.jsonl" for kind_of in ("", ".progress", ".refused"))
    rows = _read_progress(progress)
    with progress.open("a", encoding="utf-8") as file:
        for row in _looked_at(CORPORA[kind].read(subset), {row["clip_id"] for row in rows}, config):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            rows.append(row)
            on_clip()
    used, refused = ([row for row in rows if ("reason" in row) == is_refused] for is_refused in (False, True))
    listed.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in refused), encoding="utf-8")
    if not used:
        progress.unlink()
        found = f"all {len(refused)} clips are refused, see {listed}" if refused else "it holds no clip"
        raise ConfigError(f"{subset.source}, {subset.name or kind}: {found}. Check --subset and --language.")
    set_name = f"{kind} {subset.name}".strip()
    write_manifest(manifest, (_utterance(row, set_name) for row in used))
    lengths = Counter(LENGTH_STEP_S * int(row["duration_s"] // LENGTH_STEP_S) for row in used)
    summary = Summary(
        name=name,
        num_clips=len(used),
        hours=round(sum(row["duration_s"] for row in used) / 3600, 6),
        num_speakers=len({row["speaker"] for row in used if row["speaker"]}),
        lengths={f"{edge:g}": count for edge, count in sorted(lengths.items())},
        refused=dict(sorted(Counter(row["reason"] for row in refused).items())),
    )
    (out / f"{name}.summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    progress.unlink()
    return summary


def _read_progress(path: Path) -> list[dict[str, Any]]:
    """Read what an interrupted run wrote down, less a line that it did not finish."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(lines), encoding="utf-8")
    return [json.loads(line) for line in lines]


def _looked_at(found: Iterator[Found], known: set[str], config: PrepareConfig) -> Iterator[dict[str, Any]]:
    """Look at what is not known yet, in the corpus's order; a name that comes again is refused."""
    new = (item for item in _named_once(found) if item.clip_id not in known)
    with ProcessPoolExecutor(config.processes) as pool:
        while chunk := list(islice(new, AT_ONCE * config.processes)):
            yield from pool.map(look_at, chunk, [config] * len(chunk), chunksize=8)


def _named_once(found: Iterator[Found]) -> Iterator[Found]:
    seen: set[str] = set()
    for number, item in enumerate(found):
        if item.clip_id in seen:
            message = f"{item.clip_id}: a clip of this name came before. The first one is used."
            yield Refused(clip_id=f"{item.clip_id}#{number}", reason="duplicate_id", message=message)
        else:
            seen.add(item.clip_id)
            yield item


def look_at(item: Found, config: PrepareConfig) -> dict[str, Any]:
    """Decode one clip; return its row with a length, or with the reason why it is refused."""
    if isinstance(item, Clip):
        found = _usable_s(item, config)
        if not isinstance(found, Refused):
            return asdict(item) | {"audio": os.path.abspath(item.audio), "duration_s": found}
        item = found
    return asdict(replace(item, message=printable(item.message)))


def _usable_s(clip: Clip, config: PrepareConfig) -> Refused | float:
    """Say how much of its audio can be used, s, or why none."""

    def refuse(reason: str, message: str) -> Refused:
        return Refused(clip_id=clip.clip_id, reason=reason, message=f"{clip.audio}: {message}")

    if clip.text is None:
        return refuse("no_text", "the corpus has no text for it.")
    if NOT_UTF8 in clip.text:
        return refuse("not_utf8", f"its text is not UTF-8: {clip.text!r}.")
    if not clip.language:
        return refuse("no_language", "the corpus does not say its language. Give --language.")
    try:
        rest_s = _length_s(clip.audio) - clip.offset_s
    except FileNotFoundError:
        return refuse("no_audio", "the corpus names it, and there is no such file.")
    except OSError as error:
        return refuse("unreadable", f"{error}.")
    except RecordingError as error:
        return Refused(clip_id=clip.clip_id, reason=str(error.reason), message=str(error))
    asked_s = rest_s if clip.duration_s is None else clip.duration_s
    if asked_s > rest_s + 0.1:
        return refuse("beyond_end", f"the corpus says {asked_s:.2f} s from {clip.offset_s:.2f} s; it ends before.")
    usable_s = min(asked_s, rest_s)
    if usable_s > config.max_duration_s:
        return refuse("too_long", f"{usable_s:.2f} s; at most {config.max_duration_s:g} s are used.")
    if usable_s < config.min_duration_s:
        return refuse("too_short", f"{usable_s:.2f} s; at least {config.min_duration_s:g} s are needed.")
    return round(usable_s, 4)


@lru_cache(maxsize=64)
def _length_s(path: Path) -> float:
    """Decode a file to its end, s; of a long one that many clips lie in, once."""
    with path.open("rb") as file:
        return seconds(sum(len(block) for block in open_audio(file, str(path), AudioConfig()).blocks()))


def _utterance(row: dict[str, Any], set_name: str) -> Utterance:
    same = {name: row[name] for name in ("text", "language", "speaker", "channel", "audio_track")}
    return Utterance(
        audio_filepath=row["audio"], duration=row["duration_s"], offset=row["offset_s"],
        set_name=row["set_name"] or set_name, **same,
    )  # fmt: skip
