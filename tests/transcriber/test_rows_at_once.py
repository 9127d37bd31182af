"""A model whose bits depend on the number of rows computes a fixed number of them, whatever the batch."""

from dataclasses import replace

import pytest
import torch

from dgasr.transcriber import Transcriber

ROWS = 4


@pytest.fixture
def grouped(model, monkeypatch):
    monkeypatch.setattr(model, "config", replace(model.config, rows_at_once=ROWS))
    return model


@pytest.fixture
def shapes(grouped, monkeypatch):
    """Number of rows of every product through encoder, decoder and vocabulary."""
    seen: list[int] = []

    def note(_, args, kwargs):
        seen.append(len([*args, *kwargs.values()][0]))

    modules = grouped.encoder, grouped.backbone.model.decoder
    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_call_has_the_same_number_of_rows(grouped, recipe, segments, shapes, batch_size):
    assert len(list(Transcriber(grouped, recipe, batch_size).transcribe(segments))) == len(segments)
    assert set(shapes) == {ROWS}


def test_groups_change_nothing_where_rows_do_not_matter(model, recipe, segments, monkeypatch):
    plain = sorted(map(str, Transcriber(model, recipe, 8).transcribe(segments)))
    monkeypatch.setattr(model, "config", replace(model.config, rows_at_once=ROWS))
    assert sorted(map(str, Transcriber(model, recipe, 8).transcribe(segments))) == plain


def test_a_batch_is_equal_to_its_groups_in_wide_bfloat16(model):
    """What the rule is for: of eight rows oneDNN makes other bits than of twice four."""
    torch.manual_seed(0)
    states, weight = torch.randn(8, 96, 640).bfloat16(), torch.randn(2048, 640).bfloat16()
    by_fours = torch.cat([torch.nn.functional.linear(part, weight) for part in states.split(ROWS)])
    shuffled = torch.nn.functional.linear(states[[5, 1, 2, 0]], weight)
    assert torch.equal(shuffled[1], by_fours[1])
