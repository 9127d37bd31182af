import pytest

from dgasr.errors import ConfigError
from dgasr.model.presets import TINY_SPECIAL_TOKENS, TINY_WORDS, tiny
from dgasr.prompt import Tokenizer
from dgasr.training.start import write_word_tokenizer


def test_ids_follow_the_order_of_special_tokens_then_words(tokenizer):
    assert tokenizer.encode(" ".join(TINY_WORDS)) == list(range(9, 19))
    assert tokenizer.encode_template("".join(TINY_SPECIAL_TOKENS)) == list(range(9))


def test_the_bundled_models_ids_are_those_of_its_vocabulary():
    config, names = tiny(), TINY_SPECIAL_TOKENS
    ids = config.prompt
    assert [names[ids.pad_id], names[config.blank_id], names[ids.audio_id]] == ["<pad>", "<blank>", "<|audio|>"]
    assert [names[ids.begin_audio_id], names[ids.end_audio_id]] == ["<boa>", "<eoa>"]
    assert [names[end] for end in ids.end_text_ids] == ["<turn|>", "<eos>"]
    assert len(names) + len(TINY_WORDS) <= config.backbone["vocab_size"]


def test_parts_of_words_are_unknown(tmp_path):
    write_word_tokenizer(tmp_path / "new" / "folder", ("<unk>", "<pad>"), ("seven", "seventy"))
    tokenizer = Tokenizer.load(tmp_path / "new" / "folder")
    assert tokenizer.encode("seventy seven") == [3, 2]
    with pytest.raises(ConfigError, match="seve"):
        tokenizer.encode("seve")


def test_a_saved_copy_reads_alike(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    copy = Tokenizer.load(tmp_path)
    assert copy.encode("three nine") == tokenizer.encode("three nine")
    with pytest.raises(ConfigError, match="eleven"):
        copy.encode("eleven")
