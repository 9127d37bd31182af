"""Mutated files over all readers: `make fuzz MINUTES=10`. Nothing may crash, hang, take memory, or print.

Files are made of every kind of `tests/audio/containers.py` and of `../shared/data/faults` where it lies there; bits are
flipped, sizes overwritten, pieces cut out, doubled, or taken from another file. A child process reads them; one that
dies, stands still or grows is replaced. File number N of a seed is always the same. Findings lie in `--out`.
"""

import argparse
import io
import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import AudioError, TruncatedError
from dgasr.records import Gap
from tests.audio.containers import KINDS, make_file
from tests.conftest import SHARED_DATA

MOST_SECONDS = 60.0
"""Wall time in which a file must be read; files of half a second of audio take milliseconds."""

MOST_GROWN_BYTES = 512 * 2**20
"""Memory by which one file may make the child grow."""

LARGEST_SEED_BYTES = 400_000

SIZES = (0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@lru_cache(maxsize=1)
def seeds() -> list[tuple[str, bytes]]:
    """Make whole files of every kind, and take those that came out wrong in use."""
    found = []
    for number, kind in enumerate(KINDS):
        draw = np.random.default_rng(number)
        shape = (min(1 + number % 2, kind.most_channels), round(0.5 * kind.rate_hz))
        waveform = draw.uniform(-0.3, 0.3, shape).astype(np.float32)
        waveform[:, shape[1] // 3 : shape[1] // 2] = 0.0
        found.append((str(kind), make_file(kind, waveform)))
    folder = SHARED_DATA / "faults"
    paths = sorted(path for path in folder.glob("*.*") if path.suffix not in (".md", ".json", ".py"))
    found += [(path.name, data) for path in paths if len(data := path.read_bytes()) <= LARGEST_SEED_BYTES]
    return found


def mutated(seed: int, number: int) -> tuple[str, bytes]:
    """Return file `number`: what it was made of, and its bytes."""
    draw = np.random.default_rng([seed, number])
    name, whole = seeds()[draw.integers(len(seeds()))]
    data = bytearray(whole)
    for _ in range(int(draw.integers(1, 6))):
        if len(data) < 16:
            break
        # Half of all changes lie in the first kilobyte, where headers are.
        at = int(draw.integers(min(len(data), 1024) if draw.random() < 0.5 else len(data)))
        length = int(2 ** draw.uniform(0, 12))
        match int(draw.integers(8)):
            case 0:
                data[at] ^= 1 << int(draw.integers(8))
            case 1:
                data[at : at + length] = draw.bytes(len(data[at : at + length]))
            case 2:
                width = int(draw.choice([2, 4, 8]))
                size = int(draw.choice(SIZES)) if draw.random() < 0.7 else int(draw.integers(2**32))
                order = "big" if draw.random() < 0.5 else "little"
                data[at : at + width] = (size % 2 ** (8 * width)).to_bytes(width, order)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                del data[at:]
            case 6:
                other = seeds()[draw.integers(len(seeds()))][1]
                begin = int(draw.integers(len(other)))
                data[at : at + length] = other[begin : begin + length]
            case 7:
                data[at : at + length] = bytes(len(data[at : at + length]))
    return name, bytes(data)


def read(data: bytes, config: AudioConfig) -> str:
    """Read a file as `prepare` does; returns what became of it, and raises what nobody foresaw."""
    try:
        stream = open_audio(io.BytesIO(data), "file", config)
        outcome = "ok"
        for channel in stream.channels():
            num_samples = 0
            try:
                for piece in channel.pieces:
                    num_samples += piece.num_samples if isinstance(piece, Gap) else piece.size
            except TruncatedError as error:
                outcome = f"partial {error.reason}"
        assert stream.report().decoded_samples >= num_samples
    except AudioError as error:
        return f"rejected {error.reason}"
    return outcome


def _work(seed: int, first: int, results: Connection, log: str) -> None:
    """Read files from `first` on, and say of each what became of it and how much memory it took."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    seeds()
    results.send(None)
    for number in range(first, sys.maxsize):
        _, data = mutated(seed, number)
        config = AudioConfig(channels=("mix", "each")[number % 2], track=("auto", "each")[number // 2 % 2])
        before, printed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, os.path.getsize(log)
        try:
            outcome = read(data, config)
        except Exception as error:
            outcome = f"RAISES {error!r}"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > MOST_GROWN_BYTES:
            outcome = f"GROWS by {grown / 2**20:.0f} MiB"
        elif os.path.getsize(log) > printed:
            outcome = f"PRINTS {Path(log).read_text(errors='replace')[printed:][:200]!r}"
        results.send((number, outcome))


def outcomes(seed: int, first: int, until: float, log: str) -> Iterator[tuple[int, str]]:
    """Yield what becomes of each file, until a time; a child that dies or stands still is replaced."""
    context = multiprocessing.get_context("spawn")
    while time.monotonic() < until:
        results, sender = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(seed, first, sender, log), daemon=True)
        child.start()
        sender.close()
        try:
            results.recv()  # imports and seeds count for no file, however long they take
            while time.monotonic() < until:
                if not results.poll(MOST_SECONDS):
                    yield first, f"HANGS for {MOST_SECONDS:.0f} s"
                    first += 1
                    break
                number, outcome = results.recv()
                first = number + 1
                yield number, outcome
        except EOFError:
            child.join()
            yield first, f"DIES with exit code {child.exitcode}"
            first += 1
        child.kill()
        child.join()


def main() -> None:
    """Fuzz for some minutes, keep what is found, and print figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    findings = 0
    until = time.monotonic() + 60 * options.minutes
    for number, outcome in outcomes(options.seed, options.first, until, str(options.out / "stderr.txt")):
        kind = outcome.split()[0]
        counts[outcome if kind.islower() else kind] += 1
        if kind.isupper():
            findings += 1
            name, data = mutated(options.seed, number)
            (options.out / f"{options.seed}-{number}.bin").write_bytes(data)
            print(f"file {number} of seed {options.seed}, made of {name}: {outcome}", flush=True)
    for outcome, count in sorted(counts.items()):
        print(f"{outcome:<32}{count:>9,}")
    print(f"{'files':<32}{counts.total():>9,}\n{'findings':<32}{findings:>9,}")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
