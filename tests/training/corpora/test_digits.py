import pytest

from dgasr.errors import ConfigError
from dgasr.training.corpora import TRAIN_INDICES, VALIDATION_INDICES, digits_manifest, speakers_in
from dgasr.training.manifests import read_manifest


def test_train_and_validation_takes_do_not_meet():
    assert not set(TRAIN_INDICES) & set(VALIDATION_INDICES)


def test_speakers_are_found(fsdd):
    assert speakers_in(fsdd) == ("anna", "boris")


def test_only_the_wanted_takes_and_speakers_are_listed(fsdd, tmp_path):
    utterances = digits_manifest(fsdd, tmp_path / "m.jsonl", speakers=["anna"], indices=VALIDATION_INDICES)
    assert {(u.speaker, u.audio_filepath.rsplit("_", 1)[1]) for u in utterances} == {
        ("anna", "0.wav"),
        ("anna", "4.wav"),
    }


def test_the_word_spans_the_recording(fsdd, tmp_path):
    utterance = digits_manifest(fsdd, tmp_path / "m.jsonl")[0]
    assert (utterance.text, utterance.words[0].start_sample, utterance.words[0].end_sample) == ("zero", 0, 2 * 1005)


def test_the_manifest_holds_what_was_returned(fsdd, tmp_path):
    assert digits_manifest(fsdd, tmp_path / "m.jsonl") == read_manifest(tmp_path / "m.jsonl")


def test_the_recordings_folder_itself_is_taken_too(fsdd, tmp_path):
    assert len(digits_manifest(fsdd / "recordings", tmp_path / "m.jsonl")) == 20


def test_an_unknown_speaker_is_refused(fsdd, tmp_path):
    with pytest.raises(ConfigError, match=r"no speaker 'carl'. Known: anna, boris"):
        digits_manifest(fsdd, tmp_path / "m.jsonl", speakers=["carl"])


def test_takes_that_do_not_exist_are_refused(fsdd, tmp_path):
    with pytest.raises(ConfigError, match="no recording with an index of"):
        digits_manifest(fsdd, tmp_path / "m.jsonl", indices=[77])


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no recordings named DIGIT_SPEAKER_INDEX"):
        digits_manifest(tmp_path, tmp_path / "m.jsonl")
