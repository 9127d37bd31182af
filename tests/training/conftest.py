"""A small corpus of words that are tones: its audio shows which word sounds when."""

import numpy as np
import pytest
import soundfile

from dgasr.manifests import Utterance
from dgasr.records import SAMPLE_RATE_HZ, Word
from dgasr.training import RunConfig
from dgasr.training.run import train_run
from tests.training.runs import CONFIG, rows_in

TONES_HZ = {"zero": 400.0, "one": 1_000.0, "two": 2_500.0}


def make_utterance(path, words, *, gap_samples=4_000, speaker="a", duration_samples=None):
    """Write words of 0.3 s with gaps before, between and after them; `duration_samples` lengthens the last gap."""
    pieces, spoken, position = [np.zeros(gap_samples)], [], gap_samples
    for word in words:
        tone = 0.3 * np.sin(2 * np.pi * TONES_HZ[word] * np.arange(4_800) / SAMPLE_RATE_HZ)
        spoken.append(Word(word=word, start_sample=position, end_sample=position + 4_800, confidence=1.0))
        pieces += [tone, np.zeros(gap_samples)]
        position += 4_800 + gap_samples
    waveform = np.concatenate(pieces)
    if duration_samples is not None:
        waveform = np.pad(waveform, (0, duration_samples - waveform.size))
    soundfile.write(path, waveform, SAMPLE_RATE_HZ, subtype="PCM_16")
    return Utterance(
        audio_filepath=str(path), duration=waveform.size / SAMPLE_RATE_HZ, text=" ".join(words), language="en",
        words=tuple(spoken), speaker=speaker,
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_tones():
    """Function `(path, words, **options)` that writes an utterance and returns its manifest row."""
    return make_utterance


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """Five utterances of one speaker with word times."""
    return five_utterances(tmp_path_factory.mktemp("tones"))


def five_utterances(folder):
    texts = ("zero", "one", "two", "one zero", "two one zero")
    return [make_utterance(folder / f"{text}.wav", text.split()) for text in texts]


@pytest.fixture
def fresh_model(tokenizer):
    """Function `(seed)` that makes a model of the bundled size with random weights."""
    import torch

    from dgasr.model.asr import AsrModel
    from dgasr.model.presets import ModelIdentity, tiny
    from tools.tiny.fresh import initialise

    def make(seed=0):
        torch.manual_seed(seed)
        model = AsrModel(tiny(), tokenizer, ModelIdentity(name="fresh", digest=f"{seed:032x}"))
        initialise(model, torch.randn(2, 80, 800), seed)
        return model.eval()

    return make


@pytest.fixture
def one_thread():
    """Bits depend on the number of threads: a killed process and this one must use as many."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def train(tones, tmp_path, one_thread):
    def run(model, config=CONFIG, *, out=tmp_path / "run", validation=(), utterances=None, sample=None, resume=False,
            **options):  # fmt: skip
        settings = RunConfig(out=out, workers=options.pop("workers", 0), **options)
        train_run(model, utterances or tones, list(validation), config, settings, sample=sample, must_resume=resume)
        return rows_in(out)

    return run
