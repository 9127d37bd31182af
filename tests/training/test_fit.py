import json
from dataclasses import replace

import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora, load_adapter
from dgasr.model.checkpoint import load_model, unique_tensors
from dgasr.model.presets import LoraSize
from dgasr.training.examples import BatchConfig
from dgasr.training.fit import fit
from dgasr.training.objective import LossWeights
from dgasr.training.phase_run import METRICS_FILE, FitConfig
from dgasr.training.phases import Phase, Plan

CTC = LossWeights(diffusion=0, autoregressive=0, frame=1.0)
PHASE = Phase(
    steps=2, learning_rate=1e-3, warmup_steps=1, train=("encoder", "projector", "backbone"),
    batches=BatchConfig(batch_size=2), strength=(0.0, 0.0),
)  # fmt: skip


@pytest.fixture
def train(tokenizer_folder, tones, tmp_path):
    def run(model, phase=PHASE, *, out=tmp_path, validation=(), on_step=lambda step, losses: None, **options):
        config = FitConfig(out=out, workers=0, **options)
        fit(model, tokenizer_folder, tones, list(validation), Plan(phases=(phase,)), config, on_step)
        return [json.loads(line) for line in (out / METRICS_FILE).read_text().splitlines()]

    return run


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in unique_tensors(model).items()}


def changed_parts(model, before):
    return {name.split(".")[0] for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])}


def test_what_was_trained_lies_in_a_folder_that_loads(train, fresh_model, tmp_path):
    model = fresh_model()
    train(model, dtype=torch.float32)
    loaded = load_model(tmp_path)
    assert all(torch.equal(one, two) for one, two in zip(loaded.parameters(), model.parameters(), strict=True))
    assert loaded.tokenizer.encode("nine") == [18]


def test_losses_fall(train, fresh_model):
    phase = replace(PHASE, steps=12, learning_rate=2e-3, losses=CTC, batches=BatchConfig(batch_size=4))
    rows = train(fresh_model(), phase)
    assert rows[-1]["total"] < 0.6 * rows[0]["total"]


def test_dropout_changes_what_is_learned(train, fresh_model, tmp_path):
    plain, dropped = (
        train(fresh_model(), replace(PHASE, dropout=share), out=tmp_path / str(share))[0]["total"]
        for share in (0.0, 0.3)
    )
    assert plain != dropped


def test_every_step_has_its_losses_in_the_metrics_and_is_reported(train, fresh_model):
    reported = []
    rows = train(fresh_model(), on_step=lambda step, losses: reported.append((step, losses["total"])))
    assert [(row["step"], row["total"]) for row in rows] == reported
    assert [step for step, _ in reported] == [1, 2]
    assert rows[0].keys() >= {"phase", "lr", "diffusion", "autoregressive", "ctc", "total", "grad_norm", "step_s"}


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(train, fresh_model):
    phase = replace(PHASE, steps=6, warmup_steps=2, final_share=0.1, losses=replace(CTC, ctc=0))
    rates = [row["lr"] for row in train(fresh_model(), phase)]
    assert rates[:3] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[4] == pytest.approx(5.5e-4)  # half-way between the peak and a tenth of it


@pytest.mark.parametrize(
    "parts", [("projector",), ("encoder", "projector"), ("projector", "backbone"), ("encoder",), ("backbone",)]
)
def test_frozen_parts_keep_every_bit(train, fresh_model, parts):
    model = fresh_model()
    before = weights(model)
    train(model, replace(PHASE, train=parts))
    assert changed_parts(model, before) == set(parts)


def test_the_encoders_positions_are_never_trained(train, fresh_model):
    model = fresh_model()
    before = model.encoder.embed_positions.weight.detach().clone()
    train(model)
    assert torch.equal(model.encoder.embed_positions.weight, before)


def test_lora_training_leaves_the_frozen_weights_and_writes_an_adapter(train, fresh_model, tmp_path):
    model = fresh_model()
    before = weights(model)
    add_lora(model, LoraSize(rank=2, alpha=4))
    train(model, replace(PHASE, train=("lora", "projector")))
    after = {name.replace(".base_layer", ""): tensor for name, tensor in weights(model).items()}
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("projector."))
    assert not (tmp_path / "model.safetensors").exists()
    other = fresh_model()
    load_adapter(other, str(tmp_path))
    assert all(torch.equal(one, two) for one, two in zip(other.parameters(), model.parameters(), strict=True))
    assert any(parameter.any() for name, parameter in other.named_parameters() if "lora_B" in name)


def test_validation_is_measured_and_teaches_nothing(train, fresh_model, tones, tmp_path):
    model, other = fresh_model(), fresh_model()
    rows = train(model, validation=tones[:2], validation_steps=1, validation_batches=2)
    train(other, out=tmp_path / "without")
    assert all(row["validation_ctc"] > 0 for row in rows)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_the_loss_of_a_step_is_the_mean_over_its_batches(train, fresh_model, tmp_path):
    still = replace(PHASE, steps=2, losses=CTC, learning_rate=1e-12)
    rows = train(fresh_model(), still, out=tmp_path / "two steps")
    (row,) = train(fresh_model(), replace(still, steps=1, grad_accumulation=2), out=tmp_path / "one step")
    assert row["total"] == pytest.approx((rows[0]["total"] + rows[1]["total"]) / 2, rel=1e-5)


def test_a_gradient_that_is_not_finite_changes_nothing(train, fresh_model, caplog):
    model = fresh_model()
    with torch.no_grad():
        model.projector.output.bias.fill_(float("nan"))
    before = weights(model)
    train(model, replace(PHASE, steps=1, train=("encoder",), losses=CTC))
    assert changed_parts(model, before) <= {"projector"}  # NaN is unlike itself
    assert "not finite" in caplog.text


@pytest.mark.parametrize("part", ["encoder", "backbone"])
def test_under_lora_a_plan_whose_learning_would_be_lost_is_refused(train, fresh_model, tmp_path, part):
    model = fresh_model()
    add_lora(model, LoraSize(rank=2))
    with pytest.raises(ConfigError, match=f"what {part} learns would be lost"):
        train(model, replace(PHASE, train=("lora", part)))
    assert not list(tmp_path.iterdir())


def test_lora_that_is_not_there_cannot_be_trained(train, fresh_model, tmp_path):
    with pytest.raises(ConfigError, match="the model has none"):
        train(fresh_model(), replace(PHASE, train=("lora", "projector")))
    assert not list(tmp_path.iterdir())


def test_words_the_model_does_not_know_are_refused(fresh_model, tokenizer_folder, tones, tmp_path):
    strange = [replace(tones[0], text="zero hundred")]
    with pytest.raises(ConfigError, match="hundred"):
        fit(fresh_model(), tokenizer_folder, strange, [], Plan(phases=(PHASE,)), FitConfig(out=tmp_path, workers=0))
