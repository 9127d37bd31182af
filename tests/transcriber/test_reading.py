import pytest
import torch

from dgasr.transcriber.encoding import SegmentEncoder, aligned_log_probs
from dgasr.transcriber.segments import read_transcript


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
