import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig
from dgasr.errors import ConfigError
from dgasr.evaluator import EvaluationConfig, score_manifest
from dgasr.features import FeatureConfig
from dgasr.records import silent_transcript
from dgasr.segmentation import SegmentationConfig

CONFIG = EvaluationConfig(normalizer="basic", metric="wer", max_steps=8, path="ctc")


class Recipe:
    audio = AudioConfig()
    segmentation = SegmentationConfig(method="loudness")
    features = FeatureConfig(window_samples=2 * 16_000)


def says_one_two(languages):
    """A decoder that hears "one two" in everything, and remembers the languages it was asked for."""

    def transcribe(features):
        for item in features:
            yield replace(silent_transcript(item.segment, "en"), text="one two", num_steps=4)

    def decoder(code):
        if code == "xx":
            raise ConfigError("model tiny knows en.")
        languages.append(code)
        return Recipe, transcribe

    return decoder


@pytest.fixture
def manifest(tmp_path):
    samples = np.arange(16_000)
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(samples / 8) * np.sin(samples / 1000), 16_000)

    def write(*rows):
        path = tmp_path / "manifest.jsonl"
        lines = [
            json.dumps({"audio_filepath": "a.wav", "duration": 1.0, "text": text, "language": language})
            for text, language in rows
        ]
        path.write_text("\n".join(lines))
        return path

    return write


def test_a_manifest_is_scored(manifest):
    figures = score_manifest(manifest(("one two", "en"), ("one three", "en")), says_one_two([]), CONFIG).to_json()
    assert (figures["wer"], figures["path"], figures["mean_steps"], figures["audio_s"]) == (0.25, "ctc", 4.0, 2.0)


def test_each_language_is_decoded_as_itself(manifest):
    languages = []
    score_manifest(manifest(("one", "en-US"), ("eins", "de"), ("two", "en")), says_one_two(languages), CONFIG)
    assert languages == ["en", "de"]


def test_utterances_stay_in_the_manifests_order(manifest):
    rows = manifest(("one", "en"), ("zwei", "de"), ("three", "en"))
    evaluation = score_manifest(rows, says_one_two([]), CONFIG)
    assert [utterance.reference for utterance in evaluation.utterances] == ["one", "zwei", "three"]


def test_a_given_language_is_used_for_all(manifest):
    languages = []
    config = EvaluationConfig(normalizer="basic", metric="wer", max_steps=8, language="en")
    score_manifest(manifest(("one", "en"), ("eins", "de")), says_one_two(languages), config)
    assert languages == ["en"]


def test_a_language_the_model_does_not_know_is_refused_before_any_work(manifest):
    told = []
    with pytest.raises(ConfigError, match="knows en"):
        score_manifest(manifest(("one", "en"), ("x", "xx")), says_one_two([]), CONFIG, lambda: told.append(1))
    assert not told


@pytest.mark.parametrize("wrong", [{"metric": "ter"}, {"normalizer": "nemo"}, {"path": "beam"}])
def test_an_unknown_way_of_scoring_is_refused_before_the_manifest_is_read(wrong):
    with pytest.raises(ConfigError, match=r"is not known. Choose one of \w+, "):
        replace(CONFIG, **wrong)
