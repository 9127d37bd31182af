"""Names of models and adapters in, sizes and identity out, without a tensor: any machine can name a recipe.

`dgasr.transcriber.load` gives the model it loads the same identity.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

from pydantic import TypeAdapter

from dgasr.errors import ConfigError
from dgasr.model.hub import fetch, is_folder, revision_of
from dgasr.model.presets import AsrConfig, ModelIdentity, ProjectorConfig, full
from dgasr.prompt import WORD_LIST_FILE

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"
"""A model folder."""

BUNDLED = ("base", "tiny")
"""Models that come with the package."""

PART_FILES = {part: f"{part}.safetensors" for part in ("encoder", "projector", "backbone")}
"""What holds the weights of each part where they do not lie in `WEIGHTS_FILE`."""

UPDATE_FILE = "update.safetensors"
"""Beside either, low-rank updates of matrices that were trained further: far smaller than the matrices anew."""

PUNCTUATION_FILE = "punctuation.safetensors"
"""Beside them, of a model whose vocabulary has neither capitals nor punctuation, weights of what puts them."""

MORE_FILES = (WORD_LIST_FILE, PUNCTUATION_FILE)
"""What a model folder may hold beside weights and tokenizer; both change its texts."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "projector.safetensors")
"""An adapter folder."""

RUN_FILE, CHECKPOINTS = "run.json", "checkpoints"
"""Beside `final` and `best` of a training run: what it did, and weights on the way."""

PROJECTOR_CONFIG = "projector.json"
"""Layout of its projector; without it, the layout is the model's."""


CALIBRATION = "calibration.json"
"""What an imported adapter's file did not tell, how it was chosen, and what else was tried."""

MERGED: dict[bool | None, str] = {None: "", True: "+merged", False: "+unmerged"}
"""After the digest of an adapter, whether its LoRA was asked to be added into the weights: rounded otherwise, it is
another recipe. By default the kind of device decides, as it decides over other rounding that no recipe names."""

COMPILED: dict[bool | None, str] = {None: "", True: "+compiled", False: "+eager"}
"""After the digest of weights, likewise: whether torch was asked to compile the decoder."""

Quantize = Literal["none", "int8"]
"""What the backbone's matrices are kept as: as they are, or in 8 bits, which is said after the digest."""


def default_model() -> str:
    """Name the model of those who name none: DGASR_MODEL, or `base`."""
    return os.environ.get("DGASR_MODEL") or "base"


def identify(
    model: str,
    adapter: str | None = None,
    *,
    merge_adapter: bool | None = None,
    compiled: bool | None = None,
    quantize: Quantize = "none",
) -> tuple[AsrConfig, ModelIdentity]:
    """Say which weights a request means; what it may ask for, `dgasr.transcriber.load` says.

    Returns:
        Sizes and ids, and the identity that goes into the recipe. The projector's layout in a `.pt` file is found out
        when it is loaded; until then it is the model's.

    Raises:
        ConfigError: no such model or adapter, or ways to run it that do not go together.
    """
    if quantize not in get_args(Quantize) or (compiled and quantize != "none"):
        raise ConfigError(
            f"--quantize {quantize}{' --compile' * bool(compiled)}: choose of {', '.join(get_args(Quantize))}, and "
            "`none` with --compile: both together were never tried."
        )
    config = read_config(model)
    if config.pretrained and adapter is None:
        raise ConfigError(
            f"--model {model} needs --adapter: its projector is trained, and none comes with the frozen weights."
        )
    way = COMPILED[compiled] + ("" if quantize == "none" else f"+{quantize}")
    identity = ModelIdentity(name=config.name, digest=_digest(model, config) + way)
    if adapter is not None:
        files = adapter_files(adapter)
        config = adapted(config, files)
        identity = replace(identity, adapter_digest=files_digest(files) + MERGED[merge_adapter])
    return config, identity


def read_config(model: str) -> AsrConfig:
    """Read the sizes of a model, with relative folders found from its own; ConfigError where there is none."""
    if model == "full":
        return full()
    folder = model_folder(model)
    config = AsrConfig.load(folder / CONFIG_FILE)
    return replace(config, pretrained={part: _found_from(folder, name) for part, name in config.pretrained.items()})


def model_folder(model: str) -> Path:
    """Find the folder of a model that is not `full`; ConfigError where there is none."""
    folder = Path(str(resources.files("dgasr.model") / model)) if model in BUNDLED else Path(model)
    if not folder.is_dir():
        raise ConfigError(
            f"--model {model}: no such folder. Give `base`, `tiny`, `full`, or a folder made by `dgasr train`."
        )
    return folder


def pretrained_digest(config: AsrConfig) -> str:
    """Join the revisions of a configuration's frozen parts: encoder, then backbone."""
    return "+".join(revision_of(config.pretrained[part]) for part in ("encoder", "backbone"))


def weight_files(folder: Path) -> list[Path]:
    """List the files of a model folder's weights: one for all or one for each part, and updates of them, if any."""
    is_by_part = any((folder / name).is_file() for name in PART_FILES.values())
    updates = [UPDATE_FILE] if (folder / UPDATE_FILE).is_file() else []
    return [folder / name for name in (*(PART_FILES.values() if is_by_part else [WEIGHTS_FILE]), *updates)]


def folder_digest(folder: Path) -> str:
    """Fingerprint of a model folder: 32 hex digits over config, weights, tokenizer, word list and punctuation."""
    more = [folder / name for name in MORE_FILES if (folder / name).is_file()]
    return files_digest([folder / CONFIG_FILE, *weight_files(folder), folder / TOKENIZER_FILE, *more])


def adapter_files(adapter: str) -> list[Path]:
    """Find the files of an adapter, in the order in which they are fingerprinted.

    ConfigError where it is neither a file nor a whole adapter folder nor to be had from the Hub.
    """
    if Path(adapter).is_file():
        return [Path(adapter)]
    folder = Path(adapter) if is_folder(adapter) else _fetch_adapter(adapter)
    published = sorted(folder.glob("*.pt"))
    if not (folder / ADAPTER_FILES[0]).is_file() and len(published) == 1:
        return published  # as the reference's repository has it
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"--adapter {adapter}: not an adapter ({', '.join(missing)} missing). It is a folder with "
            f"{', '.join(ADAPTER_FILES)}, as `dgasr train` writes them, or one `.pt` file of tensors"
            + (f", and there are {len(published)}: download it, and name one." if published else ".")
        )
    stated = [folder / name for name in (PROJECTOR_CONFIG, CALIBRATION) if (folder / name).is_file()]
    return [*(folder / name for name in ADAPTER_FILES), *stated]


def adapted(config: AsrConfig, files: Sequence[Path]) -> AsrConfig:
    """Let an adapter's folder say how its projector is built, and what a calibration chose: wording and blank.

    ConfigError where a file in it cannot be read.
    """
    folder = files[0].parent
    layout = read_projector_config(folder) if len(files) > 1 else None
    config = replace(config, projector=layout or config.projector)
    if folder / CALIBRATION not in files:
        return config
    try:
        chosen = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        prompt = replace(config.prompt, template=chosen["wording"])
        blank = config.blank_id if chosen["blank_id"] is None else int(chosen["blank_id"])
        return replace(config, prompt=prompt, blank_id=blank, has_blank=chosen["blank_id"] is not None)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{folder / CALIBRATION}: no calibration ({error!r}). Import the adapter again with `dgasr adapter import`."
        ) from error


def read_projector_config(folder: Path) -> ProjectorConfig | None:
    """Read the layout of an adapter folder's projector, if it states one; ConfigError where that is no layout."""
    path = folder / PROJECTOR_CONFIG
    if not path.is_file():
        return None
    try:
        return TypeAdapter(ProjectorConfig).validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a projector's layout ({error}). Write it by `dgasr adapter import`.") from error


def files_digest(paths: list[Path]) -> str:
    """Fingerprint of whole files in this order, 32 hex digits; ConfigError where one of them cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            digest.update(hashlib.blake2b(path.read_bytes()).digest())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}. Give a folder written by `dgasr train`.") from error
    return digest.hexdigest()


def _found_from(folder: Path, source: str) -> str:
    return str(folder / source) if is_folder(source) or (folder / source).is_dir() else source


def _fetch_adapter(adapter: str) -> Path:
    return fetch(adapter, revision_of(adapter), (*ADAPTER_FILES, PROJECTOR_CONFIG, CALIBRATION, "*.pt"))


def _digest(model: str, config: AsrConfig) -> str:
    if not config.pretrained:
        return folder_digest(model_folder(model))
    if model == "full":
        return pretrained_digest(config)
    return f"{pretrained_digest(config)}+{files_digest([model_folder(model) / CONFIG_FILE])}"
