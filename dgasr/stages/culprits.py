"""Recordings that kill the process that works on them: found by splitting a shard, and left out of it.

Whether a process survives recordings is asked of whoever can try it; knows neither processes, audio nor model.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dgasr.errors import ConfigError, TransientError
from dgasr.records import Recording, Shard

Result = TypeVar("Result")


def settle(
    shard: Shard, work: Callable[[frozenset[str]], Result | None], survives: Callable[[Sequence[Recording]], bool]
) -> Result:
    """Do the work of a shard that cost a process, if need be without the recordings that do so.

    Args:
        shard: the shard.
        work: does it alone in a process, without the recordings of these ids; `None` where the process died.
        survives: whether a process survives these recordings of it.

    Returns:
        What the work returned.

    Raises:
        ConfigError: processes die without any recording.
        TransientError: the shard costs its process, but no recording of it does when tried alone.
    """
    result = work(frozenset())
    if result is None:
        result = work(frozenset(recording.recording_id for recording in find_crashing(shard.recordings, survives)))
    if result is None:
        raise TransientError(
            f"shard {shard.shard_id}: costs its process, and no recording of it does when tried alone. "
            "Give the worker more memory, or let it run fewer processes."
        )
    return result


def find_crashing(
    recordings: Sequence[Recording], survives: Callable[[Sequence[Recording]], bool]
) -> Iterator[Recording]:
    """Split recordings that ended a process until those stand alone that do it, and do it twice.

    Args:
        recordings: what was worked on.
        survives: whether a process survives these.

    Yields:
        The culprits.

    Raises:
        ConfigError: a process dies without any recording, so that none can be blamed.
    """
    if not (survives(()) or survives(())):  # once may be somebody else's doing, such as the kernel's for want of memory
        raise ConfigError(
            "A process dies before it has touched a recording: look for lack of memory or a broken installation "
            "with `dgasr doctor` on this machine."
        )
    yield from _culprits(recordings, survives)


def crash_message(uri: str, work: str) -> str:
    """Say of a recording that it ended the process that did this `work` with it."""
    return (
        f"{uri}: ended or held up the process that {work} it, each time it was tried alone. "
        "Convert it to FLAC and transcribe that, or remove it."
    )


def _culprits(group: Sequence[Recording], survives: Callable[[Sequence[Recording]], bool]) -> Iterator[Recording]:
    """Yield the culprits of a group that ended a process."""
    if len(group) == 1:
        if not survives(group):
            yield group[0]
        return
    middle = len(group) // 2
    for half in (group[:middle], group[middle:]):
        if not survives(half):
            yield from _culprits(half, survives)
