"""Running out of memory, simulated where it happens: no segment is lost, and each text is what it would have been."""

import gc

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import DiffusionGemmaTextConfig
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaTextExperts

from dgasr.diffusion.denoise import LOOK_AHEAD_BATCHES
from dgasr.errors import TransientError
from dgasr.model.presets import full
from dgasr.transcriber import Transcriber, encoding, loading
from dgasr.transcriber import segments as composition
from dgasr.transcriber.encoding import EncodedSegment, SegmentEncoder
from dgasr.transcriber.loading import fitting_batch_size, held_bytes, is_out_of_memory, peak_bytes
from dgasr.transcriber.rescoring import Rescorer
from dgasr.transcriber.segments import CachedDecoder


@pytest.fixture(scope="module")
def wanted(model, recipe, segments):
    return {transcript.segment: transcript for transcript in Transcriber(model, recipe, 2).transcribe(segments)}


def out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …")


class RunsOut:
    """A step, or the encoding of a batch, that does not fit from some number of rows on, after a few that did."""

    def __init__(self, monkeypatch, owner, method, rows, after):
        self._plain, self._rows, self._after, self.failures = getattr(owner, method), rows, after, 0
        monkeypatch.setattr(owner, method, lambda instance, *arguments: self(instance, *arguments))

    def __call__(self, instance, *arguments):
        batch = arguments[0]
        self._after -= 1
        if len(batch) >= self._rows and self._after < 0:
            self.failures += 1
            out_of_memory()
        return self._plain(instance, *arguments)


@pytest.mark.parametrize(
    ("owner", "method", "after"), [(CachedDecoder, "__call__", 3), (SegmentEncoder, "encode_batch", 0)]
)
def test_halved_batches_give_the_same_transcripts_and_lose_none(
    model, recipe, segments, wanted, monkeypatch, caplog, owner, method, after
):
    runs_out = RunsOut(monkeypatch, owner, method, rows=3, after=after)
    transcriber = Transcriber(model, recipe, 8)
    transcripts = list(transcriber.transcribe(segments))
    assert runs_out.failures == 2
    assert transcriber.batch_size == 2
    assert len(transcripts) == len(segments)
    assert {transcript.segment: transcript for transcript in transcripts} == wanted
    assert "out of memory with 8 segments at once, going on with 4" in caplog.text


def test_segments_that_were_being_read_beside_a_failed_step_are_not_lost(model, recipe, segments, wanted, monkeypatch):
    monkeypatch.setattr(composition, "waits_for", lambda device: True)
    runs_out = RunsOut(monkeypatch, CachedDecoder, "__call__", rows=3, after=3)
    transcripts = list(Transcriber(model, recipe, 8).transcribe(segments))
    assert runs_out.failures == 2
    assert len(transcripts) == len(segments)
    assert {transcript.segment: transcript for transcript in transcripts} == wanted


def test_equal_segments_are_each_done_again(model, recipe, segments, monkeypatch):
    RunsOut(monkeypatch, CachedDecoder, "__call__", rows=4, after=1)
    assert len(list(Transcriber(model, recipe, 4).transcribe([segments[0]] * 5))) == 5


def test_the_source_is_pulled_once_and_no_further_ahead_than_before(model, recipe, segments, monkeypatch):
    RunsOut(monkeypatch, CachedDecoder, "__call__", rows=4, after=1)
    pulled = []
    for done, _ in enumerate(Transcriber(model, recipe, 4).transcribe(pulled.append(s) or s for s in segments * 2), 1):
        assert len(pulled) - done < 4 * (LOOK_AHEAD_BATCHES + 3)
    assert len(pulled) == 2 * len(segments)


def test_a_segment_that_does_not_fit_alone_may_fit_later(model, recipe, segments, monkeypatch):
    monkeypatch.setattr(CachedDecoder, "__call__", out_of_memory)
    with pytest.raises(TransientError, match=r"a single segment does not fit the memory .*nvidia-smi"):
        list(Transcriber(model, recipe, 4).transcribe(segments))


def test_other_failures_are_not_taken_for_a_lack_of_memory(model, recipe, segments, monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(CachedDecoder, "__call__", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(Transcriber(model, recipe, 4).transcribe(segments))


@pytest.mark.parametrize(
    "message", ["[enforce fail] DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED when calling"]
)
def test_the_lack_of_memory_has_several_names(message):
    assert is_out_of_memory(RuntimeError(message))


def test_the_batch_is_the_largest_power_of_two_that_the_free_memory_holds(model, recipe, monkeypatch):
    on_gpu = type("Model", (), {"device": torch.device("cuda:0"), "config": model.config,
                                "head_weight": model.head_weight})  # fmt: skip
    sizes = {}
    for rows in (1, 5, 40, 10**6):
        free = peak_bytes(model.config, recipe, rows, model.head_weight.element_size()) / loading.USABLE_SHARE + 1000
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=int(free): (free, free))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
        sizes[rows] = fitting_batch_size(on_gpu, recipe)
    assert sizes == {1: 1, 5: 4, 40: 32, 10**6: loading.LARGEST_BATCH}


def test_full_sized_prompts_take_at_most_12_gb_at_64_rows():
    assert held_bytes(full(), 1, 2) > 2 * 220 * 225_000  # its own, and that of the batch it is in
    assert 9e9 < held_bytes(full(), 64, 2) < 12e9


class Living(TorchDispatchMode):
    """Counts the bytes of tensors made while it lasts, as long as they live; those of `known` ones do not count."""

    def __init__(self, known):
        super().__init__()
        self._storages, self.most = WeakIdKeyDictionary({own.untyped_storage(): 0 for own in known}), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._storages.setdefault(tensor.untyped_storage(), tensor.untyped_storage().nbytes())
        self.most = max(self.most, sum(self._storages.values()))
        return found


@torch.no_grad()
def test_a_row_takes_what_its_experts_make_of_its_tokens(recipe):
    config = full()
    sizes = DiffusionGemmaTextConfig(**{**config.backbone, "num_experts": 16})
    tokens, chosen = config.canvas.buckets[-1], sizes.top_k_experts
    with torch.device("meta"):
        experts = DiffusionGemmaTextExperts(sizes).to(torch.bfloat16)
        hidden, shares = torch.empty(tokens, sizes.hidden_size, dtype=torch.bfloat16), torch.empty(tokens, chosen)
        ids = torch.empty(tokens, chosen, dtype=torch.int64)
    with Living(experts.parameters()) as living:
        ALL_EXPERTS_FUNCTIONS["grouped_mm"](experts, hidden, ids, shares)
    counted = peak_bytes(config, recipe, 2, 2) - peak_bytes(config, recipe, 1, 2)
    counted -= held_bytes(config, 2, 2) - held_bytes(config, 1, 2)
    assert 65e6 < living.most < counted < 1.3 * living.most


class Census:
    """Counts prompt caches that lie in storage of their own, whenever something happens."""

    def __init__(self, monkeypatch, *places):
        self.most = 0
        for owner, method in places:
            self._watch(monkeypatch, owner, method)

    def _watch(self, monkeypatch, owner, method):
        plain = getattr(owner, method)

        def run(*arguments):
            self.count()
            found = plain(*arguments)
            self.count()
            return found

        monkeypatch.setattr(owner, method, run)

    def count(self):
        encoded = [item for item in gc.get_objects() if type(item) is EncodedSegment and item.keys_values]
        storages = {own.keys_values[0][0].untyped_storage() for own in encoded}
        prompts = [storage for storage in storages if storage.nbytes() == encoded[0].keys_values[0][0].nbytes]
        self.most = max(self.most, len({storage.data_ptr() for storage in prompts}))


def test_no_more_prompts_are_held_than_the_estimate_counts(model, recipe, segments, monkeypatch):
    monkeypatch.setattr(encoding, "ENCODED_AT_ONCE", 2)
    monkeypatch.setattr(composition, "waits_for", lambda device: True)
    places = (SegmentEncoder, "encode_batch"), (CachedDecoder, "__call__"), (CachedDecoder, "read_out")
    census = Census(monkeypatch, *places, (Rescorer, "_rescore"))
    transcriber = Transcriber(model, recipe, 6)
    gc.freeze()  # what other tests left is not looked through
    try:
        assert len(list(transcriber.transcribe(segments * 4))) == 4 * len(segments)
    finally:
        gc.unfreeze()
    assert 2 <= census.most <= 2 + 2  # a batch that waits for rows, and one that waits to be scored
