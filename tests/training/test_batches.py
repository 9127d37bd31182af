from dataclasses import fields, replace

import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.model.presets import full, tiny
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.training.augmentation import AugmentationConfig
from dgasr.training.batches import IGNORED, BatchConfig, Batches

CLEAN = AugmentationConfig(
    speed=0.15, gain_db=0, colour_probability=0, reverb_probability=0, noise_probability=0, mask_probability=0
)
SPEECH = BatchConfig(batch_size=6, non_speech_probability=0, word_share=1.0)
TONE_BINS = {"zero": (8, 16), "one": (20, 32), "two": (42, 58)}
"""Mel bins, of 80, in which a word's tone is loudest at any speed."""


@pytest.fixture
def make_batches(tokenizer):
    def make(utterances, config=SPEECH, *, model=None, augmentation=CLEAN, strength=1.0, seed=1, steps=20):
        return Batches(
            utterances, model or tiny(), tokenizer, config, augmentation, (strength, strength), steps, seed
        )  # fmt: skip

    return make


def equal(batch, other):
    pairs = [(getattr(batch, field.name), getattr(other, field.name)) for field in fields(batch)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def texts(batch, tokenizer):
    return [
        tokenizer.decode(row[:length].tolist()) for row, length in zip(batch.canvas, batch.text_lengths, strict=True)
    ]


def loudest(log_mel, frame):
    """Word whose tone is loudest within 10 ms of a frame, or `None` where all three frames are quiet."""
    near = log_mel[:, max(0, frame - 1) : frame + 2]
    power, bin_ = near.amax(dim=1).max(dim=0)
    if power < log_mel.max() - 1.2:
        return None
    return next((word for word, (low, high) in TONE_BINS.items() if low <= bin_ < high), f"bin {int(bin_)}")


def test_a_batch_depends_on_seed_and_step_only(make_batches, tones):
    augmentation = AugmentationConfig()
    batches, other = (make_batches(tones, augmentation=augmentation) for _ in range(2))
    later_first = [other[step] for step in (5, 0)]
    assert equal(batches[0], later_first[1])
    assert equal(batches[5], later_first[0])
    assert not torch.equal(batches[0].log_mel, batches[1].log_mel)
    assert not torch.equal(batches[0].log_mel, make_batches(tones, seed=2, augmentation=augmentation)[0].log_mel)


@pytest.mark.parametrize(("preset", "steps"), [(tiny, 8), (full, 2)])
def test_an_audio_tokens_label_is_the_word_that_sounds_there(make_batches, tokenizer, tones, preset, steps):
    model = preset()
    batches = make_batches(tones, model=model)
    token_frames = model.projector.subsampling * 2
    num_labels = 0
    for batch in (batches[step] for step in range(steps)):
        assert batch.frame_labels.shape[1] == model.num_audio_tokens
        for log_mel, labels in zip(batch.log_mel, batch.frame_labels.tolist(), strict=True):
            for token, label in enumerate(labels):
                frames = log_mel[:, max(0, token * token_frames - 2) : token * token_frames + 3]
                is_edge = frames.amax(dim=0).max() - frames.amax(dim=0).min() > 0.3
                if not is_edge:
                    wanted = None if label == model.blank_id else tokenizer.decode([label])
                    assert loudest(log_mel, token * token_frames) == wanted
                    num_labels += wanted is not None
    assert num_labels > 10 * steps


def test_the_full_presets_labels_are_160_ms_apart(make_batches, make_tones, tmp_path):
    late = make_tones(tmp_path / "late.wav", ["one"], gap_samples=10 * SAMPLE_RATE_HZ)
    config = BatchConfig(batch_size=1, non_speech_probability=0, word_share=1.0)
    labels = make_batches([late], config, model=full(), strength=0.0)[0].frame_labels[0]
    spoken = (labels != full().blank_id).nonzero().flatten().tolist()
    assert labels.shape == (188,)
    assert spoken == [63, 64]  # 160,000 / 2560 = 62.5 and 164,800 / 2560 = 64.4


def test_only_the_middle_of_a_word_is_labelled_and_its_edges_are_ignored(make_batches, make_tones, tmp_path):
    word = make_tones(tmp_path / "long.wav", ["one"] * 8, gap_samples=0)
    long = replace(word, text="one", words=(replace(word.words[0], end_sample=8 * 4_800),))
    config = BatchConfig(batch_size=1, non_speech_probability=0, word_share=0.5)
    labels = make_batches([long], config, strength=0.0)[0].frame_labels[0].tolist()
    assert labels == [*[IGNORED] * 4, *[10] * 8, *[IGNORED] * 3, *[4] * 35]


def test_an_epoch_has_each_utterance_once_a_language_a_batch_and_like_lengths_together(
    make_batches, make_tones, tokenizer, tmp_path
):
    said = ["zero", "one", "two", "one one one one one", "two two two two two", "zero two", "two zero", "one two"]
    rows = [make_tones(tmp_path / f"{n}.wav", text.split()) for n, text in enumerate(said)]
    rows = [replace(row, language="de" if n < 2 else "en") for n, row in enumerate(rows)]
    config = BatchConfig(batch_size=2, non_speech_probability=0)
    batches = make_batches(rows, config)
    length = Batches.epoch_length(rows, 2)
    assert length == 4
    epochs = [[batches[step] for step in range(n * length, (n + 1) * length)] for n in range(3)]
    for epoch in epochs:
        assert sorted(text for batch in epoch for text in texts(batch, tokenizer)) == sorted(said)
        found = {frozenset(texts(batch, tokenizer)): batch.language for batch in epoch}
        assert found[frozenset(said[:2])] == "de"
        assert any({"one one one one one", "two two two two two"} <= own for own in found)
    orders = [[texts(batch, tokenizer) for batch in epoch] for epoch in epochs]
    assert orders[0] != orders[1]
    assert equal(make_batches(rows, config)[5], batches[5])
    quiet = make_batches(rows, replace(config, non_speech_probability=1.0))[0]
    assert quiet.text_lengths.tolist()[-1] == 0


def test_rows_without_speech_are_blank_and_unknown_word_times_leave_no_labels(make_batches, tones):
    batch = make_batches(tones, replace(SPEECH, non_speech_probability=1.0))[0]
    assert batch.text_lengths.tolist()[-1] == 0
    assert batch.canvas[-1].tolist() == [
        tiny().prompt.end_text_ids[0],
        *[tiny().prompt.pad_id] * (batch.canvas.shape[1] - 1),
    ]
    assert set(batch.frame_labels[-1].tolist()) == {tiny().blank_id}
    batch = make_batches([replace(utterance, words=None) for utterance in tones])[0]
    assert set(batch.frame_labels.flatten().tolist()) == {IGNORED}


def test_canvases_are_buckets_that_hold_the_longest_text_and_its_end(make_batches, tones):
    batches = make_batches(tones, replace(SPEECH, batch_size=1))
    for batch in (batches[step] for step in range(20)):
        assert batch.canvas.shape[1] in tiny().canvas.buckets
        assert int(batch.text_lengths.max()) < batch.canvas.shape[1]
    assert len({batches[step].canvas.shape[1] for step in range(20)}) > 1
    wordy = replace(tones[0], text="one " * 20, words=None)  # longer than its audio suggests
    assert make_batches([wordy], BatchConfig(batch_size=1, non_speech_probability=0))[0].canvas.shape[1] == 32


def test_an_utterance_as_long_as_the_window_stays_whole_at_any_speed(make_batches, make_tones, tmp_path):
    words = ["one", "two"] * 13
    long = make_tones(tmp_path / "long.wav", words, gap_samples=110, duration_samples=8 * SAMPLE_RATE_HZ)
    batches = make_batches([long])
    for batch in (batches[step] for step in range(20)):
        assert batch.text_lengths.tolist() == [26]
        assert batch.frame_labels[(batch.frame_labels != 4) & (batch.frame_labels != IGNORED)][-1] == 11


def test_small_changes_of_speed_that_are_left_out_move_no_word(make_batches, make_tones, tmp_path):
    words = make_tones(tmp_path / "words.wav", ["one"], gap_samples=56_000)
    batches = make_batches([words], augmentation=replace(CLEAN, speed=0.009))
    assert all(torch.equal(batches[step].frame_labels, batches[0].frame_labels) for step in range(8))


def test_offset_and_duration_choose_a_stretch_of_the_file(make_batches, make_tones, tmp_path):
    whole = make_tones(tmp_path / "whole.wav", ["zero", "two"], gap_samples=4_800)
    second = replace(whole, offset=0.9, duration=0.3, text="two", words=None)
    config = BatchConfig(batch_size=1, non_speech_probability=0)
    log_mel = make_batches([second], config, strength=0.0)[0].log_mel[0]
    assert [loudest(log_mel, frame) for frame in (2, 15, 28, 40)] == ["two", "two", "two", None]


def test_augmentation_grows_from_the_first_to_the_last_step(tokenizer, tones):
    config = BatchConfig(batch_size=1, non_speech_probability=0)
    gain = replace(CLEAN, speed=0, gain_db=12)
    batches = Batches([replace(tones[0], words=None)] * 2, tiny(), tokenizer, config, gain, (0.0, 1.0), 30, 1)
    levels = torch.stack([batches[step].log_mel.max() for step in range(30)])
    assert levels[0] == batches[0].log_mel.max()
    assert (levels[20:] - levels[0]).abs().mean() > 2 * (levels[1:10] - levels[0]).abs().mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "zero eleven"}, "eleven"),
        ({"duration": 8.1}, "8.10 s do not fit the model's window of 8 s"),
        ({"audio_filepath": "/nowhere/a.wav"}, "no such file"),
    ],
)
def test_an_utterance_that_cannot_be_learnt_from_is_refused_at_once(make_batches, tones, change, message):
    with pytest.raises(ConfigError, match=message):
        make_batches([*tones, replace(tones[0], **change)])


@pytest.mark.parametrize(
    ("change", "message"), [({"offset": 100.0}, "ends before 100"), ({"audio_filepath": __file__}, "cannot be read")]
)
def test_audio_that_cannot_be_read_is_named(make_batches, tones, change, message):
    with pytest.raises(ConfigError, match=message):
        make_batches([replace(tones[0], **change)])[0]


def test_no_utterance_is_refused(make_batches):
    with pytest.raises(ConfigError, match="no utterance"):
        make_batches([])
