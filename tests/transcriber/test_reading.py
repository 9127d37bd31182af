from dataclasses import replace

import pytest
import torch

from dgasr.transcriber import encoding
from dgasr.transcriber.encoding import SegmentEncoder
from dgasr.transcriber.reading import ctc_ids, ctc_tokens, read_transcript


@pytest.fixture(scope="module")
def encoded(model, recipe, segments):
    (encoded,) = SegmentEncoder(model, recipe, 1).encode(segments[2:3])
    return encoded


def test_states_come_every_20_ms_of_audio_and_no_further(encoded):
    assert len(encoded.states) == len(encoded.log_partition) == -(-encoded.features.segment.num_samples // 320)


def test_a_short_segment_is_read_for_ctc_as_far_as_it_goes(model, recipe, segments, monkeypatch):
    read = []
    plain = SegmentEncoder._scan
    monkeypatch.setattr(SegmentEncoder, "_scan", lambda self, fine: read.append(len(fine)) or plain(self, fine))
    whole = list(SegmentEncoder(model, recipe, 4).encode(segments))
    monkeypatch.setattr(encoding, "LISTENED_LENGTHS", 1)
    for encoded, plainly in zip(whole, SegmentEncoder(model, recipe, 4).encode(segments), strict=True):
        torch.testing.assert_close(encoded.states, plainly.states, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encoded.log_partition, plainly.log_partition, atol=1e-4, rtol=1e-4)
        assert torch.equal(encoded.greedy_ids, plainly.greedy_ids)
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


def test_a_ctc_token_is_as_probable_as_the_surest_embedding_of_its_run(model, encoded):
    blank = model.config.blank_id
    ids, probabilities = [blank, 9, 9, blank, 9, 10, 10], [0.9, 0.25, 0.5, 0.75, 0.375, 1.0, 0.125]
    heard = replace(encoded, greedy_ids=torch.tensor(ids), greedy_log_probs=torch.tensor(probabilities).log())
    tokens, found = zip(*ctc_tokens(model, heard), strict=True)
    assert tokens == (9, 9, 10)
    assert found == pytest.approx((0.5, 0.375, 1.0))


def test_ctc_tokens_are_the_ctc_ids_with_probabilities(model, recipe, segments):
    for encoded in SegmentEncoder(model, recipe, 4).encode(segments):
        tokens = ctc_tokens(model, encoded)
        assert [token for token, _ in tokens] == ctc_ids(model, encoded)
        assert all(0 < probability <= 1 + 1e-6 for _, probability in tokens)


def test_text_where_ctc_hears_nothing_is_flagged(model, recipe, encoded):
    deaf = replace(encoded, greedy_ids=torch.full_like(encoded.greedy_ids, model.config.blank_id))
    assert ctc_ids(model, deaf) == []
    assert "no_speech" in read_transcript(model, recipe, deaf, model.tokenizer.encode("one"), [0.9]).flags


def test_special_tokens_on_the_canvas_are_no_words(model, recipe, encoded):
    ids = [model.config.prompt.audio_id, *model.tokenizer.encode("one"), model.config.blank_id]
    transcript = read_transcript(model, recipe, encoded, ids, [0.5, 0.9, 0.5])
    assert transcript.text == "one"
    assert [word.word for word in transcript.words] == ["one"]
