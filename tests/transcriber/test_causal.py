"""Texts of causal encoder and CTC together, against the same choice made from whole runs and scalar sums."""

import math
from itertools import groupby

import numpy as np
import pytest
import torch

from dgasr.features import pad_features
from dgasr.model.ctc_head import label_log_probs
from dgasr.prompt import WordList, build_prompt
from dgasr.transcriber import causal
from dgasr.transcriber.causal import BEAM, CANDIDATES, CTC_SHARE, joint_texts
from dgasr.transcriber.encoding import SegmentEncoder
from dgasr.transcriber.rescoring import causal_log_probs


@pytest.fixture(scope="module")
def encoded(model, recipe, segments):
    return list(SegmentEncoder(model, recipe, 4).encode(segments))


def next_log_probs(model, recipe, encoded, text):
    """Run prompt and text at once; log-probabilities of the token behind them.  [vocab]"""
    config = model.config
    prompt = build_prompt(model.tokenizer, config.prompt, config.num_audio_tokens, recipe.language)
    audio = model.projector(model.encode_audio(torch.from_numpy(pad_features([encoded.features], recipe.features))))
    said = model.backbone.model.encoder.get_input_embeddings()(torch.tensor([text], dtype=torch.long))
    states = model.prefill(torch.cat([model.prompt_embeddings(torch.tensor(prompt), audio), said], dim=1))[0]
    logits = config.softcap * torch.tanh(states[0, -1] @ model.head_weight.T / config.softcap)
    return logits.double().log_softmax(-1).numpy()


def by_ctc(model, encoded, text, *, is_whole):
    """Sum CTC's paths frame by frame in a table of collapsed beginnings, the mean over the shifts, nats."""
    blank, vocab = model.config.blank_id, len(model.head_weight)
    table = label_log_probs(model, encoded.states, encoded.log_partition, torch.arange(vocab))[:, 1:].double().exp()
    means = []
    for shift in range(model.config.projector.subsampling):
        beginnings = {((), False): 1.0}  # what has been said of the text, and whether its last label still sounds
        beyond = 0.0
        for frame in table[shift :: model.config.projector.subsampling].numpy():
            found: dict[tuple[tuple[int, ...], bool], float] = {}
            for (said, sounds), share in beginnings.items():
                ways = [((said, False), frame[blank])]
                if sounds:
                    ways.append(((said, True), frame[said[-1]]))
                if len(said) < len(text) and not (sounds and said[-1] == text[len(said)]):
                    label = text[len(said)]
                    ways.append((((*said, label), True), frame[label]))
                for state, probability in ways:
                    if not is_whole and len(state[0]) == len(text):
                        beyond += share * probability  # whatever follows
                    else:
                        found[state] = found.get(state, 0.0) + share * probability
            beginnings = found
        whole = sum(share for (said, _), share in beginnings.items() if said == tuple(text))
        means.append(math.log(max(whole if is_whole else beyond, 1e-300)))
    return float(np.mean(np.maximum(means, causal.IMPOSSIBLE)))


def chosen_slowly(model, recipe, encoded, words=None):
    """Continue the likeliest texts until one that has ended is likelier than all of them."""
    beam, ended = [((), 0.0)], (-math.inf, ())
    ends = list(model.config.prompt.end_text_ids)

    def score(text, log_prob, *, is_whole):
        spelled = "" if words is None else "".join(model.tokenizer.pieces()[token] for token in text).split()
        known = [word in words for word in spelled]
        if known and not is_whole:
            known[-1] = any(word.startswith(spelled[-1]) for word in words)
        return (
            log_prob
            + CTC_SHARE * by_ctc(model, encoded, text, is_whole=is_whole)
            - causal.WORD_PENALTY * known.count(False)
        )

    while beam:
        longer = []
        for text, log_prob in beam:
            log_probs = next_log_probs(model, recipe, encoded, list(text))
            ended = max(ended, (score(text, log_prob + log_probs[ends].max(), is_whole=True), text))
            log_probs[[*ends, model.config.blank_id]] = -np.inf
            longer += [
                ((*text, int(token)), log_prob + log_probs[token]) for token in np.argsort(log_probs)[-CANDIDATES:]
            ]
        scored = sorted(((score(*own, is_whole=False), own) for own in longer), reverse=True)[:BEAM]
        beam = [own for found, own in scored if found > ended[0]]
    return list(ended[1])


def test_texts_equal_those_of_whole_runs_and_sums_over_paths(model, recipe, encoded):
    found = [ids for ids, *_ in joint_texts(model, encoded[:3])]
    assert found == [chosen_slowly(model, recipe, item) for item in encoded[:3]]
    assert any(found)


def test_words_that_are_not_on_the_list_cost(model, recipe, encoded, monkeypatch):
    pieces = [" " * (token % 2) + chr(ord("a") + token) for token in range(len(model.head_weight))]
    monkeypatch.setattr(model.tokenizer, "pieces", lambda: pieces)
    free = [ids for ids, *_ in joint_texts(model, encoded[:3])]
    spelled = ["".join(pieces[token] for token in ids).split() for ids in free]
    known = {word for text in spelled for word in text} - {text[-1] for text in spelled if text}
    monkeypatch.setattr(model.tokenizer, "word_list", WordList(known))
    monkeypatch.setattr(causal, "WORD_PENALTY", 60.0)
    found = [ids for ids, *_ in joint_texts(model, encoded[:3])]
    assert found == [chosen_slowly(model, recipe, item, known) for item in encoded[:3]]
    assert found != free


def test_probabilities_are_the_causal_encoder_s(model, recipe, encoded):
    ((ids, probabilities, _),) = joint_texts(model, encoded[1:2])
    wanted = [math.exp(next_log_probs(model, recipe, encoded[1], ids[:end])[token]) for end, token in enumerate(ids)]
    assert probabilities == pytest.approx(wanted, rel=1e-3)


def test_a_text_is_as_likely_as_scoring_it_as_a_whole_says(model, recipe, encoded):
    texts = joint_texts(model, encoded[:3])
    found = causal_log_probs(model, recipe, encoded[:3], [[text.ids for text in texts]], 40)[0]
    wanted = [float(row[: len(text.ids) + 1].sum()) for row, text in zip(found, texts, strict=True)]
    assert [text.log_prob for text in texts] == pytest.approx(wanted, rel=1e-3)


def test_the_same_text_whatever_else_is_in_the_batch(model, encoded):
    alone = [joint_texts(model, [item] * 4)[0] for item in encoded[:4]]
    assert joint_texts(model, encoded[:4]) == alone
    assert joint_texts(model, encoded[3::-1]) == alone[::-1]


def test_ctc_keeps_the_causal_encoder_from_saying_a_word_for_ever(model, recipe, encoded, monkeypatch):
    """An encoder that likes one word above all says it until the canvas is full; CTC allows it where it was heard."""
    word = encoded[0].ctc.ids[0]

    def obsessed(hidden, weight, softcap):
        log_probs = torch.full((len(hidden), len(weight)), -6.0)
        log_probs[:, word] = -0.1
        return log_probs

    monkeypatch.setattr(causal, "vocabulary_log_probs", obsessed)
    ((ids, *_),) = joint_texts(model, encoded[:1])
    runs = [len(list(run)) for _, run in groupby(ids)]
    assert len(ids) < model.config.canvas.buckets[-1]
    assert max(runs, default=0) <= 2


def test_a_text_that_does_not_end_is_as_long_as_the_largest_canvas(model, recipe, encoded, monkeypatch):
    monkeypatch.setattr(causal, "CTC_SHARE", 0.0)

    def endless(hidden, weight, softcap):
        log_probs = torch.full((len(hidden), len(weight)), -1e-6)
        log_probs[:, list(model.config.prompt.end_text_ids)] = -1e3
        return log_probs

    monkeypatch.setattr(causal, "vocabulary_log_probs", endless)
    ((ids, *_),) = joint_texts(model, encoded[:1])
    assert len(ids) == model.config.canvas.buckets[-1]
