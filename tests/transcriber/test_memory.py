"""Running out of memory, simulated where it happens: no segment is lost, and each text is what it would have been."""

from dataclasses import replace

import pytest
import torch

from dgasr.errors import TransientError
from dgasr.model.presets import full
from dgasr.transcriber import Transcriber, memory
from dgasr.transcriber import segments as composition
from dgasr.transcriber.encoding import SegmentEncoder
from dgasr.transcriber.memory import fitting_batch_size, is_out_of_memory, row_bytes
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
    ("owner", "method", "after"), [(CachedDecoder, "__call__", 3), (SegmentEncoder, "_encode_batch", 0)]
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
        assert len(pulled) - done < 4 * 5
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
    on_gpu = type("Model", (), {"device": torch.device("cuda:0"), "config": model.config, "backbone": model.backbone,
                                "head_weight": model.head_weight})  # fmt: skip
    sizes = {}
    for rows in (1, 5, 40, 10**6):
        free = (rows * row_bytes(model, recipe) + memory.scan_bytes(on_gpu, recipe)) / memory.USABLE_SHARE + 1000
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=int(free): (free, free))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
        sizes[rows] = fitting_batch_size(on_gpu, recipe)
    assert sizes == {1: 1, 5: 4, 40: 32, 10**6: memory.LARGEST_BATCH}


def test_a_full_sized_row_is_estimated_within_a_gigabyte(model, recipe):
    text = type("Text", (), {"layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5})
    backbone = type("Backbone", (), {"config": type("Config", (), {"get_text_config": staticmethod(lambda: text)})})
    weight = torch.empty(0, dtype=torch.bfloat16)
    sized = type("Model", (), {"config": full(), "backbone": backbone, "head_weight": weight})
    decode = replace(recipe.decode, vocabulary_chunk=8192)
    assert 160e6 < row_bytes(sized, replace(recipe, decode=decode)) < 1e9
