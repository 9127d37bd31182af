"""Stages of `make base-checkpoint` on miniatures: killed in the middle, each ends with an undisturbed run's weights."""

import importlib
import json
import lzma
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, WhisperConfig, WhisperForConditionalGeneration

from dgasr.model.checkpoint import load_model
from dgasr.transcriber import load, transcribe
from tests.forked import Forked, run_ranks

ROOT = Path(__file__).parents[3]
SENTENCES = [
    "the cat sat on the mat",
    "a dog ran to the house",
    "she said that he had seen it",
    "no one was at home",
] * 8
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
MERGED = ["▁t", "th", "▁the", "▁a", "at", "▁s", "he", "▁h", "ha", "▁c", "▁d", "▁m", "an", "er", "▁th"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Miniatures of what the stages read."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    WhisperForConditionalGeneration(
        WhisperConfig(
            d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=64, pad_token_id=0, bos_token_id=0, eos_token_id=0,
            decoder_start_token_id=0, begin_suppress_tokens=None, suppress_tokens=None,
        )
    ).save_pretrained(folder / "whisper")  # fmt: skip
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>", "<unused1>", "<unused2>"]
    names = [f"▁{name}" for name in ("English", "German", "French", "Spanish", "Hindi", "Chinese")]
    pieces = list(dict.fromkeys([*special, *names, "▁", *LETTERS, *MERGED]))
    Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=len(pieces), hidden_size=32, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16, sliding_window=512,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        )
    ).save_pretrained(folder / "gemma")  # fmt: skip
    vocabulary = {"model": {"vocab": {piece: index for index, piece in enumerate(pieces)}}}
    (folder / "gemma" / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    with lzma.open(folder / "en.txt.xz", "wt", encoding="utf-8") as file:
        file.write("\n".join(SENTENCES))
    rows, rng = [], np.random.default_rng(0)
    for index, text in enumerate(SENTENCES[:12]):
        path = folder / f"{index}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(16_000 + 800 * index), 16_000)
        rows.append({"audio_filepath": path.name, "duration": 1.0, "text": text, "language": "en", "speaker": "x",
                     "set": "made"})  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run("vocabulary", folder / "gemma", folder / "vocabulary", "--text", folder / "en.txt.xz", "--pieces", 60)
    return folder


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def command(stage, *arguments):
    return ["-m", f"tools.base.{'together' if stage == 'reading' else stage}", *map(str, arguments)]


def start(stage, *arguments):
    """Start a stage in a session of its own; `reading` as `make` does, in a process for each core."""
    if stage != "reading":
        return Forked(command(stage, *arguments), ENVIRONMENT)
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    torchrun = [sys.executable, "-W", "ignore", "-m", *launch, *command(stage, *arguments)]
    return subprocess.Popen(torchrun, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL)


def run(stage, *arguments):
    """Run a stage to its end with as many threads as one that is killed; in this process, which has torch loaded."""
    if stage == "reading":
        run_ranks(command(stage, *arguments), ENVIRONMENT)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [stage, *map(str, arguments)])
            importlib.import_module(f"tools.base.{stage}").main()
    finally:
        torch.set_num_threads(before)


def arguments_of(stage, parts, out):
    both = ["--train", parts / "train.jsonl", "--cache", parts / "cache", "--whisper", parts / "whisper",
            "--ear", parts / "ear" / "ear.pt", "--batch-windows", 2, "--text", parts / "en.txt.xz", "--held-out", 4,
            "--text-every", 4]  # fmt: skip
    own = {
        "ear": ["--train", parts / "train.jsonl", "--validation", parts / "train.jsonl", "--cache", parts / "cache",
                "--whisper", parts / "whisper", "--batch-windows", 2, "--frame-steps", 4],
        "text": ["--text", parts / "en.txt.xz", "--held-out", 4, "--batch-tokens", 200],
        "reading": [*both, "--backbone", parts / "text" / "text.pt", "--frozen-ear"],
        "together": [*both, "--backbone", parts / "reading" / "together.pt", "--bundle", out / "model"],
        "update": ["--model", parts / "together" / "model", "--train", parts / "train.jsonl", "--digits",
                   parts / "train.jsonl", "--numbers", parts / "train.jsonl", "--text", parts / "en.txt.xz",
                   "--held-out", 4, "--cache", parts / "cache", "--batch-windows", 2, "--no-compile"],
        "punctuation": ["--model", parts / "together" / "model", "--text", parts / "en.txt.xz", "--held-out", 4,
                        "--manifest", parts / "train.jsonl", "--batch-texts", 4],
    }[stage]  # fmt: skip
    backbone = ["--no-compile", "--layers", 0, 2] if stage in ("text", "reading", "together") else []
    pretrained = (
        ["--gemma", parts / "gemma", "--vocabulary", parts / "vocabulary"] if backbone or stage == "ear" else []
    )
    return [out, *own, *pretrained, *backbone, "--save-steps", 2, "--steps", 5]


def state_of(stage, out):
    return out / ("together.pt" if stage == "reading" else f"{stage}.pt")


def kill_after_first_state(stage, parts, out):
    state = state_of(stage, out)
    process = start(stage, *arguments_of(stage, parts, out))
    while not state.is_file() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert state.is_file()


@pytest.mark.slow
def test_killed_stages_go_on_to_the_weights_of_stages_that_were_not(parts, tmp_path):
    for stage in ("ear", "text", "reading", "together", "update", "punctuation"):
        undisturbed = parts / stage
        run(stage, *arguments_of(stage, parts, undisturbed))
        killed = tmp_path / stage
        kill_after_first_state(stage, parts, killed)
        run(stage, *arguments_of(stage, parts, killed))
        expected, found = (torch.load(state_of(stage, folder), weights_only=True) for folder in (undisturbed, killed))
        assert expected["step"] == found["step"] == 5
        assert expected["weights"].keys() == found["weights"].keys()
        for name, tensor in expected["weights"].items():
            assert torch.equal(tensor, found["weights"][name]), (stage, name)
    # What the last stages bundle is a model like any other, and the update changes all of its parts.
    folder = parts / "together" / "model"
    before = load_model(folder).state_dict()
    run("update", *arguments_of("update", parts, parts / "update"), "--bundle")
    after = load_model(folder).state_dict()
    changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"encoder", "projector", "backbone"}
    run("punctuation", *arguments_of("punctuation", parts, parts / "punctuation"), "--bundle")
    loaded = load(str(folder))
    assert transcribe(parts / "0.wav", loaded, max_steps=2).segments
    assert [word.rstrip(",.?!").lower() for word in loaded.punctuator.written(["a", "cat"])] == ["a", "cat"]
    with pytest.raises(SystemExit):  # an update is of weights that have none
        run("update", *arguments_of("update", parts, tmp_path / "again"))
