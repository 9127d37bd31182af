"""Headers say what decoders keep to themselves."""

import io

import numpy as np
import pytest
import soundfile

from dgasr.audio.headers import is_whole_riff, read_chunk_claim, states_mp3_length
from dgasr.audio.joined import ends_inside_page, ends_with_page, has_all_pages
from dgasr.audio.source import Source

SAMPLES = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)


def written(kind: str, **arguments) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, 16_000, format=kind, **arguments)
    return file.getvalue()


def source(data: bytes) -> Source:
    return Source(io.BytesIO(data), "a")


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "RF64"])
def test_a_whole_file_holds_all_that_it_claims(kind):
    claim = read_chunk_claim(source(written(kind)))
    assert (claim.share_present, claim.is_too_small) == (1.0, False)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "RF64", "AU", "CAF", "W64", "NIST"])
def test_half_a_file_holds_half_of_what_it_claims(kind):
    data = written(kind)
    claim = read_chunk_claim(source(data[: len(data) - SAMPLES.size]))
    assert claim.share_present == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "VOC"])
def test_other_formats_claim_nothing_here(kind):
    assert read_chunk_claim(source(written(kind))) is None


def test_a_file_that_ends_before_its_audio_claims_nothing():
    assert read_chunk_claim(source(written("WAV")[:30])) is None


def test_an_ogg_file_cut_anywhere_ends_inside_a_page():
    data = written("OGG")
    assert not ends_inside_page(source(data))
    assert all(ends_inside_page(source(data[:size])) for size in (len(data) - 1, len(data) // 2, 40))


@pytest.mark.parametrize(("write_xing", "expected"), [("1", True), ("0", False)])
def test_an_mp3_states_its_length_in_its_first_frame_or_not_at_all(tmp_path, encode, write_xing, expected):
    encode(tmp_path / "a.mp3", SAMPLES[None], 16_000, "libmp3lame", write_xing=write_xing)
    assert states_mp3_length(source((tmp_path / "a.mp3").read_bytes())) is expected


@pytest.mark.parametrize(("kind", "is_read_on"), [("AU", 0), ("CAF", 0), ("AIFF", 0), ("NIST", 1), ("W64", 1)])
def test_a_recording_behind_another_is_told_of(kind, is_read_on):
    data = written(kind)
    claim = read_chunk_claim(source(data + bytes(100) + data))
    assert (claim.share_present > 2, claim.second_bytes > 32_000) == ((True, False) if is_read_on else (False, True))
    alone = read_chunk_claim(source(data + bytes(100)))
    assert (alone.share_present, alone.second_bytes) == (1.0, 0)


def test_a_joined_mp3_and_an_ogg_file_with_a_long_tail_state_no_length(tmp_path, encode):
    encode(tmp_path / "a.mp3", SAMPLES[None], 16_000, "libmp3lame")
    data = (tmp_path / "a.mp3").read_bytes()
    assert states_mp3_length(source(data))
    assert not states_mp3_length(source(data + data))
    assert ends_with_page(source(written("OGG")))
    assert not ends_with_page(source(written("OGG") + bytes(100_000)))


def test_a_missing_or_damaged_page_of_an_ogg_file_is_seen():
    data = written("OGG")
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    assert has_all_pages(source(data))
    assert not has_all_pages(source(data[: starts[-2]] + data[starts[-1] :]))
    assert not has_all_pages(source(data[: starts[-2]] + bytes(4) + data[starts[-2] + 4 :]))


def test_a_riff_file_that_ends_before_its_header_says_so_is_not_whole():
    data = b"RIFF" + (12).to_bytes(4, "little") + b"AVI " + bytes(8)
    assert is_whole_riff(source(data + data))
    assert not is_whole_riff(source(data + data[:-1]))
