"""The whole path beside transformers' `generate`: embeddings in slots, rows refilled, LoRA, bfloat16, ends of texts.

`generate` runs segments one by one, and ours in batches of 2, 3 and 7 through grouped experts: whatever the batch, the
same tokens.
"""

from dataclasses import replace

import pytest
import torch

from benchmarks.parity import CASES, DECODE, Case, compare

SCHEDULES = {
    "all steps": replace(DECODE, confidence_threshold=1e-9, entropy_bound=2.0),
    "few accepted": replace(DECODE, confidence_threshold=1e-9, entropy_bound=0.1),
    "settle after two equal steps": replace(DECODE, max_steps=12, stability_threshold=2),
    "vocabulary in chunks": replace(DECODE, vocabulary_chunk=10),
}


@pytest.mark.parametrize(
    "case",
    [*CASES, *(Case(name=name, num_rows=3, decode=decode) for name, decode in SCHEDULES.items())],
    ids=lambda case: case.name,
)
def test_ours_is_what_generate_gives_on_the_published_structure(case):
    found = compare(case, torch.device("cpu"))
    assert found.holds, found
    assert found.num_steps > found.num_canvases  # canvases settle, and none at once
    if case.decode.confidence_threshold < DECODE.confidence_threshold:
        assert found.num_steps == case.decode.max_steps * found.num_canvases
