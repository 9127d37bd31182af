"""Manifests: one JSON object a line in, utterances out, and back. Knows the file format, not who trains or scores.

Fields: `audio_filepath` (relative paths count from the manifest's folder), `duration` (s), `text`, `language`; optional
`offset` (s into the audio file), `channel` and `audio_track` (which ones of the file's are read, from 0; otherwise the
mix of that track on which somebody speaks), `speaker`, `set` (name of the corpus it comes from), and `words` (a list of
`word, start_s, end_s`, from the utterance's start). Of a manifest some sets, some languages and at most so many
utterances may be selected, the same ones every time.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, GetPydanticSchema, PlainSerializer, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from dgasr.audio import AudioConfig
from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ, Word, seconds, settings

Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class _TimedWord:
    word: Text
    start_s: Seconds
    end_s: Seconds


def _in_samples(own: _TimedWord) -> Word:
    if own.end_s < own.start_s:
        raise PydanticCustomError("order", "`end_s` lies before `start_s`")
    return Word(word=own.word, start_sample=num_samples(own.start_s), end_sample=num_samples(own.end_s), confidence=1.0)


WORD = Annotated[
    _TimedWord,
    AfterValidator(_in_samples),
    PlainSerializer(lambda own: _TimedWord(own.word, seconds(own.start_sample), seconds(own.end_sample))),
]
"""How pydantic reads and writes a `Word`, whose positions are times in a manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A stretch of an audio file with what is said in it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"strict": True}

    audio_filepath: Text
    """Absolute path once read."""
    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Length, s."""
    text: str
    """What is said; empty for audio without speech."""
    language: Text
    """Language code, `en`."""
    offset: Seconds = 0.0
    """Where the utterance starts in the audio file, s."""
    speaker: Text | None = None
    """Who speaks, where that is known."""
    set_name: Annotated[Text | None, Field(alias="set")] = None
    """Corpus that the utterance comes from, the field `set`; scores are also given for each set."""
    audio_track: Number | None = None
    """Which audio track of the file it is on, from 0; `None` for that on which somebody speaks."""
    channel: Number | None = None
    """Which channel of the file it is, from 0; `None` for the mix."""
    words: tuple[Annotated[Word, GetPydanticSchema(lambda _, call: call.generate_schema(WORD))], ...] | None = None
    """Reference words with positions from the utterance's first sample, or `None` where times are unknown."""

    def audio(self, config: AudioConfig) -> AudioConfig:
        """Return the settings with the track and channel that are this utterance's, where it names them."""
        channels = config.channels if self.channel is None else self.channel
        return replace(config, channels=channels, track=config.track if self.audio_track is None else self.audio_track)


def num_samples(time_s: float) -> int:
    """Turn a time in a manifest (s) into samples at `SAMPLE_RATE_HZ`, the only place where that happens."""
    return round(time_s * SAMPLE_RATE_HZ)


def read_manifest(path: Path) -> list[Utterance]:
    """Read a JSONL file whole, with absolute audio paths; blank lines are skipped, unknown fields ignored.

    Whether the audio exists is not looked at.

    Raises:
        ConfigError: no such file, nothing in it, or a line that cannot be used (file, line number and field named).
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the manifest cannot be read ({error}). Give a JSONL file in UTF-8.") from error
    folder = path.resolve().parent
    utterances = [_read_line(line, f"{path}:{n}", folder) for n, line in enumerate(lines, 1) if line.strip()]
    if not utterances:
        raise ConfigError(f"{path}: the manifest holds no utterance. Write one JSON object a line.")
    return utterances


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, whole or not at all.

    Audio below its folder gets a relative path, so that the folder can move.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.resolve().parent
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for utterance in utterances:
            audio = Path(utterance.audio_filepath)
            shown = str(audio.relative_to(folder) if audio.is_relative_to(folder) else audio)
            row = ROW.dump_json(replace(utterance, audio_filepath=shown), by_alias=True, exclude_defaults=True)
            file.write(row.decode() + "\n")
    os.replace(partial, path)


ROW = TypeAdapter(Utterance)
"""A line of a manifest."""


def _read_line(line: str, where: str, folder: Path) -> Utterance:
    try:
        utterance = ROW.validate_json(line)
    except ValidationError as error:
        raise ConfigError(
            f"{where}: {wrong_field(error)}. A manifest has one JSON object a line; correct this one."
        ) from error
    return replace(utterance, audio_filepath=os.path.abspath(folder / utterance.audio_filepath))


def wrong_field(error: ValidationError) -> str:
    """Say which field of a line cannot be used, and why."""
    first = error.errors()[0]
    return f"`{'.'.join(map(str, first['loc'])) or 'the line'}`: {first['msg']}"


@settings
class Selection:
    """Which utterances of a manifest are used; the default is all of them."""

    languages: tuple[str, ...] = ()
    """Language codes as the manifest spells them; empty for every language."""
    sets: tuple[str, ...] = ()
    """Values of the field `set`, or of its last word, the subset; empty for every set."""
    limit: int = 0
    """Utterances at most, spread over the sets; 0 for all."""
    skip_missing: bool = False
    """Whether utterances are left out whose audio file is not there."""


EVERYTHING = Selection()
"""All utterances of a manifest."""


def select_utterances(utterances: Sequence[Utterance], selection: Selection) -> list[Utterance]:
    """Choose utterances by set and language, then thin each set out to stay within the limit; the order stays.

    Under a limit each set (or language, where no set is named) gives an equal share, and small ones all they have; a
    share is spaced evenly over its set, so that a manifest sorted by speaker gives every speaker. Nothing is drawn at
    random: figures of two runs compare.

    Raises:
        ConfigError: a set or language that the manifest does not hold, or none of its utterances has both.
    """
    _check_known("--languages", selection.languages, {utterance.language for utterance in utterances})
    _check_known("--subset", selection.sets, set().union(*map(_set_names, utterances)))
    gone = set(missing_files(utterances)) if selection.skip_missing else ()
    chosen = [
        utterance
        for utterance in utterances
        if utterance.audio_filepath not in gone
        and (not selection.languages or utterance.language in selection.languages)
        and (not selection.sets or not _set_names(utterance).isdisjoint(selection.sets))
    ]
    if not chosen:
        left_out = f", {len(gone)} files of it being left out as missing" if gone else ""
        raise ConfigError(
            f"No utterance is of these sets and of these languages{left_out}. Leave out --subset or --languages."
        )
    if not selection.limit or selection.limit >= len(chosen):
        return chosen
    groups: dict[str, list[int]] = {}
    for n, utterance in enumerate(chosen):
        groups.setdefault(utterance.set_name or utterance.language, []).append(n)
    shares = _shares([len(group) for group in groups.values()], selection.limit)
    kept = sorted(
        group[i * len(group) // share]
        for group, share in zip(groups.values(), shares, strict=True)
        for i in range(share)
    )
    return [chosen[n] for n in kept]


def _set_names(utterance: Utterance) -> set[str]:
    """Name the set of an utterance: as a whole, `librispeech test.clean`, and by its subset, `test.clean`."""
    name = utterance.set_name or ""
    return {name, name.rpartition(" ")[2]} - {""}


def manifest_digest(path: Path, selection: Selection = EVERYTHING) -> str:
    """Fingerprint what is scored: 32 hex digits over a manifest's bytes and the choice of its rows, not over audio.

    Raises:
        ConfigError: the manifest cannot be read.
    """
    try:
        digest = blake2b(path.read_bytes(), digest_size=16)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Name a manifest that lies on this machine."
        ) from error
    if selection != EVERYTHING:  # all of a manifest has the hash of its file
        digest.update(json.dumps(asdict(selection)).encode())
    return digest.hexdigest()


def missing_files(utterances: Iterable[Utterance]) -> list[str]:
    """List the audio files of utterances that are not there, each once, in the manifest's order."""
    paths = dict.fromkeys(utterance.audio_filepath for utterance in utterances)
    return [path for path in paths if not os.path.exists(path)]


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Divide a limit evenly over groups; what a small group cannot use goes to the others."""
    shares = [0] * len(sizes)
    for _ in range(limit):
        open_groups = [n for n, size in enumerate(sizes) if shares[n] < size]
        shares[min(open_groups, key=lambda n: shares[n])] += 1
    return shares


def _check_known(flag: str, wanted: Sequence[str], known: set[str]) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(
            f"{flag} {','.join(unknown)}: not in the manifest. It holds {', '.join(sorted(known - {''})) or 'none'}."
        )
