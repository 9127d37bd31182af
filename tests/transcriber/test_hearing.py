from typing import ClassVar

import pytest
import torch

from dgasr.model.ctc_head import Questions, blank_bias, text_log_likelihoods
from dgasr.model.head import VocabularyScan, scan_vocabulary
from dgasr.transcriber import hearing as room
from dgasr.transcriber.encoding import SegmentEncoder
from dgasr.transcriber.hearing import hear

SHIFTS = 8


@pytest.fixture
def heard(model):
    """Function: what is heard where embeddings at all shifts say these ids with these probabilities."""

    def of(ids, probabilities=None):
        probabilities = [0.5] * len(ids) if probabilities is None else probabilities
        scan = VocabularyScan(torch.tensor(ids), torch.tensor(probabilities).log(), torch.zeros(len(ids)))
        (hearing,) = hear(model, [torch.zeros(len(ids), model.head_weight.shape[1])], [scan])
        return hearing

    return of


def at_every_shift(values):
    return [value for value in values for _ in range(SHIFTS)]


def test_repeats_are_merged_before_blanks_go(model, heard):
    blank = model.config.blank_id
    assert heard(at_every_shift([blank, 9, 10, 10, blank, 10])).ids == (9, 10, 10)


def test_a_token_is_as_probable_as_the_surest_embedding_of_its_run(model, heard):
    blank = model.config.blank_id
    ids, probabilities = [blank, 9, 9, blank, 9, 10, 10], [0.9, 0.25, 0.5, 0.75, 0.375, 1.0, 0.125]
    hearing = heard(at_every_shift(ids), at_every_shift(probabilities))
    assert hearing.ids == (9, 9, 10)
    assert hearing.probabilities == pytest.approx((0.5, 0.375, 1.0))
    assert hearing.end_probability == pytest.approx(0.375)


def test_a_silence_ends_as_surely_as_its_least_likely_blank(model, heard):
    hearing = heard(at_every_shift([model.config.blank_id] * 2), at_every_shift([0.9, 0.6]))
    assert (hearing.ids, hearing.probabilities) == ((), ())
    assert hearing.end_probability == pytest.approx(0.6)


def test_of_equally_likely_texts_the_least_shifted_is_taken(heard, monkeypatch):
    monkeypatch.setattr(room, "text_log_likelihoods", lambda model, segments: [[-1.0] * len(segments[0].texts)])
    hearing = heard([10, 9, 9, 9, 9, 9, 9, 11])
    assert hearing.ids == (10,)
    assert hearing.log_likelihoods == {(10,): -1.0, (9,): -1.0, (11,): -1.0}


def test_one_text_of_all_shifts_is_not_scored(heard):
    hearing = heard(at_every_shift([9, 10]))
    assert (hearing.ids, hearing.log_likelihoods) == ((9, 10), {})


def test_a_segment_is_heard_as_the_likeliest_of_the_plain_collapsed_argmaxes(model, recipe, segments):
    bias, num_chosen = blank_bias(model.config), set()
    for encoded in SegmentEncoder(model, recipe, 4).encode(segments):
        scan = scan_vocabulary(encoded.states, model.head_weight, model.config.softcap, 8192, bias)
        texts = []
        for shift in range(SHIFTS):
            ids = scan.ids[shift::SHIFTS].tolist()
            pairs = zip([bias[0], *ids], ids, strict=False)
            texts.append(tuple(token for before, token in pairs if token not in (before, bias[0])))
        (likelihoods,) = text_log_likelihoods(model, [Questions(encoded.states, encoded.log_partition, texts)])
        likely = [text for text, score in zip(texts, likelihoods, strict=True) if score >= max(likelihoods) - 1e-3]
        assert encoded.hearing.ids in likely
        assert len(encoded.hearing.ids) == len(encoded.hearing.probabilities)
        num_chosen.add(texts.index(encoded.hearing.ids))
    assert len(num_chosen) > 1  # no shift is the best of all


class OnDevice(torch.Tensor):
    """As if it lay on a GPU: notes what a process would wait for."""

    waits: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ in ("cpu", "item", "numpy", "tolist", "to", "__bool__", "__float__", "__int__"):
            cls.waits.append(func.__name__)
            return func(args[0].as_subclass(torch.Tensor), *args[1:], **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


def test_segments_are_waited_for_together(model, recipe, segments):
    bias, states, scans = blank_bias(model.config), [], []
    encoded = list(SegmentEncoder(model, recipe, 4).encode(segments))
    for own in encoded:
        states.append(own.states.as_subclass(OnDevice))
        scan = scan_vocabulary(own.states, model.head_weight, model.config.softcap, 8192, bias)
        scans.append(VocabularyScan(*(tensor.as_subclass(OnDevice) for tensor in scan)))
    OnDevice.waits.clear()
    hearings = hear(model, states, scans)
    assert OnDevice.waits == ["cpu", "cpu", "tolist"]
    assert sum(len(hearing.log_likelihoods) > 1 for hearing in hearings) > 1
    assert [hearing.ids for hearing in hearings] == [own.hearing.ids for own in encoded]
