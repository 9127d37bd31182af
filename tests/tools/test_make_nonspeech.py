import json
import sys

import numpy as np
import pytest
import soundfile

from dgasr.manifests import read_manifest
from tools.make_nonspeech import KINDS, SAMPLE_RATE_HZ, main


@pytest.fixture
def make(tmp_path, monkeypatch):
    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", ["make_nonspeech", str(tmp_path / name), "--clip-s", "2", *arguments])
        main()
        return tmp_path / name

    return run


def power_at(waveform, low_hz, high_hz):
    frequencies_hz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE_HZ)
    inside = (frequencies_hz >= low_hz) & (frequencies_hz < high_hz)
    return np.square(np.abs(np.fft.rfft(waveform)))[inside].mean()


def test_equal_arguments_write_equal_files(make):
    first, second = make("a", "--clips", "2"), make("b", "--clips", "2")
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert len(files) == 2 * len(KINDS) + 1
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in files)


def test_more_clips_leave_the_others_as_they_were(make):
    few, many = make("few", "--clips", "1"), make("many", "--clips", "3")
    assert all((few / f"{kind}/000.wav").read_bytes() == (many / f"{kind}/000.wav").read_bytes() for kind in KINDS)


def test_the_manifest_can_be_evaluated(make):
    utterances = read_manifest(make("a", "--clips", "2") / "manifest.jsonl")
    assert {utterance.set_name for utterance in utterances} == set(KINDS)
    assert {(utterance.text, utterance.language, utterance.duration) for utterance in utterances} == {("", "en", 2.0)}
    assert all(soundfile.info(utterance.audio_filepath).duration == 2.0 for utterance in utterances)


def test_clips_are_loud_normal_and_nearly_inaudible(make):
    folder = make("a", "--clips", "3")
    peaks = [np.abs(soundfile.read(folder / f"music/00{n}.wav")[0]).max() for n in range(3)]
    assert peaks == pytest.approx([0.5, 0.1, 0.02], abs=1e-3)
    assert np.abs(soundfile.read(folder / "silence/000.wav")[0]).max() < 1e-3


def test_white_noise_is_flat_and_pink_noise_falls_by_3_db_an_octave():
    ratios_db = {}
    for kind in ("white_noise", "pink_noise"):
        waveform = KINDS[kind](np.random.default_rng(0), 10 * SAMPLE_RATE_HZ)
        ratios_db[kind] = 10 * np.log10(power_at(waveform, 200, 400) / power_at(waveform, 1600, 3200))
    assert ratios_db["white_noise"] == pytest.approx(0, abs=0.5)
    assert ratios_db["pink_noise"] == pytest.approx(9, abs=0.7)


def test_speech_of_other_languages_gets_an_empty_text(make, tmp_path):
    rows = [
        {"audio_filepath": f"{c}{n}.opus", "duration": 1.5, "language": c, "text": "x"}
        for c in ("en", "de", "fr")
        for n in range(9)
    ]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    utterances = read_manifest(make("a", "--clips", "3", "--speech16", str(tmp_path)) / "manifest.jsonl")
    spoken = [u for u in utterances if u.set_name.startswith("speech")]
    assert [u.set_name for u in spoken] == ["speech_de"] * 3 + ["speech_fr"] * 3
    assert spoken[1].audio_filepath == str(tmp_path / "de3.opus")
    assert {(u.text, u.language) for u in spoken} == {("", "en")}
