import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.model.presets import ProjectorConfig
from dgasr.model.projector import Projector, ResidualBlock


@pytest.fixture
def projector():
    torch.manual_seed(0)
    return Projector(ProjectorConfig(channels=(12, 12, 12)), encoder_width=8, hidden_size=16).eval()


@pytest.mark.parametrize(("frames", "embeddings"), [(1500, 188), (400, 50), (8, 1), (9, 2)])
def test_eight_frames_make_an_embedding_rounded_up(projector, frames, embeddings):
    assert projector(torch.zeros(2, frames, 8)).shape == (2, embeddings, 16)


def every_frame(projector, frames, count=None):
    with torch.no_grad():
        return projector.forward_shifted(frames[0], projector(frames)[0, :count])


def test_shift_zero_of_the_fine_grid_is_the_plain_projection(projector):
    frames = torch.randn(1, 40, 8)
    assert torch.equal(every_frame(projector, frames)[::8], projector(frames)[0])


def test_each_shift_of_the_fine_grid_is_the_projection_of_frames_moved_by_it(projector):
    frames = torch.randn(1, 40, 8)
    fine = every_frame(projector, frames)
    for shift in range(8):
        moved = torch.cat([frames[:, shift:], torch.zeros(1, shift, 8)], dim=1)
        assert torch.allclose(fine[shift::8], projector(moved)[0], atol=1e-6)


def test_fine_grid_has_a_value_for_every_frame(projector):
    assert len(every_frame(projector, torch.randn(1, 400, 8))) == 400


@pytest.mark.parametrize(
    "layout", [{"channels": (12, 12, 12)}, {"channels": (12, 12), "kernel_size": 5}, {"channels": (12,), "stack": 4},
               {"channels": (12, 12, 12), "kernel_size": 7, "norms": ("input=layer",)}, {"channels": (), "stack": 8},
               {"channels": (12, 12), "blocks": 2, "block_kernel": 3}]
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 3, 9, 10])
def test_the_start_of_the_fine_grid_is_the_same_without_the_rest(layout, count):
    torch.manual_seed(0)
    projector = Projector(ProjectorConfig(**layout), encoder_width=8, hidden_size=16).eval()
    frames = torch.randn(1, 10 * projector.config.subsampling - 3, 8)
    start, whole = every_frame(projector, frames, count), every_frame(projector, frames)
    assert len(start) == count * projector.config.subsampling
    assert torch.allclose(start, whole[: len(start)], atol=1e-6)


def test_a_residual_block_adds_what_a_convolution_over_normalised_frames_finds():
    torch.manual_seed(0)
    block = ResidualBlock(6, 3).eval()
    states = torch.randn(1, 5, 6)
    normed = torch.nn.functional.layer_norm(states, (6,), block.norm.weight, block.norm.bias, 1e-6)[0]
    padded = torch.cat([torch.zeros(1, 6), normed, torch.zeros(1, 6)])
    for frame in range(5):
        found = block.conv.bias + torch.einsum("oik,ki->o", block.conv.weight, padded[frame : frame + 3])
        expected = states[0, frame] + block.output(torch.nn.functional.gelu(found))
        assert torch.allclose(block(states)[0, frame], expected, atol=1e-5)


def test_blocks_need_an_odd_kernel():
    with pytest.raises(ConfigError, match="odd block_kernel"):
        ProjectorConfig(channels=(4,), blocks=1, block_kernel=4)
