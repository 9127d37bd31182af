"""Frozen parts from the Hugging Face Hub or from folders: DiffusionGemma and Whisper's encoder. Knows no adapter.

Files are read tensor by tensor, straight to where each stays: the peak is the model and one tensor.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm import tqdm
from transformers import AutoTokenizer, DiffusionGemmaConfig, WhisperConfig

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.asr import AsrModel
from dgasr.model.hub import absent, fetch, revision_of
from dgasr.model.identity import pretrained_digest
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.model.skeleton import Slots, backbone_skeleton, encoder_skeleton
from dgasr.prompt import Tokenizer

logger = logging.getLogger(__name__)

ENCODER_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")
BACKBONE_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model")
"""What is fetched of each checkpoint."""

CHECKED_SIZES = ("d_model", "max_source_positions", "num_mel_bins", "hidden_size", "vocab_size", "num_hidden_layers")

LONG_LOAD_S = 5.0
"""Seconds after which a load tells how far it is, to a log that nobody watches."""


def load_pretrained(
    config: AsrConfig, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> AsrModel:
    """Load the frozen parts that a configuration names; the projector has fresh weights, in float32.

    Args:
        config: `pretrained` names the Hub ids or folders of `encoder` and `backbone`.
        dtype: of the frozen weights.
        device: where the weights go, without a copy on the host.

    Returns:
        The model in evaluation mode.

    Raises:
        ConfigError: weights are absent or gated, or their sizes are not the configuration's.
        IntegrityError: a checkpoint is damaged, lacks tensors, or has some that the model has no place for.
    """
    where = torch.device(device)
    encoder_folder, backbone_folder = (
        fetch(config.pretrained[part], revision_of(config.pretrained[part]), files)
        for part, files in (("encoder", ENCODER_FILES), ("backbone", BACKBONE_FILES))
    )
    try:
        encoder_config = WhisperConfig.from_pretrained(encoder_folder)
        backbone_config = DiffusionGemmaConfig.from_pretrained(backbone_folder)
        tokenizer = AutoTokenizer.from_pretrained(backbone_folder)
    except (OSError, ValueError) as error:
        raise absent(config.pretrained["backbone"], error) from error
    _check_sizes(config, encoder_config, backbone_config.get_text_config())
    encoder = encoder_skeleton(encoder_config)
    _stream_weights(encoder, encoder_folder, _encoder_name, dtype, where)
    backbone = backbone_skeleton(backbone_config, where)
    _stream_weights(backbone, backbone_folder, _backbone_name, dtype, where)
    identity = ModelIdentity(name=config.name, digest=pretrained_digest(config))
    wrapped = Tokenizer(tokenizer, tokenizer.unk_token_id)
    model = AsrModel(config, wrapped, identity, encoder=encoder, backbone=backbone)
    model.projector.to(where)
    return model.eval().requires_grad_(False)


def _encoder_name(key: str) -> str | None:
    """Name a tensor of whisper's checkpoint in its encoder; `None` for the decoder's."""
    name = key.removeprefix("model.")
    return name.removeprefix("encoder.") if name.startswith("encoder.") else None


def _backbone_name(key: str) -> str | None:
    """Name a tensor of DiffusionGemma's checkpoint; `None` for those that see images."""
    return None if any(part in key for part in (".vision_tower.", ".embed_vision.")) else key


def _stream_weights(
    module: nn.Module, folder: Path, rename: Callable[[str], str | None], dtype: torch.dtype, device: torch.device
) -> None:
    slots, misfits, started = Slots(module), [], time.monotonic()
    stored = [(name, key, path) for path in _files(folder) for key in _keys(path) if (name := rename(key)) is not None]
    told = started
    # `disable=None` draws the bar only where a person is looking.
    for done, (name, key, path) in enumerate(
        tqdm(stored, desc=f"loading {folder.name}", unit=" tensors", disable=None)
    ):
        if time.monotonic() - told > LONG_LOAD_S:
            told = time.monotonic()
            logger.info("loading %s: %d of %d tensors", folder, done, len(stored))
        # Opened for each tensor: what a file maps stays in memory until it is closed.
        with safe_open(path, framework="pt", device=str(device)) as file:
            shape = tuple(file.get_slice(key).get_shape())
            if shape != slots.shape_of(name):
                misfits.append(f"{key} {list(shape)}")
                continue
            before = slots.value_of(name)
            tensor = file.get_tensor(key).to(dtype, copy=True)
        if before is None:
            slots.fill(name, tensor)
        elif not torch.equal(before, tensor):
            misfits.append(f"{key} (differs from the tensor that it is tied to)")
    missing = slots.unfilled
    if missing or misfits:
        raise IntegrityError(
            f"{folder}: {len(missing)} tensors are missing ({', '.join(missing[:3])}) and {len(misfits)} do not fit "
            f"({', '.join(misfits[:3])}). Download the checkpoint again, or name the one this configuration is for."
        )
    logger.info("loaded %s: %d tensors in %.1f s", folder, len(stored), time.monotonic() - started)


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            names = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        else:
            names = ["model.safetensors"]
    except (OSError, ValueError, KeyError) as error:
        raise IntegrityError(f"{index}: not an index of weights ({error}). Download it again.") from error
    absent_files = [name for name in names if not (folder / name).is_file()]
    if absent_files:
        raise absent(str(folder), FileNotFoundError(f"{', '.join(absent_files[:3])} missing"))
    return [folder / name for name in names]


def _keys(path: Path) -> Iterator[str]:
    try:
        with safe_open(path, framework="pt") as file:
            yield from file.offset_keys()
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path}: damaged ({error}). Download it again.") from error


def _check_sizes(config: AsrConfig, encoder: Any, backbone: Any) -> None:
    wrong = [
        f"{name} {getattr(part, name)} instead of {wanted[name]}"
        for part, wanted in ((encoder, config.encoder), (backbone, config.backbone))
        for name in CHECKED_SIZES
        if name in wanted and getattr(part, name) != wanted[name]
    ]
    if wrong:
        raise ConfigError(
            f"The weights of model {config.name} have {', '.join(wrong)}. Name the checkpoints it is for."
        )
