from dataclasses import replace

import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.presets import tiny
from dgasr.prompt import Tokenizer
from dgasr.training import RunConfig
from dgasr.training.batches import BatchConfig
from tools.tiny.drawn import DrawConfig
from tools.tiny.fresh import POSITION_SCALE, SPECIAL_TOKENS, fresh_model, initialise, main, write_word_tokenizer
from tools.tiny.phases import read_phases, train_phases
from tools.tiny.voices import DIGITS


@pytest.fixture
def begin(tones, tmp_path):
    return lambda seed: fresh_model(tmp_path / f"fresh{seed}", read_phases()[0], tones, seed)


def test_the_seed_decides_the_weights_of_a_fresh_folder(begin, tmp_path):
    one, different = begin(1), begin(2)
    stored = load_model(tmp_path / "fresh1")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), stored.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(begin(1).parameters(), stored.parameters(), strict=True))
    assert not torch.equal(one.head_weight, different.head_weight)
    assert stored.tokenizer.encode("zero") == [9]


def test_a_missing_manifest_is_a_wrong_request(tmp_path, capsys):
    assert main([str(tmp_path / "fresh"), str(tmp_path / "absent.jsonl")]) == 2
    assert "absent.jsonl" in capsys.readouterr().err


@pytest.fixture(scope="module")
def log_mel():
    """Features with a level and a spread unlike a unit normal."""
    return torch.randn(3, 80, 800, generator=torch.Generator().manual_seed(2)) * 0.4 - 0.8


def make_model(log_mel, *, torch_seed=0, seed=0):
    torch.manual_seed(torch_seed)
    model = AsrModel(tiny()).eval()
    initialise(model, log_mel, seed)
    return model


@pytest.fixture(scope="module")
def model(log_mel):
    return make_model(log_mel)


def test_the_seed_alone_decides_every_weight(model, log_mel):
    other = make_model(log_mel, torch_seed=9)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert not torch.equal(model.head_weight, make_model(log_mel, seed=1).head_weight)


@torch.no_grad()
def test_audio_embeddings_of_the_batch_have_mean_zero_and_deviation_one_as_the_head_wants_them(model, log_mel):
    embeddings = model.projector(model.encode_audio(log_mel)).flatten(0, 1)
    assert embeddings.mean(dim=0).abs().max() < 1e-3
    assert (embeddings.std(dim=0) - 1).abs().max() < 1e-2
    # Positions do not drown the convolutions.
    assert model.encoder.embed_positions.weight.abs().max().item() == pytest.approx(POSITION_SCALE)
    lengths = model.head_weight.norm(dim=1)
    assert lengths.mean().item() == pytest.approx(1, abs=0.1)
    assert lengths[0] > 0.5  # the pad's, which transformers leaves at zero


def test_no_hook_stays_behind(model, log_mel):
    assert not any(module._forward_hooks for module in (model.encoder.conv1, model.projector.output))


def test_ids_follow_the_order_of_special_tokens_then_words(tokenizer):
    assert tokenizer.encode(" ".join(DIGITS)) == list(range(9, 19))
    assert tokenizer.encode_template("".join(SPECIAL_TOKENS)) == list(range(9))


def test_the_bundled_models_ids_are_those_of_its_vocabulary():
    config, names = tiny(), SPECIAL_TOKENS
    ids = config.prompt
    assert [names[ids.pad_id], names[config.blank_id], names[ids.audio_id]] == ["<pad>", "<blank>", "<|audio|>"]
    assert [names[ids.begin_audio_id], names[ids.end_audio_id]] == ["<boa>", "<eoa>"]
    assert [names[end] for end in ids.end_text_ids] == ["<turn|>", "<eos>"]
    assert len(names) + len(DIGITS) <= config.backbone["vocab_size"]


def test_parts_of_words_are_unknown_in_a_saved_copy_too(tmp_path):
    write_word_tokenizer(tmp_path / "new" / "folder", ("seven", "seventy"), ("<unk>", "<pad>"))
    tokenizer = Tokenizer.load(tmp_path / "new" / "folder")
    tokenizer.save(tmp_path)
    for own in (tokenizer, Tokenizer.load(tmp_path)):
        assert own.encode("seventy seven") == [3, 2]
        with pytest.raises(ConfigError, match="seve"):
            own.encode("seve")


def test_the_phases_of_the_bundled_model_follow_each_other_and_survive_a_second_start(begin, tones, tmp_path):
    begin(1)
    assert sum(phase.config.steps for phase in read_phases()) > 1000
    phases = [
        replace(
            phase, drawing=DrawConfig(max_join=2),
            config=replace(phase.config, steps=1, batches=BatchConfig(batch_size=2), warmup_steps=0),
        )
        for phase in read_phases(share=0.5)
    ]  # fmt: skip
    run = RunConfig(out=tmp_path / "tiny", workers=0)
    last = train_phases(tmp_path / "fresh1", phases, tones, tones, run)
    assert last == tmp_path / "tiny" / f"phase{len(phases) - 1}" / "final"
    found = load_model(last)
    assert not torch.equal(found.head_weight, load_model(tmp_path / "fresh1").head_weight)
    assert train_phases(tmp_path / "fresh1", phases, tones, tones, run) == last
    assert torch.equal(load_model(last).head_weight, found.head_weight)
