import shutil

import numpy as np
import pytest
import soundfile

from dgasr.errors import ConfigError
from dgasr.manifests import num_samples
from tools.tiny.voices import SyntheticVoicesConfig, synthetic_voices, trim_silence

CONFIG = SyntheticVoicesConfig(
    words=("one", "six"), espeak_accents=("en-us",), espeak_variants=("m1",), flite_voices=("slt",), flite_takes=2
)
needs_voices = pytest.mark.skipif(
    not (shutil.which("espeak-ng") and shutil.which("flite")), reason="espeak-ng and flite are not installed"
)


@needs_voices
def test_every_voice_says_every_word_as_often_as_asked(tmp_path):
    utterances = synthetic_voices(tmp_path, CONFIG)
    said = [(utterance.speaker, utterance.text) for utterance in utterances]
    assert said == [(v, w) for v in ("espeak-ng_en-us+m1", "flite_slt") for w in ("one", "one", "six", "six")]


@needs_voices
def test_offsets_point_at_speech_with_silence_between(tmp_path):
    for utterance in synthetic_voices(tmp_path, CONFIG):
        waveform, rate_hz = soundfile.read(utterance.audio_filepath)
        start = num_samples(utterance.offset)
        end = start + num_samples(utterance.duration)
        assert rate_hz == 16_000
        assert np.abs(waveform[start:end]).max() == pytest.approx(0.5, abs=1e-3)
        assert not waveform[end : end + 1600].any()


@needs_voices
def test_an_unknown_voice_is_named(tmp_path):
    config = SyntheticVoicesConfig(espeak_accents=("xx-nowhere",), flite_voices=())
    with pytest.raises(ConfigError, match="xx-nowhere"):
        synthetic_voices(tmp_path, config)


def test_a_missing_program_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="apt-get install espeak-ng"):
        synthetic_voices(tmp_path, CONFIG)


def test_silence_is_trimmed_and_neither_speech_nor_digital_silence_alone_is():
    speech = np.full(1600, 0.1, dtype=np.float32)
    padded = np.concatenate([np.zeros(800, np.float32), speech, np.zeros(480, np.float32)])
    assert np.array_equal(trim_silence(padded, 40.0), speech)
    assert len(trim_silence(np.zeros(1600, np.float32), 40.0)) == 1600


def test_a_configuration_without_a_voice_is_refused():
    with pytest.raises(ConfigError, match="at least one word and one voice"):
        SyntheticVoicesConfig(espeak_accents=(), flite_voices=())
