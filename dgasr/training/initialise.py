"""First weights for training from scratch. With transformers' defaults CTC stays at ln(words); with these it learns.

Knows the model's modules, no data but the one batch that is passed in.
"""

import math

import torch
from torch import Tensor, nn

from dgasr.model.asr import AsrModel

POSITION_SCALE = 0.1
"""Whisper's sinusoids have amplitude 1 and would drown fresh convolutions."""


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
