"""How often the host waits for the device, counted on a CPU by what a GPU would be waited for; and who may wait."""

from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dgasr.diffusion import denoise
from dgasr.diffusion.sampler import CanvasRows
from dgasr.transcriber import Transcriber
from dgasr.transcriber import segments as composition
from dgasr.transcriber.rescoring import Rescorer
from dgasr.transcriber.segments import CachedDecoder

CALLS = ("cpu", "tolist", "item", "__bool__", "__int__", "__float__")
"""Methods that bring values to the host."""

OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal")
"""Operations whose result has a size or a value that the host needs, whoever calls them."""


class CountsCalls(TorchFunctionMode):
    def __init__(self, waits):
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        # Copying a list's numbers there is a wait as well, unless there are none (transformers' caches begin so).
        builds_on_device = (
            name in ("tensor", "as_tensor") and (kwargs or {}).get("device") is not None and args[0] != []
        )
        if name in CALLS or builds_on_device:
            self._waits.note(name)
        return func(*args, **(kwargs or {}))


class CountsOperations(TorchDispatchMode):
    def __init__(self, waits):
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indexes_by_mask = name == "index" and any(part is not None and part.dtype == torch.bool for part in args[1])
        if name in OPERATIONS or indexes_by_mask:
            self._waits.note(name)
        return func(*args, **(kwargs or {}))


class Waits:
    """Waits by what was being done; work inside of other work counts for itself."""

    def __init__(self, monkeypatch):
        self.found, self.done, self._doing = Counter(), Counter(), ["elsewhere"]
        self._monkeypatch = monkeypatch

    def note(self, what):
        self.found[self._doing[-1]] += 1

    def watch(self, owner, method, name):
        plain = getattr(owner, method)

        def run(*arguments, **named):
            self.done[name] += 1
            self._doing.append(name)
            try:
                found = plain(*arguments, **named)
                return iter(list(found)) if hasattr(found, "__next__") else found
            finally:
                self._doing.pop()

        self._monkeypatch.setattr(owner, method, run)


PARTS = [
    (CachedDecoder, "encode", "encode"), (CachedDecoder, "admit", "admit"), (CanvasRows, "begin", "begin"),
    (CanvasRows, "step", "step"), (denoise, "_finished", "leave"), (Rescorer, "_rescore", "rescore"),
    (CanvasRows, "__init__", "start"), (CachedDecoder, "__init__", "start"),
]  # fmt: skip


def test_a_device_is_waited_for_once_a_step_a_leaving_group_and_an_encoded_batch(model, recipe, segments, monkeypatch):
    waits = Waits(monkeypatch)
    for part in PARTS:
        waits.watch(*part)
    with CountsCalls(waits), CountsOperations(waits):
        assert len(list(Transcriber(model, recipe, 4).transcribe(segments * 2))) == 2 * len(segments)
    assert waits.done["rescore"] > 0
    assert waits.found["step"] == 0  # the loop fetches who has settled
    assert waits.found["admit"] + waits.found["begin"] == 0
    for name in ("leave", "rescore", "encode"):
        assert waits.found[name] <= waits.done[name]
    assert waits.found["elsewhere"] == waits.done["step"]


class NothingFromTorch(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        pytest.fail(f"{func} in the thread that reads")


def test_no_tensor_is_touched_in_the_second_thread(model, recipe, segments, monkeypatch):
    def refusing(work, items, limit):
        def run(item):
            with NothingFromTorch():
                return work(item)

        return plain(run, items, limit)

    plain = composition.in_background
    monkeypatch.setattr(composition, "waits_for", lambda device: True)
    monkeypatch.setattr(composition, "in_background", refusing)
    assert len(list(Transcriber(model, recipe, 4).transcribe(segments))) == len(segments)
