import subprocess
import sys

from dgasr.stages.counts import Counts


def test_counts_of_shards_add_and_what_was_held_counts_for_nothing():
    new = Counts(
        num_shards=1, num_recordings=3, num_rejected=1, num_words=7, audio_s=3600.0, wall_s=5.0, stream_s=4, busy_s=3
    )
    held = Counts(num_shards=1, num_shards_held=1)
    counts = new + held + new
    assert (counts.num_shards, counts.num_shards_held, counts.num_recordings, counts.num_words) == (3, 1, 6, 14)
    assert counts.line() == (
        "6 recordings (2 rejected, 0 partial), 0 segments, 14 words, 2.00 h of audio in 10.0 s, "
        "model busy 75% of the time; 1 of 3 shards committed already"
    )
    assert held.line() == "committed already"


def test_a_small_child_of_a_large_process_is_small():
    data = b"x" * 300_000_000
    program = "from dgasr.stages.counts import peak_memory_bytes; print(peak_memory_bytes())"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 5e6 < int(finished.stdout) < len(data)
