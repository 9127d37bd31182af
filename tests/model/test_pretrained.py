"""Checkpoints in the published file format, small and with random weights: sharded, tied once, with a vision tower."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.published import write_checkpoints
from dgasr.errors import ConfigError, IntegrityError
from dgasr.features import segment_features
from dgasr.model.adapter import add_lora, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.identity import read_config
from dgasr.model.presets import LoraSize, ProjectorConfig, full, tiny
from dgasr.model.pretrained import load_pretrained
from dgasr.recipe import build_recipe
from dgasr.records import Segment
from dgasr.transcriber import Transcriber, load


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    write_checkpoints(folder, tiny(), torch.float32)
    return folder


@pytest.fixture(scope="module")
def loaded(published):
    return load_pretrained(read_config(str(published)), torch.float32)


def changed(published, tmp_path, change):
    """A copy of the backbone in one file, its tensors changed."""
    tensors = {}
    for path in sorted((published / "backbone").glob("*.safetensors")):
        tensors |= load_file(path)
    change(tensors)
    (tmp_path / "backbone").mkdir()
    for path in (published / "backbone").glob("*.json"):
        if "index" not in path.name:
            (tmp_path / "backbone" / path.name).write_bytes(path.read_bytes())
    save_file(tensors, tmp_path / "backbone" / "model.safetensors")
    sources = {"encoder": str(published / "whisper"), "backbone": str(tmp_path / "backbone")}
    return replace(tiny(), pretrained=sources)


def test_weights_are_shared_as_published_and_nothing_sees_images(published, loaded):
    encoder, decoder = loaded.backbone.model.encoder.language_model, loaded.backbone.model.decoder
    assert encoder.layers[0].mlp.up_proj.weight is decoder.layers[0].mlp.up_proj.weight
    assert loaded.head_weight is decoder.embed_tokens.weight
    assert encoder.layers[0].layer_scalar != decoder.layers[0].layer_scalar
    assert loaded.backbone.model.encoder.vision_tower is None
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("one two")) == "one two"
    half = load_pretrained(read_config(str(published)), torch.bfloat16)
    assert half.head_weight.dtype == half.encoder.conv1.weight.dtype == torch.bfloat16
    assert half.backbone.model.decoder.rotary_emb.full_attention_inv_freq.dtype == torch.float32  # stays exact


def test_what_lies_in_the_hub_cache_is_loaded_without_a_network(published, loaded, tmp_path, monkeypatch):
    revisions = {"whisper": "a" * 40, "backbone": "b" * 40}
    for (part, revision), source in zip(revisions.items(), full().pretrained.values(), strict=True):
        cached = tmp_path / ("models--" + source.replace("/", "--"))
        (cached / "snapshots").mkdir(parents=True)
        (cached / "snapshots" / revision).symlink_to(published / part)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = load_pretrained(replace(tiny(), pretrained=full().pretrained), torch.float32)
    assert model.identity.digest == "+".join(revisions.values())
    assert torch.equal(model.head_weight, loaded.head_weight)


def test_absent_weights_say_where_to_get_them(tmp_path):
    config = replace(tiny(), pretrained={"encoder": str(tmp_path / "no"), "backbone": str(tmp_path / "no")})
    with pytest.raises(ConfigError, match="hf auth login"):
        load_pretrained(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 256), ("final_logit_softcapping", 50.0), ("eos_token_id", [1]), ("num_key_value_heads", 4),
        ("sliding_window", 128), ("layer_types", ["sliding_attention", "full_attention", "full_attention"]),
        ("global_head_dim", 64),
    ],
)  # fmt: skip
def test_weights_of_another_structure_are_refused(published, field, value):
    config = read_config(str(published))
    with pytest.raises(ConfigError, match="instead of"):
        load_pretrained(replace(config, backbone={**config.backbone, field: value}))


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def name_a_shard_that_is_not_there(folder):
    index = {
        "metadata": {},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    ("change", "after", "error", "message"),
    [
        (lambda tensors: tensors.pop("model.decoder.norm.weight"), None, IntegrityError, r"1 tensors .*\.norm\.weight"),
        (lambda tensors: tensors.update(extra=torch.zeros(2)), None, IntegrityError, r"1 do not fit \(extra\)"),
        (lambda tensors: tensors.update({"model.decoder.norm.weight": torch.zeros(2)}), None, IntegrityError,
         r"1 do not fit .*norm\.weight.*2"),
        (lambda tensors: tensors.update({"lm_head.weight": torch.zeros(24, 128)}), None, IntegrityError,
         r"lm_head\.weight \(differs from the tensor that it is tied to"),
        (lambda tensors: None, cut_short, IntegrityError, r"backbone: damaged"),
        (lambda tensors: None, name_a_shard_that_is_not_there, ConfigError, r"model-00001-of-00002\.safetensors"),
    ],
    ids=["missing", "without a place", "another shape", "tied and different", "damaged", "missing shard"],
)  # fmt: skip
def test_a_checkpoint_that_is_not_whole_is_refused_by_what_is_wrong(published, tmp_path, change, after, error, message):
    config = changed(published, tmp_path, change)
    if after is not None:
        after(tmp_path / "backbone")
    with pytest.raises(error, match=message):
        load_pretrained(config)


PEAK = """
import resource, sys
import torch
from dgasr.model.identity import read_config
from dgasr.model.pretrained import load_pretrained
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_pretrained(read_config(sys.argv[1]), torch.bfloat16)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_loading_takes_the_memory_of_one_copy(tmp_path):
    # 128 experts as the published model has, most of its weights.
    sizes = {"num_experts": 128, "hidden_size": 512, "moe_intermediate_size": 160}
    config = replace(tiny(), backbone={**tiny().backbone, **sizes})
    write_checkpoints(tmp_path, config, torch.bfloat16)
    checkpoint = sum(path.stat().st_size for path in (tmp_path / "backbone").glob("*.safetensors"))
    printed = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert checkpoint > 180_000_000
    assert int(printed.split()[-1]) < 1.3 * checkpoint


def test_frozen_weights_with_an_adapter_of_another_layout_transcribe_in_bfloat16(published, tmp_path):
    """From names to text: what `--model FOLDER --adapter FOLDER` does."""
    torch.manual_seed(2)
    trained = AsrModel(replace(tiny(), projector=ProjectorConfig(channels=(), stack=8, norms=("output=rms",))))
    add_lora(trained, LoraSize(rank=2))
    save_adapter(trained, tmp_path / "adapter")
    model = load(str(published), adapter=str(tmp_path / "adapter"), device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    recipe = build_recipe(model.config, model.identity, max_steps=2)
    segment = Segment(
        recording_id="0" * 32, segment_index=0, channel=0, start_sample=0, end_sample=32_000, kind="speech", cut="end"
    )
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) / 10
    features = segment_features(segment, noise, recipe.features)
    (transcript,) = Transcriber(model, recipe, 2).transcribe([features])
    assert transcript.num_steps >= 2
    assert transcript.segment == segment
