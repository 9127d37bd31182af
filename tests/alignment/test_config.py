import pytest

from dgasr.alignment.words import AlignmentConfig
from dgasr.errors import ConfigError


@pytest.mark.parametrize(
    "field",
    [
        {"frame_samples": 0},
        {"max_snap_ms": -1.0},
        {"quiet_margin_db": -1.0},
        {"min_quiet_ms": -1.0},
        {"floor_percentile": 101.0},
        {"ctc_weight": 1.1},
        {"max_ctc_distance": -0.1},
        {"min_confidence": 2.0},
        {"max_words_per_s": 0.0},
        {"max_repetitions": 0},
        {"max_word_repetitions": 0},
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(field):
    with pytest.raises(ConfigError, match="alignment"):
        AlignmentConfig(**field)
