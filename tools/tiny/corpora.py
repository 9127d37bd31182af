"""Every corpus that the bundled model is trained and judged on: `python -m tools.tiny.corpora FOLDER --fsdd DIR`.

Single digits of the Free Spoken Digit Dataset, digits of one speaker joined into utterances with exact word times, and
synthetic voices.

Source: Z. Jackson et al., Free Spoken Digit Dataset v1.0.10, CC BY-SA 4.0; files are `{digit}_{speaker}_{index}.wav`.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
import soxr

from dgasr.commands.arguments import check_output_folder, positive_int
from dgasr.errors import ConfigError, DgasrError
from dgasr.manifests import Utterance, num_samples, write_manifest
from dgasr.records import SAMPLE_RATE_HZ, Word, seconds
from tools.tiny.voices import DIGITS, SyntheticVoicesConfig, synthetic_voices

TRAIN_INDICES = range(5, 45)
"""Takes to train on; the rest of the project's split is `VALIDATION_INDICES`."""
VALIDATION_INDICES = range(5)

Take = tuple[str, np.ndarray]
"""A spoken word with its 16 kHz waveform.  [samples]"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectedDigitsConfig:
    """How single digits are joined into utterances; every range is drawn from evenly, ends included."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    num_utterances: int = 300
    """How many utterances to make; speakers take turns."""
    min_digits: int = 1
    """Fewest digits in an utterance."""
    max_digits: int = 10
    """Most digits in an utterance."""
    min_gap_s: float = 0.05
    """Shortest pause between two digits, s."""
    max_gap_s: float = 0.3
    """Longest pause between two digits, s."""
    min_edge_s: float = 0.1
    """Shortest silence before the first and after the last digit, s."""
    max_edge_s: float = 0.5
    """Longest silence before the first and after the last digit, s."""
    min_noise_db: float = -80.0
    """Quietest room noise under the whole utterance, dB of full scale."""
    max_noise_db: float = -66.0
    """Loudest room noise under the whole utterance, dB of full scale."""
    seed: int = 1
    """Equal seeds give equal files."""

    def __post_init__(self) -> None:
        """Refuse ranges that cannot be drawn from."""
        if self.num_utterances < 1 or self.min_digits < 1:
            raise ConfigError("connected digits: num_utterances and min_digits must be 1 or more.")
        for name in ("digits", "gap_s", "edge_s", "noise_db"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high or (low < 0 and name != "noise_db"):
                raise ConfigError(f"connected digits: min_{name} {low}, max_{name} {high}: give 0 ≤ min ≤ max.")


def make_corpora(
    fsdd_dir: Path,
    out_dir: Path,
    connected: ConnectedDigitsConfig,
    voices: SyntheticVoicesConfig | None,
) -> Iterator[tuple[Path, int]]:
    """Make all corpora, one after the other.

    Args:
        fsdd_dir: folder of the Free Spoken Digit Dataset.
        out_dir: where the corpora go: `fsdd-train.jsonl` and `fsdd-valid.jsonl` (single digits), `connected-valid/`,
            `connected-train/`; for each speaker `fsdd-train-without-SPEAKER.jsonl`,
            `connected-train/without-SPEAKER.jsonl` and `connected-SPEAKER/`; `voices/`.
        connected: how the digits of every connected corpus are joined.
        voices: the synthetic voices, or `None` to leave them out (they need espeak-ng and flite).

    Yields:
        Each manifest's path and its number of utterances, as soon as it is written.

    Raises:
        ConfigError: the data set or a speech synthesiser is missing.
    """
    out = Path(out_dir)
    everyone = speakers_in(fsdd_dir)
    train, valid = out / "fsdd-train.jsonl", out / "fsdd-valid.jsonl"
    yield train, len(digits_manifest(fsdd_dir, train))
    yield valid, len(digits_manifest(fsdd_dir, valid, indices=VALIDATION_INDICES))
    joined = {}
    for name, indices in (("connected-valid", VALIDATION_INDICES), ("connected-train", TRAIN_INDICES)):
        joined[name] = connected_digits(fsdd_dir, out / name, connected, indices=indices)
        yield out / name / "manifest.jsonl", len(joined[name])
    for speaker in everyone:
        others = [name for name in everyone if name != speaker]
        spoken_by_others = [utterance for utterance in joined["connected-train"] if utterance.speaker != speaker]
        without = out / "connected-train" / f"without-{speaker}.jsonl"
        write_manifest(without, spoken_by_others)
        yield without, len(spoken_by_others)
        rest, alone = out / f"fsdd-train-without-{speaker}.jsonl", out / f"connected-{speaker}"
        yield rest, len(digits_manifest(fsdd_dir, rest, speakers=others))
        yield alone / "manifest.jsonl", len(connected_digits(fsdd_dir, alone, connected, speakers=[speaker]))
    if voices is not None:
        yield out / "voices" / "manifest.jsonl", len(synthetic_voices(out / "voices", voices))


def digits_manifest(
    fsdd_dir: Path, out: Path, speakers: Sequence[str] | None = None, indices: Sequence[int] = TRAIN_INDICES
) -> list[Utterance]:
    """Write a manifest of single digits; the audio stays where it is.

    Args:
        fsdd_dir: the data set's folder, or its `recordings` folder.
        out: manifest to write.
        speakers: whom to take; `None` takes everyone.
        indices: which takes of each digit to use.

    Returns:
        What was written. The one word of each utterance spans the whole recording, as the data set cuts it.

    Raises:
        ConfigError: no such folder, nobody of that name in it, or nothing with these indices.
    """
    utterances = list_digits(fsdd_dir, speakers, indices)
    write_manifest(out, utterances)
    return utterances


def speakers_in(fsdd_dir: Path) -> tuple[str, ...]:
    """Name the speakers of the data set, sorted."""
    return tuple(sorted({path.stem.split("_")[1] for path in _recordings(fsdd_dir)}))


def list_digits(fsdd_dir: Path, speakers: Sequence[str] | None, indices: Sequence[int]) -> list[Utterance]:
    """List recordings as one-word utterances; arguments and errors are those of `digits_manifest`."""
    known = speakers_in(fsdd_dir)
    for speaker in speakers or ():
        if speaker not in known:
            raise ConfigError(f"{fsdd_dir}: no speaker {speaker!r}. Known: {', '.join(known)}.")
    utterances = []
    for path in _recordings(fsdd_dir):
        digit, speaker, index = path.stem.split("_")
        if speaker in (speakers or known) and int(index) in indices:
            utterances.append(_one_word(path, DIGITS[int(digit)], speaker))
    if not utterances:
        raise ConfigError(f"{fsdd_dir}: no recording with an index of {list(indices)}. The data set has 0 to 49.")
    return utterances


def _one_word(path: Path, word: str, speaker: str) -> Utterance:
    info = soundfile.info(path)
    duration = info.frames / info.samplerate
    return Utterance(
        audio_filepath=str(path.resolve()),
        duration=duration,
        text=word,
        language="en",
        words=(Word(word=word, start_sample=0, end_sample=num_samples(duration), confidence=1.0),),
        speaker=speaker,
    )


def _recordings(fsdd_dir: Path) -> list[Path]:
    folder = Path(fsdd_dir)
    paths = sorted((folder / "recordings").glob("[0-9]_*_*.wav")) or sorted(folder.glob("[0-9]_*_*.wav"))
    if not paths:
        raise ConfigError(
            f"{folder}: no recordings named DIGIT_SPEAKER_INDEX.wav. "
            "Give the folder of the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset)."
        )
    return paths


def connected_digits(
    fsdd_dir: Path,
    out_dir: Path,
    config: ConnectedDigitsConfig,
    speakers: Sequence[str] | None = None,
    indices: Sequence[int] = VALIDATION_INDICES,
) -> list[Utterance]:
    """Write connected digits of the Free Spoken Digit Dataset.

    Args:
        fsdd_dir: the data set's folder, or its `recordings` folder.
        out_dir: where `manifest.jsonl` and one 16 kHz FLAC per utterance go; files of the same name are replaced.
        config: how many utterances, how long, how far apart the digits.
        speakers: whom to take; `None` takes everyone.
        indices: which takes of each digit to use.

    Returns:
        What was written.

    Raises:
        ConfigError: no such folder, nobody of that name in it, or nothing with these indices.
    """
    takes: dict[str, list[Take]] = {}
    for digit in list_digits(fsdd_dir, speakers, indices):
        assert digit.speaker is not None
        takes.setdefault(digit.speaker, []).append((digit.text, _read_16khz(digit.audio_filepath)))
    folder = Path(out_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(config.seed)
    utterances = []
    for n in range(config.num_utterances):
        speaker = sorted(takes)[n % len(takes)]
        waveform, words = _join(takes[speaker], config, generator)
        path = folder / f"{n:04d}_{speaker}.flac"
        soundfile.write(path, waveform, SAMPLE_RATE_HZ, subtype="PCM_16")
        utterances.append(_utterance(path, len(waveform), words, speaker))
    write_manifest(folder / "manifest.jsonl", utterances)
    return utterances


def _join(
    takes: Sequence[Take], config: ConnectedDigitsConfig, generator: np.random.Generator
) -> tuple[np.ndarray, tuple[Word, ...]]:
    """Draw digits and pauses and lay them out in a row, over noise so that no pause is digital silence."""
    count = int(generator.integers(config.min_digits, config.max_digits, endpoint=True))
    drawn = [takes[i] for i in generator.integers(len(takes), size=count)]
    lead_s, tail_s = generator.uniform(config.min_edge_s, config.max_edge_s, size=2)
    pauses_s = [lead_s, *generator.uniform(config.min_gap_s, config.max_gap_s, size=count - 1)]
    words, position = [], 0
    for (digit, recording), pause_s in zip(drawn, pauses_s, strict=True):
        start = position + num_samples(pause_s)
        position = start + len(recording)
        words.append(Word(word=digit, start_sample=start, end_sample=position, confidence=1.0))
    level = 10 ** (generator.uniform(config.min_noise_db, config.max_noise_db) / 20)
    waveform = level * generator.standard_normal(position + num_samples(tail_s))
    for word, (_, recording) in zip(words, drawn, strict=True):
        waveform[word.start_sample : word.end_sample] += recording
    return np.clip(waveform, -1.0, 1.0), tuple(words)


def _utterance(path: Path, length: int, words: tuple[Word, ...], speaker: str) -> Utterance:
    return Utterance(
        audio_filepath=str(path),
        duration=seconds(length),
        text=" ".join(word.word for word in words),
        language="en",
        words=words,
        speaker=speaker,
    )


def _read_16khz(path: str) -> np.ndarray:
    waveform, rate_hz = soundfile.read(path, dtype="float32")
    return waveform if rate_hz == SAMPLE_RATE_HZ else soxr.resample(waveform, rate_hz, SAMPLE_RATE_HZ)


def main(arguments: Sequence[str]) -> int:
    """Make the corpora, a line for each; 0 for done, 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="tools.tiny.corpora", description=__doc__)
    parser.add_argument("out", type=Path, metavar="FOLDER", help="where manifests and audio go")
    parser.add_argument("--fsdd", type=Path, required=True, metavar="DIR", help="the Free Spoken Digit Dataset")
    parser.add_argument("--utterances", type=positive_int, default=300, metavar="N", help="of each connected corpus")
    parser.add_argument("--no-voices", action="store_true", help="leave out the synthetic voices (espeak-ng, flite)")
    options = parser.parse_args(arguments)
    connected = ConnectedDigitsConfig(num_utterances=options.utterances)
    voices = None if options.no_voices else SyntheticVoicesConfig()
    try:
        check_output_folder("corpora", options.out)
        for path, num_utterances in make_corpora(options.fsdd, options.out, connected, voices):
            print(f"{path}  {num_utterances} utterances", flush=True)
    except DgasrError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
