"""Where recordings are cut and what is taken for silence, by each method, held against words whose places are known.

Utterances with reference words and clips without speech in; figures by scene out. Knows nothing of how pauses are told.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from dgasr.audio import AudioConfig
from dgasr.commands.arguments import check_output_file, finite_float, positive_int
from dgasr.errors import ConfigError
from dgasr.hypotheses import read_waveform
from dgasr.records import SAMPLE_RATE_HZ, seconds
from dgasr.segmentation import SegmentationConfig, SegmentationMethod, cut_at_silence
from dgasr.training.manifests import Selection, Utterance, read_manifest, select_utterances

EDGE_SAMPLES = SAMPLE_RATE_HZ // 20
"""A cut within 50 ms of a word's edge is not inside it: reference edges are no more exact."""

GAP_SAMPLES = 8 * SAMPLE_RATE_HZ
"""What lies between two utterances where there is something between them."""

BACKGROUNDS = ("pink_noise", "music")
"""Kinds of clips that are also played under the speech."""

SNR_DB = 10.0
"""Level of the speech above them."""

Interval = tuple[int, int]
"""Half-open, in samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationBenchmark:
    """What is cut.

    words: manifest with word times.
    nonspeech: manifest of clips in which nobody speaks; the field `set` names their kind.
    windows_s: longest spans, s.
    limit: utterances at most, spread over the sets; 0 for all.
    """

    words: Path
    nonspeech: Path
    windows_s: tuple[float, ...] = (8.0, 30.0)
    limit: int = 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """A recording of which all is known."""

    name: str
    waveform: np.ndarray
    words: Sequence[Interval] = ()
    gaps: Sequence[Interval] = ()
    """Where nobody speaks, beyond what pauses between words there are."""


@dataclass(kw_only=True, slots=True)
class Figures:
    """What came of cutting the recordings of a scene, added up."""

    scene: str
    method: SegmentationMethod
    window_s: float
    audio_s: float = 0.0
    processor_s: float = 0.0
    num_cuts: int = 0
    num_in_words: int = 0
    num_forced: int = 0
    words_s: float = 0.0
    missed_s: float = 0.0
    """Of words, in spans that are not decoded."""
    gaps_s: float = 0.0
    false_s: float = 0.0
    """Of gaps, in spans that are decoded."""

    def add(self, scene: Scene, config: SegmentationConfig) -> None:
        """Cut a recording and count."""
        started = time.process_time()
        spans = [span for span, _ in cut_at_silence([scene.waveform], round(self.window_s * SAMPLE_RATE_HZ), config)]
        self.processor_s += time.process_time() - started
        self.audio_s += seconds(scene.waveform.size)
        cuts = [span.end_sample for span in spans[:-1]]
        self.num_cuts += len(cuts)
        self.num_in_words += sum(
            start + EDGE_SAMPLES < cut < end - EDGE_SAMPLES for cut, (start, end) in _near(cuts, scene.words)
        )
        self.num_forced += sum(span.cut == "forced" for span in spans)
        self.words_s += seconds(sum(end - start for start, end in scene.words))
        self.gaps_s += seconds(sum(end - start for start, end in scene.gaps))
        spoken, silent = (
            [(span.start_sample, span.end_sample) for span in spans if span.kind == kind]
            for kind in ("speech", "silence")
        )
        self.missed_s += seconds(shared_samples(scene.words, silent))
        self.false_s += seconds(shared_samples(scene.gaps, spoken))

    def line(self) -> str:
        """Write a row of the table; `-` where there is nothing to divide by."""
        return (
            f"{self.scene:<22}{self.window_s:>5g} s  {self.method:<9}{self.num_cuts:>6}"
            f"{_share(self.num_in_words, self.num_cuts):>10}{_share(self.num_forced, self.num_cuts):>9}"
            f"{(f'{3600 * self.missed_s / self.words_s:.1f}' if self.words_s else '-'):>12}"
            f"{_share(self.false_s, self.gaps_s):>14}{self.audio_s / max(self.processor_s, 1e-9):>7.0f}\n"
        )


HEAD = f"{'':<40}{'cuts':>4}{'in words':>10}{'forced':>9}{'missed s/h':>12}{'gaps decoded':>14}{'x RT':>7}\n"


def main(arguments: Sequence[str]) -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks segmentation", description=__doc__)
    parser.add_argument("--words", type=Path, required=True, metavar="MANIFEST", help="of tools/reference_words.py")
    parser.add_argument("--nonspeech", type=Path, required=True, metavar="MANIFEST", help="of tools/make_nonspeech.py")
    parser.add_argument(
        "--window", type=finite_float, nargs="+", default=(8.0, 30.0), metavar="S", help="default: 8 30"
    )
    parser.add_argument("--limit", type=positive_int, default=0, metavar="N", help="utterances (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args(arguments)
    check_output_file("--json", options.json)
    report(
        SegmentationBenchmark(
            words=options.words, nonspeech=options.nonspeech, windows_s=tuple(options.window), limit=options.limit
        ),
        options.json,
    )


def report(benchmark: SegmentationBenchmark, json_path: Path | None = None) -> None:
    """Print a table as it comes, and a line of JSON; write the JSON to a file too where asked.

    Raises:
        ConfigError: a manifest that cannot be used, or the speech model is not installed.
    """
    write = sys.stdout.write
    write(HEAD)
    found = []
    for figures in measure(benchmark):
        found.append(asdict(figures))
        write(figures.line())
        sys.stdout.flush()
    settings = asdict(benchmark) | {"words": str(benchmark.words), "nonspeech": str(benchmark.nonspeech)}
    text = json.dumps({"benchmark": "segmentation", **settings, "figures": found})
    write(text + "\n")
    if json_path is not None:
        json_path.write_text(text + "\n", encoding="utf-8")


def measure(benchmark: SegmentationBenchmark) -> Iterator[Figures]:
    """Cut every scene by every method in every window."""
    utterances = select_utterances(read_manifest(benchmark.words), Selection(limit=benchmark.limit))
    placed = [utterance for utterance in utterances if utterance.words]
    if not placed:
        raise ConfigError(f"{benchmark.words}: no utterance has `words`. tools/reference_words.py places them.")
    scenes = make_scenes(placed, read_manifest(benchmark.nonspeech))
    for _, group in itertools.groupby(scenes, key=lambda scene: scene.name):
        recordings = list(group)
        for window_s, method in itertools.product(benchmark.windows_s, get_args(SegmentationMethod)):
            figures = Figures(scene=recordings[0].name, method=method, window_s=window_s)
            for scene in recordings:
                figures.add(scene, SegmentationConfig(method=method))
            yield figures


def make_scenes(utterances: Sequence[Utterance], nonspeech: Sequence[Utterance]) -> Iterator[Scene]:
    """Make recordings of utterances and clips, scene by scene; each set of utterances is a recording of its own."""
    sets: dict[str, list[tuple[np.ndarray, list[Interval]]]] = {}
    for utterance in utterances:
        words = [(word.start_sample, word.end_sample) for word in utterance.words or ()]
        sets.setdefault(utterance.set_name or "", []).append((_read(utterance), words))
    clips: dict[str, list[np.ndarray]] = {}
    for clip in nonspeech:
        clips.setdefault(clip.set_name or "", []).append(_read(clip))
    nothing = itertools.repeat(np.zeros(0, dtype=np.float32))
    spoken = [join("speech", each, nothing) for each in sets.values()]
    yield from spoken
    for kind in BACKGROUNDS:
        for scene in spoken if kind in clips else ():
            waveform = mix(scene, np.concatenate(clips[kind]))
            yield Scene(name=f"speech over {kind}", waveform=waveform, words=scene.words)
    for kind, sounds in clips.items():
        between = itertools.cycle([sound[:GAP_SAMPLES] for sound in sounds])
        for each in sets.values():
            yield join(f"{kind} between", each, between)
    for kind, sounds in clips.items():
        for sound in sounds:
            yield Scene(name=f"{kind} alone", waveform=sound, gaps=[(0, sound.size)])


def join(name: str, spoken: Iterable[tuple[np.ndarray, list[Interval]]], between: Iterator[np.ndarray]) -> Scene:
    """Put utterances after each other, each followed by the next of what lies between."""
    parts: list[np.ndarray] = []
    words: list[Interval] = []
    gaps: list[Interval] = []
    position = 0
    for waveform, placed in spoken:
        gap = next(between)
        words += [(position + start, position + end) for start, end in placed]
        parts += [waveform, gap]
        position += waveform.size + gap.size
        gaps.append((position - gap.size, position))
    return Scene(name=name, waveform=np.concatenate(parts), words=words, gaps=gaps)


def mix(scene: Scene, sound: np.ndarray) -> np.ndarray:
    """Play a sound under the speech of a scene, `SNR_DB` below its words.  [samples]"""
    speech_power = np.concatenate([np.square(scene.waveform[start:end]) for start, end in scene.words]).mean()
    gain = np.sqrt(speech_power / np.square(sound).mean() * 10 ** (-SNR_DB / 10))
    return (scene.waveform + gain * np.resize(sound, scene.waveform.size)).astype(np.float32)


def shared_samples(some: Sequence[Interval], others: Sequence[Interval]) -> int:
    """Count the samples that lie in both of two lists of disjoint intervals, each in order."""
    shared, n = 0, 0
    for start, end in some:
        while n < len(others) and others[n][1] <= start:
            n += 1
        for other_start, other_end in itertools.islice(others, n, None):
            if other_start >= end:
                break
            shared += min(end, other_end) - max(start, other_start)
    return shared


def _near(cuts: Sequence[int], words: Sequence[Interval]) -> Iterator[tuple[int, Interval]]:
    """Pair each cut with the words that begin before it and end after it."""
    starts = np.array([start for start, _ in words])
    for cut in cuts:
        n = int(np.searchsorted(starts, cut)) - 1
        if n >= 0:
            yield cut, words[n]


def _read(utterance: Utterance) -> np.ndarray:
    return read_waveform(utterance, AudioConfig())[0]


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"
