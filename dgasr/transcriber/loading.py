"""Names of models and devices in, a model out."""

import re

import torch

from dgasr.device import multiplies_bfloat16, runs_kernels
from dgasr.errors import ConfigError
from dgasr.model.adapter import load_adapter, merge_lora
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import choose_fused_experts
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import Quantize, default_model, identify, model_folder
from dgasr.model.pretrained import load_pretrained
from dgasr.model.quantize import multiplies_integers, multiply_integers
from dgasr.model.quantize import quantize as narrow_weights


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
