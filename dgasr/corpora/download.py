"""Corpora fetched from where their publishers keep them, checked, and going on where a run broke off."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx

from dgasr.corpora.layouts import FLEURS_FOLDERS, LIBRISPEECH_MD5
from dgasr.errors import ConfigError

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
