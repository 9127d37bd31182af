"""Training runs of the bundled size: what they learn, write and refuse."""

import shutil
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, load_adapter, save_adapter
from dgasr.model.checkpoint import load_model, save_model
from dgasr.model.presets import LoraSize
from dgasr.training import RunConfig, TrainConfig
from dgasr.training.batches import BatchConfig
from dgasr.training.objective import LossWeights
from dgasr.training.run import starting_model
from dgasr.training.trainer import DivergedError, _arguments
from tests.training.runs import CONFIG, equal, forget_the_end, rows_in, weights

CTC = LossWeights(diffusion=0, autoregressive=0, frame=1.0)


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


@pytest.mark.parametrize(
    "fields",
    [{"steps": 0}, {"learning_rate": 0}, {"grad_accumulation": 0}, {"train": ["head"]}, {"train": []},
     {"losses": {"ctc": -1}}, {"noise": {"full_noise": 1.5}}, {"noise": {"draws": 0}}, {"batches": {"batch_size": 0}},
     {"learning_rte": 1}, {"losses": {"learning_rte": 1}},
     {"noise": {"learning_rte": 1}}, {"batches": {"learning_rte": 1}}, {"augmentation": {"learning_rte": 1}}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(fields):
    plain, read = {"steps": 3, "learning_rate": 1e-3}, TypeAdapter(TrainConfig).validate_python
    assert read(plain) == TrainConfig(**plain)
    with pytest.raises((ConfigError, ValidationError)):
        read(plain | fields)


def test_a_run_begins_from_a_folder_with_lora_or_an_adapter(fresh_model, tmp_path):
    folder = tmp_path / "model"
    save_model(fresh_model(5), folder)
    fresh_model(5).tokenizer.save(folder)
    plain = starting_model(str(folder))
    assert equal(weights(plain), weights(fresh_model(5)))
    size = LoraSize(rank=3, alpha=6)
    adapted = starting_model(str(folder), lora=size)
    assert {p.shape[0] for name, p in adapted.named_parameters() if "lora_A" in name} == {3}
    torch.nn.init.ones_(adapted.projector.output.bias)
    save_adapter(adapted, tmp_path / "adapter")
    for lora in (None, LoraSize(rank=2)):
        again = starting_model(str(folder), adapter=str(tmp_path / "adapter"), lora=lora)
        assert bool((again.projector.output.bias == 1).all())
        assert {p.shape[0] for name, p in again.named_parameters() if "lora_A" in name} == {3}


def test_the_gpu_that_was_named_is_trained_on_and_not_the_first_one(fresh_model, tmp_path, monkeypatch):
    current, asked = [], torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    arguments = _arguments(fresh_model(), CONFIG, RunConfig(out=tmp_path), has_validation=False, device=asked)
    assert arguments.device == asked
    assert current[-1] == asked
