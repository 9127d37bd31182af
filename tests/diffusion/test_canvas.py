from dgasr.diffusion.canvas import CanvasSeed

SEED = CanvasSeed(ids=(5, 6, 7, 1), probabilities=(0.9, 0.3, 0.8, 0.3), pad_id=0)


def test_a_seed_is_followed_by_pads_as_doubtful_as_its_most_doubtful_token():
    assert SEED.lay_out(6) == ([5, 6, 7, 1, 0, 0], [0.9, 0.3, 0.8, 0.3, 0.3, 0.3])


def test_a_seed_that_fills_its_canvas_has_no_pads():
    assert SEED.lay_out(4) == ([5, 6, 7, 1], [0.9, 0.3, 0.8, 0.3])


def test_a_seed_longer_than_its_canvas_is_cut():
    assert SEED.lay_out(2) == ([5, 6], [0.9, 0.3])


def test_an_empty_text_is_an_end_and_pads():
    assert CanvasSeed(ids=(1,), probabilities=(0.5,), pad_id=0).lay_out(3) == ([1, 0, 0], [0.5, 0.5, 0.5])
