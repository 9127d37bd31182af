"""The way of the full size on a reduced checkpoint in bfloat16: train in two languages, save, load, words in a lake."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.published import reduced, write_checkpoints
from dgasr.training.manifests import read_manifest, write_manifest
from tests.training.conftest import make_utterance

LORA = ["--batch-size", "2", "--grad-accum", "1", "--device", "cpu", "--augment", "0"]


@pytest.fixture(autouse=True)
def fake_engine() -> None:
    """Not here: the real one."""


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_checkpoints(folder, reduced(), torch.bfloat16)
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for language in ("en", "de"):
        rows = [make_utterance(folder / f"{language}{n}.wav", ["zero", "one", "two"][: n + 1]) for n in range(3)]
        write_manifest(folder / f"{language}.jsonl", rows)
    lines = [
        json.dumps({**json.loads(line), "language": language})
        for language in ("en", "de")
        for line in (folder / f"{language}.jsonl").read_text().splitlines()
    ]
    (folder / "both.jsonl").write_text("\n".join(lines))
    assert {row.language for row in read_manifest(folder / "both.jsonl")} == {"en", "de"}
    return folder / "both.jsonl"


def test_frozen_weights_are_not_trained_whole(dgasr, published, manifest, tmp_path):
    run = ("--runs", tmp_path, "--run-name", "r", "--no-lora", "--steps", "1", "--device", "cpu")
    code, _, err = dgasr("train", manifest, "--base", published, *run)
    assert code == 2
    assert "--no-lora" in err


def test_an_adapter_is_trained_saved_and_transcribes_into_a_lake(dgasr, published, manifest, tmp_path):
    out, lake = tmp_path / "adapter" / "final", tmp_path / "lake"
    run = ("--runs", tmp_path, "--run-name", "adapter", "--steps", "6", "--lr", "1e-5", "--warmup-steps", "1")
    assert dgasr("train", manifest, "--base", published, *run, *LORA)[0] == 0
    first = load_file(out / "adapter_model.safetensors")
    metrics = [json.loads(line) for line in (out.parent / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 6
    assert all(0 < row["loss"] < 1000 for row in metrics)
    # Updates far below bfloat16's last place are kept: the weights that learn are float32.
    moved = [tensor for name, tensor in first.items() if "lora_B" in name and tensor.abs().max() > 0]
    assert moved
    assert all(tensor.dtype == torch.float32 for tensor in first.values())
    # As somebody would publish it: one file of tensors, which comes back as a folder that says the rest.
    file, back = tmp_path / "published.pt", tmp_path / "imported"
    assert dgasr("adapter", "export", out, "--model", published, "--out", file)[0] == 0
    given = ("--activation", "gelu", "--wording", "model", "--blank", "4")
    assert dgasr("adapter", "import", file, "--model", published, "--out", back, *given)[0] == 0
    again = ("--adapter", back, "--language", "de")
    assert dgasr("transcribe", manifest.parent / "de0.wav", "--lake", lake, "--model", published, *again)[0] == 0
    asked = "select language, num_steps > 0 as is_decoded from segments where kind = 'speech'"
    code, found, _ = dgasr("sql", "--lake", lake, asked, "--format", "json")
    assert code == 0
    assert json.loads(found) == [{"language": "de", "is_decoded": True}]


def test_rows_of_a_language_are_trained_under_the_prompt_that_transcribes_it(published, manifest):
    from dgasr.model.identity import read_config
    from dgasr.prompt import Tokenizer, build_prompt
    from dgasr.training.augmentation import AugmentationConfig
    from dgasr.training.batches import BatchConfig, Batches

    config, tokenizer = read_config(str(published)), Tokenizer.load(published)
    batches = Batches(
        read_manifest(manifest), config, tokenizer, BatchConfig(batch_size=2), AugmentationConfig(), (0.0, 0.0), 40, 0
    )
    assert {batches[step].language for step in range(40)} == {"en", "de"}
    prompts = {language: build_prompt(tokenizer, config.prompt, 50, language) for language in ("en", "de")}
    assert prompts["en"] != prompts["de"]
