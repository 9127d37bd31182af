import pytest
import torch

from dgasr.model.asr import AsrModel
from dgasr.model.presets import tiny
from dgasr.training.initialise import initialise


@pytest.fixture(scope="session")
def random_model():
    torch.manual_seed(0)
    model = AsrModel(tiny())
    initialise(model, torch.randn(2, 80, 800), seed=0)
    return model.eval().requires_grad_(False)
