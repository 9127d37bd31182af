"""What became of a recording when its audio was read, and its form as JSON. Knows neither audio nor lake."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dgasr.errors import Reason
from dgasr.lake.schema import RecordingStatus
from dgasr.records import AudioReport, Recording


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A recording after its audio was read."""

    recording: Recording
    status: RecordingStatus
    reason: Reason | None = None
    """Why it is not `ok`."""
    message: str | None = None
    """What, where, what now; for a person."""
    num_segments: int = 0
    """Segments it was cut into; 0 for a rejected recording."""
    report: AudioReport | None = None
    """What the container claims and what was decoded; `None` for a rejected recording."""
    audio_digest: str | None = None
    """Fingerprint of the decoded audio, see `audio.digest`; `None` for a rejected recording."""
    read_s: float | None = None
    """Time it took to read, s; `None` where it was not tried."""


def outcomes_to_json(outcomes: Sequence[Outcome]) -> bytes:
    """Write outcomes as JSON."""
    rows = [dataclasses.asdict(outcome) | {"recording": recording_to_json(outcome.recording)} for outcome in outcomes]
    return json.dumps(rows, indent=1).encode()


def outcomes_from_json(data: bytes) -> list[Outcome]:
    """Read what `outcomes_to_json` wrote."""
    return [_outcome(row) for row in json.loads(data)]


def recording_to_json(recording: Recording) -> dict[str, Any]:
    """Turn a recording into what JSON can hold."""
    return dataclasses.asdict(recording) | {"modified_at": recording.modified_at.isoformat()}


def recording_from_json(row: dict[str, Any]) -> Recording:
    """Turn back what `recording_to_json` made."""
    return Recording(**row | {"modified_at": datetime.fromisoformat(row["modified_at"])})


def _outcome(row: dict[str, Any]) -> Outcome:
    return Outcome(
        recording=recording_from_json(row["recording"]),
        status=row["status"],
        reason=Reason(row["reason"]) if row["reason"] else None,
        message=row["message"],
        num_segments=row["num_segments"],
        report=AudioReport(**row["report"]) if row["report"] else None,
        audio_digest=row.get("audio_digest"),
        read_s=row.get("read_s"),
    )
