"""Systems to be measured beside: with stand-ins for their models, and with Whisper base itself where it lies."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from dgasr.baseline import POCKETSPHINX, Baseline, evaluate_baseline, load_baseline
from dgasr.errors import ConfigError
from dgasr.evaluator import EvaluationConfig
from dgasr.manifests import Utterance

MODELS = {"faster-whisper": "DGASR_WHISPER_CT2", "whisper": "DGASR_WHISPER"}
"""Variables that name a folder of Whisper base."""


class Model:
    """Hears as many words as there are seconds, and remembers how it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, waveform, language):
        self.asked.append((len(waveform), language))
        return " ".join(f"w{n}" for n in range(len(waveform) // 16_000))


@pytest.fixture
def said(tmp_path):
    def write(duration_s, **fields):
        path = tmp_path / f"{duration_s}.wav"
        soundfile.write(path, np.full(round(16_000 * duration_s), 0.1), 16_000)
        defaults = {"text": "w0 w1", "language": "en", "duration": float(duration_s), "audio_filepath": str(path)}
        return Utterance(**(defaults | fields))

    return write


def score(utterances, language=None, model=None, baseline=None, normalizer="basic"):
    model = model or Model()
    baseline = baseline or Baseline(name="faster-whisper", languages=("en", "de"), recognise=model)
    config = EvaluationConfig(normalizer=normalizer, metric="wer", max_steps=None, language=language)
    return evaluate_baseline(utterances, baseline, config), model


def test_utterances_are_recognised_in_order_as_they_are_after_one_of_warm_up(said):
    evaluation, model = score([said(2, set_name="books", speaker="ann"), said(1.5, text="w0")])
    first, second = evaluation.utterances
    assert (first.hypothesis, first.audio_s, first.set_name, first.speaker) == ("w0 w1", 2.0, "books", "ann")
    assert [segment.num_words for segment in first.segments] == [2]
    assert second.hypothesis == "w0"
    assert (evaluation.path, evaluation.to_json()["wer"]) == ("faster-whisper", 0.0)
    assert [samples for samples, _ in model.asked] == [32_000, 32_000, 24_000]


def test_each_row_is_asked_for_in_its_language_unless_one_is_given(said):
    rows = [said(2), said(3, language="de-AT")]
    assert [language for _, language in score(rows)[1].asked[1:]] == ["en", "de"]
    assert {language for _, language in score(rows, language="en")[1].asked} == {"en"}


def test_a_language_it_does_not_know_is_refused_before_any_work(said):
    model = Model()
    with pytest.raises(ConfigError, match=r"xx: no language of the baseline. .* --languages"):
        score([said(2, language="xx")], model=model)
    assert not model.asked


def test_broken_audio_counts_as_deleted_words(said, tmp_path):
    broken = said(2, audio_filepath=str(tmp_path / "none.wav"))
    figures = score([said(2), broken])[0].to_json()
    assert (figures["edits"]["deletions"], len(figures["failures"])) == (2, 1)


@pytest.mark.parametrize("name", ["faster-whisper:/nowhere", "whisper:/nowhere", "tiny"])
def test_a_folder_without_a_model_is_refused_with_what_to_write(name):
    with pytest.raises(ConfigError, match="Write faster-whisper:DIR"):
        load_baseline(name, 1)


def test_what_is_not_installed_is_named_by_its_extra(tmp_path, monkeypatch):
    (tmp_path / "model.bin").touch()
    for name, package in ((f"faster-whisper:{tmp_path}", "faster_whisper"), (POCKETSPHINX, "pocketsphinx")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ConfigError, match=r"pip install 'dgasr\[baseline\]'"):
            load_baseline(name, 1)


class Decoder:
    """pocketsphinx's, which hears nothing in less than a second."""

    def __init__(self, **options):
        self.samples = 0

    def start_utt(self):
        self.samples = 0

    def process_raw(self, data, full_utt):
        self.samples += len(data) // 2

    def end_utt(self):
        pass

    def hyp(self):
        return SimpleNamespace(hypstr="the end") if self.samples >= 16_000 else None


def test_pocketsphinx_hears_one_utterance_at_a_time(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", SimpleNamespace(Decoder=Decoder))
    heard = load_baseline(POCKETSPHINX, 1)
    texts = [heard.recognise(np.zeros(length, np.float32), "en") for length in (16_000, 8_000)]
    assert (heard.languages, texts) == (("en",), ["the end", ""])


class FasterWhisper:
    """Says which segment it is, three times, and remembers how it was asked."""

    supported_languages = ("en", "de")

    def __init__(self, folder, **options):
        self.options = options

    def transcribe(self, waveform, **asked):
        FasterWhisper.asked = asked
        return (SimpleNamespace(text=f" w{n}") for n in range(3)), None


def test_faster_whisper_is_greedy_without_sampling_and_without_voice_activity_detection(tmp_path, monkeypatch):
    (tmp_path / "model.bin").touch()
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=FasterWhisper))
    heard = load_baseline(f"faster-whisper:{tmp_path}", 1)
    assert heard.recognise(np.zeros(16_000, np.float32), "de") == "w0 w1 w2"
    asked = {"beam_size": 1, "temperature": 0.0, "vad_filter": False, "language": "de"}
    assert asked.items() <= FasterWhisper.asked.items()


def test_a_model_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Unsupported model binary version")

    (tmp_path / "model.bin").touch()
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=refuse))
    with pytest.raises(ConfigError, match="Unsupported model binary version"):
        load_baseline(f"faster-whisper:{tmp_path}", 1)


class Whisper:
    """transformers' model, feature extractor and tokenizer in one: the text of a window is how long it is."""

    config = SimpleNamespace(num_mel_bins=80, max_target_positions=448, vocab_size=51_865)
    generation_config = SimpleNamespace()

    def __init__(self, feature_size=80):
        pass

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

    def decode(self, ids, skip_special_tokens):
        return f" {ids:g} s"


def test_transformers_whisper_hears_a_window_at_a_time_in_the_language_it_is_asked_for(tmp_path, monkeypatch):
    names = ("WhisperForConditionalGeneration", "WhisperFeatureExtractor", "WhisperTokenizer")
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(**dict.fromkeys(names, Whisper)))
    languages = SimpleNamespace(LANGUAGES={"en": "english", "de": "german", "fr": "french"})
    monkeypatch.setitem(sys.modules, "transformers.models.whisper.tokenization_whisper", languages)
    (tmp_path / "model.safetensors").touch()
    asked, settings = [], Whisper.generation_config
    monkeypatch.setattr(
        Whisper, "generate", lambda self, features, **own: asked.append(own) or [features], raising=False
    )
    baseline = load_baseline(f"whisper:{tmp_path}", 1)
    assert baseline.languages == ["en", "de"]
    assert baseline.recognise(np.zeros(40 * 16_000, np.float32), "de") == "30 s 10 s"
    assert (settings.lang_to_id, settings.max_length) == ({"<|en|>": 0, "<|de|>": 1}, 448)
    assert asked[0] == {"num_beams": 1, "do_sample": False, "language": "de", "task": "transcribe"}


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
    baseline = load_baseline(f"{kind}:{folder}", 1)
    assert score([jfk], baseline=baseline, normalizer="whisper")[0].to_json()["wer"] == 0.0
