import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from dgasr.errors import ConfigError
from dgasr.model import hub
from dgasr.model.hub import revision_of
from dgasr.model.identity import ADAPTER_FILES, identify
from dgasr.model.presets import full, tiny

ENCODER_REVISION, BACKBONE_REVISION = "a" * 40, "b" * 40


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A Hub cache as `hf download` leaves it, without the weights."""
    for source, revision in zip(full().pretrained.values(), (ENCODER_REVISION, BACKBONE_REVISION), strict=True):
        folder = tmp_path / ("models--" + source.replace("/", "--"))
        (folder / "snapshots" / revision).mkdir(parents=True)
        (folder / "snapshots" / revision / "config.json").write_text("{}")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ADAPTER_FILES:
        (folder / name).write_text(name)
    return folder


def test_a_checkpoint_that_is_nowhere_is_named_where_there_is_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="The weights of nobody/nothing are not to be had"):
        revision_of("nobody/nothing")


def test_naming_a_model_loads_no_torch(adapter):
    program = (
        "import sys; from dgasr.model.identity import identify; from dgasr.recipe import build_recipe\n"
        f"build_recipe(*identify('tiny', {str(adapter)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_models_are_named_by_their_files_or_by_the_revisions_in_the_cache(hub_cache, adapter):
    config, identity = identify("tiny")
    assert config.name == identity.name == "tiny"
    assert (len(identity.digest), identity.adapter_digest) == (32, "")
    config, identity = identify("full", str(adapter))
    assert config == full()
    assert identity.digest == f"{ENCODER_REVISION}+{BACKBONE_REVISION}"
    assert len(identity.adapter_digest) == 32


def test_full_needs_an_adapter_and_absent_weights_say_how_to_get_them(tmp_path, monkeypatch, adapter):
    with pytest.raises(ConfigError, match="--model full needs --adapter"):
        identify("full")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"Accept the licence .*whisper-small.*hf auth login"):
        identify("full", str(adapter))


def test_an_adapter_is_named_by_every_one_of_its_files_and_an_incomplete_one_refused(adapter, tmp_path):
    (tmp_path / "adapter.pt").write_bytes(b"tensors")
    digests = {identify("tiny", str(source))[1].adapter_digest for source in (adapter, tmp_path / "adapter.pt")}
    for name in ADAPTER_FILES:
        (adapter / name).write_text("other")
        digests.add(identify("tiny", str(adapter))[1].adapter_digest)
    assert len(digests) == 2 + len(ADAPTER_FILES)
    assert {len(digest) for digest in digests} == {32}
    for name in ADAPTER_FILES:
        (adapter / name).rename(tmp_path / name)
        with pytest.raises(ConfigError, match=f"not an adapter \\({name} missing"):
            identify("tiny", str(adapter))
        (tmp_path / name).rename(adapter / name)


def test_a_folder_may_name_frozen_weights_beside_itself(tmp_path, adapter):
    for part in ("encoder", "backbone"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_text(part)
    config = replace(tiny(), pretrained={"encoder": "encoder", "backbone": "./backbone"})
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    found, identity = identify(str(tmp_path), str(adapter))
    assert found.pretrained == {"encoder": f"{tmp_path}/encoder", "backbone": f"{tmp_path}/backbone"}
    (tmp_path / "backbone" / "model.safetensors").write_text("other")
    assert identify(str(tmp_path), str(adapter))[1].digest != identity.digest


def test_samples_of_a_large_file_tell_versions_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(hub, "SAMPLE_BYTES", 10)
    content = bytearray(5000)
    revisions = set()
    for changed in (0, 4999):
        content[changed] = 1
        (tmp_path / "model.safetensors").write_bytes(content)
        revisions.add(revision_of(str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(content + b"\0")
    assert len(revisions | {revision_of(str(tmp_path))}) == 3


def test_a_decoder_that_is_compiled_or_narrowed_is_another_recipe_and_both_together_are_refused():
    ways = ({}, {"compiled": True}, {"quantize": "int8"})
    digests = [identify("tiny", **way)[1].digest for way in ways]
    assert digests == [digests[0], f"{digests[0]}+compiled", f"{digests[0]}+int8"]
    for way in ({"compiled": True, "quantize": "int8"}, {"quantize": "fp8"}):
        with pytest.raises(ConfigError, match="--quantize"):
            identify("tiny", **way)
