"""`dgasr export`: transcripts out of a lake, as text, subtitles, CTM, JSON or a manifest, a file each or all in one."""

import argparse
import hashlib
import json
import re
import sys
import unicodedata
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dgasr.commands.arguments import given_uri
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    from dgasr.lake.transcripts import ChosenTranscripts, RecordingTranscript

LONGEST_NAME_BYTES = 240
"""File systems take 255; what is written beside a file while it is not whole has a longer name."""

LONGEST_FOLDERS_BYTES = 1024
"""Of all folders of a recording: no key in S3 is longer, systems take paths of 4,096, and Python nests no deeper."""

UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\\ud800-\udfff]|[. ]+$')
"""What a name may not hold, or end in, on some file system (Windows' are the strictest)."""

RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)
"""Names of Windows' devices, whatever their ending."""

RENAMED_FILE = "renamed.jsonl"
"""Which recording lies in which file, for those whose names had to change."""

EXTENSIONS = {"txt": "txt", "srt": "srt", "vtt": "vtt", "ctm": "ctm", "json": "json", "manifest": "jsonl"}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("export", help="write transcripts as text, SRT, VTT, CTM, JSON or a manifest")
    add, place = parser.add_argument, "folder or s3://bucket/prefix of the lake"
    add("--lake", type=given_uri, required=True, metavar="URI", help=place)
    add("--format", choices=tuple(EXTENSIONS), required=True)
    add("--prefix", default="", metavar="URI", help="only recordings whose URI begins so")
    add("--recipe", default="", metavar="ID", help="this recipe's transcripts (default: the latest)")
    add("--query", default="", metavar="SQL", help='only recordings of a question, "select uri from …"')
    add("--out", metavar="FOLDER|FILE", help="folder for a file each; file for a manifest (default: print)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export what was chosen."""
    from dgasr.lake.query import Questions
    from dgasr.lake.transcripts import ChosenTranscripts

    with Questions(options.lake) as questions:
        chosen = ChosenTranscripts(questions, options.prefix, options.recipe, options.query)
        if not chosen.num_recordings:
            known = "`dgasr sql recipes` and `coverage` say what there is"
            raise ConfigError(f"{options.lake}: nothing was chosen. {known}.")
        try:
            written = _export(chosen, options.format, options.out)
        except OSError as error:
            if options.out is None:
                raise
            raise ConfigError(f"--out {options.out}: cannot be written ({error}). Give another place.") from error
    rejected = f", {chosen.num_rejected} have no transcript (see rejections)" if chosen.num_rejected else ""
    sys.stderr.write(f"{written} of {chosen.num_recordings} recordings exported{rejected}\n")
    return 0


def _export(chosen: "ChosenTranscripts", format: str, out: str | None) -> int:
    """Write what was chosen to where it is wanted; returns how many recordings that were."""
    from dgasr.commands.output import write_transcripts, write_whole

    if out is None:
        return write_transcripts(chosen.read(), format, chosen.num_recordings > 1, sys.stdout)
    if format == "manifest":
        has_many = chosen.num_recordings > 1
        return write_whole(Path(out), lambda file: write_transcripts(chosen.read(), format, has_many, file))
    # Placed in the order of their URIs, so that the same recordings get the same names whatever the lake's files are.
    names, num_written, renamed = FileNames(), 0, list[str]()
    placed = {uri: names.place(uri[len(chosen.folder) :], EXTENSIONS[format], uri) for uri in chosen.uris()}
    for transcript in chosen.read():
        num_written += 1
        uri = str(transcript.recording["uri"])
        name, is_same = placed[uri]
        path = Path(out, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, partial(_write_one, transcript, format))
        if not is_same:
            renamed.append(json.dumps({"uri": uri, "file": name}, ensure_ascii=False) + "\n")
    if renamed:
        write_whole(Path(out, RENAMED_FILE), lambda file: file.writelines(renamed))
        sys.stderr.write(f"{len(renamed)} names do not fit a folder and were changed: {Path(out, RENAMED_FILE)}\n")
    return num_written


class FileNames:
    """Gives recordings files of their own in a folder, on file systems of any kind.

    Each step of a URI's end is a folder's or the file's name, with `_` for what does not fit. A name that would be
    longer than `LONGEST_NAME_BYTES`, or that is taken by another (whatever its case and accents), by a folder or by a
    file of ours, is cut and gets a hash of the URI so far. Folders nested too deep are one, named by their hash.
    """

    def __init__(self) -> None:
        self._taken = {_folded(f"/{RENAMED_FILE}"): RENAMED_FILE}

    def place(self, relative: str, extension: str, uri: str) -> tuple[str, bool]:
        """Return the path for a recording, with `/` between its steps, and whether it is what its URI says."""
        folders, _, name = relative.rpartition("/")
        is_deep = len(folders.encode("utf-8", "surrogateescape")) > LONGEST_FOLDERS_BYTES
        steps = [f"~{_digest(folders)}", _fitting(name)] if is_deep else list(map(_fitting, relative.split("/")))
        placed: list[str] = []
        for index, step in enumerate(steps):
            is_file = index == len(steps) - 1
            owner = uri if is_file else "/".join(["folder", *steps[: index + 1]])
            placed.append(self._free("/".join(placed), step, f".{extension}" if is_file else "", owner))
        return "/".join(placed), "/".join(placed) == f"{'/'.join(steps)}.{extension}" and "/".join(steps) == relative

    def _free(self, parent: str, step: str, ending: str, owner: str) -> str:
        """Return a name in a folder that is nobody's or this owner's."""
        name, hashed = step + ending, owner
        while len(name.encode()) > LONGEST_NAME_BYTES or not self._is_free(parent, name, owner):
            end = f"~{_digest(hashed)}{ending}"
            name = step.encode()[: LONGEST_NAME_BYTES - len(end)].decode("utf-8", "ignore") + end
            hashed = name  # where that is taken, too
        self._taken[_folded(f"{parent}/{name}")] = owner
        return name

    def _is_free(self, parent: str, name: str, owner: str) -> bool:
        from dgasr.commands.output import UNFINISHED

        is_half_written = name.casefold().endswith(UNFINISHED)
        return not is_half_written and self._taken.get(_folded(f"{parent}/{name}"), owner) == owner


def _folded(path: str) -> str:
    """Return what is equal for names that some file system takes for one: by case, or by how accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _write_one(transcript: "RecordingTranscript", format: str, out: TextIO) -> None:
    """Write one transcript."""
    from dgasr.commands.output import write_transcripts
    from dgasr.exports import export_json

    if format == "json":
        out.write(export_json(transcript.segments, transcript.recording["language"]))
    else:
        write_transcripts([transcript], format, False, out)


def _fitting(step: str) -> str:
    """Return a step of a URI as a name that any file system takes, and that leads nowhere else."""
    return RESERVED.sub(r"\1_", UNFIT.sub("_", step)) or "_"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
