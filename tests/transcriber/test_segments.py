"""What a segment becomes does not depend on its company. All comparisons are exact: text, times, confidence, steps."""

import random

import pytest

from dgasr.diffusion import denoise
from dgasr.errors import ConfigError
from dgasr.transcriber import Transcriber
from dgasr.transcriber import segments as composition


@pytest.fixture(scope="module")
def run(model, recipe):
    def run_segments(segments, batch_size):
        transcripts = Transcriber(model, recipe, batch_size).transcribe(segments)
        return {transcript.segment: transcript for transcript in transcripts}

    return run_segments


@pytest.fixture(scope="module")
def wanted(run, segments):
    return run(segments, 8)


def test_every_segment_has_one_transcript(model, recipe, segments):
    transcripts = list(Transcriber(model, recipe, 3).transcribe(segments))
    found = sorted(transcript.segment.segment_index for transcript in transcripts)
    assert found == list(range(len(segments)))


def test_these_segments_differ_in_length_steps_and_text(wanted):
    assert len({transcript.canvas_tokens for transcript in wanted.values()}) > 1
    assert len({transcript.num_steps for transcript in wanted.values()}) > 1
    assert len({transcript.text for transcript in wanted.values()}) > 4


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_batch_size_changes_nothing(run, segments, wanted, batch_size):
    assert run(segments, batch_size) == wanted


def test_the_order_changes_nothing(run, segments, wanted):
    shuffled = random.Random(3).sample(segments, len(segments))
    assert run(shuffled, 3) == wanted


def test_a_segment_alone_is_what_it_is_in_company(run, segments, wanted):
    segment = segments[4].segment
    assert run(segments[4:5], 8) == {segment: wanted[segment]}


def test_reading_beside_the_next_steps_changes_nothing(run, segments, wanted, monkeypatch):
    monkeypatch.setattr(composition, "waits_for", lambda device: True)
    assert run(segments, 3) == wanted


def test_words_spell_the_text_in_order_inside_the_segment(wanted):
    for segment, transcript in wanted.items():
        assert " ".join(word.word for word in transcript.words) == transcript.text
        edges = [edge for word in transcript.words for edge in (word.start_sample, word.end_sample)]
        assert edges == sorted(edges)
        assert all(segment.start_sample <= edge <= segment.end_sample for edge in edges)


def test_confidence_is_a_probability_of_every_word_and_segment(wanted):
    for transcript in wanted.values():
        assert 0 <= transcript.confidence <= 1
        assert all(0 <= word.confidence <= 1 for word in transcript.words)


def test_segments_are_pulled_a_number_of_batches_ahead_only(model, recipe, segments):
    pulled = []

    def endless():
        while True:
            pulled.append(1)
            yield segments[len(pulled) % len(segments)]

    next(Transcriber(model, recipe, 2).transcribe(endless()))
    assert len(pulled) <= 2 * (denoise.LOOK_AHEAD_BATCHES + 1)


def test_no_segments_are_no_transcripts(run):
    assert run([], 3) == {}


def test_a_batch_without_rows_is_refused(model, recipe):
    with pytest.raises(ConfigError, match="--batch-size 0"):
        Transcriber(model, recipe, 0)
