"""Training runs of the bundled size: what they learn, write and refuse, and that a killed one ends like any other."""

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

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, load_adapter, save_adapter
from dgasr.model.checkpoint import load_model, save_model, unique_tensors
from dgasr.model.presets import LoraSize
from dgasr.training.canvas_noise import CanvasNoiseConfig
from dgasr.training.examples import BatchConfig
from dgasr.training.manifests import write_manifest
from dgasr.training.metrics import METRICS_FILE
from dgasr.training.objective import LossWeights
from dgasr.training.run import StartConfig, starting_model, train_run
from dgasr.training.settings import RunConfig, TrainConfig, train_config
from dgasr.training.trainer import DivergedError, last_checkpoint

ROOT = Path(__file__).parents[2]
CTC = LossWeights(diffusion=0, autoregressive=0, frame=1.0)
CONFIG = TrainConfig(
    steps=2, learning_rate=1e-3, warmup_steps=1, train=("encoder", "projector", "backbone"),
    batches=BatchConfig(batch_size=2), strength=(0.0, 0.0),
)  # fmt: skip
WHOLE = replace(
    CONFIG, steps=7, batches=BatchConfig(batch_size=2, max_join=2, non_speech_probability=0.2), strength=(0.0, 1.0),
    noise=CanvasNoiseConfig(own_steps=0.5, draws=2), grad_accumulation=2, dropout=0.1, seed=3,
)  # fmt: skip
"""All that is random in a run; checkpoints after steps 2, 4, 6 and 7."""


@pytest.fixture
def train(tones, tmp_path, one_thread):
    def run(model, config=CONFIG, *, out=tmp_path / "run", validation=(), utterances=None, sample=None, resume=False,
            **options):  # fmt: skip
        settings = RunConfig(out=out, workers=options.pop("workers", 0), **options)
        train_run(model, utterances or tones, list(validation), config, settings, sample=sample, must_resume=resume)
        return rows_in(out)

    return run


def rows_in(out):
    rows = [json.loads(line) for line in (out / METRICS_FILE).read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "step_s"} for row in rows]


def forget_the_end(out):
    """Leave a run as if it had been killed before it wrote that it had ended."""
    written = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(written | {"finished": 0}))


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in unique_tensors(model).items()}


def equal(ours, others):
    return ours.keys() == others.keys() and all(torch.equal(ours[name], others[name]) for name in ours)


def test_what_was_trained_lies_in_a_folder_that_loads(train, fresh_model, tmp_path):
    model = fresh_model()
    rows = train(model, is_half=False)
    assert equal(weights(load_model(tmp_path / "run/final")), weights(model))
    assert load_model(tmp_path / "run/final").tokenizer.encode("nine") == [18]
    assert not (tmp_path / "run/best").exists()  # nothing was validated
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0].keys() >= {"loss", "learning_rate", "diffusion", "autoregressive", "ctc", "grad_norm"}
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


def test_losses_fall_and_the_rate_warms_up_and_falls_as_a_cosine(train, fresh_model):
    config = replace(CONFIG, steps=12, learning_rate=2e-3, warmup_steps=2, losses=CTC, final_share=0.1)
    rows = train(fresh_model(), replace(config, batches=BatchConfig(batch_size=4)))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    rates = [row["learning_rate"] for row in rows]
    assert rates[:3] == pytest.approx([0, 1e-3, 2e-3])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[7] == pytest.approx(1.1e-3)  # half-way between the peak and a tenth of it


@pytest.mark.parametrize("parts", [("projector",), ("encoder", "projector"), ("projector", "backbone"), ("backbone",)])
def test_frozen_parts_keep_every_bit_and_positions_are_never_trained(train, fresh_model, parts):
    model = fresh_model()
    before, positions = weights(model), model.encoder.embed_positions.weight.detach().clone()
    train(model, replace(CONFIG, train=parts))
    changed = {name.split(".")[0] for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])}
    assert changed == set(parts)
    assert torch.equal(model.encoder.embed_positions.weight, positions)


def test_lora_training_leaves_the_frozen_weights_and_writes_an_adapter(train, fresh_model, tmp_path):
    model = fresh_model()
    before = weights(model)
    add_lora(model, LoraSize(rank=2, alpha=4))
    train(model, replace(CONFIG, train=("lora", "projector")))
    after = {name.replace(".base_layer", ""): tensor for name, tensor in weights(model).items()}
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("projector."))
    assert not (tmp_path / "run/final/model.safetensors").exists()
    other = fresh_model()
    load_adapter(other, str(tmp_path / "run/final"))
    assert all(torch.equal(one, two) for one, two in zip(other.parameters(), model.parameters(), strict=True))
    assert any(parameter.any() for name, parameter in other.named_parameters() if "lora_B" in name)


def test_validation_teaches_nothing_chooses_the_best_and_ends_a_run_that_learns_no_more(
    train, fresh_model, tones, tmp_path
):
    model, other = fresh_model(), fresh_model()
    heard = []
    config = replace(CONFIG, steps=6, learning_rate=0.3, patience=1)  # so high that it only gets worse
    options = {"validation": tones[:2], "validation_steps": 1, "checkpoint_steps": 1}
    rows = train(model, config, sample=lambda own: heard.append(own) or [{"said": "a", "heard": "b"}], **options)
    losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert len(losses) < 6
    assert losses[-1] > min(losses)
    assert len(heard) == len(losses) == len((tmp_path / "run/samples.jsonl").read_text().splitlines())
    weights_then, rows_then = weights(model), rows_in(tmp_path / "run")
    again = fresh_model()
    assert train(again, config, is_half=False, **options) == rows_then  # it ended early, and does not go on
    assert equal(weights(again), weights_then)
    best = 1 + losses.index(min(losses))
    train(other, replace(config, patience=0), out=tmp_path / "without", checkpoint_steps=1)
    first = load_model(tmp_path / "run/best")
    short = fresh_model()
    train(short, replace(config, patience=0), out=tmp_path / "short", checkpoint_steps=best, is_half=False)
    state = load_model(tmp_path / "without/checkpoints/checkpoint-6")
    assert equal(weights(state), weights(other))
    assert not equal(weights(first), weights(other))


def test_the_loss_of_a_step_is_the_mean_over_its_batches(train, fresh_model, tmp_path):
    still = replace(CONFIG, losses=CTC, learning_rate=1e-12)
    rows = train(fresh_model(), still, out=tmp_path / "two steps")
    (row,) = train(fresh_model(), replace(still, steps=1, grad_accumulation=2), out=tmp_path / "one step")
    assert row["loss"] == pytest.approx((rows[0]["loss"] + rows[1]["loss"]) / 2, rel=1e-5)


def test_computing_layers_again_changes_no_bit_and_bfloat16_few(train, fresh_model, tmp_path):
    config = replace(CONFIG, train=("projector", "backbone"))
    plain, again = fresh_model(), fresh_model()
    rows = train(plain, config, out=tmp_path / "plain")
    train(again, replace(config, gradient_checkpointing=True), out=tmp_path / "again")
    assert equal(weights(plain), weights(again))
    narrow = train(fresh_model(), replace(config, precision="bf16"), out=tmp_path / "narrow")
    assert narrow[0]["loss"] != rows[0]["loss"]
    assert narrow[0]["loss"] == pytest.approx(rows[0]["loss"], rel=0.05)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_last_good_weights(train, fresh_model, tmp_path):
    config = replace(CONFIG, train=("encoder",), losses=CTC)
    model = fresh_model()
    train(model, config, checkpoint_steps=1)
    with torch.no_grad():
        model.projector.output.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"step 1: the loss is not a number. No checkpoint"):
        train(model, config, out=tmp_path / "other")
    forget_the_end(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/checkpoint-2")
    save_model(model, tmp_path / "run/checkpoints/checkpoint-1")
    with pytest.raises(DivergedError, match=r"step 2: .* last good weights are in .*checkpoint-1"):
        train(fresh_model(), config, checkpoint_steps=1)


@pytest.mark.parametrize("part", ["encoder", "backbone"])
def test_under_lora_a_run_whose_learning_would_be_lost_is_refused(train, fresh_model, tmp_path, part):
    model = fresh_model()
    add_lora(model, LoraSize(rank=2))
    with pytest.raises(ConfigError, match=f"what {part} learns would be lost"):
        train(model, replace(CONFIG, train=("lora", part)))
    with pytest.raises(ConfigError, match="the model has none"):
        train(fresh_model(), replace(CONFIG, train=("lora", "projector")))
    assert not list(tmp_path.iterdir())


def test_words_the_model_does_not_know_are_refused(train, fresh_model, tones):
    with pytest.raises(ConfigError, match="hundred"):
        train(fresh_model(), utterances=[replace(tones[0], text="zero hundred")])


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
import torch
import dgasr.training.metrics as metrics
from dgasr.model.checkpoint import load_model
from dgasr.training.manifests import read_manifest
from dgasr.training.run import train_run
from dgasr.training.settings import RunConfig
from tests.training.test_run import WHOLE

torch.set_num_threads(1)
folder, killed_at = Path(sys.argv[1]), int(sys.argv[2])
plain = metrics.Metrics.on_log

def on_log(self, args, state, *arguments, **keywords):
    plain(self, args, state, *arguments, **keywords)
    if state.global_step == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)

metrics.Metrics.on_log = on_log
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
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(tmp_path), str(step)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert killed.returncode == -signal.SIGKILL
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
from dgasr.training.manifests import read_manifest
from dgasr.training.run import train_run
from dgasr.training.settings import RunConfig, train_config

torch.set_num_threads(1)
folder, name = Path(sys.argv[1]), sys.argv[2]
config = train_config({"steps": 3, "learning_rate": 1e-3, "warmup_steps": 1, "grad_accumulation": 2,
                       "train": ["encoder", "projector", "backbone"], "batches": {"batch_size": 2}})
train_run(load_model(folder / "start"), read_manifest(folder / "train.jsonl"), [], config,
          RunConfig(out=folder / name, workers=0, is_half=False))
"""


def test_two_data_parallel_processes_learn_what_one_learns(fresh_model, tones, tmp_path):
    write_manifest(tmp_path / "train.jsonl", tones)
    save_model(fresh_model(), tmp_path / "start")
    fresh_model().tokenizer.save(tmp_path / "start")
    (tmp_path / "run.py").write_text(PROCESSES)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command, name in (([sys.executable], "one"), (torchrun, "two")):
        script = [str(tmp_path / "run.py"), str(tmp_path), name]
        subprocess.run([*command, *script], env=environment, check=True, timeout=300)
    one, two = (weights(load_model(tmp_path / name / "final")) for name in ("one", "two"))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    assert not equal(one, weights(load_model(tmp_path / "start")))
    for alone, shared in zip(rows_in(tmp_path / "one"), rows_in(tmp_path / "two"), strict=True):
        assert shared == pytest.approx(alone, rel=1e-4)


def test_batches_that_processes_cannot_share_are_refused(train, fresh_model, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="cannot be shared by 2 processes"):
        train(fresh_model(), replace(CONFIG, grad_accumulation=3))


@pytest.mark.parametrize(
    "fields",
    [{"steps": 0}, {"learning_rate": 0}, {"grad_accumulation": 0}, {"dropout": 1}, {"train": ["head"]}, {"train": []},
     {"losses": {"ctc": -1}}, {"noise": {"full_noise": 1.5}}, {"noise": {"draws": 0}}, {"batches": {"batch_size": 0}},
     {"batches": {"is_by_epoch": True, "max_join": 2}}, {"learning_rte": 1}, {"losses": {"learning_rte": 1}},
     {"noise": {"learning_rte": 1}}, {"batches": {"learning_rte": 1}}, {"augmentation": {"learning_rte": 1}}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(fields):
    with pytest.raises(ConfigError):
        train_config({"steps": 3, "learning_rate": 1e-3} | fields)


def test_settings_left_out_have_the_defaults():
    assert train_config({"steps": 3, "learning_rate": 1e-3}) == TrainConfig(steps=3, learning_rate=1e-3)


def test_a_run_begins_from_a_folder_with_lora_or_an_adapter(fresh_model, tmp_path):
    folder = tmp_path / "model"
    save_model(fresh_model(5), folder)
    fresh_model(5).tokenizer.save(folder)
    plain = starting_model(StartConfig(model=str(folder)))
    assert equal(weights(plain), weights(fresh_model(5)))
    size = LoraSize(rank=3, alpha=6)
    adapted = starting_model(StartConfig(model=str(folder), lora=size))
    assert {p.shape[0] for name, p in adapted.named_parameters() if "lora_A" in name} == {3}
    torch.nn.init.ones_(adapted.projector.output.bias)
    save_adapter(adapted, tmp_path / "adapter")
    for lora in (None, LoraSize(rank=2)):
        again = starting_model(StartConfig(model=str(folder), adapter=str(tmp_path / "adapter"), lora=lora))
        assert bool((again.projector.output.bias == 1).all())
        assert {p.shape[0] for name, p in again.named_parameters() if "lora_A" in name} == {3}
