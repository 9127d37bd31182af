"""Corpora to train on and to score: digits of the Free Spoken Digit Dataset, joined digits."""

from dgasr.training.corpora.connected import ConnectedDigitsConfig, connected_digits
from dgasr.training.corpora.digits import DIGITS, TRAIN_INDICES, VALIDATION_INDICES, digits_manifest, speakers_in

__all__ = [
    "DIGITS",
    "TRAIN_INDICES",
    "VALIDATION_INDICES",
    "ConnectedDigitsConfig",
    "connected_digits",
    "digits_manifest",
    "speakers_in",
]
