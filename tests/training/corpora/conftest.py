import numpy as np
import pytest
import soundfile

RATE_HZ = 8_000


@pytest.fixture
def fsdd(tmp_path):
    """A folder laid out as the Free Spoken Digit Dataset, with a tone of its own length for every recording."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for speaker in ("anna", "boris"):
            for index in (0, 4, 5):
                length = 1000 + 100 * digit + index
                tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(length) / RATE_HZ)
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", tone, RATE_HZ)
    return folder.parent
