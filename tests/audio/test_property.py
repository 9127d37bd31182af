"""Random recordings: any codec, container, number of channels, gap and start, whole or cut at any byte.

`PROPERTY_CASES` of them (a few by default) in the order of a seed; what fails names its case.
"""

import io
import os
import resource
import time

import numpy as np
import pytest

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import AudioError, TruncatedError
from dgasr.records import SAMPLE_RATE_HZ, Gap
from tests.audio.containers import KINDS, make_file

NUM_CASES = int(os.environ.get("PROPERTY_CASES", "180"))
CLICK_S = 0.02
MOST_SECONDS, MOST_GROWN_BYTES = 30.0, 300 * 2**20


def make_case(number):
    """Draw a kind, a recording with a click a second, and what happens to it."""
    draw = np.random.default_rng([5, number])
    kind = KINDS[number % len(KINDS)]
    num_channels, duration_s = int(draw.integers(1, kind.most_channels + 1)), float(draw.uniform(2.0, 8.0))
    waveform = np.zeros((num_channels, round(duration_s * kind.rate_hz)), np.float32)
    clicks_s = np.arange(0.6, duration_s - 0.3) + draw.uniform(0.0, 0.1)
    click = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(round(CLICK_S * kind.rate_hz)) / kind.rate_hz)
    for at_s in clicks_s:
        waveform[:, round(at_s * kind.rate_hz) :][:, : click.size] = click
    has_gap = kind.has_gaps and draw.random() < 0.5
    gap = (round(1.2 * kind.rate_hz), round(draw.uniform(2.0, 200.0) * kind.rate_hz)) if has_gap else (0, 0)
    start = round(draw.uniform(0, 50) * kind.rate_hz) if kind.has_gaps and draw.random() < 0.3 else 0
    data = make_file(kind, waveform, gap, start)
    if has_gap:
        block = gap[0] / kind.rate_hz  # timestamps jump at the end of the block in which this lies
        clicks_s = np.concatenate(
            [clicks_s[clicks_s < block - 0.1], clicks_s[clicks_s > block + 0.2] + gap[1] / kind.rate_hz]
        )
    end_s = duration_s + gap[1] / kind.rate_hz
    cut = int(draw.integers(16, len(data))) if draw.random() < 0.4 else len(data)
    settings = {"channels": ["mix", "each", 0][draw.integers(3)], "block_values": int(draw.integers(500, 100_000))}
    return kind, data[:cut], cut < len(data), clicks_s, end_s, AudioConfig(**settings)


def read(data, config):
    """Read all channels: samples with zeros for gaps; what is missing, and the report."""
    stream, waveforms, messages = open_audio(io.BytesIO(data), "a", config), [], []
    for channel in stream.channels():
        pieces = [np.zeros(0)]
        try:
            for piece in channel.pieces:
                pieces.append(np.zeros(piece.num_samples) if isinstance(piece, Gap) else piece)
        except TruncatedError as error:
            messages.append(str(error))
        waveforms.append(np.concatenate(pieces))
    return waveforms, messages, stream.report()


@pytest.mark.parametrize("number", range(NUM_CASES))
def test_any_recording_is_covered_in_place_and_partial_only_when_bytes_are_missing(number):
    kind, data, is_cut, clicks_s, end_s, config = make_case(number)
    started, grown = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        waveforms, messages, report = read(data, config)
    except AudioError:
        assert is_cut, f"{kind}: a whole file is refused"
        return
    finally:
        assert time.monotonic() - started < MOST_SECONDS
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) * 1024 < MOST_GROWN_BYTES
    assert {waveform.size for waveform in waveforms} == {report.decoded_samples}
    decoded_s = report.decoded_samples / SAMPLE_RATE_HZ
    if is_cut and kind.states_length and decoded_s < end_s - 0.15:
        assert messages, f"{kind}: {end_s - decoded_s:.2f} s are missing, and nothing is said"
    if not is_cut:
        assert messages == [], f"{kind}: nothing is missing"
        assert decoded_s == pytest.approx(end_s, abs=0.1), kind
    waveform = waveforms[0]
    for at_s in clicks_s[clicks_s < decoded_s - 0.3]:
        begin = round((at_s + kind.late_s - 0.1) * SAMPLE_RATE_HZ)
        power = waveform[begin : begin + round(0.22 * SAMPLE_RATE_HZ)] ** 2
        assert power.sum() > 0.5, f"{kind}: the click at {at_s:.2f} s is not there"
        late_s = (np.arange(power.size) * power).sum() / power.sum() / SAMPLE_RATE_HZ - 0.1 - CLICK_S / 2
        assert abs(late_s) < 0.02, f"{kind}: the click at {at_s:.2f} s is {late_s * 1000:.0f} ms late"
