"""The page in a real browser: what a person does on it, from a file and from the microphone, and its lake."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dgasr.cli import main
from dgasr.model.adapter import add_lora, save_adapter
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import model_folder
from dgasr.model.presets import LoraSize
from dgasr.publishing import REQUIREMENTS
from dgasr.samples import SAMPLES
from tests.serving.test_serve import MAN, PATIENCE_MS, offline, start

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("serve")]


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "lake"
    assert main(["transcribe", str(MAN), str(SAMPLES / "encrypted.m4a"), "--lake", str(folder)]) == 3
    return folder


@pytest.fixture(scope="module")
def url(browser, lake):
    process, address = start("--processes", "1", "--page", "--lake", str(lake))
    yield address
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) in (0, -signal.SIGTERM)


@pytest.fixture
def shown(browser, url):
    """The page, as narrow as a telephone; it may ask nobody but its server."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.set_default_timeout(PATIENCE_MS)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{url}/page")
    page.wait_for_selector("#transcribe")
    yield page
    page.close()
    assert not [own for own in asked if not own.startswith((url, "data:", "blob:"))]


def screenshot(page, name: str) -> None:
    """Keep a picture for docs/images, where DGASR_SCREENSHOTS names a folder."""
    if folder := os.environ.get("DGASR_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}", full_page=True)


def choose(page, path: Path) -> None:
    page.set_input_files("#audio input[type=file]", path)
    page.wait_for_selector("#audio button[aria-label='Play']")


def test_a_file_becomes_words_that_lead_to_their_sound(shown, tmp_path):
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    choose(shown, MAN)
    shown.evaluate("""() => {
      window.frames_seen = new Set();
      new MutationObserver(() => document.querySelectorAll('#shown .canvas .where').forEach(
        (where) => window.frames_seen.add(where.textContent))).observe(
        document.querySelector('#shown'), {subtree: true, childList: true});
    }""")
    shown.focus("#transcribe")
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#shown audio")
    assert len(shown.evaluate("[...window.frames_seen]")) > 1
    words = shown.query_selector_all("#shown .word")
    assert " ".join(word.inner_text() for word in words) == offline(MAN)
    shown.wait_for_function("document.querySelector('#shown audio').readyState > 0")
    words[3].focus()
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#shown .word.now")
    start_s = float(words[3].get_attribute("data-start"))
    assert shown.evaluate("document.querySelector('#shown audio').currentTime") >= start_s
    with shown.expect_download() as download:
        shown.click("#srt")
    download.value.save_as(tmp_path / "a.srt")
    assert "-->" in (tmp_path / "a.srt").read_text()
    with shown.expect_download() as download:
        shown.click("#json")
    download.value.save_as(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["text"] == offline(MAN)
    shown.click("#shown summary")
    screenshot(shown, "page-narrow.png")
    shown.set_viewport_size({"width": 1000, "height": 800})
    shown.emulate_media(color_scheme="light")
    screenshot(shown, "page.png")


def test_broken_audio_is_told(shown, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio at all")
    shown.set_input_files("#audio input[type=file]", tmp_path / "broken.wav")
    shown.wait_for_timeout(1000)
    shown.click("#transcribe")
    shown.wait_for_selector("#shown [role=alert]")
    assert "no decoder knows this container" in shown.inner_text("#shown")


def test_what_the_microphone_hears_is_transcribed(shown):
    shown.click("#audio button[aria-label='Record audio']")
    shown.click("#audio button.record-button, #audio button:has-text('Record')")
    shown.wait_for_timeout(2000)
    with shown.expect_response(lambda response: "/upload" in response.url):
        shown.click("#audio button.stop-button, #audio button:has-text('Stop')")
    shown.wait_for_selector("#audio button[aria-label='Download']")
    shown.click("#transcribe")
    shown.wait_for_selector("#shown .words, #shown .note:has-text('Nobody speaks')")


def test_the_lake_is_searched_read_and_heard(shown):
    shown.click("button[role=tab]:has-text('Lake')")
    shown.fill("#search textarea, #search input", "five nine")
    shown.keyboard.press("Enter")
    shown.wait_for_function("document.querySelector('#found').innerText.includes('three one four one five nine')")
    shown.wait_for_selector("#transcript .word")
    shown.wait_for_function("document.querySelector('#transcript audio').readyState > 0")
    shown.click("#view label:has-text('rejections')")
    shown.wait_for_function("document.querySelector('#rows').innerText.includes('no decoder knows')")
    screenshot(shown, "page-lake.png")


def page_of(folder: Path, environment: dict[str, str], browser, expected: str) -> None:
    """Run a Space, and see that its page hears what is expected."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"} | environment
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        choose(page, MAN)
        page.click("#transcribe")
        page.wait_for_selector("#shown .word")
        assert " ".join(own.inner_text() for own in page.query_selector_all("#shown .word")) == expected
        page.close()
    finally:
        process.terminate()
        process.wait(60)


def test_a_space_runs_with_what_it_requires_and_asks_its_endpoint(browser, url, tmp_path):
    assert main(["model", "space", url, "--out", str(tmp_path / "space")]) == 0
    imported = set()
    for name in ("app.py", "page.py"):
        imported |= set(re.findall(r"^(?:from|import) (\w+)", (tmp_path / "space" / name).read_text(), re.MULTILINE))
    assert imported - set(sys.stdlib_module_names) == {"page", *REQUIREMENTS}
    page_of(tmp_path / "space", {}, browser, offline(MAN))


def needed(requirements: Path) -> set[str]:
    """Name the distributions that a requirements file brings, those that they need among them."""
    found, waiting = set(), [Requirement(line).name for line in requirements.read_text().splitlines()]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            own = map(Requirement, metadata.requires(name) or ())
            waiting += [one.name for one in own if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_a_space_with_its_own_model_runs_with_what_it_requires(browser, tmp_path):
    space, only = tmp_path / "space", tmp_path / "only"
    assert main(["model", "space", "--model", "tiny", "--out", str(space)]) == 0
    assert not (space / "dgasr/model/base").exists()
    assert (space / "silero_vad/LICENSE").is_file()
    brought = needed(space / "requirements.txt")
    absent = [module for module, owners in metadata.packages_distributions().items()
              if not brought & set(map(canonicalize_name, owners))]  # fmt: skip
    assert {"prefect", "silero_vad", "duckdb"} <= set(absent)
    absent = sorted(set(absent) - {"silero_vad", "dgasr"})  # of which the Space has its own
    only.mkdir()
    # Python reads this file first, in every process.
    (only / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n")
    page_of(space, {"PYTHONPATH": str(only)}, browser, offline(MAN))


def test_a_space_holds_the_folder_of_its_model_and_its_adapter(tmp_path):
    shutil.copytree(model_folder("tiny"), tmp_path / "own")
    torch.manual_seed(0)
    model = load_model(model_folder("tiny"))
    add_lora(model, LoraSize(rank=2, alpha=4))
    save_adapter(model, tmp_path / "lora")
    space = tmp_path / "space"
    asked = ["--model", str(tmp_path / "own"), "--adapter", str(tmp_path / "lora"), "--out", str(space)]
    assert main(["model", "space", *asked]) == 0
    assert "--" not in (space / "requirements.txt").read_text()  # a second index would be asked for every package
    assert (space / "pre-requirements.txt").is_file() is ("+cpu" in torch.__version__)
    app = (space / "app.py").read_text()
    assert "model=str(FOLDER / \"model\"), adapter=str(FOLDER / 'lora')" in app
    assert (space / "model/config.json").is_file()
    assert (space / "lora/adapter_config.json").is_file()
    assert not list(space.glob("dgasr/model/*/config.json"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("serve --lake .", "Give --page"),
        ("model space file:///etc --out space", "no address of an endpoint"),
        ("model space https://a --out .", "is there already"),
        ("model space https://a --adapter a --out space", "Give --model"),
        ("model space --model full --out space", "--adapter"),
        ("serve --token-variable ABSENT", "no such variable"),
        ("serve --model absent", "no such folder"),
    ],
)
def test_wrong_requests_are_refused(capsys, tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    assert message in capsys.readouterr().err
