"""Names of models and devices in, a model out; and how many segments fit beside it on its device."""

import re

import torch

from dgasr.device import multiplies_bfloat16, runs_kernels
from dgasr.errors import ConfigError
from dgasr.model.adapter import load_adapter, merge_lora
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import choose_fused_experts
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import Quantize, default_model, identify, model_folder
from dgasr.model.presets import AsrConfig
from dgasr.model.pretrained import load_pretrained
from dgasr.model.quantize import multiplies_integers, multiply_integers
from dgasr.model.quantize import quantize as narrow_weights
from dgasr.recipe import Recipe
from dgasr.transcriber.encoding import ENCODED_AT_ONCE


def load(
    model: str | None = None,
    *,
    adapter: str | None = None,
    device: str = "auto",
    merge_adapter: bool | None = None,
    compiled: bool | None = None,
    quantize: Quantize = "none",
) -> AsrModel:
    """Load a model for transcription.

    Args:
        model: `base` and `tiny` (bundled), `full` (DiffusionGemma 26B and whisper-small from the Hub cache), or a model
            folder; `None`: DGASR_MODEL, or `base`.
        adapter: projector and LoRA to put on top, or `None`.
        device: `auto`, `cpu`, `cuda` or, of several GPUs, `cuda:1`.
        merge_adapter: add LoRA into the weights: two copies of attention instead of one, and fewer products; `None`: on
            CUDA.
        compiled: let torch compile the decoder: minutes once for every canvas length, then faster steps; `None`: on
            CUDA with Triton, that of pretrained parts which are not quantised.
        quantize: `int8` keeps the backbone's matrices in 8 bits: half the memory on the device, slower. Each goes
            from its file to the device and is narrowed there: the host maps the files, and holds no copy.

    Returns:
        The model, in evaluation mode; what was put on frozen weights has their type. A model with `rows_at_once`, large
        for a CPU, computes in bfloat16 where the processor has products of it, else in integers of 8 bits.

    Raises:
        ConfigError: no such model, adapter or device.
        IntegrityError: weights and config contradict each other.
    """
    where, model = choose_device(device), model or default_model()
    config, identity = identify(model, adapter, merge_adapter=merge_adapter, compiled=compiled, quantize=quantize)
    first = where if quantize == "none" else torch.device("cpu")
    loaded = load_pretrained(config, device=first) if config.pretrained else load_model(model_folder(model))
    if adapter is not None:
        load_adapter(loaded, adapter)
    loaded.identity = identity
    if adapter is not None and (runs_kernels(where) if merge_adapter is None else merge_adapter):
        merge_lora(loaded)  # of LoRA as it was trained, in float32
    is_large_for_a_cpu = bool(config.rows_at_once) and where.type == "cpu"
    if is_large_for_a_cpu and multiplies_bfloat16():
        _cast(loaded, torch.bfloat16)
    if config.pretrained:
        _cast(loaded, loaded.head_weight.dtype)
    if quantize != "none":
        narrow_weights(loaded.backbone, where)
    elif where.type == "cuda":
        choose_fused_experts(loaded.to(where).backbone)
    elif is_large_for_a_cpu and not multiplies_bfloat16() and multiplies_integers():
        multiply_integers(loaded.encoder)
        multiply_integers(loaded.backbone.model)
    wanted = runs_kernels(where) and quantize == "none" and bool(config.pretrained)
    if wanted if compiled is None else compiled:
        loaded.compile_decoder(may_fall_back=compiled is None)
    return loaded.to(where).eval().requires_grad_(False)


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device; ConfigError for another name, or without such a GPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device(name)
    if re.fullmatch(r"cuda(:\d+)?", name) is None:
        raise ConfigError(f"--device {name}: choose auto, cpu, cuda or cuda:N.")
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_gpus == 0:
        raise ConfigError(f"--device {name}: torch sees no GPU. Use `--device cpu`, or see `dgasr doctor`.")
    device = torch.device(name)
    if (device.index or 0) >= num_gpus:
        raise ConfigError(f"--device {name}: torch sees {num_gpus} GPUs, cuda:0 to cuda:{num_gpus - 1}.")
    return device


def _cast(model: AsrModel, dtype: torch.dtype) -> None:
    """Give all parameters one type, in place; buffers, among them rotary frequencies, keep theirs."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


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
