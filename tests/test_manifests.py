import json
from collections import Counter

import pytest

from dgasr.errors import ConfigError
from dgasr.manifests import (
    EVERYTHING,
    Selection,
    Utterance,
    num_samples,
    read_manifest,
    select_utterances,
    write_manifest,
)
from dgasr.records import Word

ROW = {"audio_filepath": "a.wav", "duration": 1.5, "text": "one two", "language": "en"}


def manifest(folder, *rows):
    path = folder / "manifest.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_relative_audio_is_taken_from_the_manifests_folder_and_absolute_stays(tmp_path):
    path = manifest(tmp_path, ROW, "", ROW | {"audio_filepath": "/somewhere/a.wav", "dnsmos": 3.1})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte order mark is no part of the first row
    assert [u.audio_filepath for u in read_manifest(path)] == [str(tmp_path / "a.wav"), "/somewhere/a.wav"]


def test_what_was_written_is_read_back(tmp_path):
    word = Word(word="eins", start_sample=801, end_sample=15_999, confidence=1.0)
    utterance = Utterance(
        audio_filepath=str(tmp_path / "audio" / "ä.flac"), duration=1.0, text="eins", language="de", words=(word,),
        speaker="anna", offset=2.25, set_name="books", channel=1, audio_track=0,
    )  # fmt: skip
    write_manifest(tmp_path / "manifest.jsonl", [utterance])
    assert read_manifest(tmp_path / "manifest.jsonl") == [utterance]
    written = json.loads((tmp_path / "manifest.jsonl").read_text())
    assert written["audio_filepath"] == "audio/ä.flac"  # so that the folder can move
    plain = Utterance(audio_filepath=str(tmp_path / "a.wav"), duration=1.0, text="", language="en")
    write_manifest(tmp_path / "manifest.jsonl", [plain])
    assert json.loads((tmp_path / "manifest.jsonl").read_text()).keys() == {*ROW}
    assert read_manifest(tmp_path / "manifest.jsonl") == [plain]


def test_every_sample_position_survives_seconds():
    assert all(num_samples(sample / 16_000) == sample for sample in range(0, 3_000_000, 997))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "2: `the line`: Invalid JSON"), ("[1]", "2: `the line`: .*object"),
        (ROW | {"duration": "1.5"}, "2: `duration`: .*number"),
        (ROW | {"duration": float("nan")}, "2: `duration`: .*finite"),
        (ROW | {"duration": 0}, "2: `duration`: .*greater than 0"), (ROW | {"offset": -1}, "2: `offset`: .*greater"),
        (ROW | {"channel": "left"}, "2: `channel`: .*integer"),
        (ROW | {"audio_track": -1}, "2: `audio_track`: .*greater than or equal to 0"),
        (ROW | {"audio_filepath": ""}, "2: `audio_filepath`: .*at least 1"),
        (ROW | {"text": None}, "2: `text`: .*string"),
        ({key: ROW[key] for key in ROW if key != "language"}, "2: `language`: Field required"),
        (ROW | {"words": ["one"]}, r"2: `words\.0`: .*object"),
        (ROW | {"words": [{"word": "one", "start_s": 0.1}]}, r"2: `words\.0\.end_s`: Field required"),
        (ROW | {"words": [{"word": "one", "start_s": 0.2, "end_s": 0.1}]}, r"2: `words\.0`: `end_s` lies before"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_its_number_and_field(tmp_path, row, message):
    with pytest.raises(ConfigError, match=f"manifest.jsonl:{message}"):
        read_manifest(manifest(tmp_path, ROW, row))


def test_an_empty_manifest_and_a_missing_one_are_refused(tmp_path):
    for path, message in ((manifest(tmp_path, ""), "holds no utterance"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ConfigError, match=message):
            read_manifest(path)


def said(set_name, language="en", count=1):
    return [
        Utterance(audio_filepath=f"{set_name}{n}.wav", duration=1.0, text="one", language=language, set_name=set_name)
        for n in range(count)
    ]


SPOKEN = [*said("books", count=100), *said("calls", count=3), *said("bücher", "de", 50)]


def test_languages_and_sets_are_both_asked_for_and_everything_is_the_default():
    assert select_utterances(SPOKEN, EVERYTHING) == SPOKEN
    assert {u.set_name for u in select_utterances(SPOKEN, Selection(languages=("en",)))} == {"books", "calls"}
    assert len(select_utterances(SPOKEN, Selection(sets=("calls", "bücher")))) == 53
    assert len(select_utterances(SPOKEN, Selection(languages=("de",), sets=("bücher",)))) == 50


def test_a_subset_is_named_without_its_corpus():
    rows = [*said("books test.clean"), *said("calls test.clean"), *said("books test.other"), *said(None)]
    chosen = select_utterances(rows, Selection(sets=("test.clean",)))
    assert [u.set_name for u in chosen] == ["books test.clean", "calls test.clean"]
    assert len(select_utterances(rows, Selection(sets=("books test.other",)))) == 1


def test_a_limit_is_spread_over_sets_or_languages_and_over_each_and_small_sets_give_all():
    chosen = select_utterances(SPOKEN, Selection(limit=31))
    assert Counter(u.set_name for u in chosen) == {"books": 14, "calls": 3, "bücher": 14}
    chosen = select_utterances(SPOKEN, Selection(sets=("books",), limit=4))
    assert [SPOKEN.index(utterance) for utterance in chosen] == [0, 25, 50, 75]
    rows = [*said(None, "en", 20), *said(None, "de", 20)]
    assert Counter(u.language for u in select_utterances(rows, Selection(limit=6))) == {"en": 3, "de": 3}


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"sets": ("films",)}, "--subset films: not in the manifest. It holds books, bücher, calls"),
        ({"languages": ("fr",)}, "--languages fr: .* It holds de, en"),
        ({"sets": ("calls",), "languages": ("de",)}, "No utterance is of these sets"),
    ],
)
def test_what_the_manifest_does_not_hold_is_refused_with_what_it_holds(selection, message):
    with pytest.raises(ConfigError, match=message):
        select_utterances(SPOKEN, Selection(**selection))
