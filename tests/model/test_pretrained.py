from dataclasses import replace

import pytest
import torch
from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperModel,
)

from dgasr.errors import ConfigError
from dgasr.model.presets import TINY_SPECIAL_TOKENS, TINY_WORDS, tiny
from dgasr.model.pretrained import load_pretrained
from dgasr.training.vocabulary import write_word_tokenizer

VISION = {
    "model_type": "gemma4_vision", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "position_embedding_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Checkpoints in the layout of the published ones, of the bundled model's size, with random weights."""
    folder = tmp_path_factory.mktemp("hub")
    config = tiny()
    torch.manual_seed(0)
    backbone = DiffusionGemmaForBlockDiffusion(
        DiffusionGemmaConfig(text_config=DiffusionGemmaTextConfig(**config.backbone), vision_config=VISION)
    )
    backbone.save_pretrained(folder / "backbone")
    whisper = WhisperConfig(
        **config.encoder, decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=8, vocab_size=60,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
    )  # fmt: skip
    WhisperModel(whisper).save_pretrained(folder / "whisper")
    write_word_tokenizer(folder, TINY_SPECIAL_TOKENS, TINY_WORDS)
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), unk_token="<unk>").save_pretrained(
        folder / "backbone"
    )
    sources = {"encoder": str(folder / "whisper"), "backbone": str(folder / "backbone")}
    return replace(config, pretrained=sources), backbone


def test_published_folders_load_into_the_same_model(published):
    config, backbone = published
    model = load_pretrained(config, torch.float32)
    assert torch.equal(model.head_weight, backbone.lm_head.weight)
    assert model.backbone.model.encoder.vision_tower is None
    assert model.tokenizer.decode(model.tokenizer.encode("one two")) == "one two"


def test_absent_weights_say_where_to_get_them(tmp_path):
    config = replace(tiny(), pretrained={"encoder": str(tmp_path / "no"), "backbone": str(tmp_path / "no")})
    with pytest.raises(ConfigError, match="hf auth login"):
        load_pretrained(config)


def test_weights_of_another_size_are_refused(published):
    config, _ = published
    other = replace(config, backbone={**config.backbone, "hidden_size": 256})
    with pytest.raises(ConfigError, match="hidden_size 128 instead of 256"):
        load_pretrained(other)
