"""What a run tells while it goes on: a row of metrics a step in a file, and a bar or now and then a line."""

import json
import sys
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from dgasr.training.settings import RunConfig

METRICS_FILE = "metrics.jsonl"

UNLOGGED = ("epoch", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
"""What the library logs and nobody asked for; its epoch is the whole run."""

SHOWN_STEPS = 50
"""Steps between two lines on standard error, where no bar is drawn."""


class Metrics(TrainerCallback):
    """Writes and shows what the library logs.

    Args:
        run: where to, and whether a bar is drawn.
    """

    def __init__(self, run: RunConfig) -> None:
        self._path, self._shows_progress = run.out / METRICS_FILE, run.shows_progress
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the bar."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit=" steps", disable=not self._shows_progress
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write a row."""
        if self._bar is None or not logs or "train_runtime" in logs:
            return
        named = {name.replace("eval_", "validation_"): value for name, value in logs.items() if name not in UNLOGGED}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **named}) + "\n")
        shown = ", ".join(f"{name} {value:.3g}" for name, value in named.items())
        if self._shows_progress:
            self._bar.update(state.global_step - self._bar.n)
            self._bar.set_postfix_str(shown, refresh=False)
        elif state.global_step % SHOWN_STEPS == 0 or state.global_step == state.max_steps:
            sys.stderr.write(f"step {state.global_step} of {state.max_steps}: {shown}\n")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
