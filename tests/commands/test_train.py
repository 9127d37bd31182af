"""`dgasr train` from the words on the command line to a folder that transcribes."""

import json

import numpy as np
import pytest
import soundfile

from dgasr.cli import build_parser
from dgasr.commands.train import _plan
from dgasr.training.manifests import Utterance, write_manifest
from dgasr.transcriber import load
from tools.tiny.fresh import PLAN

SHORT = ("--steps", 1, "--batch-size", 2, "--grad-accum", 1, "--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    noise = np.random.default_rng(0).normal(scale=0.1, size=16_000)
    soundfile.write(folder / "one.wav", noise, 16_000)
    write_manifest(
        folder / "train.jsonl",
        [Utterance(audio_filepath=str(folder / "one.wav"), duration=1.0, text="one two", language="en")],
    )
    return folder / "train.jsonl"


@pytest.fixture(scope="module")
def plan_of():
    def parse(*arguments):
        words = ["train", "m.jsonl", "--out", "o", *map(str, arguments)]
        return _plan(build_parser().parse_args(words))

    return parse


def test_from_a_model_to_a_model_to_an_adapter(dgasr, manifest, tmp_path):
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    code, out, _ = dgasr("train", manifest, "--out", model, "--validation", manifest, *SHORT)
    assert (code, out) == (0, f"{model}: trained for 1 steps; the losses are in metrics.jsonl there.\n")
    assert "validation_total" in json.loads((model / "metrics.jsonl").read_text())
    code, _, _ = dgasr("train", manifest, "--out", adapter, "--model", model, "--lora", *SHORT)
    assert code == 0
    assert load(str(model), adapter=str(adapter)).identity.adapter_digest


def test_the_flags_make_the_plan(plan_of):
    plan = plan_of(
        "--steps", 7, "--lr", 1e-3, "--batch-size", 5, "--grad-accum", 2, "--max-join", 3, "--augment", 0.25,
        "--ar-weight", 0.5, "--frame-weight", 0.1, "--ctc-weight", 0, "--clip-norm", 1,
    )  # fmt: skip
    (phase,) = plan.phases
    assert (phase.steps, phase.learning_rate, phase.grad_accumulation) == (7, 1e-3, 2)
    assert (phase.batches.batch_size, phase.batches.max_join, phase.strength) == (5, 3, (0.25, 0.25))
    assert (phase.losses.diffusion, phase.losses.autoregressive, phase.losses.ctc, phase.losses.frame) == (
        1,
        0.5,
        0,
        0.1,
    )
    assert plan.clip_norm == 1


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ((), {"encoder", "projector", "backbone"}),
        (("--freeze", "encoder"), {"projector", "backbone"}),
        (("--freeze", "encoder,backbone"), {"projector"}),
        (("--lora",), {"lora", "projector"}),
        (("--adapter", "x"), {"lora", "projector"}),
        (("--lora", "--freeze", "projector"), {"lora"}),
    ],
)
def test_freezing_and_lora_choose_what_is_trained(plan_of, flags, parts):
    assert set(plan_of(*flags).phases[0].train) == parts


def test_a_plan_of_several_phases_is_read_from_its_file(plan_of):
    assert len(plan_of("--plan", PLAN).phases) > 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--freeze", "head"), "head is not among"),
        (("--freeze", "encoder,projector,backbone"), "nothing is left to train"),
        (("--model", "absent"), "no such folder"),
        (("--plan", "absent.json"), "not a training plan"),
        (("--steps", "0"), "--steps"),
    ],
)
def test_a_wrong_request_is_refused_before_any_work(dgasr, manifest, tmp_path, flags, message):
    code, _, err = dgasr("train", manifest, "--out", tmp_path / "out", *flags)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_word_offsets_have_no_place_in_an_adapter(dgasr, manifest, tmp_path):
    code, _, err = dgasr("train", manifest, "--out", tmp_path / "out", "--lora", "--calibration", manifest)
    assert code == 2
    assert "--calibration" in err
    assert not (tmp_path / "out").exists()


def test_a_missing_manifest_is_refused(dgasr, tmp_path):
    code, _, err = dgasr("train", tmp_path / "absent.jsonl", "--out", tmp_path / "out")
    assert code == 2
    assert "absent.jsonl" in err


def test_devices_have_the_names_that_all_commands_take(dgasr, manifest, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("refusals without a GPU are not seen beside one")
    command = ("train", manifest, "--out", tmp_path)
    code, _, err = dgasr(*command, "--device", "cuda:1")
    assert code == 2
    assert "--device cuda:1: torch sees no GPU" in err
    code, _, err = dgasr(*command, "--device", "tpu")
    assert code == 2
    assert "--device tpu: choose auto, cpu, cuda or cuda:N" in err
