"""Projectors: what they compute on every grid, and the layouts that the published parameter count allows, as stored."""

import pytest
import torch
from torch import nn

from dgasr.errors import ConfigError
from dgasr.model.presets import ProjectorConfig
from dgasr.model.projector import Projector, ResidualBlock
from dgasr.model.stored_layout import read_projector

ENCODER, HIDDEN = 768, 2816


def make(frames_shape=(1, 40, 8), **layout):
    torch.manual_seed(0)
    projector = Projector(ProjectorConfig(**{"channels": (12, 12, 12)} | layout), encoder_width=8, hidden_size=16)
    return projector.eval(), torch.randn(*frames_shape)


@torch.no_grad()
def every_frame(projector, frames, count=None):
    return projector.forward_shifted(frames[0], projector(frames)[0, :count])


@pytest.mark.parametrize(("frames", "embeddings"), [(1500, 188), (400, 50), (8, 1), (9, 2)])
def test_eight_frames_make_an_embedding_rounded_up(frames, embeddings):
    projector, states = make((2, frames, 8))
    assert projector(states).shape == (2, embeddings, 16)


def test_each_shift_of_the_fine_grid_is_the_projection_of_frames_moved_by_it():
    projector, frames = make()
    fine = every_frame(projector, frames)
    assert len(fine) == 40  # a value for every frame
    assert torch.equal(fine[::8], projector(frames)[0])
    for shift in range(8):
        moved = torch.cat([frames[:, shift:], torch.zeros(1, shift, 8)], dim=1)
        assert torch.allclose(fine[shift::8], projector(moved)[0], atol=1e-6)


@pytest.mark.parametrize(
    "layout", [{}, {"channels": (12, 12), "kernel_size": 5}, {"channels": (12,), "stack": 4},
               {"kernel_size": 7, "norms": ("input=layer",)}, {"channels": (), "stack": 8},
               {"channels": (12, 12), "blocks": 2, "block_kernel": 3}]
)  # fmt: skip
def test_the_start_of_the_fine_grid_is_the_same_without_the_rest(layout):
    subsampling = make(**layout)[0].config.subsampling
    projector, frames = make((1, 10 * subsampling - 3, 8), **layout)
    whole = every_frame(projector, frames)
    for count in (1, 3, 9, 10):
        start = every_frame(projector, frames, count)
        assert len(start) == count * subsampling
        assert torch.allclose(start, whole[: len(start)], atol=1e-6)


def test_a_residual_block_adds_what_a_convolution_over_normalised_frames_finds():
    torch.manual_seed(0)
    block, states = ResidualBlock(6, 3).eval(), torch.randn(1, 5, 6)
    normed = torch.nn.functional.layer_norm(states, (6,), block.norm.weight, block.norm.bias, 1e-6)[0]
    padded = torch.cat([torch.zeros(1, 6), normed, torch.zeros(1, 6)])
    for frame in range(5):
        found = block.conv.bias + torch.einsum("oik,ki->o", block.conv.weight, padded[frame : frame + 3])
        expected = states[0, frame] + block.output(torch.nn.functional.gelu(found))
        assert torch.allclose(block(states)[0, frame], expected, atol=1e-5)


def test_frames_that_do_not_fill_a_stack_are_followed_by_silence():
    projector, frames = make((1, 12, 8), channels=(), stack=8)
    assert torch.equal(projector(frames), projector(nn.functional.pad(frames, (0, 0, 0, 4))))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"blocks": 1, "block_kernel": 4}, "odd block_kernel"), ({"norms": ("middle=layer",)}, "no place for"),
     ({"norms": ("input=batch",)}, "no place for")],
)  # fmt: skip
def test_a_layout_that_no_projector_has_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ProjectorConfig(channels=(4,), **wrong)


class Parts(nn.Module):
    """Modules by name, in the order in which they are given."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def conv(before, after, kernel):
    return nn.Conv1d(before, after, kernel, stride=2, padding=kernel // 2)


def three_convs_and_two_linears():
    return Parts(
        conv1=conv(ENCODER, 1024, 3), conv2=conv(1024, 1024, 3), conv3=conv(1024, 1024, 3),
        fc1=nn.Linear(1024, HIDDEN), fc2=nn.Linear(HIDDEN, HIDDEN),
    )  # fmt: skip


def wide_kernels_in_a_sequential():
    layers = [layer for _ in range(3) for layer in (conv(ENCODER, ENCODER, 5), nn.GELU())]
    mlp = nn.Sequential(nn.Linear(ENCODER, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN))
    return Parts(net=nn.Sequential(*layers), mlp=mlp)


def one_linear():
    convs = nn.ModuleList([conv(ENCODER, 1408, 3), conv(1408, 1408, 3), conv(1408, 1408, 3)])
    return Parts(convs=convs, proj=nn.Linear(1408, HIDDEN))


def stacked_frames():
    return Parts(linear_1=nn.Linear(8 * ENCODER, 2048), linear_2=nn.Linear(2048, HIDDEN))


def norms_and_no_biases():
    convs = nn.Sequential(
        conv(ENCODER, 1024, 3), nn.LayerNorm(1024), nn.GELU(), conv(1024, 1024, 3), nn.GELU(), nn.LayerNorm(1024),
        conv(1024, 1024, 3), nn.GELU(),
    )  # fmt: skip
    linears = {"up": nn.Linear(1024, 2048, bias=False), "down": nn.Linear(2048, HIDDEN, bias=False)}
    return Parts(ln_in=nn.LayerNorm(ENCODER), conv=convs, **linears, norm=nn.RMSNorm(HIDDEN))


LAYOUTS = {
    three_convs_and_two_linears: (ProjectorConfig(channels=(1024, 1024, 1024)), 19_472_896),
    wide_kernels_in_a_sequential: (ProjectorConfig(channels=(768, 768, 768), kernel_size=5), 18_950_000),
    one_linear: (ProjectorConfig(channels=(1408, 1408, 1408), has_hidden=False), 19_110_000),
    stacked_frames: (ProjectorConfig(channels=(), stack=8, hidden_width=2048), 18_360_000),
    norms_and_no_biases: (
        ProjectorConfig(
            channels=(1024, 1024, 1024), hidden_width=2048, unbiased=("hidden", "output"),
            norms=("input=layer", "convs.0.linear=layer", "convs.1=layer", "output=rms"),
        ),
        None,
    ),
}  # fmt: skip


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def layout(request):
    with torch.device("meta"):
        return request.param().state_dict(), *LAYOUTS[request.param]


def test_a_layout_is_read_from_names_and_shapes_and_every_tensor_used_once(layout):
    stored, wanted, published = layout
    found, tensors = read_projector(stored, ENCODER, HIDDEN)
    assert found == wanted
    with torch.device("meta"):
        ours = Projector(wanted, ENCODER, HIDDEN).state_dict()
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in ours.items()}
    assert sorted(map(id, tensors.values())) == sorted(map(id, stored.values()))
    # The sizes that the reference allows.
    assert published is None or abs(sum(tensor.numel() for tensor in stored.values()) - published) < 10_000


def test_the_order_of_names_will_do_where_the_files_order_does_not(layout):
    weights = [tensor for name, tensor in layout[0].items() if name.endswith("weight")]
    numbered = {f"{index}.weight": tensor for index, tensor in enumerate(weights)}
    first, again = (read_projector(own, ENCODER, HIDDEN)[0] for own in (numbered, dict(reversed(numbered.items()))))
    for field in ("channels", "stack", "hidden_width", "has_hidden"):
        assert getattr(first, field) == getattr(again, field)


def test_a_read_projector_computes_what_the_stored_one_does():
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 5), nn.GELU(), nn.Linear(5, 6), nn.LayerNorm(6))
    config, tensors = read_projector(theirs.state_dict(), 3, 6)
    ours = Projector(config, 3, 6)
    ours.load_state_dict(tensors)
    theirs[0].eps = theirs[4].eps = 1e-6
    frames = torch.randn(2, 8, 3)
    assert torch.allclose(ours(frames), theirs(frames.reshape(2, 2, 12)), atol=1e-6)


@pytest.mark.parametrize("widths", [(500, HIDDEN), (ENCODER, 4096)], ids=["another encoder", "another backbone"])
def test_another_width_is_refused_with_all_tensors_listed(layout, widths):
    with pytest.raises(ConfigError, match=r"(?s)do not lead from .*|none of its width"):
        read_projector(layout[0], *widths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn.running_mean": 8}, r"bn\.running_mean .* fit no convolution"),
        ({"net.conv.weight_g": 8}, r"net\.conv\.weight_g .* fit no convolution"), ({"queries": 8}, "queries .* fit no"),
        ({"norm.weight": 100}, r"norm\.weight \[100\] is a norm"),
        ({"conv1.weight": None, "conv1.bias": None}, "do not lead from 768 to 2816"),
    ],
)  # fmt: skip
def test_a_tensor_that_fits_nowhere_and_one_that_is_missing_are_refused(change, message):
    with torch.device("meta"):
        changed = {name: None if size is None else torch.zeros(size) for name, size in change.items()}
        stored = three_convs_and_two_linears().state_dict() | changed
    with pytest.raises(ConfigError, match=message):
        read_projector({name: tensor for name, tensor in stored.items() if tensor is not None}, ENCODER, HIDDEN)
