import numpy as np
import pytest
import soundfile

from dgasr.errors import ConfigError
from dgasr.training.corpora import ConnectedDigitsConfig, connected_digits
from dgasr.training.manifests import read_manifest

CONFIG = ConnectedDigitsConfig(num_utterances=12, max_digits=4)


def test_words_lie_where_the_sound_is(fsdd, tmp_path):
    for utterance in connected_digits(fsdd, tmp_path / "out", CONFIG):
        waveform, _ = soundfile.read(utterance.audio_filepath)
        is_word = np.zeros(len(waveform), dtype=bool)
        for word in utterance.words:
            is_word[word.start_sample : word.end_sample] = True
            assert np.abs(waveform[word.start_sample : word.end_sample]).max() > 0.3
        assert np.abs(waveform[~is_word]).max() < 0.01


def test_no_pause_is_digital_silence(fsdd, tmp_path):
    utterance = connected_digits(fsdd, tmp_path / "out", CONFIG)[0]
    waveform, _ = soundfile.read(utterance.audio_filepath)
    assert waveform[: utterance.words[0].start_sample].std() > 0


def test_audio_is_as_long_as_the_manifest_says(fsdd, tmp_path):
    connected_digits(fsdd, tmp_path / "out", CONFIG)
    for utterance in read_manifest(tmp_path / "out" / "manifest.jsonl"):
        info = soundfile.info(utterance.audio_filepath)
        assert (info.samplerate, info.frames / info.samplerate) == (16_000, utterance.duration)


def test_words_keep_the_gaps_asked_for(fsdd, tmp_path):
    for utterance in connected_digits(fsdd, tmp_path / "out", CONFIG):
        for before, after in zip(utterance.words, utterance.words[1:], strict=False):
            assert 0.05 * 16_000 - 1 <= after.start_sample - before.end_sample <= 0.3 * 16_000 + 1


def test_equal_seeds_give_equal_files(fsdd, tmp_path):
    for name in ("one", "two"):
        connected_digits(fsdd, tmp_path / name, CONFIG)
    files = [sorted((tmp_path / name).iterdir()) for name in ("one", "two")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_speakers_take_turns(fsdd, tmp_path):
    assert [u.speaker for u in connected_digits(fsdd, tmp_path / "out", CONFIG)] == ["anna", "boris"] * 6


def test_an_utterance_is_spoken_by_the_wanted_speaker_only(fsdd, tmp_path):
    assert {u.speaker for u in connected_digits(fsdd, tmp_path / "out", CONFIG, speakers=["boris"])} == {"boris"}


@pytest.mark.parametrize("fields", [{"min_digits": 0}, {"min_gap_s": 0.5}, {"num_utterances": 0}, {"min_edge_s": -1.0}])
def test_impossible_ranges_are_refused(fields):
    with pytest.raises(ConfigError, match="connected digits: "):
        ConnectedDigitsConfig(**fields)
