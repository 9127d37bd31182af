import pytest
import torch
from safetensors.torch import load_file, save_file

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_weights, save_model, unique_tensors
from dgasr.model.identity import PART_FILES, WEIGHTS_FILE, folder_digest
from dgasr.model.presets import tiny
from tools.base.bundle import save_bundle


@pytest.fixture
def stored(random_model, tmp_path):
    save_model(random_model, tmp_path)
    return tmp_path


def test_a_model_survives_its_folder_to_the_bit_with_tied_tensors_stored_once(random_model, stored):
    assert [path.name for path in stored.glob("*.safetensors")] == [WEIGHTS_FILE]
    model = AsrModel(tiny())
    load_weights(model, stored)
    for (name, tensor), other in zip(random_model.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
    assert model.head_weight is model.backbone.model.encoder.language_model.embed_tokens.weight
    parameters = sum(parameter.numel() for parameter in random_model.parameters())
    stored_numbers = sum(tensor.numel() for tensor in load_file(stored / WEIGHTS_FILE).values())
    assert parameters <= stored_numbers <= parameters + 100  # the layers' scalars are buffers


@pytest.mark.parametrize("fault", ["missing", "unused", "shape"])
def test_weights_that_do_not_fit_are_refused_and_nothing_is_copied(stored, random_model, fault):
    tensors = load_file(stored / WEIGHTS_FILE)
    if fault == "missing":
        del tensors["projector.output.bias"]
    elif fault == "unused":
        tensors["projector.extra"] = torch.zeros(1)
    else:
        tensors["projector.output.bias"] = torch.zeros(3)
    save_file(tensors, stored / WEIGHTS_FILE)
    model = AsrModel(tiny())
    before = unique_tensors(model)["projector.hidden.weight"].clone()
    with pytest.raises(IntegrityError, match="projector"):
        load_weights(model, stored)
    assert torch.equal(before, unique_tensors(model)["projector.hidden.weight"])


def test_a_file_that_is_not_safetensors_is_refused_and_a_part_that_is_missing_named(random_model, stored):
    (stored / WEIGHTS_FILE).write_bytes(b"\x80\x04pickle")
    with pytest.raises(ConfigError, match="no readable weights"):
        load_weights(AsrModel(tiny()), stored)
    save_bundle(random_model, stored)
    (stored / "tokenizer.json").write_text("{}")
    (stored / PART_FILES["projector"]).unlink()
    for look in (lambda: load_weights(AsrModel(tiny()), stored), lambda: folder_digest(stored)):
        with pytest.raises(ConfigError, match=r"projector\.safetensors"):
            look()


def test_the_digest_changes_with_any_file(stored):
    (stored / "tokenizer.json").write_text("{}")
    first = folder_digest(stored)
    (stored / "tokenizer.json").write_text("{ }")
    assert folder_digest(stored) != first
