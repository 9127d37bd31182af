"""Stored LoRA tensors under any common naming in, our names with rank, sides and targets out. Reads names and shapes.

Known styles: PEFT's with and without its prefix or adapter name, plain `….lora_A`, `….lora_down`/`….lora_up` with
dots or underscores and `….alpha`, and either matrix transposed.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from dgasr.errors import ConfigError

Tensors = dict[str, Tensor]
Linears = dict[str, tuple[int, int]]
"""Name of a linear layer of the backbone → its outputs and inputs."""

_SIDES = {"encoder": "encoder", "enc": "encoder", "decoder": "decoder", "dec": "decoder"}
_MATRICES = {"A": "A", "a": "A", "down": "A", "B": "B", "b": "B", "up": "B", "alpha": "alpha"}
_LAYER = re.compile(r"(?:^|[._])(?:layers?|blocks?)[._](\d+)[._]")


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
    """Find out which layers have LoRA, and of what rank.

    Args:
        stored: LoRA's tensors under their names in the file.
        linears: the backbone's linear layers.

    Returns:
        Every tensor under its PEFT name.

    Raises:
        ConfigError: a tensor names no layer, has another shape than the layer needs, or lacks its partner; the message
            lists those.
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
