"""A run that was killed, or is done by several processes, ends like any other."""

import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.manifests import write_manifest
from dgasr.model.adapter import add_lora
from dgasr.model.checkpoint import load_model, save_model
from dgasr.model.presets import LoraSize
from dgasr.training.trainer import last_checkpoint
from tests.forked import Forked, run_ranks
from tests.training.runs import CONFIG, WHOLE, equal, forget_the_end, rows_in, weights

pytestmark = pytest.mark.slow

KILLED_RUN = """
import os, signal, sys
from pathlib import Path
import torch
import dgasr.training.trainer as trainer
from dgasr.model.checkpoint import load_model
from dgasr.manifests import read_manifest
from dgasr.training.run import train_run
from dgasr.training import RunConfig
from tests.training.runs import WHOLE

torch.set_num_threads(1)
folder, killed_at = Path(sys.argv[1]), int(sys.argv[2])
plain = trainer.Metrics.on_log

def on_log(self, args, state, *arguments, **keywords):
    plain(self, args, state, *arguments, **keywords)
    if state.global_step == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)

trainer.Metrics.on_log = on_log
train_run(load_model(folder / "start"), read_manifest(folder / "train.jsonl"), [], WHOLE,
          RunConfig(out=folder / "run", checkpoint_steps=2, workers=0))
"""


@pytest.fixture(scope="module")
def kept():
    """What the whole run came to; made by the first test that asks."""
    return {}


@pytest.fixture
def whole(train, fresh_model, tmp_path_factory, kept):
    if not kept:
        out, model = tmp_path_factory.mktemp("whole") / "run", fresh_model()
        kept["metrics"] = train(model, WHOLE, out=out, checkpoint_steps=2)
        kept["out"], kept["weights"] = out, weights(model)
    return kept


@pytest.mark.parametrize("step", [1, 3, 6])
def test_a_process_killed_with_sigkill_loses_nothing_but_time(train, whole, fresh_model, tones, tmp_path, step):
    write_manifest(tmp_path / "train.jsonl", tones)
    save_model(fresh_model(), tmp_path / "start")
    fresh_model().tokenizer.save(tmp_path / "start")
    killed = Forked(["-c", KILLED_RUN, str(tmp_path), str(step)], os.environ)
    assert killed.wait() == -signal.SIGKILL, killed.output
    assert [row["step"] for row in rows_in(tmp_path / "run")] == list(range(1, step + 1))
    model = fresh_model()
    assert train(model, WHOLE, checkpoint_steps=2, resume=step > 1) == whole["metrics"]
    assert equal(weights(model), whole["weights"])


def test_processes_that_make_batches_change_nothing(train, whole, fresh_model):
    model = fresh_model()
    train(model, WHOLE, checkpoint_steps=2, workers=1)
    assert equal(weights(model), whole["weights"])


def test_a_finished_run_started_again_does_no_step_and_half_a_checkpoint_is_none(train, whole, fresh_model, tmp_path):
    shutil.copytree(whole["out"], tmp_path / "run")
    forget_the_end(tmp_path / "run")
    half = tmp_path / "run/checkpoints/checkpoint-9"
    shutil.copytree(last_checkpoint(tmp_path / "run"), half)
    (half / "trainer_state.json").write_text('{"global_step": 9')
    model = fresh_model()
    assert train(model, WHOLE, checkpoint_steps=2) == whole["metrics"]
    assert equal(weights(model), whole["weights"])
    assert not half.exists()


@pytest.mark.parametrize("change", [{"seed": 4}, {"weight_decay": 0.5}])
def test_the_folder_of_another_run_is_refused(train, whole, fresh_model, tmp_path, change):
    shutil.copytree(whole["out"], tmp_path / "run")
    with pytest.raises(ConfigError, match="other settings, seed or weights"):
        train(fresh_model(), replace(WHOLE, **change))
    with pytest.raises(ConfigError, match="no run lies in"):
        train(fresh_model(), WHOLE, out=tmp_path / "absent", resume=True)


def test_under_lora_a_run_goes_on_and_that_of_other_frozen_weights_is_refused(train, fresh_model, tmp_path):
    config = replace(CONFIG, steps=3, train=("lora", "projector"))

    def adapted(seed):
        model = fresh_model(seed)
        torch.manual_seed(5)  # LoRA's first weights are drawn
        add_lora(model, LoraSize(rank=2, alpha=4))
        return model

    one, two = adapted(0), adapted(0)
    train(one, config, out=tmp_path / "whole", checkpoint_steps=2)
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    forget_the_end(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/checkpoint-3")
    train(two, config, checkpoint_steps=2)
    assert equal(weights(one), weights(two))
    names = {name.split(".")[0] for name in os.listdir(tmp_path / "run/checkpoints/checkpoint-2")}
    assert {"adapter_model", "projector", "optimizer"} <= names
    assert "model" not in names
    with pytest.raises(ConfigError, match="other settings, seed or weights"):
        train(adapted(1), config)


PROCESSES = """
import sys
from pathlib import Path
import torch
from dgasr.model.checkpoint import load_model
from dgasr.manifests import read_manifest
from dgasr.training.run import train_run
from dgasr.training.batches import BatchConfig
from dgasr.training import RunConfig, TrainConfig

torch.set_num_threads(1)
folder, name = Path(sys.argv[1]), sys.argv[2]
config = TrainConfig(steps=3, learning_rate=1e-3, warmup_steps=1, grad_accumulation=2,
                     train=("encoder", "projector", "backbone"), batches=BatchConfig(batch_size=2))
train_run(load_model(folder / "start"), read_manifest(folder / "train.jsonl"), [], config,
          RunConfig(out=folder / name, workers=0, is_half=False))
"""


def test_two_data_parallel_processes_learn_what_one_learns(fresh_model, tones, tmp_path):
    write_manifest(tmp_path / "train.jsonl", tones)
    save_model(fresh_model(), tmp_path / "start")
    fresh_model().tokenizer.save(tmp_path / "start")
    alone = Forked(["-c", PROCESSES, str(tmp_path), "one"], os.environ)
    assert alone.wait() == 0, alone.output
    run_ranks(["-c", PROCESSES, str(tmp_path), "two"], os.environ)
    one, two = (weights(load_model(tmp_path / name / "final")) for name in ("one", "two"))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    assert not equal(one, weights(load_model(tmp_path / "start")))
    for alone, shared in zip(rows_in(tmp_path / "one"), rows_in(tmp_path / "two"), strict=True):
        assert shared == pytest.approx(alone, rel=1e-4)


def test_batches_that_processes_cannot_share_are_refused(train, fresh_model, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="cannot be shared by 2 processes"):
        train(fresh_model(), replace(CONFIG, grad_accumulation=3))
