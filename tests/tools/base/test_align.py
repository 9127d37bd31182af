from itertools import pairwise

import numpy as np

from tools.base.align import WINDOWS_S, batches, word_places
from tools.base.speech import Clip


def test_words_lie_where_attention_is_and_the_last_one_ends_where_the_text_does():
    attention = np.full((2, 5, 100), 0.01, np.float32)  # tokens: two of word 0, one each of words 1 and 2, the end
    for token, (start, end) in enumerate([(0, 10), (10, 20), (20, 50), (50, 80), (80, 100)]):
        attention[:, token, start:end] += 1.0
    places = word_places(attention, [0, 0, 1, 2, 3])
    assert np.allclose(places, [(0, 20), (20, 50), (50, 80)], atol=3)
    assert all(end == start for (_, end), (start, _) in pairwise(places))


def test_every_clip_is_in_one_batch_with_a_window_that_holds_it():
    clips = [(index, Clip(0, 0, 4000 * (index + 1), "x" * index, "s", "set")) for index in range(110)]
    seen = []
    for window_s, group in batches(clips, 8):
        assert all(clip.num_samples <= window_s * 16_000 for _, clip in group)
        shorter = [length for length in WINDOWS_S if length < window_s]
        assert all(clip.num_samples > max(shorter, default=0) * 16_000 for _, clip in group)
        seen += [index for index, _ in group]
    assert sorted(seen) == list(range(110))
