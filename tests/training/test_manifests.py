import json

import pytest

from dgasr.errors import ConfigError
from dgasr.records import Word
from dgasr.training.manifests import Utterance, num_samples, read_manifest, write_manifest

ROW = {"audio_filepath": "a.wav", "duration": 1.5, "text": "one two", "language": "en"}


def manifest(folder, *rows):
    path = folder / "manifest.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_relative_audio_is_taken_from_the_manifests_folder(tmp_path):
    [utterance] = read_manifest(manifest(tmp_path, ROW))
    assert utterance.audio_filepath == str(tmp_path / "a.wav")


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    path = manifest(tmp_path, ROW)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_manifest(path)) == 1


def test_absolute_audio_stays_where_it_is(tmp_path):
    [utterance] = read_manifest(manifest(tmp_path, ROW | {"audio_filepath": "/somewhere/a.wav"}))
    assert utterance.audio_filepath == "/somewhere/a.wav"


def test_what_was_written_is_read_back(tmp_path):
    word = Word(word="eins", start_sample=801, end_sample=15_999, confidence=1.0)
    utterance = Utterance(
        audio_filepath=str(tmp_path / "audio" / "ä.flac"),
        duration=1.0,
        text="eins",
        language="de",
        words=(word,),
        speaker="anna",
        offset=2.25,
        set_name="books",
        channel=1,
        audio_track=0,
    )
    write_manifest(tmp_path / "manifest.jsonl", [utterance])
    assert read_manifest(tmp_path / "manifest.jsonl") == [utterance]


def test_audio_below_the_manifest_is_written_as_a_relative_path(tmp_path):
    audio = str(tmp_path / "audio" / "a.wav")
    write_manifest(tmp_path / "m.jsonl", [Utterance(audio_filepath=audio, duration=1.0, text="", language="en")])
    assert json.loads((tmp_path / "m.jsonl").read_text())["audio_filepath"] == "audio/a.wav"


def test_every_sample_position_survives_seconds():
    assert all(num_samples(sample / 16_000) == sample for sample in range(0, 3_000_000, 997))


def test_blank_lines_and_unknown_fields_are_passed_over(tmp_path):
    assert len(read_manifest(manifest(tmp_path, ROW | {"dnsmos": 3.1}, "", ROW))) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "2: not JSON"),
        ("[1]", "2: a JSON list"),
        (ROW | {"duration": "1.5"}, "2: `duration` must be seconds"),
        (ROW | {"duration": float("nan")}, "2: `duration` must be seconds"),
        (ROW | {"duration": 0}, "2: `duration` is 0"),
        (ROW | {"channel": "left"}, "2: `channel` must be a number from 0"),
        (ROW | {"audio_track": -1}, "2: `audio_track` must be a number from 0"),
        (ROW | {"offset": -1}, "2: `offset` must be seconds"),
        (ROW | {"audio_filepath": ""}, "2: `audio_filepath` must be text"),
        (ROW | {"text": None}, "2: `text` must be text"),
        ({key: ROW[key] for key in ROW if key != "language"}, "2: `language` must be text"),
        (ROW | {"words": ["one"]}, "2: `words` must be a list of objects"),
        (ROW | {"words": [{"word": "one", "start_s": 0.1}]}, "2, words.0.: `end_s` must be seconds"),
        (
            ROW | {"words": [{"word": "one", "start_s": 0.2, "end_s": 0.1}]},
            "2, words.0.: `end_s` lies before `start_s`",
        ),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_field(tmp_path, row, message):
    with pytest.raises(ConfigError, match=f"manifest.jsonl:{message}"):
        read_manifest(manifest(tmp_path, ROW, row))


def test_an_empty_manifest_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no utterance"):
        read_manifest(manifest(tmp_path, ""))


def test_a_missing_manifest_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")
