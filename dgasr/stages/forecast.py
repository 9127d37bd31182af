"""What a backfill would do and cost: a backlog in, counts, hours and money out. Writes nothing, loads no model."""

from dataclasses import dataclass

from dgasr.errors import ConfigError
from dgasr.lake.ledger import recording_rows, rows_of
from dgasr.stages.plan import estimate_s
from dgasr.stages.selection import Backlog

ASSUMED_RTFX = 54.0
"""Audio seconds that a GPU decodes in a second, where the lake holds no run of the recipe: Voxtral-Small-24B's on an
A100, the published figure of the size class closest to `full`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What would be done, and what it would take."""

    num_listed: int
    """Recordings at the sources."""
    num_held: int
    """Of these, in the lake already."""
    num_new: int
    """Of these, to be transcribed for the first time under the recipe."""
    num_again: int
    """Of these, to be transcribed again."""
    size_bytes: int
    """What the objects to be transcribed weigh."""
    known_s: float
    """Audio of those whose duration the lake knows, from whatever recipe, s."""
    num_known: int
    estimated_s: float
    """Audio of the others, guessed from size and file ending, s."""
    rtfx: float
    """Audio seconds decoded in a second of GPU time."""
    rtfx_origin: str
    """Where that figure comes from."""
    gpu_hour_price: float

    @property
    def num_recordings(self) -> int:
        """Recordings to be transcribed."""
        return self.num_new + self.num_again

    @property
    def audio_s(self) -> float:
        """Audio to be transcribed, s."""
        return self.known_s + self.estimated_s

    @property
    def gpu_s(self) -> float:
        """Time of one GPU, s."""
        return self.audio_s / self.rtfx

    @property
    def cost(self) -> float:
        """What that time costs, in the price's currency."""
        return self.gpu_s / 3600 * self.gpu_hour_price

    def line(self) -> str:
        """Say the most of it in one line."""
        hours = f"{self.audio_s / 3600:,.2f} h of audio, {self.gpu_s / 3600:,.2f} h of a GPU"
        return f"{self.num_recordings:,} of {self.num_listed:,} recordings, {hours}"

    def rows(self) -> list[tuple[str, str]]:
        """Say it as names and values, for a terminal or an artifact."""
        num_out = self.num_listed - self.num_held - self.num_recordings
        num_guessed = self.num_recordings - self.num_known
        return [
            ("at the sources", f"{self.num_listed:,} recordings"),
            ("not selected", f"{num_out:,}"),
            ("in the lake already", f"{self.num_held:,}"),
            ("to transcribe", f"{self.num_recordings:,} ({self.num_new:,} new, {self.num_again:,} again)"),
            ("size", f"{self.size_bytes / 1e9:,.3f} GB"),
            ("audio, known from the lake", f"{self.known_s / 3600:,.2f} h in {self.num_known:,} recordings"),
            ("audio, estimated from sizes", f"{self.estimated_s / 3600:,.2f} h in {num_guessed:,} recordings"),
            ("GPU time, estimated", f"{self.gpu_s / 3600:,.2f} h at RTFx {self.rtfx:,.0f} ({self.rtfx_origin})"),
            (
                "cost, estimated",
                f"{self.cost:,.2f} at {self.gpu_hour_price:g} an hour" if self.gpu_hour_price else "no price was given",
            ),
        ]


def forecast(backlog: Backlog, lake_uri: str, recipe_id: str, gpu_hour_price: float = 0.0) -> Forecast:
    """Walk through a backlog, which this uses up, without transcribing any of it.

    `gpu_hour_price` is what a GPU costs an hour, in any currency; 0 leaves the cost out, and ConfigError refuses less.
    """
    if gpu_hour_price < 0:
        raise ConfigError(f"forecast: gpu_hour_price={gpu_hour_price} must not be negative.")
    held = recording_rows(lake_uri, ("recording_id", "decoded_s"))
    # Of a rejected recording nobody knows how long it is.
    durations_s = {bytes.fromhex(recording_id): decoded_s for recording_id, decoded_s in held if decoded_s > 0}
    known_s = estimated_s = 0.0
    num_known = size_bytes = 0
    for recording in backlog:
        duration_s = durations_s.get(bytes.fromhex(recording.recording_id))
        num_known += duration_s is not None
        known_s += duration_s or 0.0
        estimated_s += estimate_s(recording) if duration_s is None else 0.0
        size_bytes += recording.size_bytes
    rtfx, origin = _throughput(lake_uri, recipe_id)
    return Forecast(
        num_listed=backlog.num_listed, num_held=backlog.num_held, num_new=backlog.num_new, num_again=backlog.num_again,
        size_bytes=size_bytes, known_s=known_s, num_known=num_known, estimated_s=estimated_s,
        rtfx=rtfx, rtfx_origin=origin, gpu_hour_price=gpu_hour_price,
    )  # fmt: skip


def _throughput(lake_uri: str, recipe_id: str) -> tuple[float, str]:
    """Find out how fast the recipe is, of its decode runs or else its whole runs, or assume it; and which it was."""
    runs = [run for run in rows_of(lake_uri, "runs", recipe_id=recipe_id) if run["audio_s"] > 0]
    for stage, kind in (("decode", "decode runs"), (None, "whole runs")):
        if found := [run for run in runs if run["stage"] == stage]:
            rtfx = sum(run["audio_s"] for run in found) / sum(run["wall_s"] for run in found)
            devices = ", ".join(sorted({run["device"] for run in found}))
            return rtfx, f"measured on {devices}, {kind} of this recipe: {len(found)}"
    return ASSUMED_RTFX, "assumed: the lake holds no run of this recipe"
