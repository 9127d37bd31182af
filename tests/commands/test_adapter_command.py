import pytest
import torch

from dgasr.cli import main
from dgasr.model.adapter import add_lora, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.presets import LoraSize, tiny


@pytest.fixture
def adapter(tmp_path):
    torch.manual_seed(0)
    model = AsrModel(tiny())
    add_lora(model, LoraSize(rank=2, alpha=6))
    save_adapter(model, tmp_path / "adapter")
    return str(tmp_path / "adapter")


def test_inspect_says_how_an_adapter_is_built(adapter, capsys):
    assert main(["adapter", "inspect", adapter, "--model", "tiny"]) == 0
    printed = capsys.readouterr().out
    assert "3 convolutions of 3, 96 → 128 → 128 → 128 → 128 → 128, no norms; 8 frames per embedding" in printed
    assert "rank 2, alpha 6; k_proj, o_proj, q_proj, v_proj of encoder and decoder" in printed


def test_what_is_exported_and_imported_again_is_the_same_adapter(adapter, tmp_path, capsys):
    published, again = str(tmp_path / "published.pt"), tmp_path / "again"
    assert main(["adapter", "export", adapter, "--model", "tiny", "--out", published]) == 0
    assert main(["adapter", "import", published, "--model", "tiny", "--out", str(again)]) == 0
    for name in ("adapter_model.safetensors", "projector.safetensors", "projector.json"):
        assert (again / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()


def test_an_adapter_for_another_model_is_refused(adapter, capsys):
    assert main(["adapter", "inspect", adapter]) == 2
    assert "do not fit model full" in capsys.readouterr().err


def test_nothing_is_overwritten(adapter, capsys):
    assert main(["adapter", "export", adapter, "--model", "tiny", "--out", adapter]) == 2
    assert "is there already" in capsys.readouterr().err
