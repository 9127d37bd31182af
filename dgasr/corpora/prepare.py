"""A subset of a corpus in; a manifest of what can be used, a list of what cannot, and a summary out.

Corpora are fetched from where their publishers keep them, and checked. Every clip is decoded to its end by the reader
that training and transcription use, so that a length in the manifest is the length they meet. What was interrupted goes
on: a download where it broke off, a run behind the last clip that it wrote down.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from dgasr.audio import AudioConfig, open_audio
from dgasr.corpora.layouts import CORPORA, FLEURS_FOLDERS, LIBRISPEECH_MD5, Clip, Found, Refused, Subset
from dgasr.errors import ConfigError, RecordingError, printable
from dgasr.manifests import ROW, write_manifest, wrong_field
from dgasr.records import seconds

AT_ONCE = 32
"""Clips for each process between two writes: what an interruption costs."""

NOT_UTF8 = "\ufffd"
"""What stands in a text where bytes were no UTF-8."""

LENGTH_STEP_S = 5.0
"""Width of the summary's bars, s."""

MIN_DURATION_S = 0.1
"""Shorter clips are refused."""


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
    kind: str, subset: Subset, max_duration_s: float, processes: int, on_clip: Callable[[], None] = lambda: None
) -> Summary:
    """Prepare one subset of `CORPORA[kind]`: `NAME.jsonl`, `NAME.refused.jsonl` and `NAME.summary.json` in its folder.

    Clips longer than `max_duration_s`, a model's window, are refused; `processes` decode side by side; `on_clip` is
    called for each clip that has been looked at.

    Raises:
        ConfigError: the corpus is not there, or nothing of it can be used.
    """
    name, out = "-".join(part for part in (kind, subset.language, subset.name) if part), subset.out
    out.mkdir(parents=True, exist_ok=True)
    manifest, progress, listed = (out / f"{name}{kind_of}.jsonl" for kind_of in ("", ".progress", ".refused"))
    rows = _read_progress(progress)
    new = _new_clips(CORPORA[kind].read(subset), {row["clip_id"] for row in rows})
    look = partial(look_at, set_name=f"{kind} {subset.name}".strip(), max_duration_s=max_duration_s)
    with progress.open("a", encoding="utf-8") as file, ProcessPoolExecutor(processes) as pool:
        while chunk := list(islice(new, AT_ONCE * processes)):
            for row in pool.map(look, chunk, chunksize=8):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                rows.append(row)
                on_clip()
    refused = [row for row in rows if "reason" in row]
    listed.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in refused), encoding="utf-8")
    used = [ROW.validate_json(row["line"]) for row in rows if "reason" not in row]
    if not used:
        progress.unlink()
        found = f"all {len(refused)} clips are refused, see {listed}" if refused else "it holds no clip"
        raise ConfigError(f"{subset.source}, {subset.name or kind}: {found}. Check --subset and --language.")
    write_manifest(manifest, used)
    lengths = Counter(LENGTH_STEP_S * int(own.duration // LENGTH_STEP_S) for own in used)
    summary = Summary(
        name=name,
        num_clips=len(used),
        hours=round(sum(own.duration for own in used) / 3600, 6),
        num_speakers=len({own.speaker for own in used if own.speaker}),
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


def _new_clips(found: Iterator[Found], known: set[str]) -> Iterator[Found]:
    """Leave out what is known already; a name that comes again is refused."""
    seen: set[str] = set()
    for number, item in enumerate(found):
        if item.clip_id in seen:
            message = f"{item.clip_id}: a clip of this name came before. The first one is used."
            item = Refused(clip_id=f"{item.clip_id}#{number}", reason="duplicate_id", message=message)
        seen.add(item.clip_id)
        if item.clip_id not in known:
            yield item


def look_at(item: Found, set_name: str, max_duration_s: float) -> dict[str, Any]:
    """Decode one clip; return its line in a manifest, or the reason why it is refused."""
    if isinstance(item, Clip):
        found = _usable_s(item, max_duration_s)
        if not isinstance(found, Refused):
            fields = asdict(item) | {"audio_filepath": os.path.abspath(item.audio_filepath), "duration": found}
            clip_id, fields["set"] = fields.pop("clip_id"), fields.pop("set_name") or set_name
            try:
                ROW.validate_json(line := json.dumps(fields))
                return {"clip_id": clip_id, "line": line}
            except ValidationError as error:
                message = f"{item.audio_filepath}: {wrong_field(error)}."
                found = Refused(clip_id=clip_id, reason="bad_row", message=message)
        item = found
    return asdict(replace(item, message=printable(item.message)))


def _usable_s(clip: Clip, max_duration_s: float) -> Refused | float:
    """Say how much of its audio can be used, s, or why none."""

    def refuse(reason: str, message: str) -> Refused:
        return Refused(clip_id=clip.clip_id, reason=reason, message=f"{clip.audio_filepath}: {message}")

    if clip.text is None:
        return refuse("no_text", "the corpus has no text for it.")
    if NOT_UTF8 in clip.text:
        return refuse("not_utf8", f"its text is not UTF-8: {clip.text!r}.")
    if not clip.language:
        return refuse("no_language", "the corpus does not say its language. Give --language.")
    try:
        rest_s = _length_s(clip.audio_filepath) - clip.offset
    except FileNotFoundError:
        return refuse("no_audio", "the corpus names it, and there is no such file.")
    except OSError as error:
        return refuse("unreadable", f"{error}.")
    except RecordingError as error:
        return Refused(clip_id=clip.clip_id, reason=str(error.reason), message=str(error))
    asked_s = rest_s if clip.duration is None else clip.duration
    if asked_s > rest_s + 0.1:
        return refuse("beyond_end", f"the corpus says {asked_s:.2f} s from {clip.offset:.2f} s; it ends before.")
    usable_s = min(asked_s, rest_s)
    if usable_s > max_duration_s:
        return refuse("too_long", f"{usable_s:.2f} s; at most {max_duration_s:g} s are used.")
    if usable_s < MIN_DURATION_S:
        return refuse("too_short", f"{usable_s:.2f} s; at least {MIN_DURATION_S:g} s are needed.")
    return round(usable_s, 4)


@lru_cache(maxsize=64)
def _length_s(path: Path) -> float:
    """Decode a file to its end, s; of a long one that many clips lie in, once."""
    with path.open("rb") as file:
        return seconds(sum(len(block) for block in open_audio(file, str(path), AudioConfig()).blocks()))


LIBRISPEECH = "https://www.openslr.org/resources/12"

HUB_CORPORA = {"fleurs": "google/fleurs", "voxpopuli": "facebook/voxpopuli"}

Progress = Callable[[int, int], None]
"""(bytes that came just now, bytes in all; 0 where the server does not say)."""


def download(kind: str, name: str, language: str, folder: Path, on_bytes: Progress, source: str | None = None) -> Path:
    """Fetch one subset into a folder; return the one that `prepare` then reads.

    `on_bytes` is called as they come; the Hub's client shows its own progress. `source` is an address or Hub id in
    place of the publisher's.

    Raises:
        ConfigError: this corpus cannot be fetched, the server refuses, or what came is damaged.
    """
    if kind == "librispeech":
        file = name.replace(".", "-") + ".tar.gz"
        fetch_file(f"{source or LIBRISPEECH}/{file}", folder / file, LIBRISPEECH_MD5[name], on_bytes)
        return folder
    if kind in HUB_CORPORA or (kind == "hf" and source):
        return _from_hub(source or HUB_CORPORA[kind], _patterns(kind, name, language))
    raise ConfigError(f"--download: {kind} has no address to fetch it from. Download it yourself and give its folder.")


def _patterns(kind: str, name: str, language: str) -> list[str]:
    if kind == "fleurs":
        folder = f"data/{FLEURS_FOLDERS.get(language, language)}"
        return [f"{folder}/{name}.tsv", f"{folder}/audio/{name}.tar.gz"]
    if kind == "voxpopuli":
        return [f"data/{language}/asr_{name}.tsv", f"data/{language}/{name}/*.tar.gz"]
    return [f"**{name}*"]


def _from_hub(repository: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    from dgasr.model.hub import described, http_error

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=patterns))
    except (OSError, ValueError, http_error()) as error:
        raise ConfigError(
            f"{repository}: not to be had from the Hub ({described(error)}). Gated ones need "
            "`hf auth login`; without a network, give the folder of a copy."
        ) from error


def fetch_file(url: str, path: Path, md5: str, on_bytes: Progress) -> None:
    """Fetch a file over HTTP; what an interrupted run has of it, `PATH.partial`, is kept and continued.

    `md5` is its checksum, 32 hex digits.

    Raises:
        ConfigError: the server refuses or goes away, or the checksum differs; the partial file is dropped then.
    """
    if path.is_file() and _md5(path) == md5:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    have = partial.stat().st_size if partial.is_file() else 0
    try:
        headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {}
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=60) as response:
            is_whole = response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE
            if not is_whole:
                response.raise_for_status()
                goes_on = response.status_code == httpx.codes.PARTIAL_CONTENT
                have = have if goes_on else 0
                length = have + int(response.headers.get("Content-Length") or 0)
                on_bytes(have, length)
                with partial.open("ab" if goes_on else "wb") as file:
                    for block in response.iter_raw():  # as it comes, so that nothing is lost where it breaks off
                        file.write(block)
                        on_bytes(len(block), length)
    except httpx.HTTPError as error:
        raise ConfigError(f"{url}: {error or type(error).__name__}. The same command goes on from there.") from error
    found = _md5(partial)
    if found != md5:
        partial.unlink()
        raise ConfigError(f"{url}: checksum {found} and not {md5}. What came is dropped; run the same command again.")
    partial.replace(path)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
