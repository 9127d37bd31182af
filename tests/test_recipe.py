import importlib.util
import json
from dataclasses import replace

import pytest

from dgasr.errors import ConfigError
from dgasr.model.presets import ModelIdentity, tiny
from dgasr.recipe import Recipe, build_recipe

IDENTITY = ModelIdentity(name="tiny", digest="0" * 32)


def test_an_unknown_language_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="--language xx: model tiny knows en"):
        build_recipe(tiny(), IDENTITY, language="xx")


def test_the_default_language_is_the_models_first():
    assert build_recipe(replace(tiny(), languages=("de", "en")), IDENTITY).language == "de"


def test_no_steps_are_refused():
    with pytest.raises(ConfigError, match="max_steps"):
        build_recipe(tiny(), IDENTITY, max_steps=0)


def test_window_and_timing_of_the_recipe_are_the_models():
    recipe = build_recipe(replace(tiny(), start_offset_ms=-40.0, end_offset_ms=55.0), IDENTITY)
    assert recipe.features.window_samples == 128_000
    assert (recipe.alignment.start_offset_ms, recipe.alignment.end_offset_ms) == (-40.0, 55.0)


def test_an_unknown_seed_is_refused():
    with pytest.raises(ConfigError, match="seed_canvas must be random or ctc"):
        build_recipe(tiny(), IDENTITY, seed_canvas="noise")


def test_a_recipe_that_cuts_by_a_speech_model_which_is_missing_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert build_recipe(tiny(), IDENTITY, segmentation="loudness").segmentation.method == "loudness"
    with pytest.raises(ConfigError, match="--segmentation loudness"):
        build_recipe(tiny(), IDENTITY, segmentation="speech")


def test_seeded_canvases_are_another_recipe():
    assert build_recipe(tiny(), IDENTITY, seed_canvas="ctc").recipe_id != build_recipe(tiny(), IDENTITY).recipe_id
    assert build_recipe(tiny(), IDENTITY, seed_canvas="random") == build_recipe(tiny(), IDENTITY)


def test_the_recipes_id_changes_with_every_part():
    recipe = build_recipe(tiny(), IDENTITY)
    steps = build_recipe(tiny(), IDENTITY, max_steps=4)
    weights = build_recipe(tiny(), replace(IDENTITY, digest="1" * 32))
    adapter = build_recipe(tiny(), replace(IDENTITY, adapter_digest="1" * 32))
    recipes = [recipe, steps, weights, adapter, replace(recipe, language="de")]
    assert len({each.recipe_id for each in recipes}) == len(recipes)
    assert json.loads(recipe.to_json())["decode"]["max_steps"] == 8


def test_a_recipe_comes_back_from_its_json():
    recipe = build_recipe(tiny(), IDENTITY, max_steps=4)
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_recipe_of_another_revision_is_refused():
    text = build_recipe(tiny(), IDENTITY).to_json().replace('"revision": ', '"revision": 9')
    with pytest.raises(ConfigError, match="Run one version on all machines"):
        Recipe.from_json(text)


def test_a_recipe_that_lacks_a_setting_of_this_version_is_refused():
    settings = json.loads(build_recipe(tiny(), IDENTITY).to_json())
    del settings["decode"]["max_steps"]
    with pytest.raises(ConfigError, match="settings are missing"):
        Recipe.from_json(json.dumps(settings, sort_keys=True))


def test_a_recipe_with_an_unknown_setting_is_refused():
    text = build_recipe(tiny(), IDENTITY).to_json().replace('"max_steps"', '"most_steps"')
    with pytest.raises(ConfigError, match="most_steps"):
        Recipe.from_json(text)
