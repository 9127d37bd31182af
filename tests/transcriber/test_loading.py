import copy
import json
from dataclasses import replace

import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import save_model
from dgasr.model.presets import LoraSize, tiny
from dgasr.transcriber import build_recipe, load
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


def test_an_adapter_goes_on_top_and_into_the_recipe(folder, adapter):
    plain, adapted = load(str(folder)), load(str(folder), adapter=str(adapter))
    assert bool((adapted.projector.output.bias == 1).all())
    assert build_recipe(adapted).model == replace(plain.identity, adapter_digest=adapted.identity.adapter_digest)
    assert build_recipe(adapted).recipe_id != build_recipe(plain).recipe_id


def test_full_needs_an_adapter():
    with pytest.raises(ConfigError, match="needs --adapter"):
        load("full")


@pytest.mark.parametrize("source", ["absent", "adapter_config.json"])
def test_an_adapter_that_is_none_is_refused(folder, adapter, source):
    with pytest.raises(ConfigError, match=r"--adapter .*not an adapter"):
        load(str(folder), adapter=str(adapter / source))


def test_an_unknown_model_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"no such folder\. Give `tiny`, `full`"):
        load(str(tmp_path / "absent"))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(str(tmp_path))


@pytest.mark.parametrize("name", ["tpu", "cuda:7", ""])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ConfigError, match="choose auto, cpu or cuda"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


def test_an_unknown_language_is_refused_with_those_there_are(model):
    with pytest.raises(ConfigError, match="--language xx: model tiny knows en"):
        build_recipe(model, language="xx")


def test_the_default_language_is_the_models_first(model):
    other = copy.copy(model)
    other.config = replace(model.config, languages=("de", "en"))
    assert build_recipe(other).language == "de"


def test_no_steps_are_refused(model):
    with pytest.raises(ConfigError, match="max_steps"):
        build_recipe(model, max_steps=0)


def test_window_and_timing_of_the_recipe_are_the_models(model):
    other = copy.copy(model)
    other.config = replace(model.config, start_offset_ms=-40.0, end_offset_ms=55.0)
    recipe = build_recipe(other)
    assert recipe.features.window_samples == 128_000
    assert (recipe.alignment.start_offset_ms, recipe.alignment.end_offset_ms) == (-40.0, 55.0)


def test_an_unknown_seed_is_refused(model):
    with pytest.raises(ConfigError, match="seed_canvas must be random or ctc"):
        build_recipe(model, seed_canvas="noise")


def test_seeded_canvases_are_another_recipe(model):
    assert build_recipe(model, seed_canvas="ctc").recipe_id != build_recipe(model).recipe_id
    assert build_recipe(model, seed_canvas="random") == build_recipe(model)


def test_the_recipes_id_changes_with_every_part(model):
    recipe = build_recipe(model)
    steps, weights = build_recipe(model, max_steps=4), replace(recipe, model=replace(recipe.model, digest="1" * 32))
    assert len({recipe.recipe_id, steps.recipe_id, weights.recipe_id, replace(recipe, language="de").recipe_id}) == 4
    assert json.loads(recipe.to_json())["decode"]["max_steps"] == 8
