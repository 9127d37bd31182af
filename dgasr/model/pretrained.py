"""Frozen parts from the Hugging Face Hub or from folders: DiffusionGemma and Whisper's encoder. Knows no adapter.

transformers builds a model on the meta device, ties what is tied, and brings each tensor straight to where it stays:
the peak is one copy of the model. What it would only warn of (tensors that lack, fit nowhere or have another shape) is
an error here.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
    WhisperConfig,
    WhisperModel,
)
from transformers.utils.logging import disable_progress_bar

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import choose_experts, drop_vision_tower
from dgasr.model.hub import absent, described, fetch, revision_of
from dgasr.model.identity import pretrained_digest
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.prompt import Tokenizer

logger = logging.getLogger(__name__)

ENCODER_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")
BACKBONE_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model")
"""What is fetched of each checkpoint."""

LAYER_FIELDS = ("layer_types", "per_layer_config")
"""Where transformers keeps what differs from layer to layer: sizes and numbers of heads, kinds of attention."""

UNREAD = ("decoder.", "vision")
"""Parts of names of what is loaded and dropped: Whisper's decoder, and what sees images."""


def load_pretrained(
    config: AsrConfig, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> AsrModel:
    """Load the frozen parts that a configuration names, in `dtype`, straight to a device, in evaluation mode.

    The projector has fresh weights, in float32. ConfigError where weights are absent or gated, or their sizes are not
    the configuration's; IntegrityError where a checkpoint is damaged, lacks tensors, or has some that the model has no
    place for.
    """
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
    where = torch.device(device)
    encoder = _load(WhisperModel, encoder_folder, dtype, where).encoder
    backbone = _load(DiffusionGemmaForBlockDiffusion, backbone_folder, dtype, where)
    drop_vision_tower(backbone)
    choose_experts(backbone)
    identity = ModelIdentity(name=config.name, digest=pretrained_digest(config))
    wrapped = Tokenizer(tokenizer, tokenizer.unk_token_id)
    model = AsrModel(config, wrapped, identity, encoder=encoder, backbone=backbone)
    model.projector.to(where)
    return model.eval().requires_grad_(False)


def _load(kind: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Let transformers load a checkpoint, and refuse what it would only warn of."""
    if not sys.stderr.isatty():  # the bar is for people
        disable_progress_bar()
    started = time.monotonic()
    try:
        model, found = kind.from_pretrained(
            folder, dtype=dtype, device_map=device, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except OSError as error:
        raise absent(str(folder), error) from error
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise IntegrityError(f"{folder}: damaged ({described(error)}). Download it again.") from error
    missing = sorted(name for name in found["missing_keys"] if not any(part in name for part in UNREAD))
    misfits = sorted(map(str, [*found["unexpected_keys"], *found["mismatched_keys"]]))
    # Of those that a checkpoint has with values of their own, transformers forgets that they were to be tied.
    apart = model.get_expanded_tied_weights_keys(all_submodels=True).keys() - model.all_tied_weights_keys.keys()
    misfits += [f"{name} (differs from the tensor that it is tied to)" for name in sorted(apart)]
    if missing or misfits:
        raise IntegrityError(
            f"{folder}: {len(missing)} tensors are missing ({', '.join(missing[:3])}), {len(misfits)} do not fit "
            f"({', '.join(misfits[:3])}). Download the checkpoint again, or name the one this configuration is for."
        )
    logger.info("loaded %s in %.1f s", folder, time.monotonic() - started)
    return model


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
