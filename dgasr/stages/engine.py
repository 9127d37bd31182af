"""The model of a run, loaded once per process: settings in, recipe and transcriber out."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from dgasr.recipe import Recipe, build_recipe
from dgasr.stages.engine_config import EngineConfig

if TYPE_CHECKING:
    from dgasr.transcriber import Transcriber


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A loaded model with the recipe it follows."""

    recipe: Recipe
    transcriber: "Transcriber"
    device: str
    """Where the model runs, `cpu` or `cuda:0`."""


@lru_cache(maxsize=1)
def start_engine(config: EngineConfig) -> Engine:
    """Load the model, or return the one that this process has loaded.

    Raises:
        ConfigError: no such model, adapter, device or language.
    """
    # torch takes seconds to import, and who only plans or reads audio never needs it.
    from dgasr.transcriber import Transcriber, load

    model = load(config.model, adapter=config.adapter, device=config.device)
    recipe = build_recipe(
        model.config,
        model.identity,
        max_steps=config.max_steps,
        language=config.language,
        seed_canvas=config.seed_canvas,
    )
    device = str(model.device)
    return Engine(recipe=recipe, transcriber=Transcriber(model, recipe, config.batch_size), device=device)
