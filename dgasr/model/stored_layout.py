"""Stored tensors of unknown layout in; a projector's configuration, LoRA's ranks, and tensors under our names out.

Only names and shapes are read. What a projector's do not tell is taken as in the reference: stride 2, padding by half
the kernel, GELU after every layer but the last. Of LoRA these styles are known: PEFT's with and without its prefix or
adapter name, plain `….lora_A`, `….lora_down`/`….lora_up` with dots or underscores and `….alpha`, and either matrix
transposed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from torch import Tensor

from dgasr.errors import ConfigError
from dgasr.model.presets import ProjectorConfig

Tensors = dict[str, Tensor]
Linears = dict[str, tuple[int, int]]
"""Name of a linear layer of the backbone → its outputs and inputs."""

_SIDES = {"encoder": "encoder", "enc": "encoder", "decoder": "decoder", "dec": "decoder"}
_MATRICES = {"A": "A", "a": "A", "down": "A", "B": "B", "b": "B", "up": "B", "alpha": "alpha"}
_LAYER = re.compile(r"(?:^|[._])(?:layers?|blocks?)[._](\d+)[._]")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Module:
    """What lies under one module name."""

    name: str
    weight: Tensor
    bias: Tensor | None


def read_projector(stored: Tensors, encoder_width: int, hidden_size: int) -> tuple[ProjectorConfig, Tensors]:
    """Find out how a projector between an encoder's and a backbone's width is built.

    Its tensors come in the order in which its modules were defined, or in the order of their names. Returns the layout,
    and every tensor under the name that `Projector` gives it. ConfigError, which lists all tensors, where there is no
    such layout between these widths.
    """
    modules = _modules(stored)
    for ordered in (modules, sorted(modules, key=lambda module: _natural(module.name))):
        layers = [module for module in ordered if module.weight.dim() > 1]
        if _is_chain(layers, encoder_width, hidden_size):
            plain = _config(layers, encoder_width, hidden_size)
            norms = _norm_places(plain, ordered, plain.widths(encoder_width, hidden_size))
            stated = tuple(f"{place}={'rms' if norm.bias is None else 'layer'}" for place, norm in norms)
            config = replace(plain, norms=stated)
            return config, _renamed(config, [*layers, *(norm for _, norm in norms)])
    listed = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in stored.items())
    raise ConfigError(
        f"projector: {listed} do not lead from {encoder_width} to {hidden_size} by convolutions of one odd kernel "
        "size or stacked frames, and one or two linear layers. Use the encoder and backbone it was trained for."
    )


def _modules(stored: Tensors) -> list[_Module]:
    grouped: dict[str, Tensors] = {}
    for name, tensor in stored.items():
        module, _, leaf = name.rpartition(".")
        grouped.setdefault(module, {})[leaf] = tensor
    misfits = [
        f"{module}.{leaf} {list(tensor.shape)}"
        for module, leaves in grouped.items()
        for leaf, tensor in leaves.items()
        if leaf not in ("weight", "bias")
        or "weight" not in leaves
        or leaves["weight"].dim() not in (1, 2, 3)
        or (leaf == "bias" and tensor.shape != leaves["weight"].shape[:1])
    ]
    if misfits:
        raise ConfigError(
            f"projector: {', '.join(misfits)} fit no convolution, linear layer or norm. They are not silently left "
            "out: convert the file, or train an adapter with `dgasr train`."
        )
    return [_Module(name=name, weight=found["weight"], bias=found.get("bias")) for name, found in grouped.items()]


def _is_chain(layers: Sequence[_Module], encoder_width: int, hidden_size: int) -> bool:
    """Tell whether each layer takes what the one before gives; between convolutions and linear layers, a multiple."""
    shapes = [tuple(layer.weight.shape) for layer in layers]
    convs = [shape for shape in shapes if len(shape) == 3]
    linears = [shape for shape in shapes if len(shape) == 2]
    if shapes != convs + linears or not 1 <= len(linears) <= 2 or linears[-1][0] != hidden_size:
        return False
    if len({shape[2] for shape in convs}) > 1 or any(shape[2] % 2 == 0 for shape in convs):
        return False
    if convs and convs[0][1] != encoder_width:
        return False
    widths = [convs[-1][0] if convs else encoder_width, linears[0][1]]
    stack, rest = divmod(widths[1], widths[0])
    links = [*pairwise(convs), *pairwise(linears)]
    return stack >= 1 and rest == 0 and (bool(convs) or stack > 1) and all(a[0] == b[1] for a, b in links)


def _config(layers: Sequence[_Module], encoder_width: int, hidden_size: int) -> ProjectorConfig:
    """Describe the layers with weights, without norms."""
    convs = [layer.weight for layer in layers if layer.weight.dim() == 3]
    linears = [layer.weight for layer in layers if layer.weight.dim() == 2]
    has_hidden, width = len(linears) == 2, linears[0].shape[0]
    config = ProjectorConfig(
        channels=tuple(conv.shape[0] for conv in convs),
        kernel_size=convs[0].shape[2] if convs else 3,
        stack=linears[0].shape[1] // (convs[-1].shape[0] if convs else encoder_width),
        has_hidden=has_hidden,
        hidden_width=width if has_hidden and width != hidden_size else 0,
    )
    unbiased = [name for name, layer in zip(config.layers, layers, strict=True) if layer.bias is None]
    return replace(config, unbiased=tuple(unbiased))


def _norm_places(
    config: ProjectorConfig, modules: Sequence[_Module], widths: dict[str, int]
) -> list[tuple[str, _Module]]:
    """Give each norm the first free place after the layer before it that has its width; in the order of places.

    In a Sequential the numbers tell whether an activation stands between layer and norm; elsewhere the norm is taken to
    follow the activation.
    """
    found: dict[str, _Module] = {}
    names, before, last = iter(config.layers), "", ""
    for module in modules:
        if module.weight.dim() > 1:
            before, last = next(names), module.name
            continue
        stated = [place for place in config.places if module.name == f"norms.{place.replace('.', '_')}"]
        following = stated or _following(config, before, is_adjacent=_adjacent(last, module.name))
        free = [place for place in following if place not in found and widths[place] == module.weight.numel()]
        if not free:
            raise ConfigError(
                f"projector: {module.name}.weight {list(module.weight.shape)} is a norm, and none of its width has a "
                f"place after {before or 'the input'}. Convert the file, or train an adapter with `dgasr train`."
            )
        found[free[0]] = module
    return [(place, found[place]) for place in config.places if place in found]


def _following(config: ProjectorConfig, before: str, *, is_adjacent: bool) -> list[str]:
    """Places of a norm after one layer and before the next."""
    if not before:
        return ["input", "stacked"] if not config.channels else ["input"]
    own = [before] if before == "output" or not is_adjacent else [f"{before}.linear", before]
    is_last_conv = bool(config.channels) and before == f"convs.{len(config.channels) - 1}"
    return [*own, "stacked"] if is_last_conv else own


def _adjacent(layer: str, norm: str) -> bool:
    """Tell whether a norm's number in a Sequential follows the layer's at once."""
    found = re.fullmatch(r"(.*?)(\d+)", layer)
    return found is not None and norm == f"{found[1]}{int(found[2]) + 1}"


def _renamed(config: ProjectorConfig, modules: Sequence[_Module]) -> Tensors:
    """Name the tensors of layers and then norms, both in order, as `Projector` does."""
    ours = [*config.layers, *(f"norms.{place.replace('.', '_')}" for place in config.norm_kinds)]
    tensors: Tensors = {}
    for name, module in zip(ours, modules, strict=True):
        tensors[f"{name}.weight"] = module.weight
        if module.bias is not None:
            tensors[f"{name}.bias"] = module.bias
    return tensors


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts `conv.10` after `conv.9`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


@dataclass(slots=True)
class StoredLora:
    """LoRA as it was found.

    tensors: `<linear layer>.lora_A.weight` [rank, inputs] and `….lora_B.weight` [outputs, rank].
    ranks: of every linear layer that has LoRA.
    alphas: scale numerators that the file states; layers without have the model's usual scale.
    """

    tensors: Tensors = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """The most common rank."""
        return Counter(self.ranks.values()).most_common(1)[0][0]

    @property
    def sides(self) -> tuple[str, ...]:
        """Which attention copies have LoRA."""
        return tuple(sorted({side_of(name) for name in self.ranks}))

    @property
    def targets(self) -> tuple[str, ...]:
        """Last names of the layers that have LoRA."""
        return tuple(sorted({name.rpartition(".")[2] for name in self.ranks}))


def side_of(name: str) -> str:
    """Say which attention copy a linear layer of the backbone belongs to."""
    return "encoder" if ".encoder." in f".{name}" else "decoder"


def read_lora(stored: Tensors, linears: Linears) -> StoredLora:
    """Find out which of the backbone's linear layers have LoRA, and of what rank; every tensor gets its PEFT name.

    ConfigError, which lists them, where a tensor names no layer, has another shape than the layer needs, or lacks its
    partner.
    """
    places = _Places(linears)
    found, misfits = StoredLora(), []
    for name, tensor in stored.items():
        layer, matrix = places.find(name)
        key = f"{layer}.lora_{matrix}.weight"
        if not layer or not matrix or key in found.tensors or (matrix == "alpha" and tensor.numel() != 1):
            misfits.append(f"{name} {list(tensor.shape)}")
        elif matrix == "alpha":
            found.alphas[layer] = float(tensor)
        else:
            found.tensors[key] = tensor
    layers = {name.rpartition(".lora_")[0] for name in found.tensors} | found.alphas.keys()
    for layer in sorted(layers):
        pair = [found.tensors.get(f"{layer}.lora_{matrix}.weight") for matrix in "AB"]
        turned = _turned(pair[0], pair[1], linears[layer])
        if turned is None:
            shapes = ", ".join("no tensor" if tensor is None else str(list(tensor.shape)) for tensor in pair)
            misfits.append(f"{layer} (A and B are {shapes}; the layer is {list(linears[layer])})")
            continue
        found.tensors[f"{layer}.lora_A.weight"], found.tensors[f"{layer}.lora_B.weight"] = turned
        found.ranks[layer] = turned[0].shape[0]
    if misfits or not found.ranks:
        listed = ", ".join(misfits[:8]) + (f" and {len(misfits) - 8} more" if len(misfits) > 8 else "")
        raise ConfigError(
            f"lora: {len(misfits)} of {len(stored)} tensors do not fit this model: {listed or 'there are none'}. Every "
            "tensor has to be used: take the model it was trained on, or convert the file."
        )
    return found


def _turned(a: Tensor | None, b: Tensor | None, shape: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
    """Bring both matrices to [rank, inputs] and [outputs, rank]; `None` where they do not fit the layer."""
    outputs, inputs = shape
    if a is None or b is None or a.dim() != 2 or b.dim() != 2:
        return None
    candidates = [(first, second) for first in (a, a.T) for second in (b, b.T)]
    fitting = [
        (first, second)
        for first, second in candidates
        if first.shape[1] == inputs and second.shape[0] == outputs and first.shape[0] == second.shape[1]
    ]
    return (fitting[0][0].contiguous(), fitting[0][1].contiguous()) if fitting else None


class _Places:
    """Finds a layer by side, number and a name that may be shortened."""

    def __init__(self, linears: Iterable[str]) -> None:
        self._names: dict[tuple[str, int, str], list[str]] = {}
        for name in linears:
            number = _LAYER.search(name)
            if number is None:
                continue
            path = name[number.end() :].replace(".", "_")
            last = name.rpartition(".")[2]
            for alias in {path, last, last.removesuffix("_proj"), f"attn_{last}", f"attention_{last}"}:
                self._names.setdefault((side_of(name), int(number[1]), alias), []).append(name)

    def find(self, stored: str) -> tuple[str, str]:
        """Return a stored tensor's layer and matrix, empty where there is none, or not just one."""
        trunk = re.sub(r"([._](weight|default))+$", "", stored)
        tail = re.search(r"[._](?:lora[._])?(A|B|a|b|down|up|alpha)$", trunk)
        number = _LAYER.search(trunk)
        sides = {_SIDES[word] for word in re.split(r"[._]", trunk) if word in _SIDES}
        if tail is None or number is None or len(sides) != 1:
            return "", ""
        alias = trunk[number.end() : tail.start()].replace(".", "_").removesuffix("_lora")
        names = self._names.get((sides.pop(), int(number[1]), alias), [])
        return (names[0], _MATRICES[tail[1]]) if len(names) == 1 else ("", "")
