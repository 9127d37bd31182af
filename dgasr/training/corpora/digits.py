"""Single digits of the Free Spoken Digit Dataset: its folder in, a manifest out.

Source: Z. Jackson et al., Free Spoken Digit Dataset v1.0.10, CC BY-SA 4.0; files are `{digit}_{speaker}_{index}.wav`.
"""

from collections.abc import Sequence
from pathlib import Path

import soundfile

from dgasr.errors import ConfigError
from dgasr.records import Word
from dgasr.training.manifests import Utterance, num_samples, write_manifest

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAIN_INDICES = range(5, 45)
"""Takes to train on; the rest of the project's split is `VALIDATION_INDICES`."""
VALIDATION_INDICES = range(5)


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
            utterances.append(_utterance(path, DIGITS[int(digit)], speaker))
    if not utterances:
        raise ConfigError(f"{fsdd_dir}: no recording with an index of {list(indices)}. The data set has 0 to 49.")
    return utterances


def _utterance(path: Path, word: str, speaker: str) -> Utterance:
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
