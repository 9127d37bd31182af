"""What canvases start from: noise, or a seed whose tokens are kept with their probabilities."""

import pytest
import torch

from dgasr.diffusion.canvas import CanvasJob, CanvasSeed
from dgasr.diffusion.decode_config import DecodeConfig
from dgasr.diffusion.noise import SegmentNoise, key_words, segment_key
from dgasr.diffusion.sampler import CanvasRows
from dgasr.diffusion.vocabulary import VocabularyHead

VOCAB, CANVAS, END, PAD = 4096, 16, 1, 0
HEAD = VocabularyHead(weight=torch.zeros(VOCAB, 4), softcap=30.0, embed_scale=1.0)


def seed_of(probability, num_tokens=CANVAS):
    return CanvasSeed(ids=(7,) * num_tokens, probabilities=(probability,) * num_tokens, pad_id=PAD)


def job(index, seed=None, canvas_tokens=CANVAS):
    return CanvasJob(noise_key=segment_key("r", index), canvas_tokens=canvas_tokens, payload=None, seed=seed)


def begin(*jobs, canvas_tokens=CANVAS):
    """The canvases that these jobs start from.  [jobs, canvas]"""
    rows = CanvasRows(len(jobs), canvas_tokens, HEAD, DecodeConfig())
    rows.begin(range(len(jobs)), jobs)
    return rows.ids


def noise(*indices):
    keys = key_words([segment_key("r", index) for index in indices], torch.device("cpu"))
    return SegmentNoise(keys, torch.zeros(len(indices), dtype=torch.int64)).initial_ids(CANVAS, VOCAB)


def test_jobs_without_a_seed_start_from_their_noise_whoever_is_beside_them():
    assert torch.equal(begin(job(0), job(1)), noise(0, 1))
    assert torch.equal(begin(job(0), job(1, seed_of(1.0)), job(2))[[0, 2]], noise(0, 2))


@pytest.mark.parametrize(
    ("canvas_tokens", "ids", "probabilities"),
    [
        (6, [5, 6, 7, END, PAD, PAD], [0.9, 0.3, 0.8, 0.3, 0.3, 0.3]),  # pads are as doubtful as what is most doubtful
        (4, [5, 6, 7, END], [0.9, 0.3, 0.8, 0.3]),
        (2, [5, 6], [0.9, 0.3]),
    ],
)
def test_a_seed_fills_its_canvas_with_pads_or_is_cut(canvas_tokens, ids, probabilities):
    seed = CanvasSeed(ids=(5, 6, 7, END), probabilities=(0.9, 0.3, 0.8, 0.3), pad_id=PAD)
    assert seed.lay_out(canvas_tokens) == (ids, probabilities)


def test_probability_1_keeps_every_token_and_0_none():
    seed = CanvasSeed(ids=(5, 6, END), probabilities=(1.0, 1.0, 1.0), pad_id=PAD)
    assert begin(job(0, seed))[0].tolist() == [5, 6, END, *[PAD] * (CANVAS - 3)]
    assert torch.equal(begin(job(0, seed_of(0.0))), noise(0))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_kept_share_is_the_probability_and_the_rest_gives_way_to_the_rows_noise(probability):
    canvases = begin(*(job(index, seed_of(probability)) for index in range(500)))
    share = float((canvases == 7).double().mean())  # noise that is the token by chance adds at most 1 / VOCAB
    assert share == pytest.approx(probability, abs=5 * (0.25 / canvases.numel()) ** 0.5)
    drawn = noise(*range(500))
    assert torch.equal(canvases[canvases != 7], drawn[canvases != 7])


def test_what_is_kept_depends_on_the_segment_and_neither_on_its_batch_nor_on_the_canvas_length():
    together = begin(*(job(index, seed_of(0.5)) for index in range(5)))
    assert torch.equal(begin(job(3, seed_of(0.5)))[0], together[3])
    assert len({tuple(canvas) for canvas in (together == 7).tolist()}) == 5
    seed = seed_of(0.5, num_tokens=CANVAS - 1)
    short, long = begin(job(0, seed)), begin(job(0, seed, 2 * CANVAS), canvas_tokens=2 * CANVAS)
    assert torch.equal(short[0], long[0, :CANVAS])
