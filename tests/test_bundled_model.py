"""The bundled checkpoint on real speech, on what is no speech, and in batches of any size."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgasr import build_recipe, load, transcribe
from dgasr.evaluator import EvaluationConfig, evaluate
from dgasr.manifests import read_manifest
from dgasr.model.identity import model_folder
from dgasr.transcriber import Transcriber
from tools.tiny.corpora import ConnectedDigitsConfig, connected_digits

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def model():
    return load("tiny", device="cpu")


@pytest.fixture(scope="module")
def connected(shared_data, tmp_path_factory):
    """Sixty utterances of 1 to 10 digits from the recordings that no training has seen."""
    folder = tmp_path_factory.mktemp("connected")
    connected_digits(shared_data / "fsdd", folder, ConnectedDigitsConfig(num_utterances=60, seed=11))
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def scored(model, connected):
    return evaluate(
        read_manifest(connected), model, EvaluationConfig(normalizer="basic", metric="wer", max_steps=8), 16
    ).to_json()


def test_the_checkpoint_is_small_and_has_a_card():
    folder = model_folder("tiny")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("CC BY-SA 4.0", "make checkpoint", "seed", "WER"))


def test_digits_of_known_voices_are_recognised(scored):
    assert scored["wer"] <= 0.02  # 60 utterances are few: the figure on 300 stands in the card


def test_words_are_placed_within_tens_of_milliseconds(scored):
    timing = scored["timing"]
    assert max(timing["start_median_ms"], timing["end_median_ms"]) <= 35
    assert max(timing["start_p90_ms"], timing["end_p90_ms"]) <= 110


def tones(seconds, notes, decay):
    samples = np.zeros(seconds * RATE_HZ)
    length = RATE_HZ * 2 // 5
    time_s = np.arange(length) / RATE_HZ
    for index in range(samples.size // length):
        pitch_hz = notes[index % len(notes)]
        note = sum(np.sin(2 * np.pi * pitch_hz * harmonic * time_s) / harmonic for harmonic in (1, 2, 3))
        samples[index * length : (index + 1) * length] = 0.2 * note * np.exp(-decay * time_s)
    return samples


SCALE_HZ = (261.6, 293.7, 329.6, 349.2, 392.0, 440.0, 493.9, 523.3)
NOT_SPEECH = {
    "silence": lambda: np.zeros(10 * RATE_HZ),
    "loud white noise": lambda: np.random.default_rng(0).standard_normal(10 * RATE_HZ) * 0.3,
    "soft white noise": lambda: np.random.default_rng(1).standard_normal(10 * RATE_HZ) * 0.01,
    "bursts of noise": lambda: (
        np.random.default_rng(2).standard_normal(10 * RATE_HZ)
        * 0.1
        * (np.sin(np.arange(10 * RATE_HZ) * 2 * np.pi * 1.5 / RATE_HZ) > 0)
    ),
    "a scale": lambda: tones(10, SCALE_HZ, decay=3.0),
    "organ notes": lambda: tones(10, SCALE_HZ[::2], decay=0.1),
    "a bass line": lambda: tones(10, (82.4, 110.0, 98.0), decay=5.0),
}


@pytest.mark.parametrize("name", NOT_SPEECH)
def test_what_is_no_speech_gets_no_words_that_are_not_flagged(model, tmp_path, name):
    soundfile.write(tmp_path / "sound.wav", NOT_SPEECH[name](), RATE_HZ)
    segments = transcribe(tmp_path / "sound.wav", model).segments
    assert [(s.text, s.flags) for s in segments if s.text and not s.flags] == []
    assert sum(s.segment.num_samples for s in segments) == 10 * RATE_HZ


def test_silence_gives_empty_text(model, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(10 * RATE_HZ), RATE_HZ)
    transcript = transcribe(tmp_path / "silence.wav", model)
    assert (transcript.text, transcript.words, transcript.confidence) == ("", (), None)


def test_text_and_words_are_the_same_in_batches_of_1_3_and_32_and_in_any_order(model, shared_data):
    from dgasr.audio import open_audio
    from dgasr.frontend import cut_recording

    recipe = build_recipe(model.config, model.identity)
    segments = []
    for path in sorted(Path(shared_data / "speech").glob("*.wav")):
        with path.open("rb") as file:
            blocks = open_audio(file, path.name, recipe.audio).blocks()
            segments += [features for _, features in cut_recording(blocks, path.name, recipe) if features is not None]

    def words_by_segment(batch_size, order):
        transcripts = Transcriber(model, recipe, batch_size).transcribe(order)
        return {(t.segment.recording_id, t.segment.segment_index): (t.text, t.words, t.flags) for t in transcripts}

    alone = words_by_segment(1, segments)
    assert len(alone) == len(segments)
    assert words_by_segment(3, segments[::-1]) == alone
    assert words_by_segment(32, segments[1::2] + segments[::2]) == alone
