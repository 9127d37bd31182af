"""A device in, whether this project's Triton kernels run on it out. Knows no kernel, nor what reads in its place."""

import logging
from functools import lru_cache
from importlib.util import find_spec

import torch

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
    """Say once that a GPU reads the vocabulary the slower way.

    Args:
        reason: why.
    """
    logger.warning("the vocabulary is read without the Triton kernel, several times slower: %s", reason)
