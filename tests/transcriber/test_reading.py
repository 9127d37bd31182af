from dataclasses import replace

import pytest
import torch

from dgasr.transcriber import encoding
from dgasr.transcriber.encoding import SegmentEncoder
from dgasr.transcriber.hearing import Hearing
from dgasr.transcriber.reading import read_transcript


@pytest.fixture(scope="module")
def encoded(model, recipe, segments):
    (encoded,) = SegmentEncoder(model, recipe, 1).encode(segments[2:3])
    return encoded


def test_states_come_every_20_ms_of_audio_and_one_embedding_further(encoded):
    assert encoded.num_frames == -(-encoded.features.segment.num_samples // 320)
    embeddings = -(-encoded.num_frames // 8) + 1
    assert len(encoded.states) == len(encoded.log_partition) == 8 * embeddings


def test_a_short_segment_is_read_for_ctc_as_far_as_it_goes(model, recipe, segments, monkeypatch):
    read = []
    plain = SegmentEncoder._scan
    monkeypatch.setattr(SegmentEncoder, "_scan", lambda self, fine: read.append(len(fine)) or plain(self, fine))
    whole = list(SegmentEncoder(model, recipe, 4).encode(segments))
    monkeypatch.setattr(encoding, "LISTENED_LENGTHS", 1)
    for encoded, plainly in zip(whole, SegmentEncoder(model, recipe, 4).encode(segments), strict=True):
        torch.testing.assert_close(encoded.states, plainly.states, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encoded.log_partition, plainly.log_partition, atol=1e-4, rtol=1e-4)
        assert encoded.hearing.ids == plainly.hearing.ids
    lengths = read[: len(segments)]
    assert all(length >= len(encoded.states) for length, encoded in zip(lengths, whole, strict=True))
    assert 1 < len({*lengths}) <= 8
    assert {*read[len(segments) :]} == {400}


def test_the_encoder_fills_its_last_batch_up_and_drops_the_filling(model, recipe, segments):
    found = [encoded.features for encoded in SegmentEncoder(model, recipe, 4).encode(segments)]
    assert found == segments


def test_a_large_batch_is_encoded_in_parts(model, recipe, segments, monkeypatch):
    whole = list(SegmentEncoder(model, recipe, 4).encode(segments))
    monkeypatch.setattr(encoding, "ENCODED_AT_ONCE", 3)
    sizes = []
    plain = model.encode_audio
    monkeypatch.setattr(model, "encode_audio", lambda log_mel: sizes.append(len(log_mel)) or plain(log_mel))
    for part, encoded in zip(SegmentEncoder(model, recipe, 100).encode(segments), whole, strict=True):
        assert torch.equal(part.states, encoded.states)
        assert torch.equal(part.keys_values[0][0], encoded.keys_values[0][0])
    assert sizes == [3] * -(-len(segments) // 3)


def test_ids_become_text_and_words_with_times_of_the_recording(model, recipe, encoded):
    ids = model.tokenizer.encode("three one four")
    transcript = read_transcript(model, recipe, encoded, ids, [0.9, 0.8, 0.7], num_steps=5, canvas_tokens=16)
    segment = encoded.features.segment
    assert transcript.text == "three one four"
    assert [word.word for word in transcript.words] == ["three", "one", "four"]
    assert all(segment.start_sample <= w.start_sample < w.end_sample <= segment.end_sample for w in transcript.words)
    assert (transcript.timing_source, transcript.language) == ("ctc", "en")
    assert (transcript.num_steps, transcript.canvas_tokens) == (5, 16)


def test_what_the_decoder_doubts_is_less_sure(model, recipe, encoded):
    ids = model.tokenizer.encode("three one")
    sure, unsure = (read_transcript(model, recipe, encoded, ids, [one, 0.9]) for one in (0.9, 0.1))
    assert unsure.words[0].confidence < sure.words[0].confidence
    assert unsure.words[1].confidence == sure.words[1].confidence


def test_no_ids_are_an_empty_text_without_times(model, recipe, encoded):
    transcript = read_transcript(model, recipe, encoded, [], [])
    assert (transcript.text, transcript.words, transcript.timing_source) == ("", (), "none")
    assert 0 <= transcript.confidence <= 1


def test_a_canvas_that_did_not_settle_or_hold_the_text_is_flagged(model, recipe, encoded):
    ids = model.tokenizer.encode("three")
    plain = read_transcript(model, recipe, encoded, ids, [0.9])
    doubted = read_transcript(model, recipe, encoded, ids, [0.9], is_settled=False, is_overflow=True)
    assert set(doubted.flags) - set(plain.flags) == {"unsettled", "overflow"}


def test_text_where_ctc_hears_nothing_is_flagged(model, recipe, encoded):
    deaf = replace(encoded, hearing=Hearing(ids=(), probabilities=(), end_probability=0.9))
    assert "no_speech" in read_transcript(model, recipe, deaf, model.tokenizer.encode("one"), [0.9]).flags


def test_a_text_that_was_preferred_to_quite_another_is_flagged(model, recipe, encoded):
    ids, other = (model.tokenizer.encode(text) for text in ("one two", "six"))
    alike = read_transcript(model, recipe, encoded, ids, [0.9, 0.9], rival_ids=ids)
    unlike = read_transcript(model, recipe, encoded, ids, [0.9, 0.9], rival_ids=other)
    assert set(unlike.flags) - set(alike.flags) == {"ctc_disagrees"}


def test_special_tokens_on_the_canvas_are_no_words(model, recipe, encoded):
    ids = [model.config.prompt.audio_id, *model.tokenizer.encode("one"), model.config.blank_id]
    transcript = read_transcript(model, recipe, encoded, ids, [0.5, 0.9, 0.5])
    assert transcript.text == "one"
    assert [word.word for word in transcript.words] == ["one"]
