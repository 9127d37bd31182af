from dataclasses import replace

import pytest

from dgasr.model.presets import tiny
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.training.augmentation import AugmentationConfig
from dgasr.training.batches import IGNORED, BatchConfig
from tests.training.conftest import five_utterances, make_utterance
from tools.tiny.drawn import DrawConfig, DrawnBatches

CLEAN = AugmentationConfig(
    speed=0.15, gain_db=0, colour_probability=0, reverb_probability=0, noise_probability=0, mask_probability=0
)
SPEECH = BatchConfig(batch_size=6, non_speech_probability=0, word_share=1.0)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return five_utterances(tmp_path_factory.mktemp("tones"))


@pytest.fixture
def make_batches(tokenizer):
    def make(utterances, config=SPEECH, max_join=5):
        drawing = DrawConfig(max_join=max_join)
        return DrawnBatches(utterances, tiny(), tokenizer, config, CLEAN, (1.0, 1.0), 20, 1, drawing=drawing)

    return make


def texts(batch, tokenizer):
    return [
        tokenizer.decode(row[:length].tolist()) for row, length in zip(batch.canvas, batch.text_lengths, strict=True)
    ]


def test_joined_rows_have_the_texts_of_their_parts_in_order(make_batches, tokenizer, tones):
    for batch in (make_batches(tones)[step] for step in range(5)):
        for text, labels in zip(texts(batch, tokenizer), batch.frame_labels, strict=True):
            heard = [token for token in labels.tolist() if token not in (4, IGNORED)]
            heard = [token for before, token in zip([None, *heard], heard, strict=False) if token != before]
            spoken = tokenizer.encode(text)
            spoken = [token for before, token in zip([None, *spoken], spoken, strict=False) if token != before]
            assert heard == spoken


def test_rows_join_utterances_of_one_speaker_only_or_are_one_utterance(make_batches, tokenizer, tones, tmp_path):
    speakers = (("zero", "a"), ("two", "b"), ("one", None), ("one", None))
    utterances = [
        make_utterance(tmp_path / f"{n}.wav", [word], speaker=speaker) for n, (word, speaker) in enumerate(speakers)
    ]
    batches = make_batches(utterances)
    found = [set(text.split()) for step in range(5) for text in texts(batches[step], tokenizer)]
    assert {"zero"} in found
    assert {"two"} in found
    assert all(len(words) == 1 for words in found)
    batches = make_batches(tones, max_join=1)
    alone = {text for step in range(5) for text in texts(batches[step], tokenizer)}
    assert alone <= {utterance.text for utterance in tones}


def test_rows_without_speech_have_no_text(make_batches, tones):
    batch = make_batches(tones, replace(SPEECH, non_speech_probability=1.0))[0]
    assert batch.text_lengths.tolist() == [0] * 6
    assert set(batch.canvas[:, 0].tolist()) == {tiny().prompt.end_text_ids[0]}
    assert set(batch.frame_labels.flatten().tolist()) == {tiny().blank_id}


def test_every_canvas_length_is_drawn(make_batches, tones):
    batches = make_batches(tones, replace(SPEECH, batch_size=1))
    lengths = {batches[step].canvas.shape[1] for step in range(20)}
    assert 1 < len(lengths) <= len(tiny().canvas.buckets)


@pytest.mark.parametrize("max_join", [1, 3])
def test_an_utterance_as_long_as_the_window_stays_whole_at_any_speed(make_batches, tmp_path, max_join):
    words = ["one", "two"] * 13
    long = make_utterance(tmp_path / "long.wav", words, gap_samples=110, duration_samples=8 * SAMPLE_RATE_HZ)
    batches = make_batches([long], replace(SPEECH, batch_size=8), max_join)
    for batch in (batches[step] for step in range(3)):
        assert batch.text_lengths.tolist() == [26] * 8
        last_words = [labels[(labels != 4) & (labels != IGNORED)][-1].item() for labels in batch.frame_labels]
        assert last_words == [11] * 8
