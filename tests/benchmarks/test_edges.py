"""What `python -m benchmarks edges` measures: words that a model is said to have heard, and once the digits."""

import json
from types import SimpleNamespace

import numpy as np
import soundfile

from benchmarks import edges
from benchmarks.__main__ import run
from dgasr.manifests import Utterance
from dgasr.records import SAMPLE_RATE_HZ, Word
from dgasr.samples import MANIFEST

MS = SAMPLE_RATE_HZ // 1000


def word(text: str, start: int, end: int) -> Word:
    return Word(word=text, start_sample=start, end_sample=end, confidence=1.0)


def utterance(folder) -> Utterance:
    """A second of noise in which two words lie from 200 to 900 ms."""
    waveform = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE_HZ)
    soundfile.write(folder / "clip.wav", waveform, SAMPLE_RATE_HZ)
    return Utterance(
        audio_filepath=str(folder / "clip.wav"), duration=1.0, text="one two", language="en",
        words=(word("one", 200 * MS, 500 * MS), word("two", 500 * MS, 900 * MS)),
    )  # fmt: skip


def heard(monkeypatch, *words: Word) -> list[np.ndarray]:
    """Let any model hear these words; what it was given to hear is in the list."""
    given = []

    def transcribe(path, model):
        given.append(soundfile.read(path)[0])
        return SimpleNamespace(words=words)

    monkeypatch.setattr(edges, "transcribe", transcribe)
    return given


def test_errors_are_those_of_the_first_begin_and_the_last_end(monkeypatch, tmp_path):
    given = heard(monkeypatch, word("one", 530 * MS, 700 * MS), word("two", 800 * MS, 1180 * MS))
    assert edges.edge_errors(None, utterance(tmp_path)) == (30.0, -20.0)
    assert len(given[0]) == (500 + 700 + 500) * MS
    assert not given[0][: 500 * MS].any()
    assert not given[0][-500 * MS :].any()
    assert given[0][500 * MS : 510 * MS].any()


def test_another_word_has_no_error(monkeypatch, tmp_path):
    heard(monkeypatch, word("on", 530 * MS, 700 * MS), word("Two", 800 * MS, 1180 * MS))
    assert edges.edge_errors(None, utterance(tmp_path)) == (None, -20.0)
    heard(monkeypatch)
    assert edges.edge_errors(None, utterance(tmp_path)) == (None, None)


def test_medians_are_of_the_absolute_error(monkeypatch, tmp_path):
    starts = iter((470, 520, 540))
    monkeypatch.setattr(
        edges, "transcribe", lambda path, model: SimpleNamespace(words=[word("one", next(starts) * MS, 600 * MS)])
    )
    found = edges.measure(None, [utterance(tmp_path)] * 3)
    assert (found["begin"]["median_ms"], found["begin"]["bias_ms"], found["begin"]["matched"]) == (30.0, 20.0, 3)
    assert found["end"] == {
        "median_ms": None, "median_95_ms": None, "bias_ms": None, "matched": 0, "utterances": 3,
    }  # fmt: skip


def test_the_benchmark_runs_on_the_samples(tmp_path, capsys):
    out = tmp_path / "edges.json"
    run("edges", ["--words", str(MANIFEST), "--model", "tiny", "--limit", "3", "--json", str(out)])
    figures = json.loads(out.read_text())
    assert figures["begin"]["utterances"] == figures["end"]["utterances"] <= 3
    assert "median_ms" in capsys.readouterr().out
