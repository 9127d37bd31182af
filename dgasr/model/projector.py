"""Encoder frames in, audio embeddings at the backbone's width out. Knows neither the encoder nor the backbone."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from dgasr.model.presets import ProjectorConfig

NORM_EPSILON = 1e-6
"""Of residual blocks' norms: Gemma's."""


class Projector(nn.Module):
    """Stride-2 convolutions or stacked frames, and one or two linear layers.

    Args:
        config: layout.
        encoder_width: features per encoder frame.
        hidden_size: width of the backbone.

    Source:
        The reference's parameter count: kernel 3, channels 1024 x 3 and an MLP 1024 → 2816 → 2816 from
        whisper-small's 768 are 19,472,896 parameters. GELU as in Whisper's own stem.
    """

    def __init__(self, config: ProjectorConfig, encoder_width: int, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        widths = config.widths(encoder_width, hidden_size)
        biased = {name: name not in config.unbiased for name in config.layers}
        kernel = config.kernel_size
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, stride=2, padding=kernel // 2, bias=biased[f"convs.{index}"])
            for index, (before, after) in enumerate(pairwise((encoder_width, *config.channels)))
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(config.channels[-1], config.block_kernel) for _ in range(config.blocks)
        )
        before = widths["hidden"] if config.has_hidden else widths["stacked"]
        hidden = nn.Linear(widths["stacked"], before, bias=biased["hidden"]) if config.has_hidden else None
        self.hidden: nn.Linear | None = hidden
        self.output = nn.Linear(before, hidden_size, bias=biased["output"])
        self.norms = nn.ModuleDict(
            {_key(place): _norm(kind, widths[place], config.norm_epsilon) for place, kind in config.norm_kinds.items()}
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Project encoder output, [batch, frames, encoder_width], to audio embeddings.

        One for every `subsampling` frames, rounded up.  [batch, ceil(frames / 8), hidden]
        """
        # While it learns it is float32 beside a bfloat16 encoder.
        states = self._norm("input", frames.to(self.output.weight.dtype))
        for index, conv in enumerate(self.convs):
            states = conv(states.transpose(1, 2)).transpose(1, 2)  # [batch, ceil(frames / 2), channels]
            states = self._activate(f"convs.{index}", states)
        for block in self.blocks:
            states = block(states)
        states = self._norm("stacked", _stack(states, self.config.stack))
        if self.hidden is not None:
            states = self._activate("hidden", self.hidden(states))
        return self._norm("output", self.output(states))

    def _activate(self, name: str, states: Tensor) -> Tensor:
        return self._norm(name, getattr(nn.functional, self.config.activation)(self._norm(f"{name}.linear", states)))

    def _norm(self, place: str, states: Tensor) -> Tensor:
        key = _key(place)
        return self.norms[key](states) if key in self.norms else states

    def forward_shifted(self, frames: Tensor, embeddings: Tensor) -> Tensor:
        """Put the embeddings of frames shifted by 1 … subsampling - 1 between embeddings, one for every frame; ours.

        Frames past the end are zeros, as the convolutions' own padding.

        Args:
            frames: encoder output of one window.  [frames, encoder_width]
            embeddings: the first ones that `forward` makes of these frames, as many as are wanted.  [count, hidden]

        Returns:
            Embeddings in the order of time, 20 ms apart for Whisper.  [count * subsampling, hidden]
        """
        subsampling, count = self.config.subsampling, len(embeddings)
        length = min(count * subsampling + self._overhang, len(frames))
        padded = nn.functional.pad(frames, (0, 0, 0, subsampling - 1))
        shifted = torch.stack([padded[shift : shift + length] for shift in range(1, subsampling)])
        between = self(shifted)[:, :count]  # [subsampling - 1, count, hidden]
        return torch.cat([embeddings[None], between]).transpose(0, 1).flatten(0, 1)

    @property
    def _overhang(self) -> int:
        """Frames past its own `subsampling` ones that an embedding depends on."""
        stride = 2 ** len(self.config.channels)
        own = self.config.kernel_size // 2 * (stride - 1) - stride + 1
        return max(own + self.config.blocks * (self.config.block_kernel // 2) * stride, 0)


class ResidualBlock(nn.Module):
    """One residual block over subsampled frames: it gives a frame what its neighbours say.

    Ours; with three of them, CTC on real speech overfits later than with convolutions alone (docs/experiments).
    """

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.conv = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """Add what the block finds; [batch, frames, width] → [batch, frames, width]"""
        found = self.conv(self.norm(states).transpose(1, 2)).transpose(1, 2)
        return states + self.output(nn.functional.gelu(found))


def _stack(states: Tensor, count: int) -> Tensor:
    """Lay `count` frames side by side, zeros after the last one.  [batch, ceil(frames / count), count * width]"""
    if count == 1:
        return states
    padded = nn.functional.pad(states, (0, 0, 0, -states.shape[1] % count))
    return padded.unflatten(1, (-1, count)).flatten(2)


def _norm(kind: str, width: int, epsilon: float) -> nn.Module:
    return nn.LayerNorm(width, eps=epsilon) if kind == "layer" else nn.RMSNorm(width, eps=epsilon)


def _key(place: str) -> str:
    # A module's name must hold no dot.
    return place.replace(".", "_")
