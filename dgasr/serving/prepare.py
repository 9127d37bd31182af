"""One file in, its segments out, with features where somebody speaks: done in processes, which audio may kill."""

import asyncio
import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dgasr.audio import open_audio
from dgasr.errors import AudioError, Reason, TruncatedError
from dgasr.frontend import cut_channels, until_truncation
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures, seconds


class CrashesDecoderError(AudioError):
    """A process died of reading the file."""

    reason = Reason.CRASHES_DECODER


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A file's segments without and with speech, its length, s, and why it ends early, `None` where it does not."""

    silent: tuple[Segment, ...]
    spoken: tuple[SegmentFeatures, ...]
    duration_s: float
    message: str | None


class Preparer:
    """Reads files as a recipe says, so many at once, each in a process."""

    def __init__(self, recipe: Recipe, processes: int) -> None:
        self._recipe = recipe
        self._new = partial(ProcessPoolExecutor, processes, multiprocessing.get_context("spawn"))
        self._pool = self._new()

    async def prepare(self, path: Path) -> Prepared:
        """Read a file.

        Raises:
            AudioError: it cannot be used; `CrashesDecoderError` where its process died.
        """
        pool = self._pool
        try:
            return await asyncio.wrap_future(pool.submit(prepare, path, self._recipe))
        except BrokenProcessPool as error:
            if self._pool is pool:  # the first of those that it took with it makes a new one
                self._pool = self._new()
            what = "reading it, or what was read beside it, ends the process."
            raise CrashesDecoderError(f"{path.name}: {what}") from error

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


def prepare(path: Path, recipe: Recipe) -> Prepared:
    """Read and cut a file; its bytes name it, so that the same bytes give the same text.

    Raises:
        AudioError: nothing of it can be used.
    """
    silent: list[Segment] = []
    spoken: list[SegmentFeatures] = []
    truncations: list[TruncatedError] = []
    with path.open("rb") as file:
        recording_id = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        file.seek(0)
        channels = until_truncation(open_audio(file, path.name, recipe.audio).channels(), truncations)
        for segment, features in cut_channels(channels, recording_id, recipe):
            if features is None:
                silent.append(segment)
            else:
                spoken.append(features)
    if truncations and not silent and not spoken:
        raise truncations[0]
    ends = [segment.end_sample for segment in (*silent, *(own.segment for own in spoken))]
    message = str(truncations[0]) if truncations else None
    return Prepared(
        silent=tuple(silent), spoken=tuple(spoken), duration_s=seconds(max(ends, default=0)), message=message
    )
