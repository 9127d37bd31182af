"""Where a training run begins: fresh weights of the bundled size, a model folder, or frozen weights with LoRA."""

from dataclasses import dataclass
from pathlib import Path

import torch

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, load_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.presets import TINY_SPECIAL_TOKENS, TINY_WORDS, full, tiny
from dgasr.model.pretrained import load_pretrained
from dgasr.prompt import Tokenizer
from dgasr.training.batches import Batches
from dgasr.training.initialise import initialise
from dgasr.training.manifests import Utterance
from dgasr.training.plan import Plan
from dgasr.training.vocabulary import write_word_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class StartConfig:
    """First weights of a run.

    folder: model folder to go on from; `None` takes `full`'s frozen weights, or fresh ones where `from_scratch`.
    from_scratch: draw the weights of a model of the bundled size.
    adapter: projector and LoRA to go on from, or `None`.
    lora: put LoRA on the backbone.
    seed: of fresh weights.
    """

    folder: Path | None
    from_scratch: bool = False
    adapter: str | None = None
    lora: bool = False
    seed: int = 0


def starting_model(start: StartConfig, plan: Plan, utterances: list[Utterance], out: Path) -> tuple[AsrModel, Path]:
    """Make or load the model that training changes.

    Args:
        start: which weights.
        plan: its first phase makes the batch that fresh weights are fitted to.
        utterances: training data.
        out: folder of the run; a new vocabulary is written there.

    Returns:
        The model and the folder of its tokenizer.

    Raises:
        ConfigError: what was asked for contradicts itself, or is not there.
    """
    if start.from_scratch:
        if start.adapter or start.lora:
            raise ConfigError("--scratch trains every weight: leave out --lora and --adapter.")
        return _fresh(start.seed, plan, utterances, out), out
    model = load_pretrained(full()) if start.folder is None else load_model(start.folder)
    if start.adapter is not None:
        load_adapter(model, start.adapter)
    elif start.lora:
        add_lora(model, model.config.lora)
    if start.folder is None:
        out.mkdir(parents=True, exist_ok=True)
        model.tokenizer.save(out)
    return model, start.folder or out


def _fresh(seed: int, plan: Plan, utterances: list[Utterance], out: Path) -> AsrModel:
    config = tiny()
    write_word_tokenizer(out, TINY_SPECIAL_TOKENS, TINY_WORDS)
    tokenizer = Tokenizer.load(out)
    torch.manual_seed(seed)
    model = AsrModel(config, tokenizer)
    first = Batches(utterances, config, tokenizer, plan.phases[0].batches, plan.augmentation, (0.0, 0.0), 1, seed)
    initialise(model, first[0].log_mel, seed)
    return model
