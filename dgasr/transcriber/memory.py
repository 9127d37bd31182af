"""How many segments fit on a device, and what running out of its memory looks like."""

import torch

from dgasr.model.asr import AsrModel
from dgasr.model.presets import AsrConfig
from dgasr.recipe import Recipe
from dgasr.transcriber.encoding import ENCODED_AT_ONCE

LARGEST_BATCH = 64
"""Speed saturates from 32 rows (model-facts, section 3: derived); more rows only hold more back."""

CPU_BATCH = 16
"""Taken on the CPU, where matrix products gain nothing from more rows."""

USABLE_SHARE = 0.8
"""Of the free memory: the rest is for the allocator's gaps and for what the estimate does not know."""

PROMPT_TEXT_TOKENS = 32
"""Prompt tokens around the audio slots, at most: 220 in all with the full model's 188."""

TEMPORARIES = 6
"""Float32 values alive at once for every logit of a chunk: logits, tempered, weights, blocks, gathered, a copy."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a device or the host had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def release_memory() -> None:
    """Hand what is cached and no longer used back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fitting_batch_size(model: AsrModel, recipe: Recipe) -> int:
    """Choose how many segments to decode at once: a power of two that the free memory of the model's device holds."""
    if model.device.type != "cuda":
        return CPU_BATCH
    free_bytes, _ = torch.cuda.mem_get_info(model.device)
    free_bytes += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    batch_size, width = LARGEST_BATCH, model.head_weight.element_size()
    while batch_size > 1 and peak_bytes(model.config, recipe, batch_size, width) > free_bytes * USABLE_SHARE:
        batch_size //= 2
    return batch_size


def peak_bytes(config: AsrConfig, recipe: Recipe, num_rows: int, width: int) -> int:
    """Estimate the bytes that decoding so many rows takes beside the weights, each of `width` bytes, at most."""
    sizes, chunk, canvas = config.backbone, recipe.decode.vocabulary_chunk, config.canvas.buckets[-1]
    hidden = sizes["hidden_size"]
    # Alive at once: tokens sorted by expert and what experts make of them in the weights' type, that weighed, and
    # sorted back, in float32: 69 MB a row at the full model's 256 tokens of canvas.
    experts = sizes["top_k_experts"] * hidden * 2 * (width + 4)
    body = canvas * (experts + (8 * hidden + 3 * sizes["intermediate_size"]) * width)
    tail = canvas * (min(chunk, sizes["vocab_size"]) * TEMPORARIES + 2 * hidden) * 4
    frames = config.num_audio_tokens * config.projector.subsampling
    scan = frames * min(chunk, sizes["vocab_size"]) * 4 * TEMPORARIES  # CTC is read a row at a time
    return held_bytes(config, num_rows, width) + num_rows * max(body, tail) + scan


def held_bytes(config: AsrConfig, num_rows: int, width: int) -> int:
    """Count the prompt caches and audio embeddings that are there at once, at most.

    In rows: prompts with room for the largest canvas. Waiting for a row: the rest of one encoded batch. Waiting to be
    scored: fewer than another batch. Beside those one batch's cache, while it is encoded and copied to its rows, or
    while its two texts are scored behind it. Arguments as in `peak_bytes`.
    """
    sizes = config.backbone
    kinds = {
        False: sizes["num_key_value_heads"] * sizes["head_dim"],
        True: sizes["num_global_key_value_heads"] * sizes["global_head_dim"],
    }
    token = sum(2 * kinds[is_full] for is_full in config.is_full_attention) * width
    prompt, canvas = config.num_audio_tokens + PROMPT_TEXT_TOKENS, config.canvas.buckets[-1]
    batch = min(num_rows, ENCODED_AT_ONCE)
    caches = num_rows * (prompt + canvas) + batch * (prompt + prompt + (prompt + canvas))
    states = (num_rows + 2 * batch) * config.encoder["max_source_positions"] * (sizes["hidden_size"] * width + 4)
    return caches * token + states
