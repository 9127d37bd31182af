"""All that a speech team does, once: a corpus, a run, its score, its model for others, its endpoint, its page."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dgasr.cli import main
from dgasr.samples import MANIFEST, SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("serve")]

CLIPS = ("american_man.flac", "american_woman.mp3", "american_man_44khz.flac")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of one's own recordings, a text beside each."""
    folder = tmp_path / "recordings" / "people"
    folder.mkdir(parents=True)
    texts = {row["audio_filepath"]: row["text"] for row in map(json.loads, MANIFEST.read_text().splitlines())}
    for name in CLIPS:
        shutil.copyfile(SAMPLES / name, folder / name)
        (folder / name).with_suffix(".txt").write_text(texts[name])
    return folder.parent


def test_from_recordings_to_a_page_that_shows_their_words(corpus: Path, tmp_path: Path, browser, monkeypatch):
    import openai

    monkeypatch.chdir(tmp_path)
    manifest, figures = "corpora/folder-en.jsonl", tmp_path / "figures.json"
    assert main(["corpora", "folder", str(corpus), "--language", "en", "--out", "corpora", "--processes", "1"]) == 0
    learn = ["--epochs", "1", "--no-lora", "--lr", "1e-6", "--workers", "0", "--device", "cpu"]
    assert main(["train", manifest, "--base", "tiny", "--run-name", "mine", *learn]) == 0
    score = ["--run-name", "mine", "--latency", "1", "--json", str(figures), "--html", "page.html", "--device", "cpu"]
    assert main(["evaluate", manifest, *score]) == 0
    scored = json.loads(figures.read_text())
    assert scored["wer"] < 0.2
    heard = {Path(row["audio_filepath"]).name: row["hypothesis"] for row in scored["utterances"]}
    licence = ["--licence", "Apache-2.0", "--data", "folder=CC0-1.0", "--figures", str(figures)]
    assert main(["model", "card", "runs/mine/final", "--name", "our/model", *licence]) == 0
    assert main(["model", "publish", "runs/mine/final", "--to", "published"]) == 0
    command = [sys.executable, "-m", "dgasr.cli", "serve", "--port", "0", "--model", "published", "--page"]
    process = subprocess.Popen([*command, "--processes", "1", "--device", "cpu"], stderr=subprocess.PIPE, text=True)
    try:
        address = next(found[1] for line in process.stderr if (found := re.search(r"on (http://\S+);", line)))
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        with (SAMPLES / CLIPS[0]).open("rb") as file:
            assert client.audio.transcriptions.create(model="any", file=file).text == heard[CLIPS[0]] != ""
        page = browser.new_page()
        page.set_default_timeout(90_000)
        page.goto(f"{address}/page")
        page.set_input_files("#audio input[type=file]", SAMPLES / CLIPS[0])
        page.wait_for_selector("#audio button[aria-label='Play']")
        page.click("#transcribe")
        page.wait_for_selector("#shown .word")
        assert " ".join(own.inner_text() for own in page.query_selector_all("#shown .word")) == heard[CLIPS[0]]
        process.send_signal(signal.SIGTERM)  # with the page still open: it may not hold the server up
        assert process.wait(60) in (0, -signal.SIGTERM)
    finally:
        process.kill()
