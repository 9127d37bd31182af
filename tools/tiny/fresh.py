"""A fresh model of the bundled size: `python -m tools.tiny.fresh FOLDER MANIFEST…`, then `python -m tools.tiny.phases`.

With transformers' default weights CTC stays at ln(words); with these it learns.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
from torch import Tensor, nn

from dgasr.errors import DgasrError
from dgasr.manifests import Utterance, read_manifest
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import save_model
from dgasr.model.identity import TOKENIZER_FILE
from dgasr.model.presets import tiny
from dgasr.prompt import Tokenizer
from tools.tiny.drawn import DrawnBatches
from tools.tiny.phases import Phase, read_phases
from tools.tiny.voices import DIGITS

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<blank>", "<|audio|>", "<boa>", "<eoa>", "<turn|>")
"""First ids of the bundled model's vocabulary; the words that it can say follow."""

POSITION_SCALE = 0.1
"""Whisper's sinusoids have amplitude 1 and would drown fresh convolutions."""


def fresh_model(folder: Path, first: Phase, utterances: list[Utterance], seed: int) -> AsrModel:
    """Write a model folder with first weights.

    Args:
        folder: where config, weights and vocabulary go.
        first: the first phase, whose settings make the batch that the weights are fitted to.
        utterances: training data.
        seed: of the weights.
    """
    config = tiny()
    write_word_tokenizer(folder)
    tokenizer = Tokenizer.load(folder)
    torch.manual_seed(seed)
    model = AsrModel(config, tokenizer)
    settings = first.config
    batches = DrawnBatches(
        utterances, config, tokenizer, settings.batches, settings.augmentation, (0.0, 0.0), 1, seed,
        drawing=first.drawing,
    )  # fmt: skip
    initialise(model, batches[0].log_mel, seed)
    save_model(model, folder)
    return model


def write_word_tokenizer(
    folder: Path, words: Sequence[str] = DIGITS, special_tokens: Sequence[str] = SPECIAL_TOKENS
) -> None:
    """Write `tokenizer.json`: special tokens get the first ids, words the next.

    Args:
        folder: created if missing.
        words: what texts are made of.
        special_tokens: never part of a text; `<unk>` must be among them.
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


def main(arguments: Sequence[str]) -> int:
    """Write the folder; 0 for done, 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="tools.tiny.fresh", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST", help="those that it will be trained on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        utterances = [utterance for path in options.manifests for utterance in read_manifest(path)]
        fresh_model(options.folder, read_phases()[0], utterances, options.seed)
    except DgasrError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    print(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
