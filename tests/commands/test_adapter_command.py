import json
import shutil

import pytest
import torch

from dgasr.cli import main
from dgasr.model.adapter import add_lora, load_adapter, merge_lora, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model, save_model
from dgasr.model.identity import adapter_files, identify, model_folder
from dgasr.model.presets import LoraSize, tiny
from dgasr.recipe import build_recipe
from dgasr.samples import MANIFEST
from dgasr.transcriber import load, transcribe


@pytest.fixture
def adapter(tmp_path):
    torch.manual_seed(0)
    model = AsrModel(tiny())
    add_lora(model, LoraSize(rank=2, alpha=6))
    save_adapter(model, tmp_path / "adapter")
    return str(tmp_path / "adapter")


def test_what_is_exported_and_imported_again_is_the_same_adapter(adapter, tmp_path, capsys):
    published, again = str(tmp_path / "published.pt"), tmp_path / "again"
    assert main(["adapter", "export", adapter, "--model", "tiny", "--out", published]) == 0
    given = ["--activation", "gelu", "--wording", "model", "--blank", "4"]
    assert main(["adapter", "import", published, "--model", "tiny", "--out", str(again), *given]) == 0
    assert identify("tiny", str(again))[0] == identify("tiny", adapter)[0]
    for name in ("adapter_model.safetensors", "projector.safetensors", "projector.json"):
        assert (again / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()


def test_an_adapter_for_another_model_and_a_file_that_is_there_are_refused(adapter, tmp_path, capsys):
    assert main(["adapter", "export", adapter, "--out", str(tmp_path / "a.pt")]) == 2
    assert "do not fit model full" in capsys.readouterr().err
    assert main(["adapter", "export", adapter, "--model", "tiny", "--out", adapter]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """The bundled model less what an adapter at scale 2 adds, and that adapter as a published file without scales."""
    folder = tmp_path_factory.mktemp("unfinished")
    torch.manual_seed(0)
    model = load_model(model_folder("tiny"))
    add_lora(model, LoraSize(rank=2, alpha=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                # Encoder and decoder share their frozen weights, so their LoRA has to be the same here.
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            elif "lora_A" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    save_adapter(model, folder / "adapter")
    lora = {n.replace(".default", ""): p.detach() for n, p in model.backbone.named_parameters() if "lora_" in n}
    torch.save({"projector": model.projector.state_dict(), "lora": lora}, folder / "published.pt")
    plain = load_model(model_folder("tiny"))
    for name, module in model.backbone.named_modules():
        if hasattr(module, "get_delta_weight") and "decoder" in name:
            plain.backbone.get_submodule(name).weight.data -= module.get_delta_weight("default")
    save_model(plain, folder / "model")
    shutil.copy(model_folder("tiny") / "tokenizer.json", folder / "model")
    rows = [line for line in MANIFEST.read_text().splitlines() if "american_man.flac" in line]
    rows = [line.replace('"audio_filepath": "', f'"audio_filepath": "{MANIFEST.parent}/') for line in rows]
    (folder / "clips.jsonl").write_text("\n".join(rows))
    return folder


def test_what_a_file_does_not_tell_is_refused_by_the_flags_that_give_it(unfinished, tmp_path, capsys):
    ask = ["adapter", "import", str(unfinished / "published.pt"), "--model", str(unfinished / "model"), "--out"]
    assert main([*ask, str(tmp_path / "out")]) == 2
    assert "does not tell --scale, --activation, --wording, --blank" in capsys.readouterr().err
    assert main([*ask, str(tmp_path / "out"), "--scale", "2", "--activation", "gelu", "--blank", "4"]) == 2
    assert "does not tell --wording" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_clips_choose_the_scale_and_activation_that_hear_them_and_silence_the_blank(unfinished, tmp_path, capsys):
    out = tmp_path / "out"
    ask = ["adapter", "import", str(unfinished / "published.pt"), "--model", str(unfinished / "model")]
    assert main([*ask, "--clips", str(unfinished / "clips.jsonl"), "--out", str(out), "--device", "cpu"]) == 0
    chosen = json.loads((out / "calibration.json").read_text())
    assert (chosen["scale"], chosen["activation"], chosen["wer"], chosen["blank_id"]) == (2.0, "gelu", 0.0, 4)
    assert len(chosen["tried"]) == 4 * 3
    assert chosen["tried"][-1]["wer"] > 0.5
    assert capsys.readouterr().out.count("WER") == 12
    assert out / "calibration.json" in adapter_files(str(out))  # so another choice is another recipe
    loaded = load(str(unfinished / "model"), adapter=str(out), device="cpu")
    merge_lora(loaded)
    wanted = load("tiny", device="cpu").backbone.model.decoder.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(loaded.backbone.model.decoder.layers[0].self_attn.q_proj.weight, wanted)


def test_an_adapter_that_hears_nothing_under_any_setting_is_refused(unfinished, tmp_path, capsys):
    ask = ["adapter", "import", str(unfinished / "published.pt"), "--model", str(unfinished / "model"), "--scale", "9"]
    given = ["--activation", "relu", "--clips", str(unfinished / "clips.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*ask, *given]) == 2
    assert "none of them is this adapter's" in capsys.readouterr().err


def test_an_unknown_blank_switches_off_rescoring_and_ctc_times(unfinished, tmp_path, capsys, caplog):
    out, given = tmp_path / "out", ["--scale", "2", "--activation", "gelu", "--wording", "model", "--blank", "unknown"]
    ask = ["adapter", "import", str(unfinished / "published.pt"), "--model", str(unfinished / "model")]
    assert main([*ask, "--out", str(out), *given]) == 0
    assert "CTC blank is not known" in capsys.readouterr().err
    config, identity = identify(str(unfinished / "model"), str(out))
    assert build_recipe(config, identity).rescore == "none"
    transcript = transcribe(MANIFEST.parent / "american_man.flac", load(str(unfinished / "model"), adapter=str(out)))
    assert transcript.text == "three one four one five nine two six"
    assert {segment.timing_source for segment in transcript.segments} <= {"even", "none"}
    assert 0.9 < transcript.confidence <= 1
    assert "spread evenly" in caplog.text


def test_a_file_loaded_without_an_import_warns_of_what_is_assumed(unfinished, caplog):
    load_adapter(load_model(unfinished / "model"), str(unfinished / "published.pt"))
    assert "does not tell LoRA's scale, activation, prompt wording and CTC blank" in caplog.text
