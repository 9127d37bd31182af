"""Frozen parts from the Hugging Face Hub or from folders: DiffusionGemma and Whisper's encoder. Knows no adapter.

transformers' constructor allocates DiffusionGemma's encoder and decoder, twice 26 billion parameters, before it ties
them. Here modules are built on the meta device, where tied parameters are one, and files are read tensor by tensor,
straight to where each stays: the peak is the model and one tensor.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    AutoTokenizer,
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
    WhisperConfig,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import choose_experts, drop_vision_tower
from dgasr.model.hub import absent, fetch, revision_of
from dgasr.model.identity import pretrained_digest
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.prompt import Tokenizer

logger = logging.getLogger(__name__)

ENCODER_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")
BACKBONE_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model")
"""What is fetched of each checkpoint."""

LAYER_FIELDS = ("layer_types", "per_layer_config")
"""Where transformers keeps what differs from layer to layer: sizes and numbers of heads, kinds of attention."""

LONG_LOAD_S = 5.0
"""Seconds between two lines of a long load in the log."""


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
    logged_at = started
    # `disable=None` draws the bar only where a person is looking.
    for done, (name, key, path) in enumerate(
        tqdm(stored, desc=f"loading {folder.name}", unit=" tensors", disable=None)
    ):
        if time.monotonic() - logged_at > LONG_LOAD_S:
            logged_at = time.monotonic()
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
    """Compare all that the configuration says with the checkpoints: sizes, layers, the logits' bound, ids."""
    pairs = (
        (encoder.to_dict(), WhisperConfig(**config.encoder).to_dict(), config.encoder),
        (backbone.to_dict(), DiffusionGemmaTextConfig(**config.backbone).to_dict(), config.backbone),
    )
    wrong = [
        f"{name} {part.get(name)} instead of {expected.get(name)}"
        for part, expected, names in pairs
        for name in (*names, *LAYER_FIELDS)
        if part.get(name) != expected.get(name)
    ]
    if wrong:
        raise ConfigError(
            f"The weights of model {config.name} have {', '.join(wrong)}. Name the checkpoints it is for."
        )


def backbone_skeleton(config: DiffusionGemmaConfig, device: torch.device) -> DiffusionGemmaForBlockDiffusion:
    """Build DiffusionGemma without vision tower and weights; buffers that no checkpoint stores hold their values.

    Args:
        config: of the checkpoint.
        device: where the buffers are.
    """
    with torch.device("meta"):
        backbone = DiffusionGemmaForBlockDiffusion(config)
    drop_vision_tower(backbone)
    choose_experts(backbone)
    for module in backbone.modules():
        computed = dict(module.named_buffers(recurse=False))
        for name, buffer in computed.items():
            module.register_buffer(
                name, torch.empty_like(buffer, device=device), persistent=name not in module._non_persistent_buffers_set
            )
        if computed:
            backbone._init_weights(module)
    return backbone.eval().requires_grad_(False)


def encoder_skeleton(config: WhisperConfig) -> WhisperEncoder:
    """Build Whisper's encoder without weights."""
    with torch.device("meta"):
        encoder = WhisperEncoder(config)
    return encoder.eval().requires_grad_(False)


class Slots:
    """The tensors of a module by name, tied ones together; each is filled once.

    Args:
        module: with parameters on the meta device.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._tensors: dict[str, Tensor] = module.state_dict(keep_vars=True)
        self._names: dict[int, list[str]] = {}
        for name, tensor in self._tensors.items():
            self._names.setdefault(id(tensor), []).append(name)
        self._filled: set[int] = set()

    @property
    def unfilled(self) -> list[str]:
        """First names of what has no values yet."""
        return [names[0] for key, names in self._names.items() if key not in self._filled]

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Shape that is wanted, `None` for a name that is not there."""
        tensor = self._tensors.get(name)
        return None if tensor is None else tuple(tensor.shape)

    def value_of(self, name: str) -> Tensor | None:
        """What a slot, or one tied to it, has been filled with."""
        return self._attribute(name) if id(self._tensors[name]) in self._filled else None

    def fill(self, name: str, value: Tensor) -> None:
        """Give a slot, and all that are tied to it, a value; no copy is made."""
        wanted = self._tensors[name]
        is_parameter = isinstance(wanted, nn.Parameter)
        stored = nn.Parameter(value, requires_grad=False) if is_parameter else value
        for tied in self._names[id(wanted)]:
            path, _, attribute = tied.rpartition(".")
            setattr(self._module.get_submodule(path), attribute, stored)
        self._filled.add(id(wanted))

    def _attribute(self, name: str) -> Tensor:
        path, _, attribute = name.rpartition(".")
        value: Any = getattr(self._module.get_submodule(path), attribute)
        assert isinstance(value, Tensor)
        return value


def draw_weights(module: nn.Module, dtype: torch.dtype, device: torch.device, seed: int) -> None:
    """Fill a skeleton with random weights that keep values in range: norms and scales 1, biases 0, the rest normal.

    Args:
        module: with parameters on the meta device.
        dtype: of the weights.
        device: where they are drawn and stay.
        seed: of the draw; depends on the device's generator.
    """
    slots, generator = Slots(module), torch.Generator(device).manual_seed(seed)
    for name in slots.unfilled:
        shape = slots.shape_of(name)
        assert shape is not None
        value = torch.empty(shape, dtype=dtype, device=device)
        if name.endswith("bias"):
            value.zero_()
        elif len(shape) < 2:
            value.fill_(1)
        else:
            value.normal_(
                0.0, 1 / math.sqrt(math.prod(shape[1:]) if len(shape) == 2 else shape[-1]), generator=generator
            )
        slots.fill(name, value)
