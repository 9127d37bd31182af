"""Corpora to train on and to score: digits of the Free Spoken Digit Dataset, joined digits, synthetic voices."""

from dgasr.training.corpora.bundle import make_corpora
from dgasr.training.corpora.connected import ConnectedDigitsConfig, connected_digits
from dgasr.training.corpora.digits import DIGITS, TRAIN_INDICES, VALIDATION_INDICES, digits_manifest, speakers_in
from dgasr.training.corpora.voices import SyntheticVoicesConfig, synthetic_voices

__all__ = [
    "DIGITS",
    "TRAIN_INDICES",
    "VALIDATION_INDICES",
    "ConnectedDigitsConfig",
    "SyntheticVoicesConfig",
    "connected_digits",
    "digits_manifest",
    "make_corpora",
    "speakers_in",
    "synthetic_voices",
]
