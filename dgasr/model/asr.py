"""The audio-to-text model: Whisper's encoder, the projector and DiffusionGemma, all of them transformers' own classes.

In: log-mel features. Out: a prompt cache for the decoder, hidden states of canvases, embeddings for CTC.
Knows nothing of sampling, losses, files or batches that change.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DiffusionGemmaForBlockDiffusion, WhisperConfig
from transformers.cache_utils import DynamicCache
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from dgasr.model.backbone import build_backbone
from dgasr.model.head import scan_vocabulary
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.model.projector import Projector
from dgasr.model.punctuation import Punctuator
from dgasr.prompt import Tokenizer

logger = logging.getLogger(__name__)

COMPILED_SHAPES = 64
"""Graphs of the decoder that are kept; one more would be an error."""


class CanvasCache:
    """What the backbone's decoder reads in place of transformers' cache: rows with room for the largest canvas.

    `example` are keys and values of a prompt in every layer; the same length in all.  [heads, prompt, head_dim]
    """

    is_compileable = False

    def __init__(self, example: Sequence[tuple[Tensor, Tensor]], num_rows: int, canvas_tokens: int) -> None:
        self._prompt_tokens = example[0][0].shape[1]
        self._layers = [
            tuple(tensor.new_zeros(num_rows, tensor.shape[0], self._prompt_tokens + canvas_tokens, tensor.shape[2])
                  for tensor in pair)
            for pair in example
        ]  # fmt: skip

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Length of the prompts, which is the canvas's first position."""
        return self._prompt_tokens

    def put(self, rows: Tensor, prompts: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> None:
        """Load prompts, which are keys and values of every layer each, into rows.  [prompts] int64"""
        for index, layer in enumerate(self._layers):
            for kind, buffer in enumerate(layer):
                buffer[rows, :, : self._prompt_tokens] = torch.stack([prompt[index][kind] for prompt in prompts])

    def prompt(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """Show the prompt in a row, as it is until another one is put there.  [heads, prompt, head_dim] each"""
        end = self._prompt_tokens
        return [(keys[row, :, :end], values[row, :, :end]) for keys, values in self._layers]

    def join(self, layer_idx: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put a canvas behind the prompts of a layer.

        Keys and values are [rows, heads, canvas, head_dim]; those of prompt and canvas, which are returned, are valid
        until the next call for this layer.
        """
        end = self._prompt_tokens + keys.shape[2]
        joined = []
        for buffer, canvas in zip(self._layers[layer_idx], (keys, values), strict=True):
            buffer[:, :, self._prompt_tokens : end] = canvas
            joined.append(buffer[:, :, :end])
        return joined[0], joined[1]


def read_canvas_caches(decoder: nn.Module) -> None:
    """Let transformers' decoder take a `CanvasCache` too, in place; its own caches go the way they went."""
    layers: Any = decoder.get_submodule("layers")
    for layer in layers:
        attention = layer.self_attn
        attention.append_to_cache = partial(_append, attention.append_to_cache, attention.layer_idx)


def _append(plain: Any, layer_idx: int, cache: Any, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(cache, CanvasCache):
        return cache.join(layer_idx, keys, values)
    joined: tuple[Tensor, Tensor] = plain(cache, keys, values)
    return joined


class AsrModel(nn.Module):
    """Encoder, projector and backbone of one configuration.

    Args:
        config: sizes and ids.
        tokenizer: of the backbone's vocabulary; only what turns ids into text needs one.
        identity: which weights these are, once they have been loaded.
        encoder: loaded elsewhere; built with transformers' first weights when `None`.
        backbone: likewise.

    Source:
        The layout of diffusion-gemma-asr-small; the classes are transformers'.
    """

    def __init__(
        self,
        config: AsrConfig,
        tokenizer: Tokenizer | None = None,
        identity: ModelIdentity | None = None,
        *,
        encoder: WhisperEncoder | None = None,
        backbone: DiffusionGemmaForBlockDiffusion | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self._tokenizer, self._identity = tokenizer, identity
        self.punctuator: Punctuator | None = None
        """Where the vocabulary has neither capitals nor punctuation, what puts them."""
        self.encoder = encoder or WhisperEncoder(WhisperConfig(**config.encoder))
        self.backbone = backbone or build_backbone(config)
        self.projector = Projector(config.projector, config.encoder["d_model"], config.backbone["hidden_size"])
        self._soft_embeddings: Tensor | None = None
        self._run_decoder: Callable[..., Tensor] = self._decoder_states
        self._may_fall_back = False
        self.backbone.model.decoder.self_conditioning.register_forward_pre_hook(self._replace_self_conditioning)
        read_canvas_caches(self.backbone.model.decoder)

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        assert self._tokenizer is not None, "this model was built without a tokenizer"
        return self._tokenizer

    @property
    def identity(self) -> ModelIdentity:
        """Which weights these are."""
        assert self._identity is not None, "this model was not loaded from anywhere"
        return self._identity

    @identity.setter
    def identity(self, identity: ModelIdentity) -> None:
        self._identity = identity

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head_weight.device

    @property
    def head_weight(self) -> Tensor:
        """The language head's matrix, tied to the token embeddings.  [vocab, hidden]"""
        return self.backbone.lm_head.weight

    @property
    def embed_scale(self) -> float:
        """What token embeddings are multiplied by on their way into the backbone: sqrt(hidden)."""
        return self.backbone.model.decoder.embed_tokens.scalar_embed_scale

    @property
    def rows_at_once(self) -> int:
        """Rows that every product has on this device, whatever the batch; 0 for those of the batch."""
        return self.config.rows_at_once if self.device.type == "cpu" else 0

    def encode_audio(self, log_mel: Tensor) -> Tensor:
        """Run Whisper's encoder; [batch, mels, window frames] → [batch, frames, encoder_width]."""
        return self.encoder(log_mel.to(self.encoder.conv1.weight.dtype)).last_hidden_state

    def prompt_embeddings(self, prompt_ids: Tensor, audio_embeddings: Tensor) -> Tensor:
        """Embed a prompt and put the audio embeddings, [batch, audio tokens, hidden], into its audio slots.

        The prompt is the same for every row, [prompt], or one per row, [batch, prompt] → [batch, prompt, hidden].
        """
        batch = audio_embeddings.shape[0]
        ids = prompt_ids.expand(batch, -1) if prompt_ids.dim() == 1 else prompt_ids
        embeddings = self.backbone.model.encoder.get_input_embeddings()(ids)
        slots = (ids == self.config.prompt.audio_id).unsqueeze(-1)  # [batch, prompt, 1]
        return embeddings.masked_scatter(slots, audio_embeddings.to(embeddings.dtype))

    @torch.no_grad()
    def prompt_positions(self, prompt_ids: Tensor, audio_embeddings: Tensor) -> Tensor:
        """Number the tokens of prompts, as the backbone's rotary embeddings see them.

        With an `audio_distance`, an audio token is numbered by the pieces that CTC has heard up to it, so that what is
        said at a place of the canvas was heard the same distance away, wherever it stands and however fast it was said.

        Args:
            prompt_ids: as in `prompt_embeddings`.
            audio_embeddings: from `projector`.  [batch, audio tokens, hidden]

        Returns:
            Positions; the canvas begins at the prompt's length.  [batch or 1, prompt]

        Source:
            Ours; Paraformer (Gao et al. 2022) aligns a parallel decoder's places with audio for the same reason.
        """
        num_tokens = prompt_ids.shape[-1]
        positions = torch.arange(num_tokens, device=prompt_ids.device).unsqueeze(0)
        if not self.config.audio_distance:
            return positions
        weight, config = self.head_weight, self.config
        heard = scan_vocabulary(audio_embeddings, weight, config.softcap, len(weight), config.blank_logit).ids
        begins = (heard != F.pad(heard, (1, 0), value=self.config.blank_id)[:, :-1]) & (heard != self.config.blank_id)
        places = (begins.cumsum(dim=1) - 1).clamp(min=0) + num_tokens - self.config.audio_distance
        slots = (prompt_ids == self.config.prompt.audio_id).expand(len(heard), -1)
        return positions.expand(len(heard), -1).masked_scatter(slots, places)

    def prefill(
        self, embeddings: Tensor, cache: DynamicCache | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, DynamicCache]:
        """Run the backbone's causal encoder.

        Args:
            embeddings: prompt, or the continuation of what `cache` holds.  [batch, tokens, hidden]
            cache: filled by an earlier call; extended in place.
            positions: of the embeddings; `None` continues the cache's length.  [batch or 1, tokens]

        Returns:
            Last hidden states and the K/V cache that `decode` reads.  [batch, tokens, hidden]
        """
        output = self.backbone.model.encoder(
            inputs_embeds=embeddings,
            position_ids=positions,
            past_key_values=cache or DynamicCache(config=self.backbone.config.get_text_config()),
        )
        return output.last_hidden_state, output.past_key_values

    def decode(self, canvas: Tensor, soft_embeddings: Tensor | None, cache: DynamicCache | CanvasCache) -> Tensor:
        """Run the backbone's bidirectional decoder once over a canvas.

        Args:
            canvas: token ids.  [batch, canvas]
            soft_embeddings: expected embeddings of the step before, already scaled by `embed_scale`; zeros where a row
                has none, `None` when no row has.  [batch, canvas, hidden]
            cache: of the prompts, all of one length; it is only read.

        Returns:
            Hidden states for the language head.  [batch, canvas, hidden]
        """
        try:
            return self._run_decoder(canvas, soft_embeddings, cache)
        except torch._dynamo.exc.TorchDynamoException as error:
            if not self._may_fall_back:
                raise
            logger.warning(
                "the decoder cannot be compiled here and runs slower as it is (%s)", str(error).split("\n")[0]
            )
            self._run_decoder = self._decoder_states
            return self._run_decoder(canvas, soft_embeddings, cache)
        finally:
            self._soft_embeddings = None

    def compile_decoder(self, backend: str = "inductor", *, may_fall_back: bool = False) -> None:
        """Let torch compile `decode`, as one graph, anew for every shape that it meets; it then rounds otherwise.

        It may fall back where nobody asked for it: where it fails, for lack of a C compiler say, a warning is enough.
        """
        self._may_fall_back = may_fall_back
        # Each bucket at each batch size is a shape, and so is whatever a batch is halved to.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_SHAPES)
        self._run_decoder = torch.compile(self._decoder_states, fullgraph=True, dynamic=False, backend=backend)

    def _decoder_states(
        self, canvas: Tensor, soft_embeddings: Tensor | None, cache: DynamicCache | CanvasCache
    ) -> Tensor:
        self._soft_embeddings = soft_embeddings
        return self.backbone.model.decoder(decoder_input_ids=canvas, past_key_values=cache).last_hidden_state

    def _replace_self_conditioning(self, _: nn.Module, args: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
        # transformers' decoder takes whole logits for self-conditioning and would hold [batch, canvas, vocab] in fp32
        # to make soft embeddings of them; ours are made while the vocabulary streams by, so they go in here.
        if self._soft_embeddings is None:
            return None
        return args[0], self._soft_embeddings.to(args[0].dtype)


def keys_values(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of every layer of a filled cache; writing into them changes the cache.

    [batch, heads, tokens, head_dim] each
    """
    layers: list[Any] = list(cache.layers)
    return [(layer.keys, layer.values) for layer in layers]
