"""What a segment becomes does not depend on its company. All comparisons are exact: text, times, confidence, steps."""

import random
from dataclasses import replace

import pytest
import torch

from dgasr.diffusion import denoise
from dgasr.errors import ConfigError
from dgasr.transcriber import Transcriber
from dgasr.transcriber import segments as composition
from dgasr.transcriber.encoding import SegmentEncoder, aligned_log_probs
from dgasr.transcriber.segments import read_transcript


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


@pytest.fixture(scope="module")
def encoded(model, recipe, segments):
    (encoded,) = SegmentEncoder(model, recipe, 1).encode(segments[2:3])
    return encoded


@pytest.fixture(scope="module")
def read(model, recipe):
    """Function: the transcript of a segment's ids; against what CTC reads, unless said."""

    def of(encoded, ids, probabilities, **options):
        log_probs = aligned_log_probs(model, encoded, torch.tensor(ids, dtype=torch.long)).numpy()
        options = {"alternative_ids": encoded.ctc.ids, **options}
        return read_transcript(model.tokenizer, recipe, encoded.features, ids, probabilities, log_probs, **options)

    return of


def test_ids_become_text_and_words_with_times_of_the_recording(model, read, encoded):
    ids = model.tokenizer.encode("three one four")
    transcript = read(encoded, ids, [0.9, 0.8, 0.7], num_steps=5, canvas_tokens=16)
    segment = encoded.features.segment
    assert transcript.text == "three one four"
    assert [word.word for word in transcript.words] == ["three", "one", "four"]
    assert all(segment.start_sample <= w.start_sample < w.end_sample <= segment.end_sample for w in transcript.words)
    assert (transcript.timing_source, transcript.language) == ("ctc", "en")
    assert (transcript.num_steps, transcript.canvas_tokens) == (5, 16)


def test_words_are_written_out_at_last_and_nothing_else_changes(model, read, encoded):
    class Punctuator:
        def written(self, words):
            assert words in (["three", "one", "four"], [])
            return ["Three,", "one", "four."][: len(words)]

    ids = model.tokenizer.encode("three one four")
    plain, found = (read(encoded, ids, [0.9, 0.8, 0.7], punctuator=own) for own in (None, Punctuator()))
    assert found.text == "Three, one four."
    assert [word.word for word in found.words] == ["Three,", "one", "four."]
    words = [replace(word, word=own.word) for word, own in zip(found.words, plain.words, strict=True)]
    assert replace(found, text=plain.text, words=tuple(words)) == plain
    assert read(encoded, [], [], punctuator=Punctuator()).text == ""


def test_what_the_decoder_doubts_is_less_sure(model, read, encoded):
    ids = model.tokenizer.encode("three one")
    sure, unsure = (read(encoded, ids, [one, 0.9]) for one in (0.9, 0.1))
    assert unsure.words[0].confidence < sure.words[0].confidence
    assert unsure.words[1].confidence == sure.words[1].confidence


def test_no_ids_are_an_empty_text_without_times(read, encoded):
    transcript = read(encoded, [], [])
    assert (transcript.text, transcript.words, transcript.timing_source) == ("", (), "none")
    assert 0 <= transcript.confidence <= 1


def test_a_canvas_that_did_not_settle_or_hold_the_text_is_flagged(model, read, encoded):
    ids = model.tokenizer.encode("three")
    plain = read(encoded, ids, [0.9])
    doubted = read(encoded, ids, [0.9], is_settled=False, is_overflow=True)
    assert set(doubted.flags) - set(plain.flags) == {"unsettled", "overflow"}


def test_text_where_ctc_hears_nothing_is_flagged(model, read, encoded):
    assert "no_speech" in read(encoded, model.tokenizer.encode("one"), [0.9], alternative_ids=()).flags


def test_a_text_that_was_preferred_to_quite_another_is_flagged(model, read, encoded):
    ids, other = (model.tokenizer.encode(text) for text in ("one two", "six"))
    alike = read(encoded, ids, [0.9, 0.9], alternative_ids=ids)
    unlike = read(encoded, ids, [0.9, 0.9], alternative_ids=other)
    assert set(unlike.flags) - set(alike.flags) == {"ctc_disagrees"}


def test_special_tokens_on_the_canvas_are_no_words(model, read, encoded):
    ids = [model.config.prompt.audio_id, *model.tokenizer.encode("one"), model.config.blank_id]
    transcript = read(encoded, ids, [0.5, 0.9, 0.5])
    assert transcript.text == "one"
    assert [word.word for word in transcript.words] == ["one"]
