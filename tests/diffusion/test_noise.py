import numpy as np
import pytest
import torch

from dgasr.diffusion.noise import Purpose, SegmentNoise, key_words, philox, segment_key, to_token_ids, to_uniforms

KNOWN_ANSWERS = [
    # counter, key, output: the philox4x32-10 lines of Random123's kat_vectors
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [torch.tensor(int(word, 16)) for word in text.split()]


def philox_in_python(counter, key):
    """Philox on Python's unbounded integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        product_0, product_1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = (product_1 >> 32) ^ c1 ^ k0, product_1 % 2**32
        c2, c3 = (product_0 >> 32) ^ c3 ^ k1, product_0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def noise_of(*segments, steps=None):
    keys = key_words([segment_key("r", segment) for segment in segments], torch.device("cpu"))
    return SegmentNoise(keys, torch.tensor(steps or [0] * len(segments)))


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, output):
    assert philox(words(counter), words(key)).tolist() == [int(word, 16) for word in output.split()]


def test_philox_equals_unbounded_integers_where_products_overflow_int64():
    random = np.random.default_rng(5).integers(2**31, 2**32, size=(200, 6))
    columns = torch.from_numpy(random).unbind(dim=1)
    expected = [philox_in_python(row[:4].tolist(), row[4:].tolist()) for row in random]
    assert philox(columns[:4], columns[4:]).tolist() == expected


def test_the_key_of_a_segment_never_changes_and_those_of_neighbours_differ():
    assert segment_key("0123456789abcdef0123456789abcdef", 7) == 0xD0766CAE5AA21306
    assert len({segment_key(recording, index) for recording in ("a", "b") for index in range(100)}) == 200


def test_noise_depends_neither_on_the_batch_nor_on_the_canvas_length():
    alone, together = noise_of(2, steps=[3]), noise_of(9, 2, 4, steps=[0, 3, 7])
    assert torch.equal(alone.renoise_ids(5, 100)[0], together.renoise_ids(5, 100)[1])
    assert torch.equal(alone.sample_uniforms(5, 3)[0], together.sample_uniforms(5, 3)[1])
    assert torch.equal(noise_of(1).initial_ids(8, 100)[0], noise_of(1).initial_ids(32, 100)[0, :8])


def test_draws_differ_by_step_position_purpose_and_chunk():
    counters = {
        tuple(noise_of(0, steps=[step])._words(purpose, 4, 2)[0, position, lane].tolist())
        for step in range(3)
        for purpose in Purpose
        for position in range(4)
        for lane in range(2)
    }
    assert len(counters) == 3 * len(Purpose) * 4 * 2


def test_token_ids_are_uniform_over_the_vocabulary():
    counts = torch.bincount(noise_of(*range(64)).initial_ids(256, 24).flatten(), minlength=24)
    expected = 64 * 256 / 24
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 49.7  # 23 degrees of freedom: exceeded once in a thousand


def test_uniforms_never_reach_their_ends_and_the_highest_word_is_the_highest_token_id():
    ends = torch.tensor([0, 2**32 - 1])
    lowest, highest = to_uniforms(ends).tolist()
    assert 0 < lowest < highest < 1
    assert to_token_ids(ends, 262_144).tolist() == [0, 262_143]
    uniforms = noise_of(*range(32)).sample_uniforms(128, 4)
    assert abs(float(uniforms.mean()) - 0.5) < 0.005
    assert abs(float(uniforms.var()) - 1 / 12) < 0.002


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_noise_is_the_same_on_cuda():
    here = noise_of(1, 2, steps=[0, 5])
    there = SegmentNoise(here.keys.cuda(), here.steps.cuda())
    assert torch.equal(here.sample_uniforms(16, 3), there.sample_uniforms(16, 3).cpu())
    assert torch.equal(here.renoise_ids(16, 262_144), there.renoise_ids(16, 262_144).cpu())
