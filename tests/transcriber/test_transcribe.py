from itertools import pairwise

import numpy as np
import pytest
import soundfile

from dgasr.errors import ConfigError, EmptyFileError
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.transcriber import transcribe


@pytest.fixture
def speech_pause_speech(tmp_path):
    """Two bursts of syllables, 3 s of silence between them."""
    generator = np.random.default_rng(5)
    seconds = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    burst = (0.2 + 0.2 * np.sin(2 * np.pi * 3 * seconds)) * generator.standard_normal(seconds.size)
    silence = np.zeros(3 * SAMPLE_RATE_HZ)
    path = tmp_path / "two bursts.wav"
    soundfile.write(path, np.concatenate([silence, burst, silence, silence, burst, silence]) * 0.5, SAMPLE_RATE_HZ)
    return path


def test_a_recording_is_covered_by_its_segments(model, speech_pause_speech):
    segments = [
        transcript.segment
        for transcript in transcribe(speech_pause_speech, model, max_steps=2, segmentation="loudness").segments
    ]
    assert segments[0].start_sample == 0
    assert segments[-1].end_sample == 16 * SAMPLE_RATE_HZ
    assert all(one.end_sample == other.start_sample for one, other in pairwise(segments))
    assert {segment.kind for segment in segments} == {"speech", "silence"}


def test_text_words_and_confidence_are_those_of_the_segments(model, speech_pause_speech):
    transcript = transcribe(speech_pause_speech, model, max_steps=2, segmentation="loudness")
    assert transcript.text == " ".join(word.word for word in transcript.words)
    assert transcript.words == tuple(word for segment in transcript.segments for word in segment.words)
    assert transcript.confidence == pytest.approx(np.mean([word.confidence for word in transcript.words]))


def test_a_file_with_silence_only_has_no_text(model, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(10 * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    transcript = transcribe(str(tmp_path / "silence.wav"), model)
    assert (transcript.text, transcript.words, transcript.confidence) == ("", (), None)
    assert sum(silent.segment.num_samples for silent in transcript.segments) == 10 * SAMPLE_RATE_HZ


@pytest.mark.parametrize("name", ["absent.wav", "."])
def test_what_cannot_be_opened_is_refused(model, tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be opened"):
        transcribe(tmp_path / name, model)


def test_bad_audio_says_why(model, tmp_path):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(EmptyFileError, match=r"empty\.wav"):
        transcribe(tmp_path / "empty.wav", model)
