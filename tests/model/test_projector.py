import pytest
import torch

from dgasr.model.presets import ProjectorConfig
from dgasr.model.projector import Projector


@pytest.fixture
def projector():
    torch.manual_seed(0)
    return Projector(ProjectorConfig(channels=(12, 12, 12)), encoder_width=8, hidden_size=16).eval()


@pytest.mark.parametrize(("frames", "embeddings"), [(1500, 188), (400, 50), (8, 1), (9, 2)])
def test_eight_frames_make_an_embedding_rounded_up(projector, frames, embeddings):
    assert projector(torch.zeros(2, frames, 8)).shape == (2, embeddings, 16)


def test_shift_zero_of_the_fine_grid_is_the_plain_projection(projector):
    frames = torch.randn(2, 40, 8)
    assert torch.allclose(projector.forward_shifted(frames, 8)[:, ::8], projector(frames), atol=1e-6)


def test_each_shift_of_the_fine_grid_is_the_projection_of_frames_moved_by_it(projector):
    frames = torch.randn(1, 40, 8)
    fine = projector.forward_shifted(frames, 8)
    for shift in range(8):
        moved = torch.cat([frames[:, shift:], torch.zeros(1, shift, 8)], dim=1)
        assert torch.allclose(fine[:, shift::8], projector(moved), atol=1e-6)


def test_fine_grid_has_a_value_for_every_frame(projector):
    assert projector.forward_shifted(torch.randn(1, 400, 8), 8).shape[1] == 400
