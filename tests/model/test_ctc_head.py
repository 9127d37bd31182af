import pytest
import torch

from dgasr.model.asr import AsrModel
from dgasr.model.ctc_head import blank_bias, label_log_probs
from dgasr.model.head import log_partition
from dgasr.model.presets import tiny


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AsrModel(tiny(), None).eval()


def test_labels_are_as_probable_as_softmax_over_all_ids_says(model):
    config, weight = model.config, model.head_weight.detach()
    states = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(1)) * 10
    logits = config.softcap * torch.tanh(states @ weight.T / config.softcap)
    logits[:, config.blank_id] += config.blank_bias
    assert config.blank_bias
    total = log_partition(states, weight, config.softcap, 7, blank_bias(config))
    ours = label_log_probs(model, states, total, [9, 10, 9])
    expected = torch.log_softmax(logits.double(), dim=-1)[:, [config.blank_id, 9, 10, 9]]
    torch.testing.assert_close(torch.from_numpy(ours).double(), expected, atol=1e-5, rtol=1e-5)
