"""`dgasr train` from the words on the command line to a folder that transcribes."""

import json

import numpy as np
import pytest
import soundfile

from dgasr.cli import build_parser
from dgasr.commands.train import _config
from dgasr.manifests import Utterance, read_manifest, write_manifest
from dgasr.transcriber import load

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


@pytest.fixture
def config_of(manifest):
    def parse(*arguments):
        options = build_parser().parse_args(["train", "m.jsonl", "--run-name", "r", *map(str, arguments)])
        return _config(options, 10 * read_manifest(manifest))

    return parse


def test_from_a_model_to_a_model_to_an_adapter(dgasr, manifest, tmp_path):
    runs = ("--runs", tmp_path)
    code, out, err = dgasr(
        "train", manifest, *runs, "--run-name", "whole", "--validation", manifest, "--no-lora", *SHORT,
        "--validation-steps", 1, "--checkpoint-steps", 1,
    )  # fmt: skip
    whole = tmp_path / "whole"
    assert (code, out) == (
        0, f"{whole}: trained for 1 steps; weights in final and best, losses in metrics.jsonl there.\n",
    )  # fmt: skip
    assert "step 1 of 1: loss" in err
    assert "validation_loss" in (whole / "metrics.jsonl").read_text()
    assert json.loads((whole / "samples.jsonl").read_text())["said"] == "one two"
    code, _, _ = dgasr("train", manifest, *runs, "--run-name", "adapter", "--base", whole / "final", *SHORT)
    assert code == 0
    assert load(str(whole / "final"), adapter=str(tmp_path / "adapter" / "final")).identity.adapter_digest
    for name, weights in (("whole", "best"), ("whole", "1"), ("adapter", "final")):
        code, out, _ = dgasr("evaluate", manifest, *runs, "--run-name", name, "--ckpt", weights, "--max-steps", 1)
        assert code == 0
        assert "audio     1 utterances" in out
    code, _, err = dgasr("evaluate", manifest, *runs, "--run-name", "whole", "--ckpt", "7")
    assert (code, err) == (2, f"dgasr: --ckpt 7: {whole} has final, best, 1.\n")
    code, _, err = dgasr("evaluate", manifest, *runs, "--run-name", "absent")
    assert code == 2
    assert "holds no run" in err


def test_without_flags_it_is_the_references_recipe(config_of):
    config = config_of()
    assert (config.learning_rate, config.grad_accumulation, config.batches.batch_size) == (5e-4, 4, 3)
    assert (config.losses.diffusion, config.losses.autoregressive, config.losses.ctc) == (1, 1, 1)
    assert config.steps == 10  # 10 utterances are 4 batches, one step; ten epochs of it


def test_the_flags_make_the_settings(config_of):
    config = config_of(
        "--steps", 7, "--lr", 1e-3, "--batch-size", 5, "--grad-accum", 2, "--augment", 0.25,
        "--ar-weight", 0.5, "--ctc-weight", 0, "--precision", "bf16", "--gradient-checkpointing", "--seed", 4,
    )  # fmt: skip
    assert (config.steps, config.learning_rate, config.grad_accumulation) == (7, 1e-3, 2)
    assert (config.batches.batch_size, config.strength) == (5, (0.25, 0.25))
    assert (config.losses.autoregressive, config.losses.ctc) == (0.5, 0)
    assert (config.precision, config.gradient_checkpointing, config.seed) == ("bf16", True, 4)
    assert set(config.train) == {"lora", "projector"}
    assert set(config_of("--no-lora").train) == {"encoder", "projector", "backbone"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--base", "absent"), "no such folder"),
        (("--steps", "0"), "--steps"),
        (("--no-lora", "--lora-rank", "4"), "--no-lora: leave out"),
        (("--patience", "2"), "give --validation"),
        (("--resume",), "no run lies in"),
        (("--device", "tpu"), "--device tpu: choose auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_wrong_request_is_refused_before_any_work(dgasr, manifest, tmp_path, flags, message):
    code, _, err = dgasr("train", manifest, "--runs", tmp_path, "--run-name", "r", "--device", "cpu", *flags)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_a_missing_manifest_is_refused(dgasr, tmp_path):
    code, _, err = dgasr("train", tmp_path / "absent.jsonl", "--runs", tmp_path, "--run-name", "r")
    assert code == 2
    assert "absent.jsonl" in err


def test_a_gpu_that_is_not_there_is_refused(dgasr, manifest, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("refusals without a GPU are not seen beside one")
    code, _, err = dgasr("train", manifest, "--runs", tmp_path, "--run-name", "r", "--device", "cuda:1")
    assert code == 2
    assert "--device cuda:1: torch sees no GPU" in err
