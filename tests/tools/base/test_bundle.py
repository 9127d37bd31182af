import zlib

import numpy as np
import pytest
import torch

from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_weights
from dgasr.model.identity import PART_FILES
from dgasr.model.presets import tiny
from tools.base.bundle import save_bundle


@pytest.mark.parametrize(("coarse", "levels"), [((), 127), (("encoder.", "projector.", "backbone."), 63)])
def test_eight_bits_are_off_by_half_a_step_of_each_row_at_most(random_model, tmp_path, coarse, levels):
    with torch.no_grad():
        random_model.projector.output.weight[0] = 0
    save_bundle(random_model, tmp_path, coarse)
    model = AsrModel(tiny())
    load_weights(model, tmp_path)
    for (name, wanted), found in zip(random_model.named_parameters(), model.parameters(), strict=True):
        rows = wanted.flatten(1) if wanted.dim() > 1 else wanted[:, None]
        step = rows.abs().amax(dim=1, keepdim=True) / levels if wanted.dim() > 1 else 0.0
        assert ((found.view_as(rows) - rows).abs() <= 0.501 * step).all(), name
    num_bytes = sum((tmp_path / file).stat().st_size for file in PART_FILES.values())
    assert num_bytes < 0.35 * sum(4 * p.numel() for p in random_model.parameters())
    assert model.head_weight is model.backbone.model.encoder.language_model.embed_tokens.weight


def test_seven_bits_compress_better(random_model, tmp_path):
    sizes = []
    for coarse in ((), ("backbone.",)):
        save_bundle(random_model, tmp_path, coarse)
        sizes.append([len(zlib.compress((tmp_path / file).read_bytes())) for file in PART_FILES.values()])
    smaller = dict(zip(PART_FILES, np.divide(sizes[1], sizes[0]), strict=True))
    assert smaller.pop("backbone") < 0.92
    assert all(share == 1 for share in smaller.values())
