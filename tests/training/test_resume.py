"""A run that is killed and started again ends with the weights of one that was not, to the bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.adapter import add_lora
from dgasr.model.checkpoint import unique_tensors
from dgasr.model.presets import LoraSize
from dgasr.training.canvas_noise import CanvasNoiseConfig
from dgasr.training.examples import BatchConfig
from dgasr.training.fit import fit
from dgasr.training.manifests import write_manifest
from dgasr.training.objective import LossWeights
from dgasr.training.phase_run import METRICS_FILE, STATE_FILE, FitConfig, read_state, write_state
from dgasr.training.phases import Phase, Plan

BATCHES = BatchConfig(batch_size=2, max_join=2, non_speech_probability=0.2)
PLAN = Plan(
    phases=(
        Phase(
            steps=3, learning_rate=2e-3, warmup_steps=1, train=("encoder", "projector", "backbone"), batches=BATCHES,
            losses=LossWeights(diffusion=0, autoregressive=0, frame=1.0), strength=(0.0, 1.0),
        ),
        Phase(
            steps=4, learning_rate=1e-3, warmup_steps=1, train=("projector", "backbone"), batches=BATCHES,
            noise=CanvasNoiseConfig(own_steps=0.5, draws=2), grad_accumulation=2, dropout=0.1,
        ),
    )
)  # fmt: skip
"""Two phases of differing losses and parts; states are written after steps 2, 3, 4, 6 and 7."""

KILLED_RUN = """
import os, signal, sys
from pathlib import Path
import torch
from dgasr.model.asr import AsrModel
from dgasr.model.presets import tiny
from dgasr.training.fit import fit
from tools.tiny.fresh import initialise
from dgasr.training.manifests import read_manifest
from dgasr.training.phase_run import FitConfig
from dgasr.training.phases import read_plan

torch.set_num_threads(1)
folder, vocabulary = map(Path, sys.argv[1:])
torch.manual_seed(0)
model = AsrModel(tiny())
initialise(model, torch.randn(2, 80, 800), 0)

def die(step, losses):
    if step == 6:
        os.kill(os.getpid(), signal.SIGKILL)

config = FitConfig(out=folder / "out", seed=3, checkpoint_steps=2, workers=0)
fit(model, vocabulary, read_manifest(folder / "train.jsonl"), [], read_plan(folder / "plan.json"), config, die)
"""


class Killed(Exception):  # noqa: N818 - no error, a stand-in for a signal
    """Ends a run from outside."""


@pytest.fixture
def run(fresh_model, tokenizer_folder, tones, one_thread):
    def train(out, *, killed_at=None, seed=3, plan=PLAN, workers=0):
        def on_step(step, losses):
            if step == killed_at:
                raise Killed

        model = fresh_model()
        config = FitConfig(out=out, seed=seed, checkpoint_steps=2, workers=workers)
        fit(model, tokenizer_folder, tones, [], plan, config, on_step)
        return {name: tensor.detach().clone() for name, tensor in unique_tensors(model).items()}

    return train


@pytest.fixture(scope="module")
def kept():
    """What the whole run came to; made by the first test that asks."""
    return {}


@pytest.fixture
def whole(run, tmp_path_factory, kept):
    if not kept:
        out = tmp_path_factory.mktemp("whole")
        kept["out"], kept["weights"], kept["metrics"] = out, run(out), losses_in(out)
    return kept


def losses_in(out):
    rows = [json.loads(line) for line in (out / METRICS_FILE).read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "step_s"} for row in rows]


def equal(weights, others):
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_process_killed_with_sigkill_loses_nothing_but_time(
    run, whole, tones, tokenizer_folder, tmp_path, one_thread
):
    write_manifest(tmp_path / "train.jsonl", tones)
    (tmp_path / "plan.json").write_text(PLAN.to_json())
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(tmp_path), str(tokenizer_folder)], cwd=Path(__file__).parents[2]
    )
    assert killed.returncode == -signal.SIGKILL
    assert [row["step"] for row in losses_in(tmp_path / "out")] == [1, 2, 3, 4, 5, 6]
    assert torch.load(tmp_path / "out" / STATE_FILE, weights_only=True)["step"] == 4
    assert equal(run(tmp_path / "out"), whole["weights"])
    assert losses_in(tmp_path / "out") == whole["metrics"]


@pytest.mark.parametrize("step", [1, 3, 4])
def test_wherever_a_run_is_stopped_it_ends_the_same(run, whole, tmp_path, step):
    with pytest.raises(Killed):
        run(tmp_path, killed_at=step)
    assert equal(run(tmp_path), whole["weights"])


def test_processes_that_make_batches_change_nothing(run, whole, tmp_path):
    assert equal(run(tmp_path, workers=1), whole["weights"])


def test_a_finished_run_started_again_does_no_step(run, whole, tmp_path):
    shutil.copytree(whole["out"], tmp_path, dirs_exist_ok=True)
    assert equal(run(tmp_path, killed_at=7), whole["weights"])
    assert losses_in(tmp_path) == whole["metrics"]


@pytest.mark.parametrize("change", ["plan", "seed"])
def test_the_state_of_another_plan_or_seed_is_refused(run, tmp_path, change):
    with pytest.raises(Killed):
        run(tmp_path, killed_at=3)
    other = {"seed": 4} if change == "seed" else {"plan": replace(PLAN, weight_decay=0.5)}
    with pytest.raises(ConfigError, match="another plan, seed or model"):
        run(tmp_path, **other)


def test_a_kill_while_the_state_is_written_leaves_the_one_before(fresh_model, tmp_path, monkeypatch):
    model = fresh_model()
    optimizer = torch.optim.AdamW(model.parameters())
    write_state(tmp_path, model, optimizer, 2, PLAN, 0)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        write_state(tmp_path, model, optimizer, 4, PLAN, 0)
    assert read_state(tmp_path, model, PLAN, 0).step == 2


def test_the_state_of_another_model_is_refused(fresh_model, tmp_path):
    model = fresh_model()
    write_state(tmp_path, model, torch.optim.AdamW(model.parameters()), 2, PLAN, 0)
    state = read_state(tmp_path, model, PLAN, 0)
    del state.weights["projector.output.bias"]
    with pytest.raises(IntegrityError, match="another model"):
        state.load_into(model)


def test_under_lora_only_what_changes_is_in_the_state(fresh_model, tmp_path):
    model = fresh_model()
    add_lora(model, LoraSize(rank=2))
    write_state(tmp_path, model, torch.optim.AdamW(model.projector.parameters()), 2, PLAN, 0)
    names = read_state(tmp_path, model, PLAN, 0).weights.keys()
    assert {"lora" if "lora_" in name else name.split(".")[0] for name in names} == {"lora", "projector"}


def test_under_lora_the_state_of_other_frozen_weights_is_refused(fresh_model, tmp_path):
    model, other = fresh_model(0), fresh_model(1)
    for each in (model, other):
        add_lora(each, LoraSize(rank=2))
    write_state(tmp_path, model, torch.optim.AdamW(model.projector.parameters()), 2, PLAN, 0)
    with pytest.raises(ConfigError, match="another plan, seed or model"):
        read_state(tmp_path, other, PLAN, 0)
