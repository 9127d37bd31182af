"""Projectors as others may have stored them: the layouts that the published parameter count allows, and refusals."""

import pytest
import torch
from torch import nn

from dgasr.errors import ConfigError
from dgasr.model.projector import Projector
from dgasr.model.projector_config import ProjectorConfig
from dgasr.model.stored_layout import read_projector

ENCODER, HIDDEN = 768, 2816


class Parts(nn.Module):
    """Modules by name, in the order in which they are given."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def conv(before, after, kernel):
    return nn.Conv1d(before, after, kernel, stride=2, padding=kernel // 2)


def three_convs_and_two_linears():
    widths = [(ENCODER, 1024), (1024, 1024), (1024, 1024)]
    return Parts(
        conv1=conv(*widths[0], 3), conv2=conv(*widths[1], 3), conv3=conv(*widths[2], 3),
        fc1=nn.Linear(1024, HIDDEN), fc2=nn.Linear(HIDDEN, HIDDEN),
    )  # fmt: skip


def wide_kernels_in_a_sequential():
    layers = [layer for _ in range(3) for layer in (conv(ENCODER, ENCODER, 5), nn.GELU())]
    return Parts(net=nn.Sequential(*layers), mlp=nn.Sequential(nn.Linear(ENCODER, HIDDEN), nn.GELU(),
                                                               nn.Linear(HIDDEN, HIDDEN)))  # fmt: skip


def one_linear():
    return Parts(
        convs=nn.ModuleList([conv(ENCODER, 1408, 3), conv(1408, 1408, 3), conv(1408, 1408, 3)]),
        proj=nn.Linear(1408, HIDDEN),
    )


def stacked_frames():
    return Parts(linear_1=nn.Linear(8 * ENCODER, 2048), linear_2=nn.Linear(2048, HIDDEN))


def norms_and_no_biases():
    return Parts(
        ln_in=nn.LayerNorm(ENCODER),
        conv=nn.Sequential(
            conv(ENCODER, 1024, 3), nn.LayerNorm(1024), nn.GELU(), conv(1024, 1024, 3), nn.GELU(), nn.LayerNorm(1024),
            conv(1024, 1024, 3), nn.GELU(),
        ),
        up=nn.Linear(1024, 2048, bias=False), down=nn.Linear(2048, HIDDEN, bias=False), norm=nn.RMSNorm(HIDDEN),
    )  # fmt: skip


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
        module = request.param()
    return module.state_dict(), *LAYOUTS[request.param]


def test_a_layout_is_read_from_names_and_shapes(layout):
    stored, wanted, _ = layout
    assert read_projector(stored, ENCODER, HIDDEN)[0] == wanted


def test_every_tensor_is_used_once_and_none_is_missing(layout):
    stored, wanted, _ = layout
    _, tensors = read_projector(stored, ENCODER, HIDDEN)
    with torch.device("meta"):
        ours = Projector(wanted, ENCODER, HIDDEN).state_dict()
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in ours.items()}
    assert sorted(map(id, tensors.values())) == sorted(map(id, stored.values()))


def test_the_layouts_have_the_sizes_that_the_reference_allows(layout):
    stored, _, published = layout
    count = sum(tensor.numel() for tensor in stored.values())
    assert published is None or abs(count - published) < 10_000


def test_the_order_of_names_will_do_where_the_files_order_does_not(layout):
    stored = {f"net.{index}.{name}": tensor for index, (name, tensor) in enumerate(layout[0].items())}
    shuffled = {f"{index}.weight": stored[key] for index, key in enumerate(stored) if key.endswith("weight")}
    reverse = dict(reversed(shuffled.items()))
    first, again = read_projector(shuffled, ENCODER, HIDDEN)[0], read_projector(reverse, ENCODER, HIDDEN)[0]
    assert first.channels == again.channels
    assert (first.stack, first.hidden_width, first.has_hidden) == (again.stack, again.hidden_width, again.has_hidden)


def test_a_read_projector_computes_what_the_stored_one_does():
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 5), nn.GELU(), nn.Linear(5, 6), nn.LayerNorm(6))
    config, tensors = read_projector(theirs.state_dict(), 3, 6)
    ours = Projector(config, 3, 6)
    ours.load_state_dict(tensors)
    for norm in (module for module in theirs if isinstance(module, nn.LayerNorm)):
        norm.eps = 1e-6
    frames = torch.randn(2, 8, 3)
    assert torch.allclose(ours(frames), theirs(frames.reshape(2, 2, 12)), atol=1e-6)


def test_frames_that_do_not_fill_a_stack_are_followed_by_silence():
    projector = Projector(ProjectorConfig(channels=(), stack=8), 3, 4)
    frames = torch.randn(1, 12, 3)
    assert torch.equal(projector(frames), projector(nn.functional.pad(frames, (0, 0, 0, 4))))


@pytest.mark.parametrize(
    ("encoder", "hidden"), [(500, HIDDEN), (ENCODER, 4096)], ids=["another encoder", "another backbone"]
)
def test_another_width_is_refused_with_all_tensors_listed(layout, encoder, hidden):
    with pytest.raises(ConfigError, match=r"(?s)do not lead from .*|none of its width"):
        read_projector(layout[0], encoder, hidden)


@pytest.mark.parametrize("extra", ["bn.running_mean", "net.conv.weight_g", "queries"])
def test_a_tensor_that_fits_nowhere_is_refused_by_name(extra):
    with torch.device("meta"):
        stored = {**three_convs_and_two_linears().state_dict(), extra: torch.zeros(8)}
    with pytest.raises(ConfigError, match=extra.replace(".", r"\.") + r".* fit no convolution"):
        read_projector(stored, ENCODER, HIDDEN)


def test_a_norm_of_a_width_that_nothing_has_is_refused():
    with torch.device("meta"):
        stored = {**three_convs_and_two_linears().state_dict(), "norm.weight": torch.zeros(100)}
    with pytest.raises(ConfigError, match=r"norm\.weight \[100\] is a norm"):
        read_projector(stored, ENCODER, HIDDEN)


def test_a_missing_convolution_is_refused():
    with torch.device("meta"):
        stored = three_convs_and_two_linears().state_dict()
    with pytest.raises(ConfigError, match="do not lead from 768 to 2816"):
        read_projector({n: t for n, t in stored.items() if not n.startswith("conv1")}, ENCODER, HIDDEN)


@pytest.mark.parametrize("norm", ["middle=layer", "input=batch"])
def test_a_norm_that_no_projector_has_is_refused(norm):
    with pytest.raises(ConfigError, match="no place for"):
        ProjectorConfig(channels=(4,), norms=(norm,))
