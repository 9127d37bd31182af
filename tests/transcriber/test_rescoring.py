from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from dgasr.diffusion import Canvas, CanvasJob
from dgasr.features import pad_features
from dgasr.model.ctc_head import TextsToScore, text_log_likelihoods
from dgasr.prompt import build_prompt
from dgasr.transcriber import rescoring
from dgasr.transcriber.causal import CausalText
from dgasr.transcriber.encoding import CtcText, SegmentEncoder, aligned_log_probs, prompt_cache
from dgasr.transcriber.rescoring import Rescorer, causal_log_probs, read_out

OURS, THEIRS = (9, 10), (9, 11, 10)


@pytest.fixture(scope="module")
def encoded(model, recipe, segments):
    return list(SegmentEncoder(model, recipe, 5).encode(segments))


def log_probs_without_a_cache(model, recipe, features, text):
    """Run prompt and text through the causal encoder at once, and take whole softmaxes in doubles."""
    config = model.config
    prompt = build_prompt(model.tokenizer, config.prompt, config.num_audio_tokens, "en")
    audio = model.projector(model.encode_audio(torch.from_numpy(pad_features([features], recipe.features))))
    ids = [*text, config.prompt.end_text_ids[0]]
    said = model.backbone.model.encoder.get_input_embeddings()(torch.tensor([ids[:-1]], dtype=torch.long))
    prefix = model.prompt_embeddings(torch.tensor(prompt), audio)
    states = model.prefill(torch.cat([prefix, said], dim=1))[0][0, prefix.shape[1] - 1 :]
    logits = config.softcap * torch.tanh(states @ model.head_weight.T / config.softcap)
    return logits.double().log_softmax(-1)[range(len(ids)), ids].tolist()


def test_a_text_is_as_likely_as_one_run_over_prompt_and_text_says(model, recipe, segments, encoded, monkeypatch):
    texts = [OURS, (), THEIRS]
    (found,) = causal_log_probs(model, recipe, encoded[:5], [texts], 8)
    found = [row[: len(text) + 1].tolist() for row, text in zip(found, texts, strict=False)]
    monkeypatch.setattr(rescoring, "prompt_cache", None)  # the reference uses none of it
    for features, item, text, log_probs in zip(segments, encoded, texts, found, strict=False):
        assert item.features is features
        assert log_probs == pytest.approx(log_probs_without_a_cache(model, recipe, features, text), rel=1e-4)


def test_both_texts_are_read_from_prompts_that_are_stacked_once(model, recipe, encoded, monkeypatch):
    first, second = [OURS, (), THEIRS], [THEIRS, OURS, (9, 9)]
    alone = [causal_log_probs(model, recipe, encoded[:5], [texts], 8)[0] for texts in (first, second)]
    stacked = []
    monkeypatch.setattr(rescoring, "prompt_cache", lambda *batch: stacked.append(batch) or prompt_cache(*batch))
    together = causal_log_probs(model, recipe, encoded[:5], [first, second], 8)
    assert all(map(torch.equal, together, alone))
    assert len(stacked) == 1


def test_texts_that_reach_past_the_sliding_window_leave_the_prompts_whole(model, recipe, encoded, monkeypatch):
    prompt_tokens = encoded[0].keys_values[0][0].shape[1]
    monkeypatch.setattr(model.backbone.config.get_text_config(), "sliding_window", prompt_tokens + 4)
    alone = causal_log_probs(model, recipe, encoded[:2], [[OURS, THEIRS]], 8)
    assert torch.equal(causal_log_probs(model, recipe, encoded[:2], [[THEIRS, OURS], [OURS, THEIRS]], 8)[1], alone[0])


@pytest.fixture
def canvas(model):
    """Function: a segment's canvas that says one text, where CTC reads another."""

    def of(encoded, ours=OURS, theirs=THEIRS, *, is_overflowed=False, log_likelihoods=MappingProxyType({})):
        sure = (0.5,) * len(theirs)
        text = CtcText(ids=theirs, probabilities=sure, log_likelihoods=log_likelihoods)
        encoded = replace(encoded, texts=[text], scores=torch.empty(0))
        ids = torch.tensor([*ours, *[8] * 6])
        return Canvas(
            job=CanvasJob(noise_key=1, canvas_tokens=8, payload=encoded.features), encoded=encoded, ids=ids.numpy(),
            log_probabilities=np.log(np.full(len(ids), 0.25)), entropy=np.zeros(len(ids)), num_tokens=len(ours),
            num_steps=3, is_settled=True, is_overflowed=is_overflowed,
            read_out=read_out(model, [encoded], ids[None])[0].numpy(),
        )  # fmt: skip

    return of


@pytest.fixture
def likelihoods(monkeypatch):
    """Function: set what the causal encoder and CTC find OURS and THEIRS to be, nats."""

    def of(causal, ctc):
        def say(model, recipe, batch, texts, num_tokens):
            said = [[[0.0] * len(text) + [causal[tuple(text) == THEIRS]] for text in rows] for rows in texts]
            return [torch.tensor([row + [7.0] * (num_tokens - len(row)) for row in rows]) for rows in said]

        monkeypatch.setattr(rescoring, "causal_log_probs", say)
        monkeypatch.setattr(
            rescoring, "text_log_likelihoods",
            lambda model, asked: [torch.tensor([ctc[tuple(text) == THEIRS] for text in own.texts]) for own in asked],
        )  # fmt: skip

    return of


@pytest.mark.parametrize(
    ("causal", "ctc", "taken"),
    [
        ((-1.0, -2.0), (-4.0, -2.0), THEIRS),
        ((-1.0, -2.0), (-2.0, -1.5), OURS),
        ((-1.0, -2.0), (-2.0, -1.0), OURS),  # equally likely: the decoder's
        ((-9.0, -2.0), (-1.0, -5.0), THEIRS),
    ],
)
def test_the_text_is_taken_that_both_likelihoods_together_prefer(
    model, recipe, encoded, canvas, likelihoods, causal, ctc, taken
):
    likelihoods(causal, ctc)
    (choice,) = Rescorer(model, recipe, 3).choose([canvas(encoded[0])])
    assert tuple(choice.ids) == taken
    assert choice.alternative.ids == (OURS if taken == THEIRS else THEIRS)
    assert choice.probabilities == pytest.approx([1.0] * 3 if taken == THEIRS else [0.25] * 2)
    wanted = aligned_log_probs(model, encoded[0], torch.tensor(taken)).numpy()
    np.testing.assert_allclose(choice.log_probs, wanted, atol=1e-5)
    assert choice.canvas.encoded is None  # nothing on the device is held any longer


@pytest.mark.parametrize(
    "doubtful",
    [
        {"theirs": OURS},
        {"is_overflowed": True, "theirs": ()},
        {"theirs": (9, 10) * 200},  # more than CTC's embeddings could say
    ],
)
def test_the_decoders_text_stays_where_there_is_nothing_to_choose(
    model, recipe, encoded, canvas, monkeypatch, doubtful
):
    monkeypatch.setattr(rescoring, "causal_log_probs", None)
    (choice,) = Rescorer(model, recipe, 1).choose([canvas(encoded[0], **doubtful)])
    assert tuple(choice.ids) == doubtful.get("ours", OURS)


@pytest.mark.parametrize("refuted", [{"is_overflowed": True}, {"ours": (9,) * 40}])
def test_ctcs_text_is_taken_where_the_decoders_cannot_be_all_that_was_said(
    model, recipe, encoded, canvas, likelihoods, refuted
):
    likelihoods((0.0, -100.0), (0.0, -100.0))
    (choice,) = Rescorer(model, recipe, 1).choose([canvas(encoded[0], **refuted)])
    assert tuple(choice.ids) == THEIRS
    assert choice.alternative.ids == ()


CAUSAL = (11, 9, 10, 9)


@pytest.mark.parametrize("taken", ["decoder", "ctc", "causal"])
def test_of_three_texts_the_likeliest_is_taken(model, recipe, encoded, canvas, monkeypatch, taken):
    texts = {"decoder": OURS, "ctc": THEIRS, "causal": CAUSAL}
    nats = {text: -1.0 if name == taken else -5.0 for name, text in texts.items()}
    scored = []

    def say(model, recipe, batch, rows, num_tokens):
        scored.extend(tuple(text) for own in rows for text in own)
        said = [[[0.0] * len(text) + [nats[tuple(text)]] for text in own] for own in rows]
        return [torch.tensor([row + [7.0] * (num_tokens - len(row)) for row in own]) for own in said]

    monkeypatch.setattr(rescoring, "causal_log_probs", say)
    monkeypatch.setattr(
        rescoring, "joint_texts",
        lambda model, batch: [CausalText([*CAUSAL], [0.5] * len(CAUSAL), nats[CAUSAL]) for _ in batch],
    )  # fmt: skip
    monkeypatch.setattr(
        rescoring, "text_log_likelihoods",
        lambda model, asked: [torch.tensor([0.0 for _ in own.texts]) for own in asked],
    )  # fmt: skip
    monkeypatch.setattr(model, "config", replace(model.config, reads_causally=True))
    (choice,) = Rescorer(model, recipe, 1).choose([canvas(encoded[0])])
    assert tuple(choice.ids) == texts[taken]
    assert list(choice.probabilities) == [{"decoder": 0.25, "ctc": 1.0, "causal": 0.5}[taken]] * len(choice.ids)
    assert scored == [THEIRS, OURS]  # each text once; the causal encoder's own was scored when it was said
    wanted = aligned_log_probs(model, encoded[0], torch.tensor(texts[taken])).numpy()
    np.testing.assert_allclose(choice.log_probs, wanted, atol=1e-5)
    assert choice.canvas.encoded is None
    # Whether a canvas settled says nothing of a text that was found without one, and what it holds no more.
    assert choice.is_canvas is (taken == "decoder")
    assert choice.doubted_by == {"decoder": CAUSAL, "ctc": CAUSAL, "causal": THEIRS}[taken]
    (choice,) = Rescorer(model, recipe, 1).choose([canvas(encoded[0], ours=texts[taken])])
    assert (tuple(choice.ids), choice.is_canvas) == (texts[taken], taken == "decoder")


def test_the_decoders_text_stays_where_nothing_is_to_be_chosen(model, recipe, encoded, canvas, monkeypatch):
    monkeypatch.setattr(rescoring, "causal_log_probs", None)
    (choice,) = Rescorer(model, replace(recipe, rescore="none"), 1).choose([canvas(encoded[0])])
    assert (tuple(choice.ids), choice.alternative.ids) == (OURS, THEIRS)


def test_at_most_a_batch_of_doubtful_segments_is_held_back(model, recipe, encoded, canvas, likelihoods):
    likelihoods((0.0, 0.0), (0.0, 0.0))
    pulled = []

    def canvases():
        for item in encoded:
            pulled.append(item)
            yield canvas(item, theirs=THEIRS if len(pulled) % 2 else (9,) * 12)  # on two canvas lengths

    choices = Rescorer(model, recipe, 4).choose(canvases())
    next(choices)
    assert len(pulled) == 4
    assert len([*choices]) == len(encoded) - 1


def test_ctc_is_not_asked_again_about_what_a_shift_heard(model, recipe, encoded, canvas, monkeypatch):
    asked = []
    plain = text_log_likelihoods
    monkeypatch.setattr(
        rescoring, "text_log_likelihoods",
        lambda model, segments: asked.extend(own.texts for own in segments) or plain(model, segments),
    )  # fmt: skip
    scores = ({}, {THEIRS: -2.0}, {OURS: -3.0, THEIRS: -2.0, (9,): -1.0})
    canvases = [canvas(item, log_likelihoods=own) for item, own in zip(encoded, scores, strict=False)]
    list(Rescorer(model, recipe, 3).choose(canvases))
    assert [[tuple(text) for text in own] for own in asked] == [[OURS, THEIRS], [OURS], []]


def test_what_was_scored_when_it_was_heard_is_what_scoring_it_now_gives(model, encoded):
    num_compared = 0
    for item in encoded:
        for text, score in item.ctc.log_likelihoods.items():
            ((alone,),) = text_log_likelihoods(model, [TextsToScore(item.states, item.log_partition, [text])])
            assert score == pytest.approx(float(alone), abs=1e-4)
            num_compared += 1
    assert num_compared > len(encoded)
