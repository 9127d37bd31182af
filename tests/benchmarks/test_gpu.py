"""`make gpu` to its end on a CPU, on the published structure in small; and again, where it was stopped."""

import json

import pytest

from benchmarks import decode_case, gpu
from benchmarks.__main__ import run
from dgasr.errors import ConfigError, IntegrityError

pytestmark = pytest.mark.slow

BUSY_SHARE = 0.75


@pytest.fixture(scope="module", autouse=True)
def no_profile():
    """Give a figure for what torch's profiler finds: reading its events takes longest, and test_decode does so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_case, "busy_share", lambda device, work: BUSY_SHARE)
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "CASES", gpu.CASES[:1])
        run("gpu", ["--device", "cpu", "--out", str(folder)])
    return folder


def test_it_runs_to_its_end_and_tells_everything_on_a_page(out):
    page = (out / "report.md").read_text()
    assert "Missing" not in page
    for own in gpu.ON_CPU:
        assert f"| {own.engine} | {own.batch} | {own.canvas} | {own.steps} | {own.chunk} |" in page
    assert "canvases equal" in page
    assert "times the RTFx of transformers" in page
    assert all(f"{phase} " in page for phase in ("rescore", "read", "ctc text"))
    found = json.loads((out / "figures.json").read_text())["parts"]
    assert found["loading"]["load_s"] > 0
    for own in gpu.ON_CPU:
        measured = found[own.name]["measured"]
        assert measured["rtfx"] > 0
        assert measured["busy_share"] == BUSY_SHARE


def test_a_run_that_was_stopped_goes_on_where_it_was(out, monkeypatch):
    page, stopped = (out / "report.md").read_text(), gpu.ON_CPU[2].name
    (out / f"{stopped}.json").unlink()
    done = []
    monkeypatch.setattr(gpu, "CASES", gpu.CASES[:1])
    plain = gpu._measure
    monkeypatch.setattr(gpu, "_measure", lambda own, *rest: done.append(own.name) or plain(own, *rest))
    run("gpu", ["--device", "cpu", "--out", str(out)])
    assert done == [stopped]
    assert len((out / "report.md").read_text().splitlines()) == len(page.splitlines())


def test_what_there_is_no_time_for_and_what_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "CASES", ())
    run("gpu", ["--device", "cpu", "--out", str(tmp_path), "--minutes", "0"])
    page = (tmp_path / "report.md").read_text()
    assert page.count("no time was left") == len(gpu.ON_CPU) + 2
    monkeypatch.setattr(gpu, "_load", lambda *_: 1 / 0)
    with pytest.raises(IntegrityError, match="loading"):
        run("gpu", ["--device", "cpu", "--out", str(tmp_path)])
    assert "ZeroDivisionError: division by zero" in (tmp_path / "report.md").read_text()


def test_a_folder_of_another_request_is_refused(out):
    with pytest.raises(ConfigError, match="holds figures of"):
        run("gpu", ["--device", "cpu", "--out", str(out), "--model", "tiny"])


def test_a_table_of_ones_own_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "CASES", ())
    sizes = ["--model", "tiny", "--batch", "1", "--canvas", "8", "--steps", "1"]
    run("gpu", ["--device", "cpu", "--out", str(tmp_path), *sizes])
    page = (tmp_path / "report.md").read_text()
    assert "| ours | 1 | 8 | 1 |" in page
    assert "| transformers | 1 | 8 | 1 |" in page
