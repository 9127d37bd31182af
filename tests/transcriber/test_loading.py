from dataclasses import replace

import pytest
import torch

from benchmarks.published import reduced, write_checkpoints
from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, has_lora, load_adapter, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import save_model
from dgasr.model.identity import identify, read_config
from dgasr.model.presets import LoraSize, tiny
from dgasr.model.pretrained import load_pretrained
from dgasr.model.quantize import IntegerLinear, multiplies_integers
from dgasr.transcriber import load, loading
from dgasr.transcriber.loading import choose_device


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    save_model(model, folder)
    model.tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    model = AsrModel(tiny())
    add_lora(model, LoraSize(rank=2))
    torch.nn.init.ones_(model.projector.output.bias)
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(model, folder)
    return folder


def test_a_model_folder_is_loaded_for_inference(folder, model):
    loaded = load(str(folder), device="cpu")
    assert torch.equal(loaded.head_weight, model.head_weight)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_a_large_model_multiplies_what_the_processor_is_quick_at(model, tmp_path, monkeypatch, has_bfloat16):
    monkeypatch.setattr(model, "config", replace(model.config, rows_at_once=4))
    save_model(model, tmp_path)
    model.tokenizer.save(tmp_path)
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda: has_bfloat16)
    loaded = load(str(tmp_path), device="cpu")
    narrow = [name for name, layer in loaded.named_modules() if isinstance(layer, IntegerLinear)]
    assert loaded.head_weight.dtype == (torch.bfloat16 if has_bfloat16 else torch.float32)
    assert {name.split(".")[0] for name in narrow} == (
        {"encoder", "backbone"} if multiplies_integers() and not has_bfloat16 else set()
    )


def test_an_adapter_goes_on_top_and_into_the_recipe(folder, adapter):
    plain, adapted = load(str(folder)), load(str(folder), adapter=str(adapter))
    assert bool((adapted.projector.output.bias == 1).all())
    assert adapted.identity == replace(plain.identity, adapter_digest=adapted.identity.adapter_digest)
    assert len(adapted.identity.adapter_digest) == 32


def test_what_is_loaded_is_what_was_identified(folder, adapter):
    loaded = load(str(folder), adapter=str(adapter))
    assert (loaded.config, loaded.identity) == identify(str(folder), str(adapter))


def test_full_needs_an_adapter():
    with pytest.raises(ConfigError, match="needs --adapter"):
        load("full")


@pytest.mark.parametrize("source", ["absent", "adapter_config.json"])
def test_an_adapter_that_is_none_is_refused(folder, adapter, source):
    with pytest.raises(ConfigError, match=r"--adapter .*not an adapter"):
        load(str(folder), adapter=str(adapter / source))


def test_an_unknown_model_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"no such folder\. Give `base`, `tiny`, `full`"):
        load(str(tmp_path / "absent"))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(str(tmp_path))


@pytest.mark.parametrize("name", ["tpu", "cuda:x", ""])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ConfigError, match="choose auto, cpu, cuda or cuda:N"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


def test_one_gpu_of_several_is_chosen_by_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="torch sees 2 GPUs, cuda:0 to cuda:1"):
        choose_device("cuda:2")


def test_a_merged_adapter_is_another_recipe_without_lora(folder, adapter):
    merged = load(str(folder), adapter=str(adapter), merge_adapter=True)
    assert not has_lora(merged)
    assert merged.identity == identify(str(folder), str(adapter), merge_adapter=True)[1]
    assert merged.identity != identify(str(folder), str(adapter))[1]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Checkpoints in the published format with a trained adapter, in bfloat16."""
    where = tmp_path_factory.mktemp("published")
    write_checkpoints(where, reduced(), torch.bfloat16)
    model = load_pretrained(read_config(str(where)))
    add_lora(model, LoraSize(rank=2))
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(model, where / "adapter")
    return where


def test_an_adapter_is_merged_as_it_was_trained_and_rounded_once(published):
    trained = load_pretrained(read_config(str(published)))
    load_adapter(trained, str(published / "adapter"))
    merged = load(str(published), adapter=str(published / "adapter"), device="cpu", merge_adapter=True)
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    layer = trained.backbone.model.decoder.layers[5].self_attn.q_proj
    wanted = layer.weight.float() + layer.get_delta_weight("default")
    found = merged.backbone.model.decoder.layers[5].self_attn.q_proj.weight
    assert torch.equal(found, wanted.to(torch.bfloat16))


@pytest.mark.parametrize("is_gpu", [True, False])
def test_on_a_gpu_adapters_are_merged_and_pretrained_decoders_compiled_unless_told(
    folder, adapter, published, monkeypatch, is_gpu
):
    compiled = []
    monkeypatch.setattr(loading, "runs_kernels", lambda device: is_gpu)
    monkeypatch.setattr(AsrModel, "compile_decoder", lambda self, **_: compiled.append(self))
    assert has_lora(load(str(folder), adapter=str(adapter), device="cpu")) is not is_gpu
    assert has_lora(load(str(folder), adapter=str(adapter), device="cpu", merge_adapter=False))
    assert not compiled  # a small model is done before it would be compiled
    ask = {"model": str(published), "adapter": str(published / "adapter"), "device": "cpu"}
    load(**ask)
    assert bool(compiled) is is_gpu
    load(**ask, compiled=False)
    assert len(compiled) == is_gpu
    told = {compile: identify(str(folder), compiled=compile)[1].digest for compile in (None, True, False)}
    assert told[True] == told[None] + "+compiled"
    assert told[False] == told[None] + "+eager"
