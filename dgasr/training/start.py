"""Where a training run begins: a model folder, or the full model's frozen weights, with LoRA where it is asked for."""

from dataclasses import dataclass
from pathlib import Path

from dgasr.model.adapter import add_lora, load_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.presets import full
from dgasr.model.pretrained import load_pretrained


@dataclass(frozen=True, kw_only=True, slots=True)
class StartConfig:
    """First weights of a run.

    folder: model folder to go on from; `None` takes `full`'s frozen weights.
    adapter: projector and LoRA to go on from, or `None`.
    lora: put LoRA on the backbone.
    """

    folder: Path | None
    adapter: str | None = None
    lora: bool = False


def starting_model(start: StartConfig, out: Path) -> tuple[AsrModel, Path]:
    """Load the model that training changes.

    Args:
        start: which weights.
        out: folder of the run; the full model's tokenizer is written there.

    Returns:
        The model and the folder of its tokenizer.

    Raises:
        ConfigError: what was asked for is not there.
    """
    model = load_pretrained(full()) if start.folder is None else load_model(start.folder)
    if start.adapter is not None:
        load_adapter(model, start.adapter)
    elif start.lora:
        add_lora(model, model.config.lora)
    if start.folder is None:
        out.mkdir(parents=True, exist_ok=True)
        model.tokenizer.save(out)
    return model, start.folder or out
