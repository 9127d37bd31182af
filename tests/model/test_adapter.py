import pickle
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, has_lora, linear_layers, load_adapter, merge_lora, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import build_backbone
from dgasr.model.presets import LoraSize, tiny
from dgasr.model.projector_config import ProjectorConfig
from dgasr.model.stored_adapter import read_adapter, write_file, write_folder


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


def test_a_merged_adapter_answers_as_it_did_with_two_copies_of_attention(adapted):
    before = answer(adapted)
    merge_lora(adapted)
    assert not has_lora(adapted)
    assert torch.allclose(answer(adapted), before, atol=1e-4)
    encoder, decoder = (side.layers[0].self_attn.q_proj.weight for side in sides(adapted))
    assert not torch.equal(encoder, decoder)


def test_merging_leaves_what_has_no_lora_shared(adapted):
    merge_lora(adapted)
    encoder, decoder = (side.layers[0].mlp.gate_proj.weight for side in sides(adapted))
    assert encoder is decoder


def sides(model):
    return model.backbone.model.encoder.language_model, model.backbone.model.decoder


LAYOUTS = {
    "bundled": tiny().projector,
    "wide kernels": ProjectorConfig(channels=(96, 96, 96), kernel_size=5),
    "one linear": ProjectorConfig(channels=(140, 140, 140), has_hidden=False),
    "stacked frames": ProjectorConfig(channels=(), stack=8, hidden_width=64),
    "norms": ProjectorConfig(
        channels=(32, 48, 32), hidden_width=64, unbiased=("convs.1", "output"),
        norms=("input=layer", "convs.0.linear=layer", "convs.2=rms", "stacked=layer", "hidden=rms", "output=layer"),
    ),
}  # fmt: skip


@pytest.fixture(params=LAYOUTS)
def other_layout(request):
    """A model whose projector is built otherwise, with LoRA whose numbers matter."""
    torch.manual_seed(1)
    model = AsrModel(replace(tiny(), projector=LAYOUTS[request.param])).eval().requires_grad_(False)
    add_lora(model, LoraSize(rank=2, alpha=3))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.backbone.load_state_dict(make_model().backbone.state_dict(), strict=False)
    return model


@pytest.fixture
def frozen():
    """The same encoder and backbone under a projector of the bundled layout."""

    def build(model):
        plain = make_model()
        plain.encoder.load_state_dict(model.encoder.state_dict())
        weights = {name.replace(".base_layer", ""): t for name, t in model.backbone.state_dict().items()}
        plain.backbone.load_state_dict({name: t for name, t in weights.items() if "lora_" not in name})
        return plain

    return build


def test_any_layout_goes_through_folder_and_published_file_and_answers_alike(other_layout, frozen, tmp_path):
    save_adapter(other_layout, tmp_path / "ours")
    linears = linear_layers(frozen(other_layout))
    first = read_adapter(str(tmp_path / "ours"), tiny(), linears, scale=2.0)
    write_file(first, tmp_path / "published.pt")
    again = read_adapter(str(tmp_path / "published.pt"), tiny(), linears, scale=2.0)
    write_folder(again, tmp_path / "again")
    model = frozen(other_layout)
    load_adapter(model, str(tmp_path / "again"))
    assert model.config == other_layout.config
    assert torch.equal(answer(model), answer(other_layout))


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


@pytest.mark.parametrize("extra", ["optimizer", "step"])
def test_anything_beside_projector_and_lora_is_refused(adapted, tmp_path, extra):
    torch.save({**as_published(tmp_path), extra: 3}, tmp_path / "adapter.pt")
    with pytest.raises(ConfigError, match=f"{extra} in the file is neither"):
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
