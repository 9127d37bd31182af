"""`dgasr serve` under load: many clients at once, each text compared with that of a batch run over the same bytes.

Prints latencies, throughput beside a batch run's in the same minutes, and how far the server's memory moves. It fails
where a request failed or got another text.
"""

import argparse
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks import print_table
from dgasr.commands.arguments import finite_float, positive_int
from dgasr.errors import RecordingError
from dgasr.samples import SAMPLES
from dgasr.serving.prepare import Prepared, prepare
from dgasr.stages.engine import Engine, EngineConfig, start_engine

SUFFIXES = (".flac", ".mp3", ".ogg", ".m4a", ".wav")

SETTLED = 0.25
"""Share of the time after which memory should not grow any more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how many ask how long."""
    add = parser.add_argument
    add("--clients", type=positive_int, default=200, metavar="N", help="at once (default: 200)")
    add("--seconds", type=finite_float, default=60.0, metavar="S", help="for so long (default: 60)")
    add("--model", default="tiny", metavar="base|tiny|full|DIR", help="default: tiny")
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default: auto")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Start a server and ask it."""
    engine = start_engine(EngineConfig(model=options.model, device=options.device))
    files, texts, batch_rtfx = _batch_run(engine, options.seconds / 4)
    flags = ("--model", options.model, "--device", options.device, "--max-waiting", str(20 * options.clients))
    server, url = _start(flags)
    try:
        figures = _ask(url, server.pid, texts, {path: own.duration_s for path, own in files.items()}, options)
    finally:
        server.terminate()
        server.wait()
    figures |= {"batch_rtfx": round(batch_rtfx, 1), "share_of_batch": round(figures["rtfx"] / batch_rtfx, 2)}
    print_table(("figure", "value"), list(figures.items()))
    wrong = [f"{count} answers {status}" for status, count in figures["statuses"].items() if status != "200"]
    if figures["wrong_texts"]:
        wrong.append(f"{figures['wrong_texts']} answers with another text")
    return figures | {"failed": wrong}


def _batch_run(engine: Engine, duration_s: float) -> tuple[dict[Path, Prepared], dict[Path, str], float]:
    """Read and decode the samples in one process, as a batch run does, and again until the time is over."""
    files: dict[Path, Prepared] = {}
    texts: dict[Path, str] = {}
    audio_s, started = 0.0, time.perf_counter()
    while not texts or time.perf_counter() - started < duration_s:
        files = {path: own for path in sorted(SAMPLES.iterdir()) if (own := _prepared(path, engine)) is not None}
        found = list(engine.transcriber.transcribe([features for own in files.values() for features in own.spoken]))
        found.sort(key=lambda transcript: transcript.segment.segment_index)
        for path, own in files.items():
            ids = {features.segment.recording_id for features in own.spoken}
            said = (transcript.text for transcript in found if transcript.segment.recording_id in ids)
            texts[path] = " ".join(text for text in said if text)
        audio_s += sum(own.duration_s for own in files.values())
    return files, texts, audio_s / (time.perf_counter() - started)


def _prepared(path: Path, engine: Engine) -> Prepared | None:
    if path.suffix not in SUFFIXES:
        return None
    try:
        return prepare(path, engine.recipe)
    except RecordingError:
        return None


def _start(flags: Sequence[str]) -> tuple["subprocess.Popen[str]", str]:
    command = [sys.executable, "-m", "dgasr.cli", "serve", "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"serves on (http://\S+);", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found[1]
    raise SystemExit("the server did not start")


def _ask(
    url: str, pid: int, texts: dict[Path, str], lengths: dict[Path, float], options: argparse.Namespace
) -> dict[str, Any]:
    contents = {path: path.read_bytes() for path in texts}
    end = time.monotonic() + options.seconds
    latencies: list[float] = []
    memory: list[float] = []
    statuses, wrong, audio_s, lock = Counter[str](), Counter[str](), [0.0], threading.Lock()

    def client(number: int) -> None:
        rng = np.random.default_rng(number)
        paths = list(contents)
        with httpx.Client(timeout=600) as own:
            while time.monotonic() < end:
                path = paths[rng.integers(len(paths))]
                started = time.perf_counter()
                answer = own.post(f"{url}/transcribe", content=contents[path])
                took_s = time.perf_counter() - started
                with lock:
                    latencies.append(took_s)
                    statuses[str(answer.status_code)] += 1
                    audio_s[0] += lengths[path]
                    wrong[path.name] += answer.is_success and answer.json()["text"] != texts[path]

    process = psutil.Process(pid)
    threads = [threading.Thread(target=client, args=(number,)) for number in range(options.clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append(process.memory_info().rss / 1e6)
        time.sleep(0.5)
    wall_s = time.perf_counter() - started
    settled = memory[int(SETTLED * len(memory)) :]
    return {
        "clients": options.clients,
        "requests": len(latencies),
        "statuses": dict(statuses),
        "wrong_texts": sum(wrong.values()),
        **{f"p{share}_s": round(float(np.percentile(latencies, share)), 2) for share in (50, 95, 99)},
        "rtfx": round(audio_s[0] / wall_s, 1),
        "memory_mb": [round(min(settled)), round(max(settled))],
    }
