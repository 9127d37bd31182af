"""What `python -m benchmarks segmentation` counts, on recordings made by hand, and once to its end."""

import itertools
import json

import numpy as np
import pytest
import soundfile

from benchmarks.segmentation import Figures, Scene, SegmentationBenchmark, join, mix, report, shared_samples
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.samples import MANIFEST
from dgasr.segmentation import SegmentationConfig

LOUDNESS = SegmentationConfig(method="loudness")


def noise(duration_s: float, amplitude: float = 0.1) -> np.ndarray:
    size = round(duration_s * SAMPLE_RATE_HZ)
    return (amplitude * np.random.default_rng(size).standard_normal(size)).astype(np.float32)


def figures_of(scene: Scene, window_s: float = 8.0) -> Figures:
    figures = Figures(scene=scene.name, method="loudness", window_s=window_s)
    figures.add(scene, LOUDNESS)
    return figures


@pytest.mark.parametrize(
    ("some", "others", "shared"),
    [
        ([(0, 10)], [(5, 15)], 5),
        ([(0, 10), (20, 30)], [(5, 25)], 10),
        ([(0, 10)], [(0, 2), (3, 4), (9, 20)], 4),
        ([(0, 10)], [(10, 20)], 0),
        ([], [(0, 5)], 0),
    ],
)
def test_what_lies_in_both_lists_is_counted_once(some, others, shared):
    assert shared_samples(some, others) == shared
    assert shared_samples(others, some) == shared


def test_words_keep_their_places_when_utterances_are_joined():
    first, second, gap = noise(1.0), noise(2.0), np.zeros(8_000, dtype=np.float32)
    scene = join("s", [(first, [(100, 200)]), (second, [(300, 400)])], itertools.repeat(gap))
    assert list(scene.words) == [(100, 200), (24_300, 24_400)]
    assert list(scene.gaps) == [(16_000, 24_000), (56_000, 64_000)]
    np.testing.assert_array_equal(scene.waveform[24_000:56_000], second)


def test_a_background_lies_ten_decibels_below_the_words():
    speech, sound = np.zeros(100_000, dtype=np.float32), noise(1.0, 0.7)
    speech[40_000:60_000] = 0.2
    added = mix(Scene(name="s", waveform=speech, words=[(40_000, 60_000)]), sound) - speech
    assert np.square(added).mean() == pytest.approx(0.2**2 / 10, rel=0.02)


def test_a_cut_inside_a_word_is_counted_and_one_at_its_edge_is_not():
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * 5 * np.arange(12 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
    sound = noise(12.0) * swell.astype(np.float32)
    sound[round(7.0 * SAMPLE_RATE_HZ) :][:2_000] = 0  # the only place to cut
    cut = round(7.06 * SAMPLE_RATE_HZ)
    inside = Scene(name="s", waveform=sound, words=[(0, 1_600), (cut - 9_000, cut + 9_000)])
    beside = Scene(name="s", waveform=sound, words=[(0, cut), (cut, cut + 9_000)])
    assert (figures_of(inside).num_cuts, figures_of(inside).num_in_words) == (1, 1)
    assert (figures_of(beside).num_cuts, figures_of(beside).num_in_words) == (1, 0)


def test_words_in_silence_are_missed_and_gaps_in_speech_are_false():
    swelling = noise(3.0) * np.abs(np.sin(np.arange(48_000) / 1_000)).astype(np.float32)
    waveform = np.concatenate([swelling, np.zeros(80_000, dtype=np.float32)])
    found = figures_of(Scene(name="s", waveform=waveform, words=[(80_000, 96_000)], gaps=[(0, 16_000)]))
    assert (found.words_s, found.missed_s) == (1.0, 1.0)
    assert (found.gaps_s, found.false_s) == (1.0, 1.0)


def test_figures_of_both_methods_are_printed_and_written(tmp_path, capfd):
    lines = [json.loads(line) for line in MANIFEST.read_text().splitlines()]
    rows = [row for row in lines if row.get("words") and row["duration"] < 10][:2]
    for row in rows:
        row["audio_filepath"] = str(MANIFEST.parent / row["audio_filepath"])
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    soundfile.write(tmp_path / "hiss.wav", noise(3.0), SAMPLE_RATE_HZ)
    clip = {"audio_filepath": "hiss.wav", "duration": 3.0, "text": "", "language": "en", "set": "pink_noise"}
    (tmp_path / "nonspeech.jsonl").write_text(json.dumps(clip) + "\n")
    benchmark = SegmentationBenchmark(
        words=tmp_path / "words.jsonl", nonspeech=tmp_path / "nonspeech.jsonl", windows_s=(4.0,)
    )
    report(benchmark, tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    scenes = ["speech", "speech over pink_noise", "pink_noise between", "pink_noise alone"]
    assert [(row["scene"], row["method"]) for row in figures] == list(itertools.product(scenes, ("speech", "loudness")))
    assert "pink_noise alone" in capfd.readouterr().out
