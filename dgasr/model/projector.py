"""Encoder frames in, audio embeddings at the backbone's width out. Knows neither the encoder nor the backbone."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from dgasr.model.presets import ProjectorConfig


class Projector(nn.Module):
    """Stride-2 convolutions and a two-layer MLP.

    Args:
        config: channels and kernel size.
        encoder_width: features per encoder frame.
        hidden_size: width of the backbone.

    Source:
        The reference's parameter count: kernel 3, channels 1024 x 3 and an MLP 1024 → 2816 → 2816 from
        whisper-small's 768 are 19,472,896 parameters. GELU as in Whisper's own stem.
    """

    def __init__(self, config: ProjectorConfig, encoder_width: int, hidden_size: int) -> None:
        super().__init__()
        widths = (encoder_width, *config.channels)
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, config.kernel_size, stride=2, padding=config.kernel_size // 2)
            for before, after in pairwise(widths)
        )
        self.hidden = nn.Linear(widths[-1], hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, frames: Tensor) -> Tensor:
        """Project encoder output to audio embeddings.

        Args:
            frames: encoder output.  [batch, frames, encoder_width]

        Returns:
            Audio embeddings, one for every 2^convolutions frames, rounded up.  [batch, ceil(frames / 8), hidden]
        """
        states = frames.transpose(1, 2)  # [batch, width, frames]
        for conv in self.convs:
            states = nn.functional.gelu(conv(states))
        states = states.transpose(1, 2)  # [batch, ceil(frames / 8), channels]
        return self.output(nn.functional.gelu(self.hidden(states)))

    def forward_shifted(self, frames: Tensor, subsampling: int) -> Tensor:
        """Project the encoder output shifted by 0 … subsampling - 1 frames, so that every encoder frame gets a value.

        Frames past the end are zeros, as the convolutions' own padding.

        Args:
            frames: encoder output.  [batch, frames, encoder_width]
            subsampling: encoder frames per audio embedding.

        Returns:
            Embeddings in the order of time, 20 ms apart for Whisper.  [batch, ceil(frames / 8) * subsampling, hidden]

        Source:
            Ours.
        """
        batch, num_frames, width = frames.shape
        padded = nn.functional.pad(frames, (0, 0, 0, subsampling - 1))
        shifted = torch.stack([padded[:, shift : shift + num_frames] for shift in range(subsampling)], dim=1)
        projected = self(shifted.reshape(batch * subsampling, num_frames, width))
        projected = projected.view(batch, subsampling, projected.shape[1], projected.shape[2])
        return projected.transpose(1, 2).reshape(batch, -1, projected.shape[-1])  # [batch, frames, hidden]
