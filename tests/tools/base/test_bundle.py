import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dgasr.errors import IntegrityError
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_weights, unique_tensors
from dgasr.model.identity import PART_FILES, folder_digest
from dgasr.model.presets import tiny
from tools.base.bundle import save_bundle, save_update


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


def test_an_update_is_added_to_matrices_and_kernels_wherever_they_are_tied(random_model, tmp_path):
    save_bundle(random_model, tmp_path)
    before, model = AsrModel(tiny()), AsrModel(tiny())
    load_weights(before, tmp_path)
    stored = unique_tensors(before)
    names = [name for name in stored if name.endswith(("layers.0.self_attn.q_proj.weight", "convs.0.weight"))]
    factors = {name: (torch.randn(len(stored[name]), 2), torch.randn(2, stored[name][0].numel())) for name in names}
    save_update(factors, tmp_path)
    load_weights(model, tmp_path)
    for name, tensor in unique_tensors(model).items():
        expected = stored[name]
        if name in factors:
            left, right = factors[name]
            expected = expected + (left @ right).view(tensor.shape)
        torch.testing.assert_close(tensor, expected, atol=0.1 if name in factors else 0.0, rtol=0.0)
    assert len(names) >= 3
    stacks = model.backbone.model
    encoders, decoders = (layers[0].self_attn.q_proj.weight for layers in (
        stacks.encoder.language_model.layers, stacks.decoder.layers))  # fmt: skip
    assert encoders is decoders


@pytest.mark.parametrize(
    ("name", "sides"),
    [("nobody", (3, 3)), ("projector.output.weight", (3, 3)), ("projector.output.weight", (None, 3))],
    ids=["no such matrix", "another shape", "one factor alone"],
)
def test_an_update_that_fits_no_matrix_is_refused_and_nothing_is_copied(random_model, tmp_path, name, sides):
    save_bundle(random_model, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    digest, (rows, columns) = folder_digest(tmp_path), sides
    save_update({name: (torch.ones(rows or 1, 1), torch.ones(1, columns))}, tmp_path)
    if rows is None:
        file = tmp_path / "update.safetensors"
        save_file({key: tensor for key, tensor in load_file(file).items() if ".right" in key}, file)
    assert folder_digest(tmp_path) != digest
    model = AsrModel(tiny())
    kept = {own: tensor.clone() for own, tensor in unique_tensors(model).items()}
    with pytest.raises(IntegrityError, match=name):
        load_weights(model, tmp_path)
    assert all(torch.equal(tensor, kept[own]) for own, tensor in unique_tensors(model).items())
