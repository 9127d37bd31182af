"""The one composition of the rooms: segments' features in, transcripts with word times, confidence and flags out.

Four waves, each in batches of fixed shapes: encode (audio → prompt cache and what CTC hears), denoise (canvases come
and go), rescore (where the two texts differ), read (one by one, while a GPU takes the next steps). A segment's result
depends on the segment, the recipe and the type of device, nothing else; that is why a batch that does not fit the
memory can be halved, and its segments done again.
"""

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain

import torch

from dgasr.diffusion.canvas import CanvasJob, CanvasSeed
from dgasr.diffusion.denoise import denoise
from dgasr.diffusion.noise import segment_key
from dgasr.diffusion.vocabulary_tail import VocabularyHead
from dgasr.errors import ConfigError, TransientError
from dgasr.model.asr import AsrModel
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures, SegmentTranscript, seconds
from dgasr.transcriber.aside import aside
from dgasr.transcriber.decoder import CachedDecoder
from dgasr.transcriber.encoding import EncodedSegment, SegmentEncoder
from dgasr.transcriber.memory import is_out_of_memory, release_memory
from dgasr.transcriber.reading import read_transcript
from dgasr.transcriber.rescoring import Choice, Rescorer

logger = logging.getLogger(__name__)


class Transcriber:
    """Transcribes segments of many recordings together.

    Args:
        model: in evaluation mode.
        recipe: from `build_recipe` of this model.
        batch_size: rows of every batch, whether in use or not.

    Raises:
        ConfigError: no rows.
    """

    def __init__(self, model: AsrModel, recipe: Recipe, batch_size: int) -> None:
        if batch_size < 1:
            raise ConfigError(f"--batch-size {batch_size}: must be at least 1.")
        self._model, self._recipe, self.batch_size = model, recipe, batch_size
        self._head = VocabularyHead(
            weight=model.head_weight, softcap=model.config.softcap, embed_scale=model.embed_scale
        )

    def transcribe(self, features: Iterable[SegmentFeatures]) -> Iterator[SegmentTranscript]:
        """Transcribe segments, pulled a few batches ahead.

        Where the memory does not hold a batch, the segments that were in it are done again in batches of half its
        size, and so is everything after them; `batch_size` says so.

        Args:
            features: segments with speech.

        Yields:
            One transcript for each, in the order in which they finish.

        Raises:
            TransientError: the memory does not hold a single segment.
        """
        pulled = _Pulled(features)
        while True:
            with closing(self._transcribe(pulled)) as transcripts:
                try:
                    for transcript in transcripts:
                        pulled.done(transcript.segment)
                        yield transcript
                    return
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    self._halve(error)
            # Only here, where nothing holds the failed batch's tensors any longer, is its memory free.
            pulled.put_back()
            release_memory()

    def _halve(self, error: RuntimeError) -> None:
        reason = str(error).strip().split("\n", 1)[0]
        if self.batch_size == 1:
            raise TransientError(
                f"{self._model.device}: a single segment does not fit the memory ({reason}). Free what other processes "
                "hold there (`nvidia-smi` lists them), or take a larger device."
            )
        logger.warning(
            "%s: out of memory with %d segments at once, going on with %d (%s)",
            self._model.device, self.batch_size, self.batch_size // 2, reason,
        )  # fmt: skip
        self.batch_size //= 2

    def _transcribe(self, features: Iterator[SegmentFeatures]) -> Generator[SegmentTranscript]:
        canvases = denoise(
            CachedDecoder(self._model, self.batch_size, self._model.config.canvas.buckets[-1]),
            self._head,
            self._jobs(features),
            num_rows=self.batch_size,
            buckets=self._model.config.canvas.buckets,
            end_token_ids=self._model.config.prompt.end_text_ids,
            config=self._recipe.decode,
        )
        # A CPU's product of the seven tokens of one short text sums in another order than that of three such texts: in
        # batches, a confidence would depend on the batch in its sixth digit.
        rows = 1 if self._model.device.type == "cpu" else self.batch_size
        chosen = Rescorer(self._model, self._recipe, rows).choose(canvases)
        yield from aside(self._read, chosen, self.batch_size if waits_for(self._model.device) else 0)

    def _jobs(self, features: Iterator[SegmentFeatures]) -> Iterator[CanvasJob]:
        for encoded in SegmentEncoder(self._model, self._recipe, self.batch_size).encode(features):
            segment = encoded.features.segment
            seed = self._seed(encoded) if self._recipe.decode.seed_canvas == "ctc" else None
            yield CanvasJob(
                noise_key=segment_key(segment.recording_id, segment.segment_index),
                canvas_tokens=self._canvas_tokens(seconds(segment.num_samples), seed),
                payload=encoded,
                seed=seed,
            )

    def _seed(self, encoded: EncodedSegment) -> CanvasSeed:
        """What CTC hears, as the text that the canvas starts from."""
        prompt, hearing = self._model.config.prompt, encoded.hearing
        return CanvasSeed(
            ids=(*hearing.ids, prompt.end_text_ids[0]),
            probabilities=(*hearing.probabilities, hearing.end_probability),
            pad_id=prompt.pad_id,
        )

    def _canvas_tokens(self, duration_s: float, seed: CanvasSeed | None) -> int:
        """Choose the bucket by the audio's length, or a larger one that a seed needs."""
        canvas = self._model.config.canvas
        needed = max(canvas.bucket_for(duration_s), len(seed.ids) if seed is not None else 0)
        return canvas.bucket_holding(needed) or canvas.buckets[-1]

    def _read(self, choice: Choice) -> SegmentTranscript:
        canvas = choice.canvas
        return read_transcript(
            self._model,
            self._recipe,
            choice.encoded,
            choice.ids,
            choice.probabilities,
            rival_ids=choice.rival_ids,
            num_steps=canvas.num_steps,
            canvas_tokens=canvas.job.canvas_tokens,
            is_settled=canvas.is_settled,
            is_overflow=canvas.is_overflowed,
        )


def waits_for(device: torch.device) -> bool:
    """Tell whether this process waits while a device works, and can place words in the meantime: 14 ms a window."""
    return device.type == "cuda"


class _Pulled:
    """Segments as they are pulled, each kept until it is done, so that a failed batch loses none."""

    def __init__(self, source: Iterable[SegmentFeatures]) -> None:
        self._source = iter(source)
        self._unfinished: dict[Segment, list[SegmentFeatures]] = {}

    def __iter__(self) -> Iterator[SegmentFeatures]:
        return self

    def __next__(self) -> SegmentFeatures:
        features = next(self._source)
        self._unfinished.setdefault(features.segment, []).append(features)
        return features

    def done(self, segment: Segment) -> None:
        """Forget one."""
        same = self._unfinished[segment]
        same.pop()
        if not same:
            del self._unfinished[segment]

    def put_back(self) -> None:
        """Put those that are not done before the ones to come."""
        again = [features for same in self._unfinished.values() for features in same]
        self._unfinished = {}
        self._source = chain(again, self._source)
