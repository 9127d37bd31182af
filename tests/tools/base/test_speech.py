import json
import random

import numpy as np
import pytest
import soundfile
from rapidfuzz.distance import Levenshtein
from tokenizers import Tokenizer, models, pre_tokenizers

from dgasr.training.augmentation import AugmentationConfig
from tools.base.sizes import BLANK_ID
from tools.base.speech import IGNORED, TOKEN_SAMPLES, PackedWindows, Speech
from tools.base.text import CorruptionConfig, corrupt, misspell, simulated_path

QUIET = AugmentationConfig(
    speed=0.0, gain_db=0.0, colour_probability=0.0, reverb_probability=0.0, noise_probability=0.0, mask_probability=0.0
)


@pytest.fixture(scope="module")
def tokenizer():
    letters = {"<pad>": 0, "<unk>": 1, "▁": 2, **{letter: 20 + index for index, letter in enumerate("abcdefgh")}}
    made = Tokenizer(models.BPE(vocab=letters, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rows, words = [], []
    for index, text in enumerate(("ab cd", "ef gh", "a", "h g")):
        sound = 0.1 * (index + 1) * np.tile([1.0, -1.0], 16_000)
        soundfile.write(folder / f"{index}.wav", sound, 16_000, subtype="FLOAT")
        rows.append({"audio_filepath": f"{index}.wav", "text": text, "language": "en", "speaker": "s", "set": "made"})
        words.append({"start": 32_000 * index, "words": [[8_000, 16_000], [16_000, 24_000]][: len(text.split())]})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "train_words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words))
    return Speech(folder / "train.jsonl", folder, ("en",))


def windows(speech, tokenizer, seed=0):
    return PackedWindows(speech, 8.0, 3, QUIET, seed, 1, tokenizer)


def test_clips_come_back_as_they_were_written(speech):
    assert [clip.text for clip in speech.clips] == ["ab cd", "ef gh", "a", "h g"]
    assert np.allclose(np.abs(speech.waveform(speech.clips[2])), 0.3, atol=1e-4)


def test_a_batch_is_a_pure_function_of_seed_and_step(speech, tokenizer):
    first, again = (windows(speech, tokenizer).batch(4) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert np.array_equal(first[2], again[2])
    assert not np.array_equal(first[0], windows(speech, tokenizer, seed=1).batch(4)[0])


def test_windows_hold_whole_clips_with_their_texts(speech, tokenizer):
    known = {clip.text for clip in speech.clips}
    for step in range(20):
        features, ids, labels = windows(speech, tokenizer).batch(step)
        assert features.shape == (3, 80, 800)
        assert labels.shape == (3, 100)
        for own in ids:
            text = "".join(tokenizer.id_to_token(index) for index in own).replace("▁", " ").strip()
            while text:  # a row's text is a sequence of clips' texts
                head = max((clip for clip in known if f"{text} ".startswith(f"{clip} ")), key=len)
                text = text[len(head) :].strip()


def test_labels_are_pieces_of_the_text_in_its_order(speech, tokenizer):
    seen = 0
    for step in range(20):
        _, ids, labels = windows(speech, tokenizer).batch(step)
        for own, row in zip(ids, labels, strict=True):
            pieces = iter(own)
            for label in row[(row != IGNORED) & (row != BLANK_ID)]:
                assert label in pieces  # consumes up to it
                seen += 1
    assert seen > 100


def test_a_piece_is_labelled_in_the_middle_of_its_part_of_the_word(speech, tokenizer):
    labels = np.full(40, IGNORED)
    clip = speech.clips[0]  # "ab" from 0.5 to 1 s: "▁" shares a width with each letter
    windows(speech, tokenizer)._label(labels, clip, 0, clip.num_samples)
    placed = np.flatnonzero(labels != IGNORED) * TOKEN_SAMPLES / 16_000
    assert placed.size == 6
    assert 0.5 <= placed[0] < placed[2] < 1.0 <= placed[4] <= 1.5


def test_a_simulated_path_collapses_to_its_pieces():
    rng = random.Random(0)
    for _ in range(50):
        ids = [rng.randrange(20, 25) for _ in range(rng.randrange(1, 20))]
        path = simulated_path(ids, 64, rng)
        assert len(path) == 64
        assert [piece for piece in path if piece != BLANK_ID] == ids


def test_a_hypothesis_without_mistakes_is_the_text():
    class Near:
        def draw(self, piece, rng):
            return piece + 1

    ids = list(range(20, 60))
    assert corrupt(ids, 0.0, CorruptionConfig(), Near(), random.Random(0)) == ids
    assert corrupt(ids, 1.0, CorruptionConfig(substitute=1.0), Near(), random.Random(0)) == [i + 1 for i in ids]
    assert corrupt(ids, 1.0, CorruptionConfig(substitute=0.0, drop=1.0), Near(), random.Random(0)) == []


def test_a_text_is_misspelt_at_the_rate_asked_for_and_stays_words():
    text = "she said that he had seen it in the house by the river"
    assert misspell(text, 0.0, random.Random(0)) == text
    distances = [Levenshtein.distance(text, misspell(text, 0.1, random.Random(seed))) for seed in range(200)]
    assert 0.05 < sum(distances) / 200 / len(text) < 0.11
    assert all(" ".join(misspell(text, 0.5, random.Random(seed)).split()) for seed in range(50))
