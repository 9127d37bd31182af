import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, has_lora, save_adapter
from dgasr.model.checkpoint import save_model
from dgasr.model.identity import TOKENIZER_FILE
from dgasr.model.presets import LoraSize
from dgasr.training.phases import Phase, Plan
from dgasr.training.start import StartConfig, starting_model

PLAN = Plan(phases=(Phase(steps=1, learning_rate=1e-3, train=("projector",)),))


@pytest.fixture
def begin(tones, tmp_path):
    def run(out="out", **options):
        return starting_model(StartConfig(**options), PLAN, tones, tmp_path / out)

    return run


@pytest.fixture
def folder(fresh_model, tmp_path):
    model = fresh_model(5)
    save_model(model, tmp_path / "model")
    model.tokenizer.save(tmp_path / "model")
    return tmp_path / "model"


def test_from_scratch_the_seed_decides_the_weights(begin):
    one, other, different = (begin(folder=None, from_scratch=True, seed=seed)[0] for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one.head_weight, different.head_weight)


def test_from_scratch_the_vocabulary_is_written_where_the_model_will_be(begin, tmp_path):
    model, tokenizer_folder = begin(folder=None, from_scratch=True)
    assert tokenizer_folder == tmp_path / "out"
    assert (tmp_path / "out" / TOKENIZER_FILE).is_file()
    assert model.tokenizer.encode("zero") == [9]


@pytest.mark.parametrize("other", [{"lora": True}, {"adapter": "folder"}])
def test_scratch_trains_every_weight(begin, other):
    with pytest.raises(ConfigError, match="leave out --lora and --adapter"):
        begin(folder=None, from_scratch=True, **other)


def test_a_model_folder_is_gone_on_from(begin, folder, fresh_model):
    model, tokenizer_folder = begin(folder=folder)
    assert tokenizer_folder == folder
    assert not has_lora(model)
    assert torch.equal(model.head_weight, fresh_model(5).head_weight)


def test_lora_is_put_on_in_the_size_that_the_model_names(begin, folder):
    model, _ = begin(folder=folder, lora=True)
    ranks = {parameter.shape[0] for name, parameter in model.named_parameters() if "lora_A" in name}
    assert ranks == {model.config.lora.rank}


def test_an_adapter_is_gone_on_from_whether_or_not_lora_is_asked_for(begin, folder, fresh_model, tmp_path):
    adapted = fresh_model(5)
    add_lora(adapted, LoraSize(rank=2))
    torch.nn.init.ones_(adapted.projector.output.bias)
    save_adapter(adapted, tmp_path / "adapter")
    for lora in (False, True):
        model, _ = begin(folder=folder, adapter=str(tmp_path / "adapter"), lora=lora)
        assert bool((model.projector.output.bias == 1).all())
        assert {p.shape[0] for name, p in model.named_parameters() if "lora_A" in name} == {2}
