"""Names of models and devices in, a model and its recipe out."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import torch

from dgasr.alignment.config import AlignmentConfig
from dgasr.audio import AudioConfig
from dgasr.diffusion.config import DecodeConfig, SeedCanvas
from dgasr.errors import ConfigError
from dgasr.features import FeatureConfig
from dgasr.model.adapter import load_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.presets import full
from dgasr.model.pretrained import load_pretrained
from dgasr.recipe import SEED_CANVAS, Recipe
from dgasr.segmentation import SegmentationConfig


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
    if model == "full" and adapter is None:
        raise ConfigError("--model full needs --adapter: its projector is trained, and no trained one is bundled.")
    loaded = load_pretrained(full()) if model == "full" else load_model(model_folder(model))
    if adapter is not None:
        loaded.identity = replace(loaded.identity, adapter_digest=load_adapter(loaded, adapter))
    return loaded.to(where).eval().requires_grad_(False)


def model_folder(model: str) -> Path:
    """Find the folder of a model that is not `full`.

    Raises:
        ConfigError: there is none.
    """
    folder = Path(str(resources.files("dgasr.model") / "tiny")) if model == "tiny" else Path(model)
    if not folder.is_dir():
        raise ConfigError(f"--model {model}: no such folder. Give `tiny`, `full`, or a folder made by `dgasr train`.")
    return folder


def build_recipe(
    model: AsrModel,
    *,
    max_steps: int = 8,
    language: str | None = None,
    seed_canvas: SeedCanvas = SEED_CANVAS,
) -> Recipe:
    """Compose the recipe of a model.

    Args:
        model: its config gives window, mel bins and timing calibration.
        max_steps: denoising steps a canvas gets at most.
        language: ISO 639-1 code; the model's first language when `None`.
        seed_canvas: what canvases start from, `random` tokens or what `ctc` hears.

    Raises:
        ConfigError: the model does not know the language, or a setting makes no sense.
    """
    config = model.config
    if language is not None and language not in config.languages:
        raise ConfigError(
            f"--language {language}: model {config.name} knows {', '.join(config.languages)}. Choose one of them."
        )
    return Recipe(
        model=model.identity,
        language=language or config.languages[0],
        audio=AudioConfig(),
        segmentation=SegmentationConfig(),
        features=FeatureConfig(window_samples=config.window_samples, num_mel_bins=config.encoder["num_mel_bins"]),
        decode=DecodeConfig(max_steps=max_steps, seed_canvas=seed_canvas),
        alignment=AlignmentConfig(
            frame_samples=config.frame_samples,
            start_offset_ms=config.start_offset_ms,
            end_offset_ms=config.end_offset_ms,
        ),
    )


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
