"""Segments' features in, transcripts with word times, confidence and flags out: model, diffusion, alignment composed.

Four steps, each in batches of fixed shapes: encode (audio → prompt cache and CTC's text, shortly before a row is free),
denoise (canvases come and go), rescore (where the two texts differ), read (one by one, on the host alone, while a GPU
takes the next steps). A device is waited for once in each of the first three's batches and steps. A segment's result
depends on the segment, the recipe and the type of device, nothing else; that is why a batch that does not fit the
memory can be halved, and its segments done again.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dgasr.alignment.flags import flag_segment
from dgasr.alignment.words import WordTokens, align_words, loudness, segment_confidence
from dgasr.device import upload
from dgasr.diffusion import Canvas, CanvasJob
from dgasr.diffusion.denoise import Decoder, Watch, denoise
from dgasr.diffusion.noise import segment_key
from dgasr.diffusion.vocabulary import VocabularyHead
from dgasr.errors import ConfigError, TransientError
from dgasr.model.asr import AsrModel, CanvasCache
from dgasr.model.punctuation import Punctuator
from dgasr.prompt import Tokenizer
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures, SegmentTranscript, join_words, seconds
from dgasr.transcriber.encoding import EncodedSegment, SegmentEncoder
from dgasr.transcriber.loading import is_out_of_memory, release_memory
from dgasr.transcriber.rescoring import Choice, Rescorer, read_out

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Transcriber:
    """Transcribes segments of many recordings together.

    Args:
        model: in evaluation mode.
        recipe: from `build_recipe` of this model.
        batch_size: rows of every batch, whether in use or not; where the model has `rows_at_once`, those.
        is_live: hold no segment back until a batch of those to be rescored is full: somebody waits for it.
        watch: shown canvases after each step.

    Raises:
        ConfigError: no rows.
    """

    def __init__(
        self, model: AsrModel, recipe: Recipe, batch_size: int, *, is_live: bool = False, watch: Watch | None = None
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"--batch-size {batch_size}: must be at least 1.")
        self._model, self._recipe, self.batch_size, self._is_live = model, recipe, batch_size, is_live
        self._watch = watch
        self._head = VocabularyHead(
            weight=model.head_weight,
            softcap=model.config.softcap,
            embed_scale=model.embed_scale,
        )

    def transcribe(self, features: Iterable[SegmentFeatures | None]) -> Iterator[SegmentTranscript]:
        """Transcribe segments, pulled as far ahead as `diffusion.denoise` says; each transcript comes as it ends.

        Where the memory does not hold a batch, the segments that were in it are done again in batches of half its
        size, and so is everything after them; `batch_size` says so. TransientError where it does not hold a single one.
        Features are of segments with speech; `None` says that there is none now, and that those in work go on.
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

    def _transcribe(self, features: Iterator[SegmentFeatures | None]) -> Generator[SegmentTranscript]:
        # A CPU's product of the seven tokens of one short text sums in another order than that of three such texts: in
        # batches, a confidence would depend on the batch in its sixth digit.
        rows = 1 if self._is_live or self._model.device.type == "cpu" else self.batch_size
        chosen = Rescorer(self._model, self._recipe, rows, is_live=self._is_live).choose(self._denoise(features))
        yield from in_background(self._read, chosen, self.batch_size if waits_for(self._model.device) else 0)

    def _denoise(self, features: Iterator[SegmentFeatures | None]) -> Iterator[Canvas]:
        canvas = self._model.config.canvas
        num_rows = self._model.rows_at_once or self.batch_size
        jobs = (None if item is None else self._job(item) for item in features)
        return denoise(
            CachedDecoder(self._model, self._recipe, num_rows),
            self._head,
            jobs,
            num_rows=num_rows,
            buckets=canvas.buckets,
            end_token_ids=self._model.config.prompt.end_text_ids,
            config=self._recipe.decode,
            watch=self._watch,
        )

    def _job(self, features: SegmentFeatures) -> CanvasJob:
        segment = features.segment
        return CanvasJob(
            noise_key=segment_key(segment.recording_id, segment.segment_index),
            canvas_tokens=self._model.config.canvas.bucket_for(seconds(segment.num_samples)),
            payload=features,
        )

    def _read(self, choice: Choice) -> SegmentTranscript:
        canvas, has_blank = choice.canvas, self._model.config.has_blank
        largest = self._model.config.canvas.buckets[-1]
        return read_transcript(
            self._model.tokenizer,
            self._recipe,
            canvas.job.payload,
            choice.ids,
            choice.probabilities,
            choice.log_probs if has_blank else canvas.log_probabilities[canvas.num_tokens :][:1, None],
            alternative_ids=choice.doubted_by if has_blank else choice.ids,
            num_steps=canvas.num_steps,
            canvas_tokens=canvas.job.canvas_tokens,
            is_settled=canvas.is_settled or not choice.is_canvas,
            is_overflow=canvas.is_overflowed if choice.is_canvas else len(choice.ids) == largest,
            has_blank=has_blank,
            punctuator=self._model.punctuator,
        )


def read_transcript(
    tokenizer: Tokenizer,
    recipe: Recipe,
    features: SegmentFeatures,
    ids: Sequence[int],
    probabilities: Sequence[float],
    log_probs: np.ndarray,
    *,
    alternative_ids: Sequence[int],
    num_steps: int = 0,
    canvas_tokens: int = 0,
    is_settled: bool = True,
    is_overflow: bool = False,
    has_blank: bool = True,
    punctuator: Punctuator | None = None,
) -> SegmentTranscript:
    """Turn a segment's tokens into a transcript. Everything is on the host: no device is asked for anything.

    Args:
        tokenizer: of the model.
        recipe: of the model.
        features: the segment.
        ids: tokens of the text, without the end of text.
        probabilities: what the model gives each of them, in [0, 1].
        log_probs: of the blank and of each of them by CTC, natural logarithms.  [frames, 1 + tokens]
        alternative_ids: tokens of the text that it was preferred to; CTC's if nothing was chosen.
        num_steps: decoder calls spent.
        canvas_tokens: length of the canvas that held the text.
        is_settled: the canvas had stopped changing.
        is_overflow: the largest canvas held no end of text.
        has_blank: CTC's log-probabilities mean something; else words are spread evenly, and the first column of
            `log_probs` says how sure an empty text is.
        punctuator: puts capitals and punctuation, which the tokens do not have.
    """
    ids, segment = list(ids), features.segment
    tokens = [WordTokens(word, start, end, min(probabilities[start:end])) for word, start, end in tokenizer.words(ids)]
    sound = loudness(features.log_mel, recipe.features.hop_samples)
    words, timing_source = align_words(tokens, ids, log_probs, sound, segment, recipe.alignment, has_blank=has_blank)
    confidence = segment_confidence(words, log_probs[:, 0])
    flags = flag_segment(
        words, [word for word, _, _ in tokenizer.words(list(alternative_ids))], confidence,
        is_settled=is_settled, is_overflow=is_overflow, config=recipe.alignment,
    )  # fmt: skip
    if punctuator:
        written = punctuator.written([word.word for word in words])
        words = tuple(replace(word, word=own) for word, own in zip(words, written, strict=True))
        text = join_words(written)
    else:
        text = tokenizer.decode(ids)
    return SegmentTranscript(
        segment=segment, text=text, language=recipe.language, words=words,
        timing_source=timing_source, confidence=confidence, flags=flags, num_steps=num_steps,
        canvas_tokens=canvas_tokens,
    )  # fmt: skip


def waits_for(device: torch.device) -> bool:
    """Tell whether this process waits while a device works, and can place words in the meantime: 14 ms a window."""
    return device.type == "cuda"


class _Pulled:
    """Segments as they are pulled, each kept until it is done, so that a failed batch loses none."""

    def __init__(self, source: Iterable[SegmentFeatures | None]) -> None:
        self._source = iter(source)
        self._unfinished: dict[Segment, list[SegmentFeatures]] = {}

    def __iter__(self) -> Iterator[SegmentFeatures | None]:
        return self

    def __next__(self) -> SegmentFeatures | None:
        features = next(self._source)
        if features is None:
            return None
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


class CachedDecoder(Decoder):
    """What `diffusion.denoise` calls: encodes segments, and decodes from a cache filled row by row, in place."""

    def __init__(self, model: AsrModel, recipe: Recipe, num_rows: int) -> None:
        self._model, self._recipe, self._num_rows = model, recipe, num_rows
        self._encoder = SegmentEncoder(model, recipe, num_rows)
        self.encoded_at_once = self._encoder.batch_size
        self._cache: CanvasCache | None = None

    def encode(self, jobs: Sequence[CanvasJob]) -> Sequence[EncodedSegment]:
        """Run the encoders over segments' features."""
        return self._encoder.encode_batch([job.payload for job in jobs])

    def admit(self, rows: Sequence[int], encoded: Sequence[EncodedSegment]) -> None:
        """Copy segments' prompt caches into rows; what was copied is let go."""
        if self._cache is None:
            largest = self._model.config.canvas.buckets[-1]
            self._cache = CanvasCache(encoded[0].keys_values, self._num_rows, largest)
        self._cache.put(upload(torch.tensor(rows), self._model.device), [own.keys_values for own in encoded])
        for row, own in reversed([*zip(rows, encoded, strict=True)]):  # of copies the first one is in use
            own.keys_values = self._cache.prompt(row)

    def __call__(self, ids: Tensor, soft_embeddings: Tensor) -> Tensor:
        """Run one step; [rows, canvas], [rows, canvas, hidden] → [rows, canvas, hidden]."""
        assert self._cache is not None, "rows are admitted before their first step"
        return self._model.decode(ids, soft_embeddings, self._cache)

    def read_out(self, encoded: Sequence[EncodedSegment], ids: Tensor) -> list[Tensor]:
        """Compute what choosing and reading need of segments that are done."""
        return read_out(self._model, encoded, ids)


def in_background(work: Callable[[Item], Result], items: Iterable[Item], limit: int) -> Generator[Result]:
    """Do something with every item in a thread of its own, while the next items are made in the caller's.

    Yields the results, in the items' order; what `work` raised is raised in its result's place. `limit` results may be
    outstanding; 0 does everything in the caller's thread.
    """
    if limit == 0:
        yield from map(work, items)
        return
    worker = ThreadPoolExecutor(1, thread_name_prefix="in-background")
    try:
        outstanding: deque[Future[Result]] = deque()
        for item in items:
            outstanding.append(worker.submit(work, item))
            while outstanding and (len(outstanding) > limit or outstanding[0].done()):
                yield outstanding.popleft().result()
        while outstanding:
            yield outstanding.popleft().result()
    finally:
        worker.shutdown(cancel_futures=True)
