import pytest

from dgasr import transcriber
from dgasr.audio import AudioConfig, Limits
from dgasr.stages import engine
from dgasr.stages.engine import EngineConfig, recipe_of, start_engine


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a recipe and a transcriber are built with when an engine starts, without a model."""
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        transcriber,
        "load",
        lambda name, **options: type("Model", (), {"device": "cpu", "config": None, "identity": None}),
    )
    monkeypatch.setattr(engine, "build_recipe", lambda config, identity, **settings: asked.update(settings))
    monkeypatch.setattr(transcriber, "Transcriber", lambda model, recipe, batch_size, **way: asked.update(way))
    return asked


def test_steps_language_and_seed_reach_the_recipe(asked: dict[str, object]):
    settings = {"max_steps": 3, "language": "de", "rescore": "none", "segmentation": "speech"}
    reading = {"channels": "each", "track": 1, "limits": Limits(max_duration_s=60)}
    start_engine.__wrapped__(EngineConfig(**settings, **reading))
    assert asked == settings | {"audio": AudioConfig(**reading)}


def test_a_recipe_is_named_without_loading_the_model_and_is_the_engines():
    assert recipe_of(EngineConfig(max_steps=4)) == start_engine(EngineConfig(max_steps=4, device="cpu")).recipe
