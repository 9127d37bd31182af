"""Segment rows become files that other programs read."""

import json
import re
import unicodedata
from itertools import pairwise

import pytest

from dgasr.exports import cues, export_ctm, export_json, export_manifest, export_srt, export_txt, export_vtt
from dgasr.tables import text_width

SRT_BLOCK = re.compile(r"(\d+)\n(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})\n((?:.+\n){1,2})")


def row(
    index: int, start_s: float, end_s: float, text: str, words: list[tuple[str, float, float]] | None = None
) -> dict:
    """Make a segment row; words share its time evenly unless they are given."""
    texts = text.split()
    step = (end_s - start_s) / max(len(texts), 1)
    spans = words or [(w, start_s + i * step, start_s + (i + 1) * step) for i, w in enumerate(texts)]
    return {
        "segment_index": index,
        "start_s": start_s,
        "end_s": end_s,
        "text": text,
        "language": "en",
        "confidence": 0.5 if text else None,
        "flags": [],
        "words": [{"word": w, "start_s": s, "end_s": e, "confidence": 0.5} for w, s, e in spans],
    }


HOUR = [row(1, 3600.5, 3602.5, "three four"), row(0, 0.0, 1.0, "one two"), row(2, 3602.5, 3609.0, "")]
LONG = [row(0, 10.0, 70.0, " ".join(f"word{i}" for i in range(150)))]


def srt_blocks(text: str) -> list[tuple[int, int, int, str]]:
    """Read SubRip: number, start and end in ms, text; refuses anything between the blocks."""
    blocks = []
    for block in text.split("\n\n") if text else []:
        found = SRT_BLOCK.fullmatch(block.rstrip("\n") + "\n")
        assert found, block
        number, *clock = map(int, found.groups()[:9])
        start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (clock[:4], clock[4:]))
        blocks.append((number, start, end, found[10]))
    return blocks


def test_txt_has_a_line_for_each_segment_with_text():
    assert export_txt(HOUR) == "one two\nthree four\n"


def test_srt_counts_from_one_in_hours_and_milliseconds():
    assert export_srt(HOUR) == (
        "1\n00:00:00,000 --> 00:00:01,000\none two\n\n2\n01:00:00,500 --> 01:00:02,500\nthree four\n"
    )


def test_vtt_has_its_header_and_points():
    assert export_vtt(HOUR) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\none two\n\n01:00:00.500 --> 01:00:02.500\nthree four\n"
    )


def test_vtt_escapes_markup():
    assert "a&lt;b --&gt; c&amp;d" in export_vtt([row(0, 0, 4, "a<b --> c&d")])


def test_subtitles_are_short_and_do_not_overlap():
    blocks = srt_blocks(export_srt(LONG))
    assert [block[0] for block in blocks] == list(range(1, len(blocks) + 1))
    assert all(start < end <= start + 7000 for _, start, end, _ in blocks)
    assert all(first[2] <= second[1] for first, second in pairwise(blocks))
    assert all(len(line) <= 42 for block in blocks for line in block[3].splitlines())


def test_subtitles_lose_no_word():
    text = " ".join(" ".join(block[3].split()) for block in srt_blocks(export_srt(LONG)))
    assert text == LONG[0]["text"]


def test_no_subtitle_stands_through_a_pause():
    found = cues([row(0, 0, 10, "a b", [("a", 0, 1), ("b", 8, 9)])])
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(0, 1000), (8000, 9000)]


def test_a_subtitle_stays_as_long_as_it_takes_to_read_it():
    words = [("extraordinarily", 0, 0.4), ("complicated", 0.4, 0.8), ("sentence", 0.8, 1.0), ("so", 9, 9.1)]
    found = cues([row(0, 0, 10, "x", words)])
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(0, 1800), (9000, 9833)]


def test_a_subtitle_makes_way_for_the_next_one():
    found = cues([row(0, 0, 4, "x", [("a" * 84, 0, 1), ("b" * 84, 1.5, 4)])])
    assert found[0].end_ms == found[1].start_ms == 1500


def test_a_word_that_lasts_too_long_is_cut_short():
    assert [cue.end_ms for cue in cues([row(0, 0, 20, "aaah")])] == [7000]


def test_a_word_longer_than_two_lines_is_broken():
    found = cues([row(0, 0, 6, "x" * 100)])
    assert "".join(line for cue in found for line in cue.lines) == "x" * 100
    assert all(len(line) <= 42 for cue in found for line in cue.lines)


@pytest.mark.parametrize("num_words", [2, 60])
def test_words_without_length_still_make_cues_with_some(num_words):
    words = [("word", 1.0, 1.0)] * num_words
    blocks = srt_blocks(export_srt([row(0, 0, 2, "word " * num_words, words)]))
    assert all(start < end for _, start, end, _ in blocks)
    assert all(first[2] <= second[1] for first, second in pairwise(blocks))


def test_text_without_words_is_not_lost():
    segment = row(0, 0, 4, "text without times") | {"words": []}
    assert [cue.lines for cue in cues([segment])] == [("text without times",)]


def test_json_has_whisperx_keys():
    document = json.loads(export_json(HOUR, "en"))
    assert document["segments"][0] == {
        "start": 0.0,
        "end": 1.0,
        "text": "one two",
        "words": document["word_segments"][:2],
        "score": 0.5,
        "flags": [],
    }
    assert document["word_segments"][0] == {"word": "one", "start": 0.0, "end": 0.5, "score": 0.5}
    assert document["language"] == "en"


def test_a_manifest_line_counts_words_from_its_offset():
    lines = [json.loads(line) for line in export_manifest(HOUR, "/a/x.wav").splitlines()]
    assert lines[1] == {
        "audio_filepath": "/a/x.wav",
        "offset": 3600.5,
        "duration": 2.0,
        "text": "three four",
        "language": "en",
        "words": [{"word": "three", "start_s": 0.0, "end_s": 1.0}, {"word": "four", "start_s": 1.0, "end_s": 2.0}],
    }


def test_a_manifest_is_read_back_by_training(tmp_path):
    from dgasr.manifests import read_manifest

    (tmp_path / "m.jsonl").write_text(export_manifest(HOUR, "/a/x.wav"))
    assert [(u.offset, u.duration, u.text) for u in read_manifest(tmp_path / "m.jsonl")] == [
        (0.0, 1.0, "one two"),
        (3600.5, 2.0, "three four"),
    ]


def test_a_manifest_of_channels_is_read_back_channel_by_channel(tmp_path):
    from dgasr.manifests import read_manifest

    (tmp_path / "m.jsonl").write_text(export_manifest(CALL, "/a/x.wav"))
    found = [(u.text, u.channel, u.audio_track) for u in read_manifest(tmp_path / "m.jsonl")]
    assert sorted(found) == [("four five", 1, 0), ("one two", 0, 0), ("three", 0, 0)]


def test_a_recording_without_text_gives_valid_files():
    silent = [row(0, 0, 5, "")]
    assert (export_txt(silent), export_srt(silent), export_vtt(silent), export_manifest(silent, "x")) == (
        "",
        "",
        "WEBVTT\n",
        "",
    )
    assert json.loads(export_json(silent, None)) == {"segments": [], "word_segments": [], "language": None}


def test_subtitles_have_spaces_only_where_the_writing_has_them():
    words = [(word, index / 2, index / 2 + 0.5) for index, word in enumerate("今天天气很好")]
    assert "今天天气很好" in export_srt([row(0, 0.0, 3.0, "今天天气很好", words)])
    mixed = [("我", 0.0, 0.5), ("love", 0.5, 1.0), ("you", 1.0, 1.5)]
    assert "我love you" in export_srt([row(0, 0.0, 1.5, "我love you", mixed)])


CALL = [
    row(0, 0.0, 2.0, "one two") | {"channel": 0, "audio_track": 0},
    row(1, 5.0, 6.0, "three") | {"channel": 0, "audio_track": 0},
    row(2, 1.0, 4.0, "four five") | {"channel": 1, "audio_track": 0},
]
"""Two people, each on a channel of their own, who speak at once."""


def test_every_export_names_the_channel_and_keeps_the_order_of_time():
    said = ["[channel 0] one two", "[channel 1] four five", "[channel 0] three"]
    assert export_txt(CALL).splitlines() == said
    assert [block[3].strip() for block in srt_blocks(export_srt(CALL))] == said
    assert [line for line in export_vtt(CALL).splitlines() if line.startswith("<v")] == [
        "<v channel 0>one two", "<v channel 1>four five", "<v channel 0>three"
    ]  # fmt: skip
    document = json.loads(export_json(CALL, "en"))
    assert [(part["channel"], part["speaker"]) for part in document["segments"]] == [
        (0, "channel 0"), (1, "channel 1"), (0, "channel 0")
    ]  # fmt: skip
    assert [word["speaker"][-1] for word in document["word_segments"]] == list("00110")
    assert [json.loads(line)["channel"] for line in export_manifest(CALL, "a").splitlines()] == [0, 1, 0]
    assert [line.split()[:2] for line in export_ctm(CALL, "my call").splitlines()] == [
        ["my_call", channel] for channel in "11221"
    ]  # fmt: skip


def test_tracks_are_named_where_there_are_several():
    tracks = [{**one, "audio_track": one["channel"], "channel": 0} for one in CALL]
    assert export_txt(tracks).startswith("[track 0] one two\n[track 1] four five\n")
    assert {line.split()[1] for line in export_ctm(tracks, "a").splitlines()} == {"1.1", "2.1"}


def test_one_channel_alone_is_not_named():
    assert "channel" not in export_txt(CALL[2:]) + export_srt(CALL[2:]) + export_json(CALL[2:], "en")
    assert export_ctm(CALL[2:], "a") == "a 2 1.000 1.500 four 0.500\na 2 2.500 1.500 five 0.500\n"


@pytest.mark.parametrize("syllable", ["ที่นี่", "ကြောင်", "한국어를잘", "漢字"])
def test_a_text_without_spaces_and_times_is_cut_into_lines_that_fit_but_never_before_a_mark(syllable):
    lines = [line for cue in cues([row(0, 0, 40, 60 * syllable) | {"words": []}]) for line in cue.lines]
    assert "".join(lines) == 60 * syllable
    assert not [line for line in lines if unicodedata.category(line[0])[0] == "M"]
    assert max(map(text_width, lines)) <= 42 + 3  # marks that take room, in Myanmar
