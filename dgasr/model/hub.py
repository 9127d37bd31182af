"""Weights of others: a Hub id or a folder in, its revision and its files out. Torch-free; knows file names, no tensors.

What lies in the Hub cache is used as it is: a newer revision is taken when a person downloads it, never in between.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dgasr.errors import ConfigError

WHOLE_BYTES = 64 * 2**20
"""Files up to this size are hashed whole; larger ones by size, first bytes and samples."""

SAMPLE_BYTES, NUM_SAMPLES = 64 * 1024, 64
"""What is read of a larger file, evenly spread: seconds instead of minutes for 52 GB."""


def revision_of(source: str) -> str:
    """Name the version of a checkpoint, a Hub id or a folder of published files, without reading its tensors.

    The commit in the Hub cache, the Hub's own where nothing is cached, or a digest of a folder's files, 40 or 32 hex
    digits. ConfigError where it is neither a folder nor in the cache nor to be had.
    """
    if is_folder(source):
        return _folder_digest(Path(source))
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        try:
            return Path(snapshot_download(source, local_files_only=True)).name
        except LocalEntryNotFoundError:
            return str(model_info(source).sha)
    except (OSError, ValueError, http_error()) as error:
        raise absent(source, error) from error


def fetch(source: str, revision: str, patterns: Sequence[str]) -> Path:
    """Bring a checkpoint's files here, where they are not yet, and return the folder that holds them.

    `source` is a Hub id or a folder, `revision` from `revision_of`, and `patterns` are names of the wanted files, `*`
    for anything. ConfigError where they are absent or gated.
    """
    if is_folder(source):
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=list(patterns)))
        branch = folder.parents[1] / "refs" / "main"
        if not branch.exists():  # or the next run would have to ask the Hub which revision lies here
            branch.parent.mkdir(exist_ok=True)
            branch.write_text(revision, encoding="utf-8")
        return folder
    except (OSError, ValueError, http_error()) as error:
        raise absent(source, error) from error


def http_error() -> type[Exception]:
    """Return the error that every failed request of the Hub's client is: of httpx, or of httpx2 since its version 2."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")


def described(error: Exception) -> str:
    """Say an error in a line: its kind, and the first line of what its maker says."""
    first_line = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {first_line}"


def is_folder(source: str) -> bool:
    """Tell a folder from a Hub id, which has one slash and does not begin like a path."""
    return Path(source).exists() or source.startswith((".", "/")) or source.count("/") != 1


def absent(source: str, error: Exception) -> ConfigError:
    """Say what to do about weights that are not there."""
    problem = f"The weights of {source} are not to be had ({described(error)})."
    if is_folder(source):
        return ConfigError(
            f"{problem} The folder needs config.json and safetensors files, as the Hub has them: accept the licence on "
            f"the model's page, run `hf auth login` and `hf download MODEL --local-dir {source}`."
        )
    return ConfigError(
        f"{problem} Accept the licence at https://huggingface.co/{source}, run `hf auth login` and `hf download "
        f"{source}`; a machine without a network needs a copy of the Hub cache and HF_HUB_OFFLINE=1, or a model folder "
        "whose config.json names local folders."
    )


def _folder_digest(folder: Path) -> str:
    paths = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")])
    if not paths:
        raise absent(str(folder), FileNotFoundError("no checkpoint lies there"))
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(path.name.encode() + b"\0" + file_digest(path))
    return digest.hexdigest()


def file_digest(path: Path) -> bytes:
    """Fingerprint of a file; of a large one its size and samples of its content count."""
    digest, num_bytes = hashlib.blake2b(), path.stat().st_size
    with path.open("rb") as file:
        if num_bytes <= WHOLE_BYTES:
            digest.update(file.read())
            return digest.digest()
        digest.update(str(num_bytes).encode())
        for index in range(NUM_SAMPLES):
            file.seek((num_bytes - SAMPLE_BYTES) * index // (NUM_SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()
