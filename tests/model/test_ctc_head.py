from itertools import groupby, product
from math import log

import pytest
import torch

from dgasr.model.asr import AsrModel
from dgasr.model.ctc_head import IMPOSSIBLE, TextsToScore, label_log_probs, text_log_likelihoods
from dgasr.model.head import log_partition
from dgasr.model.presets import tiny
from dgasr.training.objective import ctc


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AsrModel(tiny(), None).eval()


def test_labels_are_as_probable_as_softmax_over_all_ids_says(model):
    config, weight = model.config, model.head_weight.detach()
    states = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(1)) * 10
    logits = config.softcap * torch.tanh(states @ weight.T / config.softcap)
    logits[:, config.blank_id] += config.blank_bias
    assert config.blank_bias
    total = log_partition(states, weight, config.softcap, 7, config.blank_logit)
    ours = label_log_probs(model, states, total, torch.tensor([9, 10, 9]))
    expected = torch.log_softmax(logits.double(), dim=-1)[:, [config.blank_id, 9, 10, 9]]
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def heard(model):
    """States of 4 audio embeddings at 8 shifts, loud enough for labels to differ, and their log-partition."""
    states = torch.randn(32, model.head_weight.shape[1], generator=torch.Generator().manual_seed(2)) * 10
    total = log_partition(states, model.head_weight.detach(), model.config.softcap, 7, model.config.blank_logit)
    return states, total


def by_every_path(model, states, total, text):
    """Sum the probabilities of all paths that collapse to a text, shift by shift, in doubles."""
    ids = [model.config.blank_id, *sorted({*text})]
    log_probs = label_log_probs(model, states, total, torch.tensor(ids[1:], dtype=torch.long)).double()
    likelihoods = []
    for shift in range(8):
        frames = log_probs[shift::8]
        probability = 0.0
        for path in product(range(len(ids)), repeat=len(frames)):
            said = [ids[column] for column, _ in groupby(path) if column]
            if said == list(text):
                probability += float(frames[range(len(frames)), path].sum().exp())
        likelihoods.append(log(probability) if probability else IMPOSSIBLE)
    return sum(likelihoods) / 8


def likelihoods(model, heard, texts):
    """Ask about one segment alone."""
    (found,) = text_log_likelihoods(model, [TextsToScore(*heard, texts)])
    return found.tolist()


TEXTS = [(9,), (9, 10), (10, 9, 11), (9, 9), (), (9, 9, 10)]


def test_a_text_is_as_likely_as_all_paths_that_say_it(model, heard):
    expected = [by_every_path(model, *heard, text) for text in TEXTS]
    assert likelihoods(model, heard, TEXTS) == pytest.approx(expected, rel=1e-5)


def test_texts_are_as_likely_as_the_loss_of_training_says(model, heard):
    config, weight = model.config, model.head_weight.detach()
    shifts = heard[0].unflatten(0, (-1, 8)).transpose(0, 1)  # [shifts, audio tokens, hidden]
    for text in TEXTS[:-1]:
        labels = torch.tensor([text] * 8, dtype=torch.long).view(8, len(text))
        lengths = torch.full((8,), len(text)), torch.full((8,), 4)
        loss = ctc(
            shifts, weight, labels, *lengths, blank=config.blank_id, blank_bias=config.blank_bias,
            softcap=config.softcap, chunk=64,
        )  # fmt: skip
        (ours,) = likelihoods(model, heard, [text])
        assert ours == pytest.approx(-float(loss.nll.mean()), rel=1e-5)


def test_a_text_that_the_embeddings_are_too_few_for_is_impossible_and_finite(model, heard):
    assert likelihoods(model, heard, [(9, 9, 9)]) == [IMPOSSIBLE]


def test_the_other_texts_do_not_matter_to_one(model, heard):
    alone = [likelihoods(model, heard, [text])[0] for text in TEXTS]
    assert alone == pytest.approx(likelihoods(model, heard, TEXTS), abs=1e-5)


def test_the_other_segments_do_not_matter_to_one(model, heard):
    states, total = heard
    segments = [
        TextsToScore(states[: 8 * num_tokens], total[: 8 * num_tokens], texts)
        for num_tokens, texts in ((4, TEXTS), (1, [(9,)]), (3, []), (2, [(), (12, 11, 10)]), (4, [(8,)]))
    ]
    found = [own.tolist() for own in text_log_likelihoods(model, segments)]
    assert found == [text_log_likelihoods(model, [segment])[0].tolist() for segment in segments]  # bit for bit
    assert [len(own) for own in found] == [6, 1, 0, 2, 1]
