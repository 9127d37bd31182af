"""Names of models and devices in, a model out."""

import torch

from dgasr.errors import ConfigError
from dgasr.model.adapter import load_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import identify, model_folder
from dgasr.model.pretrained import load_pretrained


def load(model: str = "tiny", *, adapter: str | None = None, device: str = "auto") -> AsrModel:
    """Load a model for transcription.

    Args:
        model: `tiny` (bundled), `full` (DiffusionGemma 26B and whisper-small from the Hub cache), or a model folder.
        adapter: projector and LoRA to put on top, or `None`.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The model, in evaluation mode.

    Raises:
        ConfigError: no such model, adapter or device.
        IntegrityError: weights and config contradict each other.
    """
    where = choose_device(device)
    config, identity = identify(model, adapter)
    loaded = load_pretrained(config) if config.pretrained else load_model(model_folder(model))
    if adapter is not None:
        load_adapter(loaded, adapter)
    loaded.identity = identity
    return loaded.to(where).eval().requires_grad_(False)


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device.

    Raises:
        ConfigError: another name, or no GPU where one was asked for.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU. Use `--device cpu`, or see `dgasr doctor`.")
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name}: choose auto, cpu or cuda.")
    return torch.device(name)
