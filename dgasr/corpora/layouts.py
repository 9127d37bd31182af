"""Public corpora as their publishers lay them out: a folder or its archives in, clips with their texts out.

Knows names of files and columns. Whether the audio is sound is not looked at here, and nothing is downloaded.
"""

import csv
import json
import shutil
import tarfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dgasr.errors import ConfigError

AUDIO_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".amr", ".aiff", ".wv"}

TEXT_COLUMNS = ("text", "sentence", "raw_transcription", "transcription", "raw_text", "normalized_text", "transcript")
"""What is said, in the order of preference: texts with capitals and punctuation before those without."""

SPEAKER_COLUMNS = ("speaker_id", "client_id", "speaker")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One utterance as a corpus names it; the fields of `manifests.Utterance`, as far as they are known.

    clip_id: the corpus's own name for it; no two clips of one subset share it.
    text: what is said, empty where nobody speaks; `None` where the corpus has none.
    duration: s; `None` is all of the file.
    """

    clip_id: str
    audio_filepath: Path
    text: str | None
    language: str
    speaker: str | None = None
    offset: float = 0.0
    duration: float | None = None
    set_name: str | None = None
    channel: int | None = None
    audio_track: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """What of a corpus cannot be used, and why."""

    clip_id: str
    reason: str
    message: str


Found = Clip | Refused


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """Which part of a corpus is asked for, by its own names.

    source: folder or archive of the corpus.
    out: folder for manifests and what is unpacked.
    """

    source: Path
    name: str
    language: str
    out: Path


LIBRISPEECH_MD5 = {
    "train.clean.100": "2a93770f6d5c6c964bc36631d331a522", "train.clean.360": "c0e676e450a7ff2f54aeade5171606fa",
    "train.other.500": "d1a0fd59409feb2c614ce4d30c387708", "dev.clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev.other": "c8d0bcc9cca99d4f8b62fcc847357931", "test.clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test.other": "fb5a50374b501bb3bac4815ee91d3135",
}  # fmt: skip
"""Subset, and checksum of its archive; openslr.org's md5sum.txt."""


def read_librispeech(subset: Subset) -> Iterator[Found]:
    """Read `LibriSpeech/train-clean-100/103/1240/103-1240.trans.txt` and the FLAC files beside it.

    Texts are published in capitals, which say nothing; they come in small letters.
    """
    part = subset.name.replace(".", "-")
    unpacked = yield from unpack(_archives(subset.source, f"{part}.tar.gz"), subset.out)
    roots = [root / middle / part for root in (subset.source, *unpacked) for middle in ("", "LibriSpeech")]
    folder = _first(roots, f"LibriSpeech's {part}", f"a folder {part} with *.trans.txt in it, or {part}.tar.gz")
    for path in sorted(folder.rglob("*.trans.txt")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, text = line.partition(" ")
            yield Clip(
                clip_id=name, audio_filepath=path.parent / f"{name}.flac", text=text.lower(), language="en",
                speaker=name.split("-")[0],
            )  # fmt: skip


FLEURS_FOLDERS = {"en": "en_us", "de": "de_de", "fr": "fr_fr", "es": "es_419", "hi": "hi_in", "zh": "cmn_hans_cn"}

FLEURS_COLUMNS = ("id", "path", "raw_transcription", "transcription", "letters", "num_samples", "gender")
"""Of its TSV, which has no head. One sentence (`id`) is read by several people; the file's name is the clip's own."""


def read_fleurs(subset: Subset) -> Iterator[Found]:
    """Read `data/de_de/train.tsv` with `data/de_de/audio/train.tar.gz`, or with that unpacked."""
    name = FLEURS_FOLDERS.get(subset.language, subset.language)
    places = [subset.source / middle / f"{subset.name}.tsv" for middle in (f"data/{name}", name, "")]
    table = _first(places, f"FLEURS {name} {subset.name}", f"{name}/{subset.name}.tsv")
    language = name.partition("_")[0].replace("cmn", "zh")
    archives = _archives(table.parent / "audio", f"{subset.name}.tar.gz")
    yield from _rows_beside(table, archives, subset.out, language, columns=FLEURS_COLUMNS)


def read_voxpopuli(subset: Subset) -> Iterator[Found]:
    """Read `asr_train.tsv` with `{year}/{id}.ogg` as `voxpopuli.get_asr_data` cuts them, or with the Hub's archives."""
    language, file = subset.language, f"asr_{subset.name}.tsv"
    middles = (f"data/{language}", f"transcribed_data/{language}", language, "")
    places = [subset.source / middle / file for middle in middles]
    table = _first(places, f"VoxPopuli {language} {subset.name}", f"{language}/{file}")
    archives = _archives(table.parent / subset.name, f"{subset.name}_part_*.tar.gz")
    yield from _rows_beside(table, archives, subset.out, language, path_column="id")


def read_commonvoice(subset: Subset) -> Iterator[Found]:
    """Read `cv-corpus-…/de/train.tsv` with `clips/*.mp3`, from its archive or unpacked."""
    unpacked = yield from unpack(_archives(subset.source, "*.tar.gz"), subset.out)
    found = [
        path
        for root in (*unpacked, subset.source)
        if root.is_dir()
        for path in sorted(root.rglob(f"{subset.name}.tsv"))
        if path.parent.name == subset.language or root == path.parent
    ]
    wanted = f"{subset.language}/{subset.name}.tsv with clips/ beside it"
    table = _first(found, f"Common Voice {subset.language} {subset.name}", wanted)
    yield from _rows_beside(table, [], subset.out, subset.language)


def read_hugging_face(subset: Subset) -> Iterator[Found]:
    """Read a folder of a `datasets` repository: Parquet files with audio in them, or audio with a `metadata` file.

    Audio that lies inside Parquet files is written out below `subset.out`.
    """
    tables = [
        path
        for path in sorted(subset.source.rglob("*.parquet"))
        if path.name.startswith(subset.name) or path.parent.name == subset.name
    ]
    for table in tables:
        yield from _rows_of_parquet(table, subset)
    if tables:
        return
    folders = [subset.source / subset.name, subset.source]
    described = [folder / name for folder in folders for name in ("metadata.jsonl", "metadata.csv")]
    table = _first(described, f"{subset.source}, {subset.name}", f"{subset.name}*.parquet, or a metadata.jsonl or .csv")
    text = table.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    lines = (json.loads(line) for line in text if line.strip()) if table.suffix == ".jsonl" else csv.DictReader(text)
    for row in lines:
        name = row.get("file_name") or ""
        yield from _rows([{**row, "path": name}], {name: table.parent / name}, subset.language)


def _rows_of_parquet(table: Path, subset: Subset) -> Iterator[Found]:
    from pyarrow import parquet

    folder = subset.out / "audio" / table.stem
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for batch in parquet.ParquetFile(table).iter_batches(batch_size=64):
        for row in batch.to_pylist():
            audio = row.get("audio") or {}
            name = Path(audio.get("path") or f"{number}.wav").name
            number += 1
            clip_id = str(row.get("id") or f"{table.stem}/{name}")
            path = folder / f"{number:06d}-{name}" if audio.get("bytes") is not None else table.parent / name
            if audio.get("bytes") is not None and not path.is_file():
                path.with_suffix(".partial").write_bytes(audio["bytes"])
                path.with_suffix(".partial").replace(path)
            yield from _rows([{**row, "path": clip_id}], {clip_id: path}, subset.language)


def read_nemo(subset: Subset) -> Iterator[Found]:
    """Read a NeMo manifest, JSONL of `audio_filepath` and `text`; an empty text says that nobody speaks.

    Also read are `id`, `duration`, `offset`, `channel`, `audio_track`, `lang`, `speaker` and `set`.
    """
    for number, line in enumerate(subset.source.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{subset.source.name}:{number}"
        try:
            row = json.loads(line)
            audio = Path(row["audio_filepath"])
            offset = float(row.get("offset") or 0)
            part = {name: int(row[name]) for name in ("audio_track", "channel") if row.get(name) is not None}
            yield Clip(
                clip_id=str(row.get("id") or "/".join([f"{audio}@{offset:g}", *map(str, part.values())])),
                audio_filepath=subset.source.parent / audio,
                text=None if row.get("text") is None else str(row["text"]),
                language=_first_value(row, ("language", "lang")) or subset.language,
                speaker=_first_value(row, SPEAKER_COLUMNS), offset=offset,
                duration=None if row.get("duration") is None else float(row["duration"]),
                set_name=_first_value(row, ("set",)), **part,
            )  # fmt: skip
        except (ValueError, TypeError, KeyError) as error:
            yield Refused(clip_id=where, reason="bad_row", message=f"{where}: no row of a manifest ({error!r}).")


def read_folder(subset: Subset) -> Iterator[Found]:
    """Read audio files with a text file of the same name beside each; a folder below the first one is a speaker's."""
    for path in sorted(subset.source.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
            own = path.with_suffix(".txt")
            inside = path.relative_to(subset.source)
            yield Clip(
                clip_id=str(inside), audio_filepath=path, language=subset.language,
                text=own.read_text(encoding="utf-8-sig", errors="replace").strip() if own.is_file() else None,
                speaker=inside.parts[0] if len(inside.parts) > 1 else None,
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A kind of corpus; `subsets` are empty where its maker names them, `language` where it has several."""

    read: Callable[[Subset], Iterator[Found]]
    subsets: tuple[str, ...] = ()
    language: str | None = None


CORPORA = {
    "librispeech": Corpus(read=read_librispeech, language="en", subsets=tuple(LIBRISPEECH_MD5)),
    "fleurs": Corpus(read=read_fleurs, subsets=("train", "dev", "test")),
    "voxpopuli": Corpus(read=read_voxpopuli, subsets=("train", "dev", "test")),
    "commonvoice": Corpus(read=read_commonvoice),
    "hf": Corpus(read=read_hugging_face),
    "folder": Corpus(read=read_folder),
    "nemo": Corpus(read=read_nemo),
}
"""What `dgasr corpora` prepares."""


def _first(paths: Iterable[Path], what: str, wanted: str) -> Path:
    tried = list(paths)
    found = next((path for path in tried if path.exists()), None)
    if found is None:
        raise ConfigError(f"{what}: not found. Expected {wanted} (looked for {', '.join(map(str, tried)) or 'it'}).")
    return found


def _archives(source: Path, pattern: str) -> list[Path]:
    """Find a subset's archives: the source itself, or what lies in it."""
    return [source] if source.is_file() else sorted(source.glob(pattern))


def unpack(archives: Iterable[Path], work: Path) -> Generator[Refused, None, list[Path]]:
    """Unpack each archive into a folder, if it is not there already, and return the folders.

    Yields a refusal for every member, or rest of an archive, that cannot be read.
    """
    folders = []
    for archive in archives:
        folder = work / "unpacked" / f"{archive.name.split('.')[0]}-{archive.stat().st_size}"
        listed = folder / "refused.json"
        if not folder.is_dir():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            (partial / listed.name).write_text(json.dumps([asdict(own) for own in _extract(archive, partial)]))
            partial.rename(folder)
        yield from (Refused(**own) for own in json.loads(listed.read_text()))
        folders.append(folder)
    return folders


def _extract(archive: Path, folder: Path) -> Iterator[Refused]:
    count, name = 0, "its start"
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                name = member.name
                try:
                    tar.extract(member, folder, filter="data")
                    count += 1
                except tarfile.FilterError as error:
                    yield Refused(clip_id=name, reason="unsafe_member", message=f"{archive.name}: {error}.")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        message = f"{archive}: damaged after {count} members, at {name} ({error}). Download it again."
        yield Refused(clip_id=archive.name, reason="damaged_archive", message=message)


def _rows_beside(
    table: Path, archives: list[Path], work: Path, language: str, *, path_column: str = "path",
    columns: tuple[str, ...] | None = None,
) -> Iterator[Found]:  # fmt: skip
    """Turn the rows of a TSV into clips; their audio lies below its folder, or in archives."""
    folders = yield from unpack(archives, work)
    audio: dict[str, Path] = {}
    for path in (path for folder in (*folders, table.parent) for path in folder.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES:
            audio[path.name] = audio[path.stem] = path
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        # As it stands: quotation marks in these files belong to the texts.
        rows = csv.DictReader(file, columns, delimiter="\t", quoting=csv.QUOTE_NONE)
        yield from _rows(({**row, "path": row.get(path_column)} for row in rows), audio, language)


def _rows(rows: Iterable[dict[str, Any]], audio: dict[str, Path], language: str) -> Iterator[Found]:
    """Turn rows with `path` into clips; audio that is not there keeps the name it should have."""
    for number, row in enumerate(rows, 1):
        name = str(row.get("path") or "")
        if not name:
            yield Refused(clip_id=f"row {number}", reason="bad_row", message=f"row {number} names no audio: {row}.")
            continue
        yield Clip(
            clip_id=Path(name).stem, audio_filepath=audio.get(name) or audio.get(Path(name).stem) or Path(name),
            text=_first_value(row, TEXT_COLUMNS), language=language, speaker=_first_value(row, SPEAKER_COLUMNS),
        )  # fmt: skip


def _first_value(row: dict[str, Any], names: Iterable[str]) -> str | None:
    return next((str(row[name]) for name in names if row.get(name) not in (None, "", "None")), None)
