import json
import random

import numpy as np
import pytest
import soundfile
from tokenizers import Tokenizer, models, pre_tokenizers

from dgasr.training.augmentation import AugmentationConfig
from tools.base.digits import ACCENTS, DIGITS, TEENS, TENS, DigitWindows, draw_number, with_accent
from tools.base.speech import Speech
from tools.base.voices import numbers

BOOK = "bˈʊk"  # noqa: RUF001 - phonemes
WINDOW_SAMPLES = 8 * 16_000


def speech_of(folder, name, texts, speakers, seconds=0.4):
    """Write a clip for each text of each speaker: a square wave as loud as the speaker is."""
    rows = []
    for loudness, speaker in enumerate(speakers, start=1):
        for index, text in enumerate(texts):
            path = folder / f"{name}_{speaker}_{index}.wav"
            sound = np.tile(np.repeat([0.1 * loudness, -0.1 * loudness], 16), round(seconds * 500))
            soundfile.write(path, sound, 16_000, subtype="FLOAT")
            rows.append({"audio_filepath": path.name, "text": text, "language": "en", "speaker": speaker})
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Speech(folder / f"{name}.jsonl", folder, ("en",))


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    words = {"<unk>": 0, **{f"▁{word}": index for index, word in enumerate((*DIGITS, "book", "number"), start=1)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    parts = {
        "speech": speech_of(folder, "speech", ["book"], ["reader"]),
        "takes": speech_of(folder, "takes", DIGITS, ["one", "two"]),
        "numbers": speech_of(folder, "numbers", ["number"], ["machine"], seconds=1.5),
    }

    def make(share):
        return DigitWindows(
            **parts, share=share, window_s=8.0, batch_windows=4, augmentation=AugmentationConfig(), ramp_steps=1,
            seed=3, tokenizer=tokenizer,
        )  # fmt: skip

    return make


def texts_of(windows, steps):
    ids = [own for step in range(steps) for own in windows.batch(step)[1]]
    return [[windows._tokenizer.id_to_token(index).strip("▁") for index in own] for own in ids]


def test_windows_say_digits_numbers_or_what_is_read_but_not_mixed(windows):
    texts = [text for text in texts_of(windows(0.5), 60) if text]
    kinds = [{("digit" if word in DIGITS else word) for word in text} for text in texts]
    assert all(len(kind) == 1 for kind in kinds)
    shares = {name: sum(name in kind for kind in kinds) / len(kinds) for name in ("book", "digit", "number")}
    assert shares == pytest.approx({"book": 0.5, "digit": 0.3, "number": 0.2}, abs=0.1)
    lengths = [len(text) for text, kind in zip(texts, kinds, strict=True) if kind == {"digit"}]
    assert min(lengths) == 1
    assert max(lengths) > 10
    assert all(kind == {"book"} for kind in map(set, texts_of(windows(0.0), 10)) if kind)


def test_a_window_of_digits_is_whole_and_a_pure_function_of_its_step(windows):
    first, again = (windows(1.0).batch(7) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert (first[0].shape, first[2].shape) == ((4, 80, 800), (4, 100))
    made, num_words = windows(1.0), 0
    for step in range(40):
        waveform, ids, _ = made._window(np.random.default_rng(step), 0.0)
        assert waveform.size <= WINDOW_SAMPLES
        if ids and max(ids) <= 10:
            loud_s = 0.01 * sum(
                abs(waveform[start : start + 160]).max() > 0.04 for start in range(0, waveform.size, 160)
            )
            assert abs(loud_s / len(ids) - 0.4) < 0.05  # takes of 0.4 s
            num_words += len(ids)
    assert num_words > 100


def test_numbers_are_words_that_a_number_has():
    known = {*DIGITS, *TEENS, *TENS, "hundred"}
    rng = random.Random(0)
    drawn = [draw_number(rng) for _ in range(500)]
    assert {word for number in drawn for word in number} == known
    assert {len(number) for number in drawn} >= set(range(1, 9))
    endless = numbers(seed=4)
    assert [next(endless) for _ in range(3)] == [next(again) for again in [numbers(seed=4)] for _ in range(3)]


def test_an_accent_changes_digits_alone_and_only_in_half_of_the_texts():
    usual = " ".join([BOOK, *ACCENTS])
    heard = [with_accent(usual, random.Random(seed)) for seed in range(200)]
    assert 70 < sum(text == usual for text in heard) < 130
    for text in heard:
        first, *digits = text.split()
        assert first == BOOK
        assert all(digit in (own, *others) for digit, (own, others) in zip(digits, ACCENTS.items(), strict=True))
