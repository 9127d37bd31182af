"""LoRA under the names of several writers, on a small backbone with both kinds of layers."""

import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.model.adapter import linear_layers
from dgasr.model.asr import AsrModel
from dgasr.model.presets import full, tiny
from dgasr.model.stored_layout import read_lora


@pytest.fixture(scope="module")
def linears():
    with torch.device("meta"):
        return linear_layers(AsrModel(tiny()))


def attention(linears, sides=("encoder", "decoder"), targets="qkvo"):
    return [
        name
        for name in linears
        if name.endswith(tuple(f".{letter}_proj" for letter in targets)) and any(f".{side}." in name for side in sides)
    ]


def stored_as(style, linears, names, rank=4):
    tensors = {}
    for name in names:
        outputs, inputs = linears[name]
        a, b = torch.randn(rank, inputs), torch.randn(outputs, rank)
        for key, tensor in zip(style(name), (a, b), strict=True):
            tensors[key] = tensor
    return tensors


STYLES = {
    "peft file": lambda n: (f"base_model.model.{n}.lora_A.weight", f"base_model.model.{n}.lora_B.weight"),
    "peft module": lambda n: (f"{n}.lora_A.default.weight", f"{n}.lora_B.default.weight"),
    "parameters": lambda n: (f"{n}.lora_A", f"{n}.lora_B"),
    "down and up": lambda n: (
        f"lora_{n.replace('.', '_')}.lora_down.weight", f"lora_{n.replace('.', '_')}.lora_up.weight",
    ),
    "short names": lambda n: tuple(
        n.replace("model.", "").replace("language_", "").replace("self_attn.", "").replace("_proj", "") + f".{matrix}"
        for matrix in "AB"
    ),
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_a_style_of_names_is_read_and_transposed_matrices_are_turned(linears, style):
    stored = stored_as(STYLES[style], linears, attention(linears))
    found = read_lora(stored, linears)
    assert found.ranks == dict.fromkeys(attention(linears), 4)
    assert found.sides == ("decoder", "encoder")
    assert found.targets == ("k_proj", "o_proj", "q_proj", "v_proj")
    assert len(found.tensors) == len(stored)
    turned = read_lora({name: tensor.T for name, tensor in stored.items()}, linears).tensors
    assert all(torch.equal(found.tensors[name], turned[name]) for name in found.tensors)


@pytest.mark.parametrize(("sides", "targets"), [(("encoder",), "qkvo"), (("decoder",), "qv")])
def test_sides_and_targets_are_what_the_names_say(linears, sides, targets):
    found = read_lora(stored_as(STYLES["peft file"], linears, attention(linears, sides, targets)), linears)
    assert found.sides == sides
    assert found.targets == tuple(sorted(f"{letter}_proj" for letter in targets))
    beside = [name for name in linears if name.endswith("mlp.up_proj")]
    assert read_lora(stored_as(STYLES["down and up"], linears, beside), linears).targets == ("up_proj",)


def test_ranks_may_differ_and_scales_may_be_stated(linears):
    names = attention(linears)
    stored = {
        **stored_as(STYLES["peft file"], linears, names[:1], rank=2),
        **stored_as(STYLES["peft file"], linears, names[1:], rank=4),
        f"{names[0]}.alpha": torch.tensor(3.0),
    }
    found = read_lora(stored, linears)
    assert (found.rank, found.ranks[names[0]], found.alphas) == (4, 2, {names[0]: 3.0})


@pytest.mark.parametrize(("rank", "sides"), [(16, ("encoder", "decoder")), (32, ("decoder",))])
def test_the_derived_sizes_of_the_reference_are_read(rank, sides):
    with torch.device("meta"):
        linears = linear_layers(AsrModel(full()))
        found = read_lora(stored_as(STYLES["peft file"], linears, attention(linears, sides), rank), linears)
    assert found.rank == rank
    assert sum(tensor.numel() for tensor in found.tensors.values()) == 22_978_560


NAME = "model.decoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{NAME}.lora_magnitude_vector": (128,)}, "1 of .*magnitude"),
        ({"model.decoder.layers.99.self_attn.q_proj.lora_A.weight": (4, 128)}, r"1 of .*layers\.99"),
        ({"layers.0.self_attn.q_proj.lora_A.weight": (4, 128)}, r"1 of .*: layers\.0"),
        ({"model.vision_tower.encoder.layers.0.q_proj.lora_A": (4, 8)}, "1 of .*vision_tower"),
        ({f"{NAME}.lora_A.weight": (4, 128)}, r"1 of .*lora_A"),
        ({f"{NAME}.lora_B.default.weight": None}, rf"{NAME} \(A and B are \[4, 128\], no tensor"),
        ({f"{NAME}.lora_A.default.weight": (4, 64)}, rf"{NAME} \(A and B are \[4, 64\]"),
    ],
    ids=["another kind", "no such layer", "no side", "vision", "twice", "no partner", "another width"],
)
def test_what_does_not_fit_is_refused_by_name(linears, change, message):
    stored = stored_as(STYLES["peft module"], linears, attention(linears))
    stored |= {name: None if shape is None else torch.zeros(shape) for name, shape in change.items()}
    with pytest.raises(ConfigError, match=message):
        read_lora({name: tensor for name, tensor in stored.items() if tensor is not None}, linears)


def test_no_tensors_are_no_lora(linears):
    with pytest.raises(ConfigError, match="there are none"):
        read_lora({}, linears)
