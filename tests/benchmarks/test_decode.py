"""The benchmark of decoding: what it counts, on sizes that are known, and that it runs on a small model."""

import pytest
import torch

from benchmarks.__main__ import run
from benchmarks.bound import Work, window_work
from benchmarks.decode_case import ENGINES, PHASES, Run, least_s, measure, phases_of
from benchmarks.decode_model import noise_segments, random_model
from benchmarks.machine import Rates, Stopwatch
from dgasr.features import segment_features
from dgasr.model.asr import AsrModel
from dgasr.model.presets import full, tiny
from dgasr.transcriber.encoding import SegmentEncoder

RATES = Rates(copy_bytes=1e10, flops=1e10)
RUNS = [Run(engine=engine, batch=2, canvas=8, steps=2) for engine in ("ours", "transformers")]


@pytest.fixture(scope="module")
def model():
    return random_model("tiny", torch.device("cpu"), torch.float32)


def test_the_full_models_work_is_the_published_one_and_each_weight_is_read_once():
    work = window_work(full(), 1, 192)
    # The projector runs once for every shift.
    published = {"encoder": 0.344, "prefill": 1.37, "tail": 192 * 2.96e-3, "body": 192 * 6.2e-3, "projector": 8 * 0.011}
    for phase, tflop in published.items():
        assert work[phase].flops / 1e12 == pytest.approx(tflop, rel=0.05), phase
    large = window_work(full(), 64, 192)
    assert 2 * (large["body"].weights + large["tail"].weights) / 1e9 == pytest.approx(50.5, rel=0.01)
    few = [
        window_work(full(), *sizes)["body"].weights for sizes in ((1, 1), (1, 64), (64, 64))
    ]  # experts that are read
    assert few[0] < 0.2 * few[2]
    assert few[1] < few[2]


def test_what_is_read_for_ctc_is_as_long_as_the_audio():
    whole, clip = (window_work(full(), 1, 192, clip_s) for clip_s in (None, 7.0))
    assert clip["ctc"].flops / whole["ctc"].flops == pytest.approx(7 / 30, rel=0.01)
    assert clip["projector"].flops / whole["projector"].flops == pytest.approx((1 + 7 * 7 / 30) / 8, rel=0.01)
    assert clip["encoder"] == whole["encoder"]


def test_a_window_is_forecast_with_rescoring_and_each_lever_takes_something_off():
    found = list(run("bound", [])["levers_tflop"].values())
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(21, abs=0.5)
    assert found[-1] < 12


def test_a_phase_takes_its_products_or_its_reading_whichever_is_longer():
    assert Work(flops=3e10, weights=5e9).seconds(RATES, 2) == 3.0
    assert Work(flops=1e10, weights=2e10).seconds(RATES, 2) == 4.0


def test_both_engines_are_measured_and_the_phases_of_ours_are_told(model):
    ours, theirs = (measure(model, own, RATES) for own in RUNS)
    assert all(found.rtfx > 0 and found.share_of_bound > 0 for found in (ours, theirs))
    assert all(0 < found.busy_share <= 1 for found in (ours, theirs))
    assert {*PHASES} == ours.phases_s.keys()  # rescoring and reading with them
    assert all(seconds > 0 for seconds in ours.phases_s.values())


def test_what_transformers_leaves_out_is_not_in_its_bound(model):
    # CTC, and the projector at seven more shifts.
    ours, theirs = (least_s(model, own, Rates(copy_bytes=1e20, flops=1)) for own in RUNS)
    work = window_work(model.config, 2, 8)
    only_ours = work["ctc"].flops + work["projector"].flops * 7 / 8 + work["rescore"].flops
    assert ours - theirs == pytest.approx(only_ours)


def test_a_batch_that_the_memory_does_not_hold_has_no_figures(model, monkeypatch):
    def decode(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setitem(ENGINES, "transformers", decode)
    assert measure(model, RUNS[1], RATES).rtfx is None


def test_timing_phases_leaves_no_trace():
    model = AsrModel(tiny())
    with phases_of(model, Stopwatch(torch.device("cpu"))):
        assert "decode" in vars(model)
    assert "decode" not in vars(model)


def test_random_weights_hear_one_text_as_trained_ones_do(model):
    recipe = RUNS[0].recipe(model)
    features = (segment_features(*clip, recipe.features) for clip in noise_segments(model.config, 2.0, 1))
    (encoded,) = SegmentEncoder(model, recipe, 1).encode(features)
    assert encoded.ctc.ids == ()
