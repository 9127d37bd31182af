"""The model of a run, loaded once per process: settings in, recipe and transcriber out."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from dgasr.model.identity import identify
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.recipe import Recipe, build_recipe
from dgasr.stages.engine_config import EngineConfig

if TYPE_CHECKING:
    from dgasr.model.asr import AsrModel
    from dgasr.transcriber import Transcriber


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A loaded model with the recipe it follows."""

    recipe: Recipe
    transcriber: "Transcriber"
    device: str
    """Where the model runs, `cpu` or `cuda:0`."""


def recipe_of(config: EngineConfig) -> Recipe:
    """Name the recipe that an engine would follow, without loading it.

    Raises:
        ConfigError: no such model, adapter or language.
    """
    model, identity = identify(
        config.model,
        config.adapter,
        merge_adapter=config.merge_adapter,
        compiled=config.compile,
        quantize=config.quantize,
    )
    return _recipe(model, identity, config)


@lru_cache(maxsize=1)
def start_engine(config: EngineConfig) -> Engine:
    """Load the model, or return the one that this process has loaded.

    Raises:
        ConfigError: no such model, adapter, device or language.
    """
    # torch takes seconds to import, and who only plans or reads audio never needs it.
    from dgasr.transcriber import Transcriber
    from dgasr.transcriber.memory import fitting_batch_size

    model = load_model(config)
    recipe = _recipe(model.config, model.identity, config)
    device = str(model.device)
    batch_size = config.batch_size or fitting_batch_size(model, recipe)
    transcriber = Transcriber(model, recipe, batch_size, records_steps=config.cuda_graphs)
    return Engine(recipe=recipe, transcriber=transcriber, device=device)


def load_model(config: EngineConfig) -> "AsrModel":
    """Load the model that an engine decodes with, as its settings say.

    Raises:
        ConfigError: no such model, adapter or device.
    """
    from dgasr.transcriber import load

    return load(
        config.model,
        adapter=config.adapter,
        device=config.device,
        merge_adapter=config.merge_adapter,
        compiled=config.compile,
        quantize=config.quantize,
    )


def _recipe(model: AsrConfig, identity: ModelIdentity, config: EngineConfig) -> Recipe:
    return build_recipe(
        model, identity, max_steps=config.max_steps, language=config.language, seed_canvas=config.seed_canvas,
        rescore=config.rescore, segmentation=config.segmentation,
    )  # fmt: skip
