import subprocess
import sys

from dgasr.stages.counts import DecodedShard, PreparedShard, add_decoded, add_prepared


def test_what_shards_count_adds_up_and_what_was_held_counts_for_nothing():
    new = DecodedShard(shard_id="a", is_new=True, num_recordings=3, num_rejected=1, num_words=7, audio_s=3600.0)
    held = DecodedShard(shard_id="b", is_new=False)
    decoded = add_decoded([new, held, new], busy_share=0.961, wall_s=10.0)
    assert (decoded.num_shards, decoded.num_held, decoded.num_recordings, decoded.num_words) == (3, 1, 6, 14)
    assert decoded.line() == (
        "3 shards: 6 recordings (2 rejected, 0 partial), 2.00 h of audio in 10.0 s, model busy 96% of the time; "
        "1 committed already"
    )


def test_a_prepared_assignment_counts_what_it_left_out():
    shard = PreparedShard(shard_id="a", num_recordings=2, num_rejected=0, num_segments=5, audio_s=1800.0, wall_s=1.0)
    prepared = add_prepared([shard], num_held=2, wall_s=1.0)
    assert (prepared.num_shards, prepared.num_held, prepared.num_segments) == (3, 2, 5)
    assert "2 committed already" in prepared.line()


def test_a_small_child_of_a_large_process_is_small():
    data = b"x" * 300_000_000
    program = "from dgasr.stages.counts import peak_memory_bytes; print(peak_memory_bytes())"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 5e6 < int(finished.stdout) < len(data)
