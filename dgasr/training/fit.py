"""The training loop: plan and manifests in, model folder out; killed at any step, it goes on exactly there.

Every batch and every noise draw is a pure function of (seed, step), so that weights, optimizer and step number are all
there is to resume from. Knows no command line.
"""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, has_lora, hold_in_float32, load_adapter, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model, save_model
from dgasr.model.identity import TOKENIZER_FILE, read_config
from dgasr.model.pretrained import load_pretrained
from dgasr.prompt import Tokenizer
from dgasr.training.manifests import Utterance
from dgasr.training.phase_run import METRICS_FILE, FitConfig, PhaseRun, read_state
from dgasr.training.phases import Plan

log = logging.getLogger(__name__)

ADAPTER_PARTS = {"lora", "projector"}
"""Parts that an adapter folder holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartConfig:
    """First weights of a run.

    model: `full`, or the model folder to go on from.
    adapter: projector and LoRA to go on from, or `None`.
    lora: put LoRA on the backbone.
    device: where frozen weights are loaded to.
    """

    model: str
    adapter: str | None = None
    lora: bool = False
    device: str = "cpu"


def starting_model(start: StartConfig, out: Path) -> tuple[AsrModel, Path]:
    """Load the model that training changes.

    Args:
        start: which weights.
        out: folder of the run; the tokenizer of frozen weights is written there.

    Returns:
        The model and the folder of its tokenizer.

    Raises:
        ConfigError: what was asked for is not there, or would train frozen weights.
    """
    config = read_config(start.model)
    if config.pretrained and not (start.lora or start.adapter):
        raise ConfigError(
            f"--model {start.model}: its encoder and backbone are frozen, and too large to train whole. Give --lora, "
            "or --adapter to go on with one."
        )
    folder = out if config.pretrained else Path(start.model)
    model = load_pretrained(config, device=start.device) if config.pretrained else load_model(folder)
    if start.adapter is not None:
        load_adapter(model, start.adapter)
    elif start.lora:
        add_lora(model, model.config.lora)
    if start.lora or start.adapter:
        hold_in_float32(model)
    if config.pretrained:
        out.mkdir(parents=True, exist_ok=True)
        model.tokenizer.save(out)
    return model, folder


def fit(
    model: AsrModel,
    tokenizer_folder: Path,
    train: list[Utterance],
    validation: list[Utterance],
    plan: Plan,
    config: FitConfig,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
) -> None:
    """Train, and leave a model folder in `config.out`, or an adapter folder where LoRA was trained.

    Args:
        model: with its first weights; changed in place. A state in `config.out` replaces them.
        tokenizer_folder: holds `tokenizer.json`, which goes into the model folder.
        train: utterances to learn from.
        validation: utterances to measure the losses on; may be empty.
        plan: phases, augmentation, optimizer.
        config: where to and how.
        on_step: called after each step with its number and its losses, for a progress bar.

    Raises:
        ConfigError: `config.out` holds the state of another plan, seed or model, the plan trains what is not there or
            would not be written, or data do not fit the model.
    """
    _check_parts(model, plan)
    config.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.load(tokenizer_folder)
    model.to(config.device)
    state = read_state(config.out, model, plan, config.seed)
    start, first = 0, 0
    if state is not None:
        state.load_into(model)
        start = state.step
        log.info("resuming at step %d of %d", start, plan.total_steps)
    _forget_metrics_after(config.out / METRICS_FILE, start)
    for index, phase in enumerate(plan.phases):
        last = first + phase.steps
        if start < last:
            run = PhaseRun(model, tokenizer, train, validation, plan, config, index, first)
            run.train(start, state, on_step)
            state = None
        first, start = last, max(start, last)
    if has_lora(model):
        save_adapter(model, config.out)
        return
    save_model(model, config.out, config.dtype)
    if (tokenizer_folder / TOKENIZER_FILE).resolve() != (config.out / TOKENIZER_FILE).resolve():
        shutil.copyfile(tokenizer_folder / TOKENIZER_FILE, config.out / TOKENIZER_FILE)


def _forget_metrics_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a killed run had done beyond its last state: they are done again."""
    if path.is_file():
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step]
        path.write_text("".join(kept), encoding="utf-8")


def _check_parts(model: AsrModel, plan: Plan) -> None:
    """Refuse a plan that trains parts the model does not have, or, under LoRA, parts that an adapter does not hold."""
    trained = {part for phase in plan.phases for part in phase.train}
    lost = sorted(trained - ADAPTER_PARTS) if has_lora(model) else []
    if lost:
        raise ConfigError(
            f"train: with LoRA only {' and '.join(sorted(ADAPTER_PARTS))} are written; what {', '.join(lost)} learns "
            "would be lost. Leave that out of the plan, or leave out --lora."
        )
    if "lora" in trained and not has_lora(model):
        raise ConfigError("train: the plan trains lora, and the model has none. Add it with --lora or --adapter.")
