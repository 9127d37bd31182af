"""What a device is asked for: to run Triton's kernels, and numbers over and back with as few waits as can be."""

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def runs_kernels(device: torch.device) -> bool:
    """Tell whether Triton's kernels run there; a GPU without Triton is named in the log."""
    if device.type != "cuda":
        return False
    if find_spec("triton") is None:
        warn_without_kernel("Triton is not installed")
        return False
    return True


@lru_cache
def warn_without_kernel(reason: str) -> None:
    """Say once, for each reason, that a GPU reads the vocabulary the slower way."""
    logger.warning("the vocabulary is read without the Triton kernel, several times slower: %s", reason)


def multiplies_bfloat16() -> bool:
    """Tell whether this processor has products of bfloat16 (AMX or AVX-512): seven times as fast as those of float32.

    Without them they are 250 times as slow (0.0006 against 0.14 TFLOP/s, docs/experiments.md, 2026-11-29).
    """
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device; a GPU is not waited for, as it would be by a plain copy."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def fetch(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Copy tensors to the host as float32, and wait for their device once for all.

    They may have any shapes; integers of at most 2^24 in size, which float32 holds exactly.
    """
    values = torch.cat([tensor.detach().flatten().float() for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([math.prod(tensor.shape) for tensor in tensors])[:-1]
    return [part.reshape(tensor.shape) for part, tensor in zip(np.split(values, ends), tensors, strict=True)]
