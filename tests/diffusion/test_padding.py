"""How much of what a batch computes is somebody's; idle rows are what other systems' GPUs waited on."""

import pytest

from tests.diffusion.test_denoise import job, run


@pytest.mark.parametrize(("lengths", "share"), [((8,), 0.9), ((8, 8, 16), 0.75)])
def test_most_rows_are_in_use_though_canvases_leave_at_any_step(lengths: tuple[int, ...], share: float):
    num_rows, num_jobs = 8, 100
    jobs = (
        job([2 + index % 10], lengths[index % len(lengths)], unsure_steps=index * 7 % 5) for index in range(num_jobs)
    )
    decoder, canvases = run(jobs, num_rows=num_rows)
    in_use = sum(canvas.num_steps for canvas in canvases)
    assert in_use / (num_rows * len(decoder.shapes)) > share
