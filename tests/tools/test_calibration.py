import math

import numpy as np
import pytest
import soundfile
import torch

from dgasr.errors import ConfigError
from dgasr.manifests import Utterance
from dgasr.model.asr import AsrModel
from dgasr.model.presets import tiny
from dgasr.records import Word
from tools import calibration
from tools.calibration import fit_word_offsets


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return AsrModel(tiny(), tokenizer).eval()


@pytest.fixture
def utterance(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(scale=0.1, size=32_000), 16_000)
    words = tuple(
        Word(word=word, start_sample=start, end_sample=start + 6400, confidence=1.0)
        for word, start in (("one", 1600), ("two", 11_200), ("three", 20_800))
    )
    return Utterance(
        audio_filepath=str(tmp_path / "a.wav"), duration=2.0, text="one two three", language="en", words=words
    )


def test_offsets_are_the_medians_of_what_ctc_lacks(model, utterance, monkeypatch):
    log_probs = np.log(np.full((100, 4), 0.01))
    log_probs[:, 0] = math.log(0.97)
    for column, (start, end) in enumerate(((10, 20), (40, 50), (99, 100)), 1):  # the third is misheard
        log_probs[start:end, (0, column)] = math.log(0.01), math.log(0.97)
    monkeypatch.setattr(calibration, "_log_probs", lambda *_: log_probs)
    # CTC's raw edges: 190 … 390 ms and 790 … 990 ms; the truth: 100 … 500 ms and 700 … 1100 ms.
    assert fit_word_offsets(model, [utterance]) == (-90.0, 110.0)


def test_a_model_is_measured_on_audio_files(model, utterance):
    assert all(math.isfinite(offset_ms) for offset_ms in fit_word_offsets(model, [utterance]))


def test_utterances_without_word_times_cannot_calibrate(model):
    untimed = Utterance(audio_filepath="/nowhere.wav", duration=1.0, text="one", language="en")
    with pytest.raises(ConfigError, match="words"):
        fit_word_offsets(model, [untimed])
