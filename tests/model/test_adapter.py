import pickle

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, has_lora, load_adapter, save_adapter
from dgasr.model.asr import AsrModel, build_backbone
from dgasr.model.presets import LoraSize, tiny


def make_model(seed=0):
    torch.manual_seed(seed)
    return AsrModel(tiny()).eval().requires_grad_(False)


def answer(model):
    _, cache = model.prefill(model.projector(model.encode_audio(torch.ones(1, 80, 800))))
    return model.decode(torch.arange(8).unsqueeze(0), None, cache)


@pytest.fixture
def adapted(tmp_path):
    model = make_model()
    add_lora(model, LoraSize(rank=2, alpha=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(model.projector.output.bias)
    save_adapter(model, tmp_path)
    return model


def test_fresh_lora_changes_nothing():
    model, plain = make_model(), make_model()
    add_lora(model, LoraSize(rank=2))
    assert has_lora(model)
    assert torch.equal(answer(model), answer(plain))


def test_a_saved_adapter_makes_another_copy_answer_alike(adapted, tmp_path):
    model = make_model()
    digest = load_adapter(model, str(tmp_path))
    assert len(digest) == 32
    assert torch.equal(answer(model), answer(adapted))
    assert not torch.allclose(answer(model), answer(make_model()), atol=1e-3)


def test_peft_loads_the_folder_by_itself(adapted, tmp_path):
    wanted = {name: parameter for name, parameter in adapted.backbone.named_parameters() if "lora_" in name}
    loaded = PeftModel.from_pretrained(build_backbone(tiny()), str(tmp_path))
    for name, parameter in loaded.named_parameters():
        if "lora_" in name:
            assert torch.equal(parameter, wanted[name.removeprefix("base_model.model.")])


def test_an_adapter_of_another_size_is_refused_with_what_does_not_fit(adapted, tmp_path):
    config = tiny()
    config.encoder["d_model"] = 64
    other = AsrModel(config)
    with pytest.raises(ConfigError, match=r"convs\.0\.weight"):
        load_adapter(other, str(tmp_path))


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors", "projector.safetensors"])
def test_an_incomplete_folder_is_refused(adapted, tmp_path, missing):
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError, match="not an adapter"):
        load_adapter(make_model(), str(tmp_path))


def test_lora_is_put_on_once():
    model = make_model()
    add_lora(model, LoraSize())
    with pytest.raises(ConfigError, match="already"):
        add_lora(model, LoraSize())


def as_published(folder):
    lora = load_file(folder / "adapter_model.safetensors")
    return {"projector": load_file(folder / "projector.safetensors"), "lora": lora}


def test_a_published_file_of_projector_and_lora_answers_as_its_folder_does(adapted, tmp_path):
    torch.save(as_published(tmp_path), tmp_path / "adapter.pt")
    model = make_model()
    load_adapter(model, str(tmp_path / "adapter.pt"))
    assert torch.equal(answer(model), answer(adapted))


def test_a_file_with_a_tensor_too_many_is_refused_by_name(adapted, tmp_path):
    stored = as_published(tmp_path)
    stored["projector"]["norm.weight"] = torch.ones(4)
    torch.save(stored, tmp_path / "adapter.pt")
    with pytest.raises(ConfigError, match=r"norm\.weight"):
        load_adapter(make_model(), str(tmp_path / "adapter.pt"))


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path):
    (tmp_path / "adapter.pt").write_bytes(pickle.dumps(Bomb(str(tmp_path / "exploded"))))
    with pytest.raises(ConfigError, match="never run"):
        load_adapter(make_model(), str(tmp_path / "adapter.pt"))
    assert not (tmp_path / "exploded").exists()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")
