import pytest
import torch

from dgasr.model.adapter import add_lora, has_lora, save_adapter
from dgasr.model.checkpoint import save_model
from dgasr.model.presets import LoraSize
from dgasr.training.fit import StartConfig, starting_model


@pytest.fixture
def begin(tmp_path):
    def run(out="out", **options):
        return starting_model(StartConfig(**options), tmp_path / out)

    return run


@pytest.fixture
def folder(fresh_model, tmp_path):
    model = fresh_model(5)
    save_model(model, tmp_path / "model")
    model.tokenizer.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_folder_is_gone_on_from(begin, folder, fresh_model):
    model, tokenizer_folder = begin(model=str(folder))
    assert tokenizer_folder == folder
    assert not has_lora(model)
    assert torch.equal(model.head_weight, fresh_model(5).head_weight)


def test_lora_is_put_on_in_the_size_that_the_model_names(begin, folder):
    model, _ = begin(model=str(folder), lora=True)
    ranks = {parameter.shape[0] for name, parameter in model.named_parameters() if "lora_A" in name}
    assert ranks == {model.config.lora.rank}


def test_an_adapter_is_gone_on_from_whether_or_not_lora_is_asked_for(begin, folder, fresh_model, tmp_path):
    adapted = fresh_model(5)
    add_lora(adapted, LoraSize(rank=2))
    torch.nn.init.ones_(adapted.projector.output.bias)
    save_adapter(adapted, tmp_path / "adapter")
    for lora in (False, True):
        model, _ = begin(model=str(folder), adapter=str(tmp_path / "adapter"), lora=lora)
        assert bool((model.projector.output.bias == 1).all())
        assert {p.shape[0] for name, p in model.named_parameters() if "lora_A" in name} == {2}
