"""What canvases start from: each its own noise."""

import torch

from dgasr.diffusion import CanvasJob, DecodeConfig
from dgasr.diffusion.noise import SegmentNoise, key_words, segment_key
from dgasr.diffusion.sampler import CanvasRows
from dgasr.diffusion.vocabulary import VocabularyHead

VOCAB, CANVAS = 4096, 16
HEAD = VocabularyHead(weight=torch.zeros(VOCAB, 4), softcap=30.0, embed_scale=1.0)


def begin(*indices):
    """The canvases that these segments start from.  [segments, canvas]"""
    jobs = [CanvasJob(noise_key=segment_key("r", index), canvas_tokens=CANVAS, payload=None) for index in indices]
    rows = CanvasRows(len(jobs), CANVAS, HEAD, DecodeConfig())
    rows.begin(range(len(jobs)), jobs)
    return rows.ids


def test_jobs_start_from_their_noise_whoever_is_beside_them():
    keys = key_words([segment_key("r", index) for index in range(3)], torch.device("cpu"))
    noise = SegmentNoise(keys, torch.zeros(3, dtype=torch.int64)).initial_ids(CANVAS, VOCAB)
    assert torch.equal(begin(0, 1, 2), noise)
    assert torch.equal(begin(2, 0), noise[[2, 0]])
