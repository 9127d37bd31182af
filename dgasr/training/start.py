"""Where a training run begins: fresh weights of the bundled size, a model folder, or frozen weights with LoRA."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
from torch import Tensor, nn

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, load_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import TOKENIZER_FILE
from dgasr.model.presets import TINY_SPECIAL_TOKENS, TINY_WORDS, full, tiny
from dgasr.model.pretrained import load_pretrained
from dgasr.prompt import Tokenizer
from dgasr.training.batches import Batches
from dgasr.training.manifests import Utterance
from dgasr.training.phases import Plan

POSITION_SCALE = 0.1
"""Whisper's sinusoids have amplitude 1 and would drown fresh convolutions."""


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


def write_word_tokenizer(folder: Path, special_tokens: Sequence[str], words: Sequence[str]) -> None:
    """Write `tokenizer.json`: special tokens get the first ids, words the next.

    Args:
        folder: created if missing.
        special_tokens: never part of a text; `<unk>` must be among them.
        words: what texts are made of.
    """
    ids = {token: index for index, token in enumerate([*special_tokens, *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(special_tokens))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER_FILE))


@torch.no_grad()
def initialise(model: AsrModel, log_mel: Tensor, seed: int) -> None:
    """Draw weights, then set mean 0 and deviation 1 of the convolutions' and the projector's outputs on real audio.

    Args:
        model: every parameter is overwritten.
        log_mel: features of one batch of real audio.  [batch, mels, window frames]
        seed: of the draw.

    Source:
        He et al. 2015, Glorot & Bengio 2010; the data-dependent pass as Mishkin & Matas 2016 (LSUV), one pass.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = model.head_weight.shape[1]
    for name, parameter in model.named_parameters():
        if "embed_positions" in name:
            continue
        if name.endswith("bias"):
            parameter.zero_()
        elif "embed_tokens" in name:
            parameter.normal_(0.0, hidden**-0.5, generator=generator)
            parameter[model.config.prompt.pad_id].normal_(0.0, hidden**-0.5, generator=generator)
        elif parameter.dim() == 3 and "conv" in name:
            fan_in = parameter.shape[1] * parameter.shape[2]
            parameter.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
        elif parameter.dim() >= 2:
            parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
        else:
            parameter.fill_(1.0)
    positions = model.encoder.embed_positions.weight
    positions.mul_(POSITION_SCALE / positions.abs().max())
    _standardise(model, log_mel)


def _standardise(model: AsrModel, log_mel: Tensor) -> None:
    projector = model.projector
    linear = [layer for layer in (projector.hidden, projector.output) if layer is not None]
    modules: list[nn.Module] = [model.encoder.conv1, model.encoder.conv2, *projector.convs, *linear]
    handles = [module.register_forward_hook(_rescale) for module in modules]
    try:
        model.projector(model.encode_audio(log_mel))
    finally:
        for handle in handles:
            handle.remove()


def _rescale(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
    channel_dim = 1 if isinstance(module, nn.Conv1d) else output.dim() - 1
    other = [dim for dim in range(output.dim()) if dim != channel_dim]
    mean, deviation = output.mean(dim=other), output.std(dim=other) + 1e-5
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    weight.div_(deviation.view(-1, *[1] * (weight.dim() - 1)))
    bias.sub_(mean).div_(deviation)
    shape = [1] * output.dim()
    shape[channel_dim] = -1
    return (output - mean.view(shape)) / deviation.view(shape)
