import numpy as np
import pytest
import soundfile

from dgasr.errors import ConfigError
from dgasr.manifests import read_manifest
from tools.tiny.corpora import (
    TRAIN_INDICES,
    VALIDATION_INDICES,
    ConnectedDigitsConfig,
    connected_digits,
    digits_manifest,
    main,
    make_corpora,
    speakers_in,
)

RATE_HZ = 8_000
CONFIG = ConnectedDigitsConfig(num_utterances=12, max_digits=4)


@pytest.fixture
def fsdd(tmp_path):
    """A folder laid out as the Free Spoken Digit Dataset, with a tone of its own length for every recording."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for speaker in ("anna", "boris"):
            for index in (0, 4, 5):
                length = 1000 + 100 * digit + index
                tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(length) / RATE_HZ)
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", tone, RATE_HZ)
    return folder.parent


def test_every_manifest_is_written_with_the_number_of_utterances_told(fsdd, tmp_path):
    made = dict(make_corpora(fsdd, tmp_path / "out", ConnectedDigitsConfig(num_utterances=2), voices=None))
    assert {str(path.relative_to(tmp_path / "out")) for path in made} == {
        "fsdd-train.jsonl",
        "fsdd-valid.jsonl",
        "connected-valid/manifest.jsonl",
        "connected-train/manifest.jsonl",
        "fsdd-train-without-anna.jsonl",
        "fsdd-train-without-boris.jsonl",
        "connected-train/without-anna.jsonl",
        "connected-train/without-boris.jsonl",
        "connected-anna/manifest.jsonl",
        "connected-boris/manifest.jsonl",
    }
    assert all(len(read_manifest(path)) == number for path, number in made.items())


def test_a_left_out_speaker_is_not_trained_on(fsdd, tmp_path):
    list(make_corpora(fsdd, tmp_path / "out", ConnectedDigitsConfig(num_utterances=2), voices=None))
    rest = read_manifest(tmp_path / "out" / "fsdd-train-without-anna.jsonl")
    alone = read_manifest(tmp_path / "out" / "connected-anna" / "manifest.jsonl")
    calibration = read_manifest(tmp_path / "out" / "connected-train" / "without-anna.jsonl")
    heard = {utterance.speaker for utterance in (*rest, *calibration)}
    assert (heard, {utterance.speaker for utterance in alone}) == ({"boris"}, {"anna"})


def test_connected_digits_are_words_where_the_sound_is_with_pauses_that_are_no_digital_silence(fsdd, tmp_path):
    utterances = connected_digits(fsdd, tmp_path / "out", CONFIG)
    assert read_manifest(tmp_path / "out" / "manifest.jsonl") == utterances
    assert [utterance.speaker for utterance in utterances] == ["anna", "boris"] * 6
    for utterance in utterances:
        waveform, rate_hz = soundfile.read(utterance.audio_filepath)
        assert (rate_hz, len(waveform) / rate_hz) == (16_000, utterance.duration)
        is_word = np.zeros(len(waveform), dtype=bool)
        for word in utterance.words:
            is_word[word.start_sample : word.end_sample] = True
            assert np.abs(waveform[word.start_sample : word.end_sample]).max() > 0.3
        assert 0 < np.abs(waveform[~is_word]).max() < 0.01
        for before, after in zip(utterance.words, utterance.words[1:], strict=False):
            assert 0.05 * 16_000 - 1 <= after.start_sample - before.end_sample <= 0.3 * 16_000 + 1


def test_equal_seeds_give_equal_files_of_the_wanted_speakers(fsdd, tmp_path):
    for name in ("one", "two"):
        found = connected_digits(fsdd, tmp_path / name, CONFIG, speakers=["boris"])
        assert {utterance.speaker for utterance in found} == {"boris"}
    files = [sorted(path for path in (tmp_path / name).iterdir() if path.suffix == ".flac") for name in ("one", "two")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


@pytest.mark.parametrize("fields", [{"min_digits": 0}, {"min_gap_s": 0.5}, {"num_utterances": 0}, {"min_edge_s": -1.0}])
def test_impossible_ranges_are_refused(fields):
    with pytest.raises(ConfigError, match="connected digits: "):
        ConnectedDigitsConfig(**fields)


def test_only_the_wanted_takes_and_speakers_are_listed_and_each_word_spans_its_recording(fsdd, tmp_path):
    assert speakers_in(fsdd) == ("anna", "boris")
    assert not set(TRAIN_INDICES) & set(VALIDATION_INDICES)
    utterances = digits_manifest(fsdd, tmp_path / "m.jsonl", speakers=["anna"], indices=VALIDATION_INDICES)
    found = {(utterance.speaker, utterance.audio_filepath.rsplit("_", 1)[1]) for utterance in utterances}
    assert found == {("anna", "0.wav"), ("anna", "4.wav")}
    utterance, *others = digits_manifest(fsdd / "recordings", tmp_path / "m.jsonl")  # the folder itself is taken too
    assert (utterance.text, utterance.words[0].start_sample, utterance.words[0].end_sample) == ("zero", 0, 2 * 1005)
    assert [utterance, *others] == read_manifest(tmp_path / "m.jsonl")
    assert len(others) == 19


@pytest.mark.parametrize(
    ("folder", "choice", "message"),
    [("fsdd", {"speakers": ["carl"]}, r"no speaker 'carl'. Known: anna, boris"),
     ("fsdd", {"indices": [77]}, "no recording with an index of"),
     ("", {}, "no recordings named DIGIT_SPEAKER_INDEX")],
)  # fmt: skip
def test_what_the_data_set_does_not_hold_is_refused(fsdd, tmp_path, folder, choice, message):
    with pytest.raises(ConfigError, match=message):
        digits_manifest(tmp_path / folder, tmp_path / "m.jsonl", **choice)


def test_the_command_refuses_a_file_in_a_folders_place_and_a_missing_data_set(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main([str(tmp_path / "file"), "--fsdd", "."]) == 2
    assert (tmp_path / "file").read_text() == "mine"
    assert main([str(tmp_path / "out"), "--fsdd", str(tmp_path), "--no-voices"]) == 2
    assert "Free Spoken Digit Dataset" in capsys.readouterr().err
