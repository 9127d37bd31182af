from pathlib import Path

import boto3
import pytest

from dgasr.commands import doctor
from dgasr.commands.doctor import Finding, examine
from dgasr.segmentation import pauses


def findings(s3_uri: str | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(s3_uri)}


@pytest.fixture(autouse=True)
def without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model takes seconds; one test below does it."""
    monkeypatch.setattr(doctor, "_bundled_model", lambda name: ("bundled", ""))


def test_what_is_wrong_comes_with_what_to_do():
    assert all(finding.remedy for finding in findings().values() if finding.level != "ok")


def test_a_package_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "requirements.lock").write_text("# pins\nnumpy==1.0\nno-such-package==2.0\n")
    monkeypatch.setattr(doctor, "LOCK", tmp_path / "requirements.lock")
    found = findings()["packages"]
    assert found.level == "warn"
    assert "pinned is 1.0" in found.message
    assert "no-such-package 2.0 is missing" in found.message


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 10**18)
    assert findings()["disk"].level == "warn"


def test_a_missing_speech_model_is_a_warning_that_says_what_works_without(monkeypatch: pytest.MonkeyPatch):
    assert findings()["speech model"].level == "ok"
    monkeypatch.setattr(pauses, "WEIGHTS_SHA256", "0" * 64)
    pauses.load_network.cache_clear()
    found = findings()["speech model"]
    assert (found.level, found.remedy) == ("warn", pauses.REMEDY)
    assert "--segmentation loudness" in found.remedy


def test_missing_weights_of_the_full_model_are_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "FULL_CHECKPOINTS", ("nobody/no-such-model",))
    found = findings()["model full"]
    assert (found.level, found.remedy) == ("warn", "`hf download nobody/no-such-model`")


def test_the_probe_tells_stores_apart_and_keeps_nothing(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch):
    from dgasr import store

    client = boto3.client("s3")
    client.create_bucket(Bucket="probed")
    assert findings("s3://probed/lake")["s3 probe"].level == "ok"
    assert client.list_objects_v2(Bucket="probed")["KeyCount"] == 0
    assert findings("s3://not-there/lake")["s3 probe"].level == "fail"
    monkeypatch.setattr(store, "write_if_absent", lambda uri, data: bool(store.write_bytes(uri, data)) or True)
    found = findings("s3://probed/lake")["s3 probe"]
    assert (found.level, "ignores `If-None-Match" in found.message) == ("fail", True)
