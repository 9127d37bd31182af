"""What an archive costs, on paper: hours of audio in; machines, requests, bytes, wall time and money out.

Plain arithmetic over figures that each say where they are from. Knows no lake, model or cloud.
"""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

from dgasr.errors import ConfigError

HOUR_S, DAY_H, GB = 3600, 24, 1e9
LIST_PAGE = 1000
"""Keys a listing request returns, the most S3 gives."""

READ_BYTES = 4 * 2**20
"""Bytes of a ranged read, `store.s3.READ_BUFFER_BYTES`."""

SHARD_WRITES, SHARD_READS = 6, 4
"""Requests of a shard: staged part, claim, two parts, commit, its checks (docs/decisions/0002-commit-protocol.md)."""

BEAT_S = 15
"""Seconds between two signs of life of a child run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Figures that the costs follow from. `SOURCES` says where the defaults are from.

    rtfx: seconds of speech that a GPU decodes in a second.
    core_rtfx: seconds of audio that a core reads, cuts and turns into features in a second.
    speech_share: of the audio, what is not silence and goes to the decoder.
    recording_s: mean length of a recording.
    audio_bytes_s: size of the archive's files by second of audio.
    staged_bytes_s: features between prepare and decode by second of speech.
    lake_bytes_s: rows by second of audio, compressed.
    assignment_s: audio of one child run.
    start_s: from asking for a child run to its first segment: worker's poll, interpreter, weights.
    page_s: one listing request.
    machine_bytes_s: what a machine's network moves in a second.
    held_bytes: memory of the parent by recording that the lake holds.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    rtfx: float = 700.0
    core_rtfx: float = 110.0
    speech_share: float = 0.8
    recording_s: float = 360.0
    audio_bytes_s: float = 16_000.0
    staged_bytes_s: float = 16_000.0
    lake_bytes_s: float = 62.0
    assignment_s: float = 230_400.0
    start_s: float = 75.0
    page_s: float = 0.1
    machine_bytes_s: float = 1.25e9
    held_bytes: float = 100.0

    def __post_init__(self) -> None:
        wrong = [field.name for field in fields(self) if not getattr(self, field.name) > 0]
        if wrong or self.speech_share > 1:
            raise ConfigError(f"plan: {', '.join(wrong) or 'speech_share'} must be above 0, and a share at most 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What is paid, in dollars. The defaults are assumed or published, see `SOURCES`.

    gpu_hour: one GPU with its machine. core_hour: one CPU core. thousand_writes, thousand_reads: requests.
    gb_month: a gigabyte kept for a month.
    """

    gpu_hour: float = 3.5
    core_hour: float = 0.04
    thousand_writes: float = 0.005
    thousand_reads: float = 0.0004
    gb_month: float = 0.023


SOURCES = {
    "rtfx": "derived, never measured: 774 on an H200, batch 64, canvas 192, 8 steps (model-facts, section 3), less the "
    "2.3 TFLOP per window of CTC on a 20 ms grid (dgasr.bench.bound)",
    "core_rtfx": "measured: opus 219 by PyAV, the slowest common codec (lessons, section 4), the speech model 230 "
    "(docs/experiments.md, 2026-11-29), log-mel 5,350 (2026-11-21); 16 kHz FLAC goes at 210, by loudness alone "
    "at 2,303",
    "speech_share": "assumed; measure it: sum(speech_s) / sum(decoded_s) of a lake",
    "recording_s": "assumed: six minutes",
    "audio_bytes_s": "assumed: 128 kbit/s, as podcasts have; 16 kHz FLAC is about 19,000",
    "staged_bytes_s": "derived: 100 frames of 80 float16 numbers",
    "lake_bytes_s": "measured: 223,596 bytes an hour, 48 h of invented speech, 7,566 words an hour, uncompacted",
    "assignment_s": "configured: 64 hours (stages.assignment.AssignmentConfig)",
    "start_s": "derived: worker 14 s and interpreter 10 s (lessons, section 4), 52 GB of weights at 1 GB/s, assumed",
    "page_s": "assumed: S3 lists 1,000 keys a request in about 0.1 s",
    "machine_bytes_s": "assumed: 10 Gbit/s a GPU's machine",
    "held_bytes": "derived: 16 bytes in a Python set",
    "gpu_hour": "assumed: an H200 in the cloud; put in your price",
    "core_hour": "assumed: a shared cloud core",
    "thousand_writes": "published: Amazon S3 standard, us-east-1, PUT and LIST",
    "thousand_reads": "published: Amazon S3 standard, us-east-1, GET",
    "gb_month": "published: Amazon S3 standard, us-east-1, first 50 TB",
}
"""Field of `Pace` or `Prices` → where its default is from: measured, derived, configured, published, assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What an archive takes with the machines given."""

    audio_hours: float
    num_recordings: int
    num_assignments: int
    gpu_hours: float
    core_hours: float
    writes: int
    reads: int
    audio_bytes: float
    """Read once."""
    staged_bytes: float
    """Written, read and deleted again."""
    lake_bytes: float
    """Kept."""
    parent_bytes: float
    """Memory of the parent when the archive is in the lake."""
    wall_hours: dict[str, float]
    """Time of each resource if it were alone; they overlap, but for starting."""
    dollars: float
    """Machines and requests, and the lake for a month; the archive's own storage is not counted."""

    @property
    def bottleneck(self) -> str:
        """What the run waits for most."""
        return max(self.wall_hours, key=self.wall_hours.__getitem__)

    @property
    def hours(self) -> float:
        """Wall time of the run: starting, then whatever takes longest."""
        return self.wall_hours["starting"] + max(t for name, t in self.wall_hours.items() if name != "starting")


def cost_of(audio_hours: float, gpus: int, cores: int, pace: Pace, prices: Prices) -> Costs:
    """Work out what an archive takes.

    Args:
        audio_hours: length of all recordings.
        gpus: decoding at once, each in a machine with a network of its own.
        cores: preparing at once.
        pace: how fast each part is, and how large.
        prices: what each part costs.

    Raises:
        ConfigError: nothing to do, or nobody to do it.
    """
    if audio_hours <= 0 or gpus < 1 or cores < 1:
        raise ConfigError(f"plan: needs hours, GPUs and cores, got {audio_hours}, {gpus} and {cores}.")
    audio_s = audio_hours * HOUR_S
    speech_s = audio_s * pace.speech_share
    num_recordings = math.ceil(audio_s / pace.recording_s)
    num_assignments = math.ceil(audio_s / pace.assignment_s)
    gpu_hours = speech_s / pace.rtfx / HOUR_S + num_assignments * pace.start_s / HOUR_S
    core_hours = audio_s / pace.core_rtfx / HOUR_S
    pages = math.ceil(num_recordings / LIST_PAGE)
    beats = (gpu_hours + num_assignments * pace.assignment_s / pace.core_rtfx / HOUR_S / cores) * HOUR_S / BEAT_S
    audio_bytes, staged_bytes = audio_s * pace.audio_bytes_s, speech_s * pace.staged_bytes_s
    num_shards = math.ceil(audio_hours)
    writes = math.ceil(num_shards * SHARD_WRITES + num_assignments + beats + pages)
    reads = num_recordings * math.ceil(pace.recording_s * pace.audio_bytes_s / READ_BYTES) + num_shards * SHARD_READS
    moved = audio_bytes + 2 * staged_bytes
    lake_bytes = audio_s * pace.lake_bytes_s
    return Costs(
        audio_hours=audio_hours,
        num_recordings=num_recordings,
        num_assignments=num_assignments,
        gpu_hours=gpu_hours,
        core_hours=core_hours,
        writes=writes,
        reads=reads,
        audio_bytes=audio_bytes,
        staged_bytes=staged_bytes,
        lake_bytes=lake_bytes,
        parent_bytes=num_recordings * pace.held_bytes,
        wall_hours={
            "starting": 2 * pace.start_s / HOUR_S,
            "listing": pages * pace.page_s / HOUR_S,
            "cores": core_hours / cores,
            "GPUs": gpu_hours / min(gpus, num_assignments),
            "network": moved / (gpus * pace.machine_bytes_s) / HOUR_S,
        },
        dollars=gpu_hours * prices.gpu_hour
        + core_hours * prices.core_hour
        + writes / 1000 * prices.thousand_writes
        + reads / 1000 * prices.thousand_reads
        + lake_bytes / GB * prices.gb_month,
    )
