"""The full size in small, in bfloat16: a corpus of two languages, a run, an adapter, its .pt, words in a lake."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.published import reduced, write_checkpoints
from dgasr.cli import main
from dgasr.manifests import read_manifest
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
def manifests(tmp_path_factory) -> list[Path]:
    """Two languages of FLEURS as it is published: a table and a folder of recordings each; prepared as anyone would."""
    corpus, out = tmp_path_factory.mktemp("fleurs"), tmp_path_factory.mktemp("corpora")
    for code in ("en_us", "de_de"):
        audio = corpus / "data" / code / "audio" / "train"
        audio.mkdir(parents=True)
        rows = [make_utterance(audio / f"{n}.wav", ["zero", "one", "two"][: n + 1]) for n in range(3)]
        lines = (f"{n}\t{n}.wav\t{row.text}\t{row.text}\t\t1\tMALE\n" for n, row in enumerate(rows))
        (corpus / "data" / code / "train.tsv").write_text("".join(lines))
    made = ["--subset", "train", "--language", "en,de", "--out", str(out), "--processes", "1"]
    assert main(["corpora", "fleurs", str(corpus), *made]) == 0
    return [out / "fleurs-de-train.jsonl", out / "fleurs-en-train.jsonl"]


def test_frozen_weights_are_not_trained_whole(dgasr, published, manifests, tmp_path):
    run = ("--runs", tmp_path, "--run-name", "r", "--no-lora", "--steps", "1", "--device", "cpu")
    code, _, err = dgasr("train", *manifests, "--base", published, *run)
    assert code == 2
    assert "--no-lora" in err


def test_an_adapter_is_trained_saved_and_transcribes_into_a_lake(dgasr, published, manifests, tmp_path):
    out, lake = tmp_path / "adapter" / "final", tmp_path / "lake"
    run = ("--runs", tmp_path, "--run-name", "adapter", "--steps", "6", "--lr", "1e-5", "--warmup-steps", "1")
    assert dgasr("train", *manifests, "--base", published, *run, *LORA)[0] == 0
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
    # One step, not scored again: of random weights three empty texts are then next to impossible.
    again = ("--adapter", back, "--language", "de", "--segmentation", "loudness")
    once = ("--rescore", "none", "--max-steps", "1")
    german = read_manifest(manifests[0])
    files = [row.audio_filepath for row in german]
    assert dgasr("transcribe", *files, "--lake", lake, "--model", published, *again, *once)[0] == 0
    asked = "from segments where kind = 'speech' order by end_s"
    code, found, _ = dgasr("sql", "--lake", lake, asked, "--format", "json")
    assert code == 0
    segments = json.loads(found)
    assert [segment["language"] for segment in segments] == ["de"] * 3
    assert any(segment["words"] for segment in segments)
    for segment, row in zip(segments, german, strict=True):
        words = segment["words"]
        assert [word["word"] for word in words] == segment["text"].split()
        times = [0.0, *(time for word in words for time in (word["start_s"], word["end_s"])), row.duration]
        assert times == sorted(times)


def test_rows_of_a_language_are_trained_under_the_prompt_that_transcribes_it(published, manifests):
    from dgasr.model.identity import read_config
    from dgasr.prompt import Tokenizer, build_prompt
    from dgasr.training.augmentation import AugmentationConfig
    from dgasr.training.batches import BatchConfig, Batches

    config, tokenizer = read_config(str(published)), Tokenizer.load(published)
    rows = [row for manifest in manifests for row in read_manifest(manifest)]
    batches = Batches(rows, config, tokenizer, BatchConfig(batch_size=2), AugmentationConfig(), (0.0, 0.0), 40, 0)
    assert {batches[step].language for step in range(40)} == {"en", "de"}
    prompts = {language: build_prompt(tokenizer, config.prompt, 50, language) for language in ("en", "de")}
    assert prompts["en"] != prompts["de"]
