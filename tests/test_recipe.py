import importlib.util
import json
from dataclasses import replace

import pytest

from dgasr.errors import ConfigError
from dgasr.model.presets import ModelIdentity, tiny
from dgasr.recipe import Recipe, build_recipe

IDENTITY = ModelIdentity(name="tiny", digest="0" * 32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"language": "xx"}, "--language xx: model tiny knows en"), ({"max_steps": 0}, "max_steps"),
     ({"rescore": "never"}, "--rescore never")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(wrong, message):
    with pytest.raises(ConfigError, match=message):
        build_recipe(tiny(), IDENTITY, **wrong)


def test_window_and_timing_of_the_recipe_are_the_models():
    recipe = build_recipe(replace(tiny(), start_offset_ms=-40.0, end_offset_ms=55.0, min_confidence=0.7), IDENTITY)
    assert recipe.features.window_samples == 128_000
    assert build_recipe(replace(tiny(), languages=("de", "en")), IDENTITY).language == "de"
    assert (recipe.alignment.start_offset_ms, recipe.alignment.end_offset_ms) == (-40.0, 55.0)
    assert recipe.alignment.min_confidence == 0.7


def test_a_recipe_that_cuts_by_a_speech_model_which_is_missing_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert build_recipe(tiny(), IDENTITY, segmentation="loudness").segmentation.method == "loudness"
    with pytest.raises(ConfigError, match="--segmentation loudness"):
        build_recipe(tiny(), IDENTITY, segmentation="speech")


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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"revision": ', '"revision": 9', "Run one version on all machines"),
        ('"max_steps": 8, ', "", "settings are missing"),
        ('"max_steps"', '"most_steps"', "most_steps"),
    ],
    ids=["another revision", "a setting less", "an unknown setting"],
)
def test_a_recipe_of_another_version_is_refused(old, new, message):
    text = build_recipe(tiny(), IDENTITY).to_json()
    assert old in text
    with pytest.raises(ConfigError, match=message):
        Recipe.from_json(text.replace(old, new))
