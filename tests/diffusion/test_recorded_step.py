"""Steps that are recorded and replayed: the canvases of plain steps. On the CPU a stand-in records; see recorder.py."""

import pytest
import torch

from dgasr.diffusion import denoise as loop
from dgasr.diffusion.canvas import CanvasJob, CanvasSeed
from dgasr.diffusion.config import DecodeConfig
from dgasr.diffusion.denoise import denoise
from dgasr.diffusion.noise import segment_key
from dgasr.diffusion.recorded_step import PLAIN_STEPS, RecordedStep, choose_record
from tests.diffusion.recorder import Recording

CONFIG = DecodeConfig(max_steps=7, confidence_threshold=0.35, entropy_bound=4.0)
BUCKETS = (8, 16)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU with CUDA")


def jobs_of(prompts, device="cpu"):
    """Two canvas lengths in turn, every third job with a seed."""
    seed = CanvasSeed(ids=(5, 6, 7), probabilities=(0.9, 0.5, 0.9), pad_id=0)
    return [
        CanvasJob(
            noise_key=segment_key("r", index), canvas_tokens=BUCKETS[index // 3 % 2], payload=prompt.to(device),
            seed=seed if index % 3 == 0 else None,
        )
        for index, prompt in enumerate(prompts[:9])
    ]  # fmt: skip


def run(decoder, prompts, *, records_steps):
    canvases = denoise(
        decoder, decoder.head, jobs_of(prompts, decoder.head.weight.device), num_rows=decoder.num_rows, buckets=BUCKETS,
        end_token_ids=(1,), config=CONFIG, records_steps=records_steps,
    )  # fmt: skip
    return {canvas.job.noise_key: canvas for canvas in canvases}


def assert_same(recorded, plain):
    assert recorded.keys() == plain.keys()
    for key, canvas in plain.items():
        assert torch.equal(recorded[key].ids, canvas.ids)
        assert torch.equal(recorded[key].log_probabilities, canvas.log_probabilities)
        assert torch.equal(recorded[key].entropy, canvas.entropy)
        assert recorded[key].num_steps == canvas.num_steps


@pytest.mark.parametrize("experts", ["batched_mm", "grouped_mm"])
def test_replayed_steps_give_the_canvases_of_plain_ones_to_the_bit(
    build_backbone, text_decoder, prompts, monkeypatch, experts
):
    backbone = build_backbone(experts)
    recording = Recording()
    monkeypatch.setattr(loop, "choose_record", lambda device: recording)
    plain = run(text_decoder(backbone, 3), prompts, records_steps=False)
    recorded = run(text_decoder(backbone, 3), prompts, records_steps=True)
    assert_same(recorded, plain)
    assert recording.num_recorded == len(BUCKETS)
    assert recording.num_replayed > 10
    assert len({canvas.num_steps for canvas in plain.values()}) > 2


def test_a_step_is_recorded_after_a_few_plain_ones_and_once():
    taken, recorded, replayed = [], [], []

    def record(step):
        recorded.append(step)
        return lambda: replayed.append(1)

    step = RecordedStep(lambda: taken.append(1), record)
    for _ in range(PLAIN_STEPS + 3):
        step()
    assert (len(taken), len(recorded), len(replayed)) == (PLAIN_STEPS, 1, 3)


def test_nothing_is_recorded_on_a_cpu():
    taken = []
    step = RecordedStep(lambda: taken.append(1), choose_record(torch.device("cpu")))
    for _ in range(PLAIN_STEPS + 3):
        step()
    assert len(taken) == PLAIN_STEPS + 3


def test_a_step_that_keeps_a_value_in_python_is_found_out():
    # The stand-in is only worth something if it fails where a graph would.
    state, steps_done = torch.zeros(3), [0]

    def step():
        steps_done[0] += 1
        state.add_(steps_done[0])
        return state

    recorded = RecordedStep(step, Recording())
    for _ in range(5):
        recorded()
    assert state.tolist() == [1 + 2 + 3 + 3 + 3] * 3


def value_of(tensor):
    return tensor * float(tensor.sum())


def by_mask(tensor):
    return tensor[tensor > 0]


def constant(tensor):
    return tensor + torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize("waiting", [value_of, by_mask, constant])
def test_a_step_that_waits_for_the_device_is_found_out(waiting):
    with pytest.raises(AssertionError, match=r"waits for the device|copies from the host"):
        Recording()(lambda: waiting(torch.ones(3)))


@on_a_gpu
def test_a_cuda_graph_gives_the_canvases_of_plain_steps(build_backbone, text_decoder, prompts):
    backbone = build_backbone("grouped_mm").to("cuda", torch.bfloat16)
    plain = run(text_decoder(backbone, 3), prompts, records_steps=False)
    assert_same(run(text_decoder(backbone, 3), prompts, records_steps=True), plain)


@on_a_gpu
def test_a_step_never_waits_for_the_device(build_backbone, text_decoder, prompts):
    decoder = text_decoder(build_backbone("grouped_mm").to("cuda", torch.bfloat16), 3)
    decoder.admit(range(3), [prompt.to("cuda") for prompt in prompts[:3]])
    rows = loop.CanvasRows(3, 8, decoder.head, CONFIG)
    rows.begin(range(3), jobs_of(prompts, "cuda")[:3])
    rows.step(decoder)  # kernels are compiled, which waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows.step(decoder)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_a_gpu
def test_a_graph_reads_what_lies_in_its_tensors_when_it_is_replayed():
    source, target = torch.ones(4, device="cuda"), torch.zeros(4, device="cuda")
    replay = choose_record(source.device)(lambda: target.copy_(source * 2))
    source.fill_(3)
    assert replay().tolist() == [6.0] * 4
