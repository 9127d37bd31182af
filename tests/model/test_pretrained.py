"""Checkpoints in the published file format, small and with random weights: sharded, tied once, with a vision tower."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
)

from benchmarks.published import VISION, write_checkpoints
from dgasr.errors import ConfigError, IntegrityError
from dgasr.features import segment_features
from dgasr.model import pretrained
from dgasr.model.adapter import add_lora, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.identity import read_config
from dgasr.model.presets import LoraSize, full, tiny
from dgasr.model.pretrained import Slots, backbone_skeleton, draw_weights, load_pretrained
from dgasr.model.projector_config import ProjectorConfig
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


@pytest.fixture(scope="module")
def reference(published):
    """What transformers' own loading makes of the same files."""
    return DiffusionGemmaForBlockDiffusion.from_pretrained(published / "backbone").eval()


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


def test_the_files_hold_each_tied_tensor_once_and_are_several(published):
    index = json.loads((published / "backbone" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 4
    assert not {"lm_head.weight", "model.encoder.language_model.embed_tokens.weight"} & index.keys()
    assert any("vision" in name for name in index)


def test_prompt_and_canvas_are_read_as_by_transformers_own_loading(loaded, reference):
    torch.manual_seed(1)
    prompt, canvas = torch.randint(0, 24, (2, 7)), torch.randint(0, 24, (2, 8))
    with torch.no_grad():
        _, cache = loaded.prefill(reference.model.encoder.get_input_embeddings()(prompt))
        ours = loaded.backbone.lm_head(loaded.decode(canvas, None, cache))
        ours = 30 * torch.tanh(ours / 30)
        theirs = reference(input_ids=prompt, decoder_input_ids=canvas).logits
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_encoder_and_decoder_share_every_matrix_but_not_their_scalars(loaded):
    encoder, decoder = loaded.backbone.model.encoder.language_model, loaded.backbone.model.decoder
    assert encoder.layers[0].mlp.up_proj.weight is decoder.layers[0].mlp.up_proj.weight
    assert loaded.head_weight is decoder.embed_tokens.weight
    assert encoder.layers[0].layer_scalar != decoder.layers[0].layer_scalar


def test_nothing_stays_without_storage_and_nothing_sees_images(loaded):
    assert not [name for name, tensor in loaded.named_parameters() if tensor.is_meta]
    assert not [name for name, tensor in loaded.named_buffers() if tensor.is_meta]
    assert loaded.backbone.model.encoder.vision_tower is None


def test_weights_are_of_the_wanted_type_and_rotary_frequencies_stay_exact(published):
    model = load_pretrained(read_config(str(published)), torch.bfloat16)
    assert model.head_weight.dtype == model.encoder.conv1.weight.dtype == torch.bfloat16
    assert model.backbone.model.decoder.rotary_emb.full_attention_inv_freq.dtype == torch.float32


def test_the_tokenizer_comes_with_the_backbone(loaded):
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("one two")) == "one two"


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


def test_a_long_load_tells_how_far_it_is(published, monkeypatch, caplog):
    monkeypatch.setattr(pretrained, "LONG_LOAD_S", 0.0)
    with caplog.at_level("INFO", logger=pretrained.__name__):
        load_pretrained(read_config(str(published)))
    told = [record.getMessage() for record in caplog.records]
    assert any(re.fullmatch(r"loading .*backbone: \d+ of \d+ tensors", line) for line in told)
    assert re.search(r"loaded .*backbone: \d+ tensors in \d", told[-1])


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


def test_a_tensor_that_is_missing_is_named(published, tmp_path):
    config = changed(published, tmp_path, lambda tensors: tensors.pop("model.decoder.norm.weight"))
    with pytest.raises(IntegrityError, match=r"1 tensors are missing \(model\.encoder\.language_model\.norm\.weight\)"):
        load_pretrained(config)


def test_a_tensor_without_a_place_is_named(published, tmp_path):
    config = changed(published, tmp_path, lambda tensors: tensors.update(extra=torch.zeros(2)))
    with pytest.raises(IntegrityError, match=r"1 do not fit \(extra \[2\]\)"):
        load_pretrained(config)


def test_tied_tensors_that_differ_are_refused(published, tmp_path):
    config = changed(published, tmp_path, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(24, 128)}))
    with pytest.raises(IntegrityError, match=r"differs from the tensor that it is tied to"):
        load_pretrained(config)


def test_a_damaged_file_is_named(published, tmp_path):
    config = changed(published, tmp_path, lambda tensors: None)
    path = tmp_path / "backbone" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(IntegrityError, match=r"model\.safetensors: damaged"):
        load_pretrained(config)


def test_a_missing_shard_is_named(published, tmp_path):
    config = changed(published, tmp_path, lambda tensors: None)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (tmp_path / "backbone" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"model-00001-of-00002\.safetensors missing"):
        load_pretrained(config)


def test_random_weights_fill_every_slot_and_give_finite_states():
    config = tiny()
    backbone = backbone_skeleton(
        DiffusionGemmaConfig(text_config=DiffusionGemmaTextConfig(**config.backbone), vision_config=VISION),
        torch.device("cpu"),
    )
    draw_weights(backbone, torch.float32, torch.device("cpu"), seed=0)
    model = AsrModel(config, backbone=backbone)
    with torch.no_grad():
        _, cache = model.prefill(torch.randn(1, 5, 128))
        assert model.decode(torch.arange(8)[None], None, cache).isfinite().all()


PEAK = """
import resource, sys
import torch
from dgasr.model.identity import read_config
from dgasr.model.pretrained import load_pretrained
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_pretrained(read_config(sys.argv[1]), torch.bfloat16)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_loading_takes_the_memory_of_one_copy(published, tmp_path):
    # 128 experts as the published model has, most of its weights; zeros, for only their size matters here.
    sizes = {"num_experts": 128, "hidden_size": 512, "moe_intermediate_size": 160}
    config = replace(tiny(), backbone={**tiny().backbone, **sizes})
    hub_config = DiffusionGemmaConfig(text_config=DiffusionGemmaTextConfig(**config.backbone), vision_config=VISION)
    slots = Slots(backbone_skeleton(hub_config, torch.device("meta")))
    (tmp_path / "backbone").mkdir()
    hub_config.save_pretrained(tmp_path / "backbone")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "backbone" / name).write_bytes((published / "backbone" / name).read_bytes())
    zeros = {name: torch.zeros(slots.shape_of(name), dtype=torch.bfloat16) for name in slots.unfilled}
    save_file(zeros, tmp_path / "backbone" / "model.safetensors")
    named = replace(config, pretrained={"encoder": str(published / "whisper"), "backbone": "./backbone"})
    (tmp_path / "config.json").write_text(json.dumps(asdict(named)))
    checkpoint = (tmp_path / "backbone" / "model.safetensors").stat().st_size
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
