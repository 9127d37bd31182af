"""How a projector is built: convolutions that shorten, frames stacked, one or two linear layers, norms between."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from dgasr.errors import ConfigError

Activation = Literal["gelu", "relu", "silu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectorConfig:
    """Layout of a projector; the defaults are the bundled models'.

    channels: output channels of each stride-2 convolution; each halves the number of frames.
    kernel_size: odd, in frames; padding keeps `ceil(frames / 2)`.
    stack: frames that are laid side by side before the linear layers; 1 for none.
    has_hidden: two linear layers with an activation between, or one.
    hidden_width: outputs of the first of two linear layers; 0 for the backbone's width.
    blocks: residual blocks after the convolutions: norm, a convolution of `block_kernel` frames, GELU, a linear layer.
    block_kernel: odd, in frames after the stride-2 convolutions.
    unbiased: layers without a bias, of `convs.N`, `hidden`, `output`.
    activation: between layers, of `gelu`, `relu`, `silu`.
    norm_epsilon: added to the norms' variance; Gemma's.
    norms: where there is a norm, and which, as `place=layer` or `place=rms`; places are `input`, `stacked`, and after
        a layer's activation its name, before it `name.linear`; nothing follows `output`'s.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    channels: tuple[int, ...]
    kernel_size: int = 3
    stack: int = 1
    has_hidden: bool = True
    hidden_width: int = 0
    blocks: int = 0
    block_kernel: int = 5
    unbiased: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.kernel_size % 2 == 0 or self.stack < 1 or self.subsampling == 1:
            raise ConfigError(
                "projector: needs an odd kernel_size and frames to shorten by channels or stack, got kernel_size "
                f"{self.kernel_size}, channels {self.channels}, stack {self.stack}."
            )
        if self.blocks and (self.block_kernel % 2 == 0 or not self.channels):
            raise ConfigError(
                f"projector: blocks={self.blocks} need channels and an odd block_kernel, got {self.block_kernel}."
            )
        if self.activation not in get_args(Activation) or self.norm_epsilon <= 0:
            raise ConfigError(
                f"projector: activation {self.activation!r} is to be one of {', '.join(get_args(Activation))}, "
                f"norm_epsilon {self.norm_epsilon} above 0."
            )
        unknown = sorted({*self.unbiased} - {*self.layers}) + sorted({*self.norm_kinds} - {*self.places})
        if unknown or {*self.norm_kinds.values()} - {"layer", "rms"}:
            raise ConfigError(
                f"projector: no place for {unknown or self.norms}. Layers are {', '.join(self.layers)}; norms are "
                f"`place=layer` or `place=rms` at {', '.join(self.places)}."
            )

    @property
    def subsampling(self) -> int:
        """Encoder frames per audio embedding."""
        return int(2 ** len(self.channels)) * self.stack

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with weights, in order."""
        hidden = ("hidden",) if self.has_hidden else ()
        return (*(f"convs.{index}" for index in range(len(self.channels))), *hidden, "output")

    @property
    def places(self) -> tuple[str, ...]:
        """Where norms may be, in order."""
        convs = [place for name in self.layers if name.startswith("convs") for place in (f"{name}.linear", name)]
        hidden = ("hidden.linear", "hidden") if self.has_hidden else ()
        return ("input", *convs, "stacked", *hidden, "output")

    @property
    def norm_kinds(self) -> dict[str, str]:
        """Place → `layer` or `rms`."""
        return {place: kind for place, _, kind in (norm.partition("=") for norm in self.norms)}

    def widths(self, encoder_width: int, hidden_size: int) -> dict[str, int]:
        """Say how wide the values are at each place.

        Args:
            encoder_width: features per encoder frame.
            hidden_size: width of the backbone.
        """
        before = self.channels[-1] if self.channels else encoder_width
        hidden = self.hidden_width or hidden_size
        widths = {"input": encoder_width, "stacked": before * self.stack, "output": hidden_size}
        widths |= {"hidden": hidden, "hidden.linear": hidden}
        for index, channels in enumerate(self.channels):
            widths |= {f"convs.{index}": channels, f"convs.{index}.linear": channels}
        return widths
