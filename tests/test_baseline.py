"""Systems to be measured beside: with stand-ins for their models, and with Whisper base itself where it lies."""

import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile

from dgasr.baseline import POCKETSPHINX, Baseline, evaluate_baseline, is_baseline, load_baseline
from dgasr.errors import ConfigError
from dgasr.training.manifests import Utterance

MODELS = {"faster-whisper": "DGASR_WHISPER_CT2", "whisper": "DGASR_WHISPER"}
"""Variables that name a folder of Whisper base."""


class Model:
    """Hears as many words as there are seconds, in segments of ten seconds, and remembers how it was asked."""

    supported_languages = ("en", "de")

    def __init__(self):
        self.asked = []

    def transcribe(self, waveform, **options):
        self.asked.append({"samples": len(waveform)} | options)
        words = [
            SimpleNamespace(word=f" w{n}", start=n + 0.25, end=n + 1.0, probability=0.5)
            for n in range(len(waveform) // 16_000)
        ]
        return iter(
            SimpleNamespace(
                text="".join(word.word for word in words[n : n + 10]),
                words=words[n : n + 10] if options["word_timestamps"] else None,
            )
            for n in range(0, len(words), 10)
        ), None


@pytest.fixture
def said(tmp_path):
    def write(duration_s, **fields):
        path = tmp_path / f"{duration_s}.wav"
        soundfile.write(path, np.full(round(16_000 * duration_s), 0.1), 16_000)
        defaults = {"text": "w0 w1", "language": "en", "duration": float(duration_s), "audio_filepath": str(path)}
        return Utterance(**(defaults | fields))

    return write


def score(utterances, *, has_words=False, language=None, model=None):
    model = model or Model()
    evaluation = evaluate_baseline(
        utterances, Baseline(model=model, has_words=has_words), normalizer="basic", metric="wer", language=language
    )
    return evaluation, model


def test_utterances_are_recognised_in_order_as_they_are(said):
    evaluation, _ = score([said(2, set_name="books", speaker="ann"), said(1.5, text="w0")])
    first, second = evaluation.utterances
    assert (first.hypothesis, first.audio_s, first.set_name, first.speaker) == ("w0 w1", 2.0, "books", "ann")
    assert second.hypothesis == "w0"
    assert (evaluation.path, evaluation.to_json()["wer"]) == ("faster-whisper", 0.0)


def test_it_is_greedy_without_sampling_and_without_voice_activity_detection(said):
    _, model = score([said(2)])
    asked = {"beam_size": 1, "temperature": 0.0, "vad_filter": False, "word_timestamps": False, "language": "en"}
    assert asked.items() <= model.asked[0].items()


def test_one_utterance_of_warm_up_comes_before(said):
    _, model = score([said(2), said(3)])
    assert [asked["samples"] for asked in model.asked] == [32_000, 32_000, 48_000]


def test_each_row_is_asked_for_in_its_language_unless_one_is_given(said):
    rows = [said(2), said(3, language="de-AT")]
    assert [asked["language"] for asked in score(rows)[1].asked[1:]] == ["en", "de"]
    assert {asked["language"] for asked in score(rows, language="en")[1].asked} == {"en"}


def test_a_language_it_does_not_know_is_refused_before_any_work(said):
    model = Model()
    with pytest.raises(ConfigError, match=r"xx: no language of the baseline. .* --languages"):
        score([said(2, language="xx")], model=model)
    assert not model.asked


def test_words_have_times_in_samples_and_confidence(said):
    evaluation, _ = score([said(2)], has_words=True)
    [word, last] = evaluation.utterances[0].hypothesis_words
    assert (word.word, word.start_sample, word.end_sample, word.confidence) == ("w0", 4_000, 16_000, 0.5)
    assert last.end_sample <= 32_000


def test_a_second_look_behind_the_last_word_is_not_taken(said):
    assert score([said(20)], has_words=True)[0].utterances[0].hypothesis.split()[-1] == "w9"
    assert score([said(20)])[0].utterances[0].hypothesis.split()[-1] == "w19"
    assert score([said(40)], has_words=True)[0].utterances[0].hypothesis.split()[-1] == "w39"


def test_segments_are_counted_with_their_words(said):
    evaluation, _ = score([said(12)])
    assert [segment.num_words for segment in evaluation.utterances[0].segments] == [10, 2]


def test_broken_audio_counts_as_deleted_words(said, tmp_path):
    broken = said(2, audio_filepath=str(tmp_path / "none.wav"))
    figures = score([said(2), broken])[0].to_json()
    assert (figures["edits"]["deletions"], len(figures["failures"])) == (2, 1)


def test_the_name_says_which_system_and_where():
    assert all(is_baseline(name) for name in ("faster-whisper:/models/base", "whisper:base", "pocketsphinx"))
    assert not any(is_baseline(name) for name in ("tiny", "base", "whisper", "other:base"))


@pytest.mark.parametrize("name", ["faster-whisper:/nowhere", "whisper:/nowhere", "tiny"])
def test_a_folder_without_a_model_is_refused_with_what_to_write(name):
    with pytest.raises(ConfigError, match="Write faster-whisper:DIR"):
        load_baseline(name, num_threads=1)


def test_where_faster_whisper_is_not_installed_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "model.bin").touch()
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ConfigError, match=r"pip install 'dgasr\[baseline\]'"):
        load_baseline(f"faster-whisper:{tmp_path}", num_threads=1)


class Decoder:
    """pocketsphinx's, which hears silence, a word, and noise."""

    def __init__(self, **options):
        self.samples = 0

    def start_utt(self):
        self.samples = 0

    def process_raw(self, data, full_utt):
        self.samples += len(data) // 2

    def end_utt(self):
        self.heard = self.samples

    def get_logmath(self):
        return SimpleNamespace(exp=lambda value: 1.01 if value == 0 else 0.5)

    def seg(self):
        spans = (("<s>", 0, 9, 0), ("the(2)", 10, 49, 0), ("[NOISE]", 50, 59, 0), ("end", 60, 79, -5))
        return [SimpleNamespace(word=w, start_frame=s, end_frame=e, prob=p) for w, s, e, p in spans]


def test_pocketsphinx_gives_words_with_times_in_samples(said, monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", SimpleNamespace(Decoder=Decoder))
    baseline = load_baseline(POCKETSPHINX, num_threads=1, has_words=True)
    options = {"normalizer": "basic", "metric": "wer", "language": None}
    evaluation = evaluate_baseline([said(1, text="the end")], baseline, **options)
    (utterance,) = evaluation.utterances
    assert (evaluation.path, utterance.hypothesis) == ("pocketsphinx", "the end")
    assert [(w.start_sample, w.end_sample, w.confidence) for w in utterance.hypothesis_words] == [
        (1600, 8000, 1.0), (9600, 12800, 0.5),
    ]  # fmt: skip
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ConfigError, match="pip install"):
        load_baseline(POCKETSPHINX, num_threads=1)


def test_a_model_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Unsupported model binary version")

    (tmp_path / "model.bin").touch()
    package = ModuleType("faster_whisper")
    package.WhisperModel = refuse
    monkeypatch.setitem(sys.modules, "faster_whisper", package)
    with pytest.raises(ConfigError, match="Unsupported model binary version"):
        load_baseline(f"faster-whisper:{tmp_path}", num_threads=1)


class Whisper:
    """transformers' model, feature extractor and tokenizer in one: the text of a window is how long it is."""

    config = SimpleNamespace(num_mel_bins=80, max_target_positions=448, vocab_size=51_865)
    generation_config = SimpleNamespace()

    def __init__(self, feature_size=80):
        self.asked = []

    @classmethod
    def from_pretrained(cls, folder, local_files_only):
        assert local_files_only
        return cls()

    def float(self):
        return self

    eval = float

    def __call__(self, waveform, sampling_rate, return_tensors):
        return SimpleNamespace(input_features=len(waveform) / sampling_rate)

    def get_vocab(self):
        return {"<|en|>": 0, "<|de|>": 1, "<|transcribe|>": 2, "<|notimestamps|>": 3}

    def generate(self, features, **asked):
        self.asked.append(asked)
        return [features]

    def decode(self, ids, skip_special_tokens):
        return f" {ids:g} s"


def test_transformers_whisper_hears_a_window_at_a_time_in_the_language_it_is_asked_for(said, tmp_path, monkeypatch):
    names = ("WhisperForConditionalGeneration", "WhisperFeatureExtractor", "WhisperTokenizer")
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(**dict.fromkeys(names, Whisper)))
    languages = SimpleNamespace(LANGUAGES={"en": "english", "de": "german", "fr": "french"})
    monkeypatch.setitem(sys.modules, "transformers.models.whisper.tokenization_whisper", languages)
    (tmp_path / "model.safetensors").touch()
    baseline = load_baseline(f"whisper:{tmp_path}", num_threads=1)
    options = {"normalizer": "basic", "metric": "wer", "language": None}
    evaluation = evaluate_baseline([said(40, language="de")], baseline, **options)
    assert evaluation.path == "whisper"
    assert evaluation.utterances[0].hypothesis == "30 s 10 s"
    asked = Whisper.generation_config
    assert (asked.lang_to_id, asked.max_length, asked.is_multilingual) == ({"<|en|>": 0, "<|de|>": 1}, 448, True)
    assert baseline.model._model.asked[0] == {
        "num_beams": 1,
        "do_sample": False,
        "language": "de",
        "task": "transcribe",
    }
    with pytest.raises(ConfigError, match="xx: no language"):
        evaluate_baseline([said(2, language="xx")], baseline, **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_whisper_base_hears_jfk(shared_data, kind):
    folder = os.environ.get(MODELS[kind])
    if not folder:
        pytest.skip(f"{MODELS[kind]} names no folder of Whisper base (../shared/tools/whisper_base.py makes one)")
    pytest.importorskip(kind.replace("-", "_") if kind != "whisper" else "transformers")
    jfk = Utterance(
        audio_filepath=str(shared_data / "speech" / "jfk.flac"),
        duration=11.0,
        text="And so, my fellow Americans, ask not what your country can do for you, "
        "ask what you can do for your country.",
        language="en",
    )
    plain = load_baseline(f"{kind}:{folder}", num_threads=1)
    with_words = load_baseline(f"{kind}:{folder}", num_threads=1, has_words=True)
    options = {"normalizer": "whisper", "metric": "wer", "language": None}
    [heard] = evaluate_baseline([jfk], plain, **options).utterances
    evaluation = evaluate_baseline([jfk], with_words, **options)
    assert evaluation.utterances[0].hypothesis == heard.hypothesis
    assert evaluation.to_json()["wer"] == 0.0
    assert len(evaluation.utterances[0].hypothesis_words) == (22 if kind == "faster-whisper" else 0)
