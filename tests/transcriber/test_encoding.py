from dataclasses import replace

import pytest
import torch

from dgasr.model.ctc_head import TextsToScore, text_log_likelihoods
from dgasr.model.head import VocabularyScan, scan_vocabulary
from dgasr.transcriber import encoding
from dgasr.transcriber.encoding import SegmentEncoder, read_ctc

SHIFTS = 8


@pytest.fixture
def read(model):
    """Function: what is read where embeddings at all shifts say these ids with these probabilities."""

    def of(ids, probabilities=None):
        probabilities = [0.5] * len(ids) if probabilities is None else probabilities
        scan = VocabularyScan(torch.tensor(ids), torch.tensor(probabilities).log(), torch.zeros(len(ids)))
        (texts,) = read_ctc(model, [scan])
        return texts

    return of


def at_every_shift(values):
    return [value for value in values for _ in range(SHIFTS)]


def test_repeats_are_merged_before_blanks_go(model, read):
    blank = model.config.blank_id
    assert [text.ids for text in read(at_every_shift([blank, 9, 10, 10, blank, 10]))] == [(9, 10, 10)]


def test_a_token_is_as_probable_as_the_surest_embedding_of_its_run(model, read):
    blank = model.config.blank_id
    ids, probabilities = [blank, 9, 9, blank, 9, 10, 10], [0.9, 0.25, 0.5, 0.75, 0.375, 1.0, 0.125]
    (text,) = read(at_every_shift(ids), at_every_shift(probabilities))
    assert text.ids == (9, 9, 10)
    assert text.probabilities == pytest.approx((0.5, 0.375, 1.0))


def test_the_texts_of_the_shifts_come_once_each_the_least_shifted_first(read):
    assert [text.ids for text in read([10, 9, 9, 9, 9, 9, 9, 11])] == [(10,), (9,), (11,)]


def test_of_equally_likely_texts_the_least_shifted_is_taken(read, encoded):
    three = replace(encoded, texts=read([10, 9, 9, 9, 9, 9, 9, 11]), scores=torch.tensor([-1.0, -1.0, -2.0]))
    assert three.ctc.ids == (10,)
    assert three.ctc.log_likelihoods == {(10,): -1.0, (9,): -1.0, (11,): -2.0}


def test_one_text_of_all_shifts_is_not_scored(model, recipe, segments):
    for own in SegmentEncoder(model, recipe, 4).encode(segments):
        assert len(own.scores) == (len(own.texts) if len(own.texts) > 1 else 0)


def test_ctc_reads_the_likeliest_of_the_plain_collapsed_argmaxes(model, recipe, segments):
    bias, num_chosen = model.config.blank_logit, set()
    for encoded in SegmentEncoder(model, recipe, 4).encode(segments):
        scan = scan_vocabulary(encoded.states, model.head_weight, model.config.softcap, 8192, bias)
        texts = []
        for shift in range(SHIFTS):
            ids = scan.ids[shift::SHIFTS].tolist()
            pairs = zip([bias[0], *ids], ids, strict=False)
            texts.append(tuple(token for before, token in pairs if token not in (before, bias[0])))
        (likelihoods,) = text_log_likelihoods(model, [TextsToScore(encoded.states, encoded.log_partition, texts)])
        likely = [text for text, score in zip(texts, likelihoods, strict=True) if score >= likelihoods.max() - 1e-3]
        assert encoded.ctc.ids in likely
        assert len(encoded.ctc.ids) == len(encoded.ctc.probabilities)
        num_chosen.add(texts.index(encoded.ctc.ids))
    assert len(num_chosen) > 1  # no shift is the best of all


def test_no_segment_holds_the_storage_of_its_batch(model, recipe, segments):
    for own in SegmentEncoder(model, recipe, 5).encode(segments):
        tensors = [own.prompt_state, *(tensor for pair in own.keys_values for tensor in pair)]
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)
        assert own.states.untyped_storage().nbytes() <= 1.5 * own.states.nbytes + 8 * 8 * own.states[0].nbytes


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
    monkeypatch.setattr(encoding, "CTC_LENGTHS", 1)
    for encoded, plainly in zip(whole, SegmentEncoder(model, recipe, 4).encode(segments), strict=True):
        torch.testing.assert_close(encoded.states, plainly.states, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encoded.log_partition, plainly.log_partition, atol=1e-4, rtol=1e-4)
        assert encoded.ctc.ids == plainly.ctc.ids
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
