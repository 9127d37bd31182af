import pickle
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from dgasr.errors import ConfigError
from dgasr.model.adapter import (
    add_lora,
    has_lora,
    linear_layers,
    load_adapter,
    merge_lora,
    read_adapter,
    save_adapter,
    write_file,
    write_folder,
)
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import build_backbone
from dgasr.model.presets import LoraSize, ProjectorConfig, tiny


def make_model(seed=0):
    torch.manual_seed(seed)
    return AsrModel(tiny()).eval().requires_grad_(False)


def answer(model):
    _, cache = model.prefill(model.projector(model.encode_audio(torch.ones(1, 80, 800))))
    return model.decode(torch.arange(8).unsqueeze(0), None, cache)


def add_trained_lora(model, size):
    """LoRA whose numbers matter."""
    add_lora(model, size)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)


@pytest.fixture
def adapted(tmp_path):
    model = make_model()
    add_trained_lora(model, LoraSize(rank=2, alpha=4))
    torch.nn.init.normal_(model.projector.output.bias)
    save_adapter(model, tmp_path)
    return model


def test_fresh_lora_changes_nothing_and_is_put_on_once():
    model, plain = make_model(), make_model()
    add_lora(model, LoraSize(rank=2))
    assert has_lora(model)
    assert torch.equal(answer(model), answer(plain))
    with pytest.raises(ConfigError, match="already"):
        add_lora(model, LoraSize())


def test_a_saved_adapter_makes_another_copy_answer_alike_from_a_published_file_too(adapted, tmp_path):
    torch.save(as_published(tmp_path), tmp_path / "adapter.pt")
    for source in (tmp_path, tmp_path / "adapter.pt"):
        model = make_model()
        load_adapter(model, str(source))
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


def test_what_learns_is_float32_on_frozen_bfloat16_to_the_last_bit_of_what_was_saved(adapted, tmp_path):
    fresh, loaded = make_model().to(torch.bfloat16), make_model().to(torch.bfloat16)
    add_lora(fresh, LoraSize(rank=2))
    load_adapter(loaded, str(tmp_path))
    for model in (fresh, loaded):
        kinds = {
            ("lora_" in name or name.startswith("projector."), own.dtype) for name, own in model.named_parameters()
        }
        assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    saved = {name: own for name, own in adapted.named_parameters() if "lora_" in name}
    assert saved
    assert all(torch.equal(loaded.get_parameter(name), own) for name, own in saved.items())


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors", "projector.safetensors"])
def test_an_incomplete_folder_is_refused(adapted, tmp_path, missing):
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError, match="not an adapter"):
        load_adapter(make_model(), str(tmp_path))


def test_a_merged_adapter_answers_as_it_did_with_two_copies_of_attention_and_one_of_the_rest(adapted):
    before = answer(adapted)
    merge_lora(adapted)
    assert not has_lora(adapted)
    assert torch.allclose(answer(adapted), before, atol=1e-4)
    encoder, decoder = (side.layers[0] for side in sides(adapted))
    assert not torch.equal(encoder.self_attn.q_proj.weight, decoder.self_attn.q_proj.weight)
    assert encoder.mlp.gate_proj.weight is decoder.mlp.gate_proj.weight


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


def frozen_part(model):
    """The same encoder and backbone under a projector of the bundled layout."""
    plain = make_model()
    plain.encoder.load_state_dict(model.encoder.state_dict())
    weights = {name.replace(".base_layer", ""): t for name, t in model.backbone.state_dict().items()}
    plain.backbone.load_state_dict({name: t for name, t in weights.items() if "lora_" not in name})
    return plain


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_goes_through_folder_and_published_file_and_answers_alike(layout, tmp_path):
    torch.manual_seed(1)
    trained = AsrModel(replace(tiny(), projector=LAYOUTS[layout])).eval().requires_grad_(False)
    add_trained_lora(trained, LoraSize(rank=2, alpha=3))
    trained.backbone.load_state_dict(make_model().backbone.state_dict(), strict=False)
    save_adapter(trained, tmp_path / "ours")
    model = frozen_part(trained)
    linears = linear_layers(model)
    write_file(read_adapter(str(tmp_path / "ours"), tiny(), linears, scale=2.0), tmp_path / "published.pt")
    write_folder(read_adapter(str(tmp_path / "published.pt"), tiny(), linears, scale=2.0), tmp_path / "again")
    load_adapter(model, str(tmp_path / "again"))
    assert model.config == trained.config
    assert torch.equal(answer(model), answer(trained))


def as_published(folder):
    lora = load_file(folder / "adapter_model.safetensors")
    return {"projector": load_file(folder / "projector.safetensors"), "lora": lora}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored["projector"].update({"norm.weight": torch.ones(4)}), r"norm\.weight"),
        (lambda stored: stored.update(optimizer=3), "optimizer in the file is neither"),
        (lambda stored: stored.update(step=3), "step in the file is neither"),
    ],
)
def test_what_is_neither_projector_nor_lora_is_refused_by_name(adapted, tmp_path, change, message):
    stored = as_published(tmp_path)
    change(stored)
    torch.save(stored, tmp_path / "adapter.pt")
    with pytest.raises(ConfigError, match=message):
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
