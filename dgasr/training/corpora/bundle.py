"""Every corpus the bundled checkpoint is trained and judged on, made in one go."""

from collections.abc import Iterator
from pathlib import Path

from dgasr.training.corpora.connected import ConnectedDigitsConfig, connected_digits
from dgasr.training.corpora.digits import TRAIN_INDICES, VALIDATION_INDICES, digits_manifest, speakers_in
from dgasr.training.corpora.voices import SyntheticVoicesConfig, synthetic_voices
from dgasr.training.manifests import write_manifest


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
