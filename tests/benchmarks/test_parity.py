"""The whole path beside transformers' `generate`: embeddings in slots, rows refilled, LoRA, bfloat16, ends of texts."""

import pytest
import torch

from benchmarks.parity import CASES, compare


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ours_is_what_generate_gives_on_the_published_structure(case):
    found = compare(case, torch.device("cpu"))
    assert found.holds, found
    assert found.num_steps > found.num_canvases  # canvases settle, and none at once
