"""What a CUDA graph does, on the CPU: operations noted with their very tensors, and done again on these without Python.

A step that passes here keeps its state where it was, reads no value and brings none from the host: what a graph needs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Step = Callable[[], Tensor]

WAITING = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "_unique2"}
"""Operations for which the host waits for the device: they give it a value, or their shape is one."""

FROM_HOST = {"lift_fresh", "scalar_tensor"}
"""Operations that make a tensor of values that Python holds: a copy from the host, which is not recorded."""


class Recorder(TorchDispatchMode):
    """Notes what is done while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.written: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            leaf.dtype == torch.bool for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)
        )
        assert not masks, f"{func} by a mask waits for the device"
        assert name not in WAITING, f"{func} waits for the device"
        assert name not in FROM_HOST, f"{func} copies from the host"
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.written.append((value, value.clone()))
        output = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, output))
        return output

    def undo(self) -> None:
        """Take back what was written while recording: a graph's recording has no effect."""
        for tensor, before in reversed(self.written):
            tensor.copy_(before)

    def replay(self) -> None:
        """Do everything again, into the tensors that it went to the first time."""
        for func, args, kwargs, output in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(output), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Recording:
    """Stands for `recorded_step.record_cuda_graph`; counts what it was used for."""

    def __init__(self) -> None:
        self.num_recorded = self.num_replayed = 0

    def __call__(self, step: Step) -> Step:
        """Record."""
        recorder = Recorder()
        with recorder:
            settled = step()
        recorder.undo()
        self.num_recorded += 1

        def replay() -> Tensor:
            self.num_replayed += 1
            recorder.replay()
            return settled

        return replay
