"""Adapters as they lie in files: read into one form from a folder or a published `.pt`, and written as either.

A folder holds `adapter_config.json` and `adapter_model.safetensors`, which PEFT loads by itself onto the backbone,
`projector.safetensors` and `projector.json`. A `.pt` holds `{"projector": tensors, "lora": tensors}` under names of
its writer. Knows shapes of a model, no model.
"""

import copy
import json
import pickle
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dgasr.errors import ConfigError
from dgasr.model.identity import ADAPTER_FILES, PROJECTOR_CONFIG, adapter_files, read_projector_config
from dgasr.model.presets import AsrConfig, ProjectorConfig
from dgasr.model.stored_layout import Linears, StoredLora, Tensors, read_lora, read_projector

ADAPTER_CONFIG, ADAPTER_WEIGHTS, PROJECTOR_WEIGHTS = ADAPTER_FILES

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before module names in its files."""

_COPIES = {"encoder": r"encoder\.language_model", "decoder": "decoder"}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAdapter:
    """Projector and LoRA, away from any model.

    layout: how the projector is built.
    projector: its tensors, as `Projector` names them.
    settings: LoRA for PEFT.
    lora: its tensors, as PEFT names them, without its prefix.
    found: what LoRA a `.pt` holds; `None` for a folder, which states it in `settings`.
    """

    layout: ProjectorConfig
    projector: Tensors
    settings: LoraConfig
    lora: Tensors
    found: StoredLora | None = None


def read_adapter(source: str, config: AsrConfig, linears: Linears, scale: float) -> StoredAdapter:
    """Read an adapter: a folder, the Hub id of one, or a `.pt` file, for a model of these sizes and linear layers.

    `scale` is what LoRA's update is multiplied by where a `.pt` does not say. ConfigError where there is none, or it
    does not fit the model; code in a pickle is never run.
    """
    files = adapter_files(source)
    try:
        if len(files) > 1:
            return _read_folder(files[0].parent, config)
        return _read_file(files[0], config, linears, scale)
    except ConfigError as error:
        raise ConfigError(f"--adapter {source}: {error}") from error


def write_folder(stored: StoredAdapter, folder: Path) -> None:
    """Write an adapter as this project and PEFT read it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({PEFT_PREFIX + name: _plain(tensor) for name, tensor in stored.lora.items()}, folder / ADAPTER_WEIGHTS)
    stored.settings.save_pretrained(str(folder))
    save_file({name: _plain(tensor) for name, tensor in stored.projector.items()}, folder / PROJECTOR_WEIGHTS)
    (folder / PROJECTOR_CONFIG).write_text(json.dumps(asdict(stored.layout), indent=2) + "\n", encoding="utf-8")


def with_scale(stored: StoredAdapter, scale: float | None) -> StoredAdapter:
    """Let every layer's update be multiplied by `scale`; `None` leaves what is stated."""
    if scale is None or stored.found is None:
        return stored
    settings = copy.deepcopy(stored.settings)
    settings.lora_alpha = scale * settings.r  # type: ignore[assignment] # PEFT divides either
    settings.alpha_pattern = {name: scale * rank for name, rank in (settings.rank_pattern or {}).items()}
    return replace(stored, settings=settings)


def write_file(stored: StoredAdapter, path: Path) -> None:
    """Write an adapter in the published form; scales that the form has no place for are tensors named `….alpha`."""
    layers = sorted({name.rpartition(".lora_")[0] for name in stored.lora})
    alphas = {f"{layer}.alpha": torch.tensor(float(_alpha_of(stored.settings, layer))) for layer in layers}
    torch.save({"projector": dict(stored.projector), "lora": {**stored.lora, **alphas}}, path)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


def _alpha_of(settings: LoraConfig, layer: str) -> float:
    patterns = (settings.alpha_pattern or {}).items()
    return next((alpha for name, alpha in patterns if re.fullmatch(rf"(.*\.)?({name})", layer)), settings.lora_alpha)


def _read_folder(folder: Path, config: AsrConfig) -> StoredAdapter:
    try:
        settings = LoraConfig.from_pretrained(str(folder))
        lora, projector = load_file(folder / ADAPTER_WEIGHTS), load_file(folder / PROJECTOR_WEIGHTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"not an adapter ({error}). It needs {ADAPTER_CONFIG}, {ADAPTER_WEIGHTS} and {PROJECTOR_WEIGHTS}, as "
            "`dgasr train` writes them."
        ) from error
    return StoredAdapter(
        layout=read_projector_config(folder) or config.projector,
        projector=projector,
        settings=settings,
        lora={name.removeprefix(PEFT_PREFIX): tensor for name, tensor in lora.items()},
    )


def _read_file(path: Path, config: AsrConfig, linears: Linears, scale: float) -> StoredAdapter:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        parts: list[Tensors] = [{**stored[part]} for part in ("projector", "lora")]
        others = sorted({*stored} - {"projector", "lora"}) + sorted(
            name for part in parts for name, tensor in part.items() if not isinstance(tensor, torch.Tensor)
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
        first_line = str(error).strip().split("\n", 1)[0]
        raise ConfigError(
            f"not an adapter ({type(error).__name__}: {first_line}). The file must hold tensors as "
            '{"projector": …, "lora": …}; code in a pickle is never run.'
        ) from error
    if others:
        raise ConfigError(
            f"{', '.join(map(str, others))} in the file is neither projector nor LoRA. Take it out, or name what it is."
        )
    layout, projector = read_projector(parts[0], config.encoder["d_model"], config.backbone["hidden_size"])
    found = read_lora(parts[1], linears)
    settings = _settings(found, linears, scale)
    return StoredAdapter(layout=layout, projector=projector, settings=settings, lora=found.tensors, found=found)


def _settings(found: StoredLora, linears: Linears, scale: float) -> LoraConfig:
    """Describe LoRA to PEFT: common rank and scale, and what differs from them layer by layer."""
    alphas = {name: found.alphas.get(name, rank * scale) for name, rank in found.ranks.items()}
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    copies = "|".join(_COPIES[side] for side in found.sides)
    pattern = rf"model\.({copies})\.layers\.\d+\.self_attn\.({'|'.join(found.targets)})"
    is_regular = {name for name in linears if re.fullmatch(pattern, name)} == found.ranks.keys()
    return LoraConfig(
        r=found.rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # type: ignore[arg-type] # PEFT divides either
        target_modules=pattern if is_regular else sorted(found.ranks),
        rank_pattern={name: rank for name, rank in found.ranks.items() if rank != found.rank},
        alpha_pattern={name: value for name, value in alphas.items() if value != alpha},
        bias="none",
    )
