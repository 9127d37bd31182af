"""How many segments fit on a device, and what running out of its memory looks like."""

import torch

from dgasr.model.asr import AsrModel
from dgasr.recipe import Recipe

LARGEST_BATCH = 64
"""Speed saturates from 32 rows (model-facts, section 3: derived); more rows only hold more back."""

CPU_BATCH = 16
"""Taken on the CPU, where matrix products gain nothing from more rows."""

USABLE_SHARE = 0.8
"""Of the free memory: the rest is for the allocator's gaps and for what the estimate does not know."""

COPIES = 7
"""Prompt caches per row: its own, two batches of waiting jobs, the batch being encoded and its stacked cache, the batch
waiting to be rescored and its stacked cache."""

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
    """Choose how many segments to decode at once: a power of two that the free memory holds.

    Args:
        model: loaded, on its device.
        recipe: that it follows.
    """
    if model.device.type != "cuda":
        return CPU_BATCH
    free_bytes, _ = torch.cuda.mem_get_info(model.device)
    free_bytes += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    usable = free_bytes * USABLE_SHARE - scan_bytes(model, recipe)
    batch_size = LARGEST_BATCH
    while batch_size > 1 and batch_size * row_bytes(model, recipe) > usable:
        batch_size //= 2
    return batch_size


def scan_bytes(model: AsrModel, recipe: Recipe) -> int:
    """Estimate what reading CTC off the vocabulary takes, a row at a time, whatever the batch."""
    frames = model.config.num_audio_tokens * model.config.projector.subsampling
    return frames * recipe.decode.vocabulary_chunk * 4 * TEMPORARIES


def row_bytes(model: AsrModel, recipe: Recipe) -> int:
    """Estimate what one more row takes: its prompt caches, the values of its canvas, its audio embeddings."""
    config, width = model.config, model.head_weight.element_size()
    sizes, text = config.backbone, model.backbone.config.get_text_config()
    prompt, canvas = config.num_audio_tokens + 32, config.canvas.buckets[-1]
    kinds = {
        "sliding_attention": sizes["num_key_value_heads"] * sizes["head_dim"],
        "full_attention": sizes["num_global_key_value_heads"] * sizes["global_head_dim"],
    }
    cache = sum(2 * kinds[kind] for kind in text.layer_types) * prompt * width
    experts = sizes["top_k_experts"] * (sizes["hidden_size"] + 3 * sizes["moe_intermediate_size"])
    body = canvas * (experts + 8 * sizes["hidden_size"] + 3 * sizes["intermediate_size"]) * width
    tail = canvas * (recipe.decode.vocabulary_chunk * TEMPORARIES + 2 * sizes["hidden_size"]) * 4
    frames = config.encoder["max_source_positions"]
    audio = COPIES * frames * (sizes["hidden_size"] + config.encoder["d_model"]) * width
    return COPIES * cache + body + tail + audio
