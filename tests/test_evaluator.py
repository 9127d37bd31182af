import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig
from dgasr.errors import ConfigError
from dgasr.evaluator import EvaluationConfig, read_waveform, score_utterances, transcribe_utterances
from dgasr.features import FeatureConfig
from dgasr.manifests import Utterance, read_manifest
from dgasr.records import Word, silent_transcript
from dgasr.segmentation import SegmentationConfig

CONFIG = EvaluationConfig(normalizer="basic", metric="wer", max_steps=8)

RECIPE = SimpleNamespace(
    audio=AudioConfig(),
    segmentation=SegmentationConfig(method="loudness"),
    features=FeatureConfig(window_samples=2 * 16_000),
)


def transcribe(features):
    """Say which segment it was, latest first, with one word over the whole of it."""
    for item in reversed(list(features)):
        segment = item.segment
        text = f"{segment.segment_index}"
        word = Word(word=text, start_sample=segment.start_sample, end_sample=segment.end_sample, confidence=0.5)
        yield replace(silent_transcript(segment, "en"), text=text, words=(word,), num_steps=3)


def babble(duration_s):
    """A tone that rises and falls four times a second, as speech does; a steady one would count as noise."""
    time_s = np.arange(round(16_000 * duration_s)) / 16_000
    return 0.3 * np.sin(2 * np.pi * 300 * time_s) * np.sin(2 * np.pi * 2 * time_s) ** 2


@pytest.fixture
def write(tmp_path):
    def utterance(name, waveform, **fields):
        path = tmp_path / name
        soundfile.write(path, waveform, 16_000)
        defaults = {"duration": len(waveform) / 16_000, "text": "one", "language": "en"}
        return Utterance(audio_filepath=str(path), **(defaults | fields))

    return utterance


def hypotheses(*utterances):
    scored, _ = transcribe_utterances(dict(enumerate(utterances)), RECIPE, transcribe)
    return list(scored.values())


def test_segments_are_joined_in_order_whatever_order_they_came_in(write):
    [long] = hypotheses(write("a.wav", babble(7)))
    assert long.hypothesis.split() == [str(n) for n in range(len(long.hypothesis_words))]
    assert len(long.hypothesis_words) == len(long.segments) > 2
    assert (long.hypothesis_words[0].start_sample, long.hypothesis_words[-1].end_sample) == (0, 7 * 16_000)


def test_segments_find_their_utterance(write):
    short, long = hypotheses(write("a.wav", babble(1)), write("b.wav", babble(7)))
    assert (short.hypothesis, long.hypothesis.split()[:2]) == ("0", ["0", "1"])


def test_silence_is_read_and_not_decoded(write):
    [silent] = hypotheses(write("a.wav", np.zeros(32_000)))
    assert (silent.hypothesis, silent.segments, silent.audio_s) == ("", (), 2.0)


def test_an_utterance_is_cut_out_of_its_file(write):
    waveform = np.concatenate([np.zeros(16_000), babble(1), np.zeros(16_000)])
    [spoken] = hypotheses(write("a.wav", waveform, offset=1.0, duration=1.0))
    [before] = hypotheses(write("a.wav", waveform, offset=0.0, duration=1.0))
    assert (spoken.hypothesis, spoken.audio_s) == ("0", 1.0)
    assert (before.hypothesis, before.audio_s) == ("", 1.0)


def test_a_rounded_duration_loses_no_sound(write):
    [whole] = hypotheses(write("a.wav", babble(1.55), duration=1.5))
    assert whole.audio_s == pytest.approx(1.55)


def test_broken_and_missing_audio_is_listed_with_an_empty_hypothesis(write, tmp_path):
    empty = tmp_path / "empty.wav"
    empty.touch()
    paths = [empty, tmp_path / "none.wav", tmp_path]
    broken = [Utterance(audio_filepath=str(p), duration=1.0, text="one two", language="en") for p in paths]
    *failed, good = hypotheses(*broken, write("a.wav", babble(1)))
    assert [(u.hypothesis, u.audio_s) for u in failed] == [("", 0.0)] * 3
    assert all(str(path) in str(u.failure) for path, u in zip(paths, failed, strict=True))
    assert (good.hypothesis, good.failure) == ("0", None)


def test_what_a_truncated_file_still_holds_is_scored_and_the_loss_is_listed(write):
    utterance = write("a.wav", babble(2))
    with open(utterance.audio_filepath, "r+b") as file:
        file.truncate(44 + 2 * 16_000)
    [cut] = hypotheses(utterance)
    assert (cut.hypothesis, cut.audio_s) == ("0", 1.0)
    assert "header says 2.00 s" in cut.failure


def test_an_offset_beyond_the_file_is_listed(write):
    [late] = hypotheses(write("a.wav", babble(1), offset=5.0))
    assert "Correct `offset`" in late.failure


def test_noise_does_not_depend_on_where_the_corpus_lies(write, tmp_path):
    seen = []

    def remember(features):
        items = list(features)
        seen.append({item.segment.recording_id for item in items})
        yield from transcribe(items)

    for name in ("here.wav", "there.wav"):
        transcribe_utterances({0: write(name, babble(1))}, RECIPE, remember)
    assert len(set.union(*seen)) == 1


def test_every_utterance_is_told_of_once(write):
    told = []
    utterances = {n: write(f"{n}.wav", babble(0.5)) for n in range(3)}
    transcribe_utterances(utterances, RECIPE, transcribe, lambda: told.append(1))
    assert len(told) == 3


def test_a_clip_longer_than_the_window_is_cut_and_not_refused(write):
    [long] = hypotheses(write("a.wav", babble(28)))
    assert (long.failure, long.audio_s) == (None, 28.0)
    assert len(long.segments) >= 14  # the window is 2 s


def test_a_channel_of_its_own_is_heard_alone(write):
    utterance = write("a.wav", np.stack([babble(3), np.zeros_like(babble(3))], axis=1))
    heard = [read_waveform(replace(utterance, channel=channel), AudioConfig())[0] for channel in (0, 1)]
    assert np.allclose(heard[0], babble(3), atol=1e-4)
    assert not heard[1].any()


def test_another_system_gets_the_very_samples(write):
    utterance = write("a.wav", babble(3), offset=1.0, duration=1.5)
    waveform, failure = read_waveform(utterance, AudioConfig())
    assert failure is None
    assert np.allclose(waveform, babble(3)[16_000:40_000], atol=1e-4)


def says_one_two(languages):
    """A decoder that hears "one two" in everything, and remembers the languages it was asked for."""

    def transcribe(features):
        for item in features:
            yield replace(silent_transcript(item.segment, "en"), text="one two", num_steps=4)

    def decoder(code):
        if code == "xx":
            raise ConfigError("model tiny knows en.")
        languages.append(code)
        return RECIPE, transcribe

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
        return read_manifest(path)

    return write


def test_a_manifest_is_scored(manifest):
    figures = score_utterances(manifest(("one two", "en"), ("one three", "en")), says_one_two([]), CONFIG).to_json()
    assert (figures["wer"], figures["path"], figures["mean_steps"], figures["audio_s"]) == (0.25, "diffusion", 4.0, 2.0)


def test_each_language_is_decoded_as_itself(manifest):
    languages = []
    score_utterances(manifest(("one", "en-US"), ("eins", "de"), ("two", "en")), says_one_two(languages), CONFIG)
    assert languages == ["en", "de"]


def test_utterances_stay_in_the_manifests_order(manifest):
    rows = manifest(("one", "en"), ("zwei", "de"), ("three", "en"))
    evaluation = score_utterances(rows, says_one_two([]), CONFIG)
    assert [utterance.reference for utterance in evaluation.utterances] == ["one", "zwei", "three"]


def test_a_given_language_is_used_for_all(manifest):
    languages = []
    config = EvaluationConfig(normalizer="basic", metric="wer", max_steps=8, language="en")
    score_utterances(manifest(("one", "en"), ("eins", "de")), says_one_two(languages), config)
    assert languages == ["en"]


def test_a_language_the_model_does_not_know_is_refused_before_any_work(manifest):
    told = []
    with pytest.raises(ConfigError, match="knows en"):
        score_utterances(manifest(("one", "en"), ("x", "xx")), says_one_two([]), CONFIG, lambda: told.append(1))
    assert not told
