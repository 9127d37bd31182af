"""Segments' features in, prompt caches and audio embeddings out, in batches of one fixed shape."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from dgasr.features import pad_features
from dgasr.model.asr import AsrModel, keys_values
from dgasr.model.head import Bias, VocabularyScan, scan_vocabulary
from dgasr.prompt import build_prompt
from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures

SCANNED_POSITIONS = 16_384
"""Audio embeddings whose logits are held at once: the vocabulary is read 8 times as finely as it is decoded, and a
batch of 64 windows has 96,000 of them."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedSegment:
    """A segment after the encoders.

    features: what went in.
    keys_values: prompt cache of every backbone layer.  [heads, prompt, head_dim] each
    prompt_state: the backbone encoder's last state, which predicts the first token.  [hidden]
    states: audio embeddings every 20 ms, of the frames that hold audio.  [frames, hidden]
    log_partition: their log-partition over the vocabulary.  [frames]
    greedy_ids: likeliest CTC id of each audio embedding on the projector's own grid.  [audio tokens]
    greedy_log_probs: their log-probabilities.  [audio tokens]
    """

    features: SegmentFeatures
    keys_values: list[tuple[Tensor, Tensor]]
    prompt_state: Tensor
    states: Tensor
    log_partition: Tensor
    greedy_ids: Tensor
    greedy_log_probs: Tensor


class SegmentEncoder:
    """Runs audio encoder, projector and the backbone's encoder.

    Args:
        model: in evaluation mode.
        recipe: of this model.
        batch_size: rows of every batch; the last one is filled up, so that shapes never change.
    """

    def __init__(self, model: AsrModel, recipe: Recipe, batch_size: int) -> None:
        self._model, self._recipe, self._batch_size = model, recipe, batch_size
        config = model.config
        prompt = build_prompt(model.tokenizer, config.prompt, config.num_audio_tokens, recipe.language)
        self._prompt_ids = torch.tensor(prompt.ids, device=model.device)

    @property
    def blank(self) -> Bias:
        """Id of the CTC blank, and the constant on its logit."""
        return self._model.config.blank_id, self._model.config.blank_bias

    @torch.no_grad()
    def encode(self, features: Iterable[SegmentFeatures]) -> Iterator[EncodedSegment]:
        """Encode segments, pulled a batch ahead.

        Args:
            features: segments with speech.

        Yields:
            Each of them, in order.
        """
        source = iter(features)
        while batch := list(islice(source, self._batch_size)):
            yield from self._encode_batch(batch)

    def _encode_batch(self, batch: Sequence[SegmentFeatures]) -> Iterator[EncodedSegment]:
        model, recipe = self._model, self._recipe
        filled = [*batch, *[batch[-1]] * (self._batch_size - len(batch))]
        log_mel = torch.from_numpy(pad_features(filled, recipe.features)).to(model.device)
        frames = model.encode_audio(log_mel)  # [batch, frames, encoder_width]
        subsampling = model.config.projector.subsampling
        fine = model.projector.forward_shifted(frames, subsampling)  # [batch, frames, hidden]
        # The unshifted embeddings are among these; a pass of their own would sum in another order for a batch of one.
        embeddings = model.prompt_embeddings(self._prompt_ids, fine[:, ::subsampling])
        prompt_states, cache = model.prefill(embeddings)
        scan = self._scan(fine)
        for row, item in enumerate(batch):
            num_frames = -(-item.segment.num_samples // recipe.alignment.frame_samples)
            yield EncodedSegment(
                features=item,
                keys_values=[(keys[row], values[row]) for keys, values in keys_values(cache)],
                prompt_state=prompt_states[row, -1],
                states=fine[row, :num_frames],
                log_partition=scan.log_partition[row, :num_frames],
                greedy_ids=scan.ids[row, ::subsampling],
                greedy_log_probs=(scan.top_logit[row] - scan.log_partition[row])[::subsampling],
            )

    def _scan(self, fine: Tensor) -> VocabularyScan:
        """Read the vocabulary at every audio embedding, a few rows at a time."""
        num_rows = max(SCANNED_POSITIONS // fine.shape[1], 1)
        chunk, softcap = self._recipe.decode.vocabulary_chunk, self._model.config.softcap
        parts = [
            scan_vocabulary(rows, self._model.head_weight, softcap, chunk, self.blank) for rows in fine.split(num_rows)
        ]
        return VocabularyScan(*map(torch.cat, zip(*parts, strict=True)))
