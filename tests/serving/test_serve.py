"""`dgasr serve` as a process of its own, asked by the real OpenAI client and by plain HTTP; it ends with the test."""

import io
import json
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import httpx
import numpy as np
import pytest
import soundfile

from dgasr.samples import SAMPLES
from dgasr.serving.prepare import prepare
from dgasr.stages.engine import EngineConfig, start_engine
from tests.forked import Forked

TOKEN = "a-secret"
WOMAN, MAN = SAMPLES / "american_woman.mp3", SAMPLES / "american_man.flac"

PATIENCE_MS = 90_000
"""A machine that trains a model at the same time is slow."""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("serve")]


def start(*flags):
    """Start a server: its process, and its address."""
    environment = os.environ | {"SERVE_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    process = Forked(["-m", "dgasr.cli", "serve", "--port", "0", "--device", "cpu", *flags], environment)
    while not (found := re.search(r"serves on (http://\S+);", process.output)):
        assert process.poll() is None, process.output
        time.sleep(0.05)
    return process, found[1]


@pytest.fixture(scope="module")
def server():
    """Process and address of the server of this file's tests; the last of them ends it."""
    process, address = start("--token-variable", "SERVE_TOKEN", "--max-bytes", "3000000", "--allow-url", "*",
                             "--limit", "max_duration_s=60", "--processes", "1", "--page")  # fmt: skip
    yield process, address
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def url(server):
    return server[1]


@pytest.fixture
def client(url):
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as own:
        yield own


@cache
def offline(path):
    """What a batch run recognises in the same bytes."""
    engine = start_engine(EngineConfig(device="cpu"))
    found = sorted(
        engine.transcriber.transcribe(prepare(path, engine.recipe).spoken), key=lambda t: t.segment.segment_index
    )
    return " ".join(own.text for own in found if own.text)


def test_the_openai_client_gets_text_words_and_subtitles(url):
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny"]

    def ask(**options):
        with WOMAN.open("rb") as file:
            return client.audio.transcriptions.create(model="tiny", file=file, **options)

    text = offline(WOMAN)
    assert ask().text == text != ""
    assert ask(response_format="text") == text + "\n"
    found = ask(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (found.text, found.language) == (text, "en")
    assert [word.word for word in found.words] == text.split()
    assert 0 < found.words[0].start < found.words[0].end < found.duration
    assert "-->" in ask(response_format="srt")
    assert ask(response_format="vtt").startswith("WEBVTT")
    with pytest.raises(openai.BadRequestError, match="this model knows en"):
        ask(language="xx")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()


def test_bytes_and_forms_give_what_a_batch_run_gives(client):
    found = client.post("/transcribe", content=MAN.read_bytes()).json()
    assert found["text"] == offline(MAN)
    spoken = [segment for segment in found["segments"] if segment["kind"] == "speech"]
    assert [word["word"] for segment in spoken for word in segment["words"]] == found["text"].split()
    assert found["segments"][0]["start_s"] == 0
    assert found["segments"][-1]["end_s"] == pytest.approx(found["duration_s"])
    with MAN.open("rb") as file:
        form = client.post("/transcribe", files={"file": file}, data={"response_format": "text"})
    assert form.text == found["text"] + "\n"


def test_a_canvas_can_be_watched_as_it_settles(client):
    events = []
    with client.stream("POST", "/transcribe", params={"stream": "denoise"}, content=MAN.read_bytes()) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    *canvases, (last, done) = events
    assert last == "done"
    assert done["text"] == offline(MAN)
    assert {name for name, _ in canvases} == {"canvas"}
    assert [canvas["step"] for _, canvas in canvases] == list(range(1, len(canvases) + 1))
    assert len(canvases) > 1
    settled = canvases[-1][1]["tokens"]
    assert " ".join(text for text, _ in settled) == done["text"]
    assert all(0 <= likely <= 1 for _, likely in settled)


def test_a_file_that_ends_early_is_transcribed_and_says_so(client):
    content = MAN.read_bytes()
    found = client.post("/transcribe", content=content[: len(content) * 2 // 3]).json()
    assert found["message"]
    assert offline(MAN).startswith(found["text"].rsplit(" ", 1)[0])


def flac(waveform, rate):
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format="FLAC")
    return buffer.getvalue()


def noise(duration_s):
    return flac(np.random.default_rng(0).normal(0, 0.01, round(duration_s * 8000)), 8000)


def long_call():
    """A recording that takes a second or two."""
    waveform, rate = soundfile.read(MAN)
    return flac(np.tile(waveform, 10), rate)


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        (lambda: {"content": b"\0" * 3_000_001}, 413, "too_large"),
        (lambda: {"content": iter([b"\0" * 2_000_000] * 2)}, 413, "too_large"),  # without a Content-Length
        (lambda: {"content": noise(61)}, 413, "too_long"),
        (lambda: {"content": b"no audio at all"}, 415, "unknown_format"),
        (lambda: {"content": b""}, 422, "empty_file"),
        (lambda: {"content": WOMAN.read_bytes(), "params": {"language": "de"}}, 400, "language"),
        (lambda: {"content": WOMAN.read_bytes(), "params": {"response_format": "doc"}}, 400, "response_format"),
        (lambda: {"files": {"sound": b"x"}}, 400, "file"),
        (lambda: {"json": {"url": "http://a"}}, 400, "audio_url"),
        (lambda: {"json": []}, 400, "invalid_request"),
        (lambda: {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "invalid_request"),
        (lambda: {"json": {"audio_url": "http://127.0.0.1:1/a.wav"}}, 400, "audio_url"),
        (lambda: {"json": {"audio_url": "file:///etc/passwd"}}, 400, "audio_url"),
    ],
)
def test_what_is_refused_is_told_by_status_and_reason(client, request_of, status, code):
    answer = client.post("/transcribe", **request_of())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


def test_health_readiness_metrics_and_docs_are_there(url, client):
    assert httpx.get(f"{url}/health").text == httpx.get(f"{url}/ready").text == "ok"
    assert httpx.get(f"{url}/docs").status_code == 401
    assert client.get("/docs").status_code == 200
    client.post("/transcribe", content=WOMAN.read_bytes())
    told = httpx.get(f"{url}/metrics").text
    assert 'dgasr_requests_total{route="/transcribe",status="200"}' in told
    assert "dgasr_waiting_segments 0.0" in told
    assert float(re.search(r"dgasr_audio_seconds_total ([\d.]+)", told)[1]) > 4


def test_many_at_once_get_the_text_of_their_own_file(url, client):
    files = [path for path in sorted(SAMPLES.iterdir()) if path.suffix in (".flac", ".mp3", ".wav", ".ogg")]
    alone = {path: client.post("/transcribe", content=path.read_bytes()).json().get("text") for path in files}
    assert sum(text not in (None, "") for text in alone.values()) > 5

    def ask(path):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.post(f"{url}/transcribe", content=path.read_bytes(), headers=headers, timeout=120)
        return path, answer.json().get("text")

    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(ask, files * 2))
    assert all(text == alone[path] for path, text in found)


def test_a_client_that_goes_away_frees_its_place_and_a_full_queue_says_when_to_come_again():
    process, address = start("--max-waiting", "15", "--processes", "2", "--batch-size", "1")
    try:
        content, codes = long_call(), []

        def ask():
            answer = httpx.post(f"{address}/transcribe", content=content, timeout=120)
            codes.append((answer.status_code, answer.headers.get("Retry-After")))

        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as gone:
            head = f"POST /transcribe HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n"
            gone.sendall(head.encode() + content)
        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {code for code, _ in codes} == {200, 429}
        assert {retry for code, retry in codes if code == 429} == {"5"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    finally:
        process.kill()


def test_the_page_asks_for_the_servers_token(url, browser):
    for method, route in (("POST", "upload"), ("GET", "file=/etc/hostname"), ("GET", "info")):
        answer = httpx.request(method, f"{url}/page/gradio_api/{route}", timeout=PATIENCE_MS / 1000)
        assert answer.status_code == 401
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{url}/page")
    page.fill("input[type=text], label:has-text('username') input", "anybody")
    page.fill("input[type=password]", TOKEN)
    page.click("button:has-text('Login')")
    page.wait_for_selector("#transcribe")
    page.close()


def test_a_server_that_is_told_to_end_answers_what_it_took(server, client):
    process, answers, content = server[0], [], long_call()

    def ask():
        answers.append(client.post("/transcribe", content=content))

    ask()
    thread = threading.Thread(target=ask)
    thread.start()
    while "in_flight 2.0" not in client.get("/metrics").text:  # this one, and the one to be answered
        assert thread.is_alive(), "it was answered too fast to be caught"
    process.send_signal(signal.SIGTERM)
    thread.join()
    assert process.wait(60) in (0, -signal.SIGTERM)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
