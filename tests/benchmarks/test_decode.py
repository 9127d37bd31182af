"""The benchmark of decoding: what it counts, on sizes that are known, and that it runs on a small model."""

from dataclasses import replace

import pytest
import torch

from benchmarks.bound import Work, window_work
from benchmarks.bound import main as forecast
from benchmarks.decode_case import ENGINES, PHASES, DecodeCase, decode_ours, fixed_steps, phases_of, tokens_per_expert
from benchmarks.decode_model import noise_segments, random_model
from benchmarks.machine import GAP, PeakMemory, Rates, Stopwatch, largest_fitting
from dgasr.features import segment_features
from dgasr.model.asr import AsrModel
from dgasr.model.presets import full, tiny
from dgasr.recipe import build_recipe
from dgasr.transcriber.encoding import SegmentEncoder

RATES = Rates(copy_bytes=1e10, flops=1e10)


@pytest.fixture(scope="module")
def model():
    return random_model("tiny", torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def case(model):
    """Function: a case of few steps on short canvases."""
    recipe = build_recipe(model.config, model.identity)
    recipe = replace(recipe, decode=fixed_steps(recipe, 2))

    def of(engine):
        return DecodeCase(model=model, recipe=recipe, engine=engine, clip_s=8.0, canvas=8, rounds=1)

    return of


@pytest.fixture(scope="module")
def measured(case):
    return [case(engine).measure(RATES, 2) for engine in ENGINES]


@pytest.mark.parametrize(
    ("phase", "tflop"), [("encoder", 0.344), ("prefill", 1.37), ("tail", 192 * 2.96e-3), ("body", 192 * 6.2e-3)]
)
def test_the_full_models_work_is_the_published_one(phase, tflop):
    assert window_work(full(), 1, 192)[phase].flops / 1e12 == pytest.approx(tflop, rel=0.05)


def test_the_projector_runs_once_for_every_shift():
    assert window_work(full(), 1, 192)["projector"].flops / 1e12 == pytest.approx(8 * 0.011, rel=0.05)


def test_what_is_read_for_ctc_is_as_long_as_the_audio():
    whole, clip = (window_work(full(), 1, 192, clip_s) for clip_s in (None, 7.0))
    assert clip["ctc"].flops / whole["ctc"].flops == pytest.approx(7 / 30, rel=0.01)
    assert clip["projector"].flops / whole["projector"].flops == pytest.approx((1 + 7 * 7 / 30) / 8, rel=0.01)
    assert clip["encoder"] == whole["encoder"]


def test_a_step_of_a_large_batch_reads_every_weight_once():
    work = window_work(full(), 64, 192)
    assert 2 * (work["body"].weights + work["tail"].weights) / 1e9 == pytest.approx(50.5, rel=0.01)


def test_a_window_is_forecast_with_rescoring_and_each_lever_takes_something_off(capsys):
    forecast([])
    found = [
        float(line.split(" TFLOP  RTFx")[0].rsplit(None, 1)[1]) for line in capsys.readouterr().out.splitlines()[1:]
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(21, abs=0.5)
    assert found[-1] < 12


def test_few_tokens_reach_few_experts():
    one, many = (window_work(full(), batch, 64)["body"].weights for batch in (1, 64))
    assert window_work(full(), 1, 1)["body"].weights < 0.2 * many
    assert one < many


def test_a_phase_takes_its_products_or_its_reading_whichever_is_longer():
    assert Work(flops=3e10, weights=5e9).seconds(RATES, 2) == 3.0
    assert Work(flops=1e10, weights=2e10).seconds(RATES, 2) == 4.0


def test_both_engines_are_measured(measured):
    assert [row.engine for row in measured] == ["ours", "transformers"]
    assert all(row.rtfx > 0 and row.share_of_bound > 0 for row in measured)


def test_the_phases_of_ours_are_told_and_add_up(measured):
    phases = measured[0].phases_s
    assert {*PHASES} == phases.keys()  # rescoring and reading with them
    assert all(seconds > 0 for seconds in phases.values())


def test_every_token_is_routed_to_its_number_of_experts(measured):
    routed = measured[0].tokens_per_expert
    assert routed["mean"] == 2 * 8 * tiny().backbone["top_k_experts"] / tiny().backbone["num_experts"]


def test_what_transformers_leaves_out_is_not_in_its_bound(model):
    # CTC, and the projector at seven more shifts.
    common = {"model": model, "recipe": build_recipe(model.config, model.identity), "clip_s": 8.0, "canvas": 8}
    ours, theirs = (
        DecodeCase(engine=engine, rounds=1, **common).least_s(Rates(copy_bytes=1e20, flops=1), 2)
        for engine in ("ours", "transformers")
    )
    work = window_work(model.config, 2, 8)
    only_ours = work["ctc"].flops + work["projector"].flops * 7 / 8 + work["rescore"].flops
    assert ours - theirs == pytest.approx(only_ours)


def holding(limit):
    """An engine whose device holds so many segments, and which decodes nothing."""

    def decode(model, recipe, segments, batch_size, canvas):
        if batch_size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    return decode


def test_each_engine_finds_the_largest_batch_that_it_can_hold(case, monkeypatch):
    for limit in (5, 0):
        monkeypatch.setitem(ENGINES, "transformers", holding(limit))
        found = case("transformers")
        assert found.largest_batch() == limit
        assert found.measure(RATES, limit + 1).rtfx is None


@pytest.mark.parametrize("limit", [1, 2, 3, 17, 63, 64, 65, 1000])
def test_the_largest_is_found_to_a_sixteenth_in_few_tries(limit):
    tried = []

    def fits(number):
        tried.append(number)
        return number <= limit

    assert limit - limit / GAP <= largest_fitting(fits, 4096) <= limit
    assert len(tried) <= 17


def test_nothing_above_the_limit_is_tried():
    assert largest_fitting(lambda number: number <= 100 or pytest.fail("tried"), 100) in range(94, 101)


def test_the_peak_of_a_process_holds_what_was_given_back():
    peak = PeakMemory(torch.device("cpu"))
    before = peak.bytes()
    if before is None:
        pytest.skip("this system does not count a process's peak anew")
    float(torch.ones(25_000_000).sum())
    assert 60e6 < peak.bytes() - before < 150e6


def test_a_compiled_decoder_is_seen_routing_too():
    model = random_model("tiny", torch.device("cpu"), torch.float32)
    model._run_decoder = torch.compile(model._decoder_states, backend=never)
    counts = []
    recipe = build_recipe(model.config, model.identity)
    with tokens_per_expert(model, counts):
        decode_ours(model, recipe, noise_segments(model.config, 2.0, 1), 1, 8)
    assert counts


def never(graph, inputs):
    pytest.fail("compiled while tokens are counted")


def test_timing_phases_leaves_no_trace():
    model = AsrModel(tiny())
    with phases_of(model, Stopwatch(torch.device("cpu"))):
        assert "decode" in vars(model)
    assert "decode" not in vars(model)


def test_random_weights_hear_one_text_as_trained_ones_do(model):
    recipe = build_recipe(model.config, model.identity)
    features = (segment_features(*clip, recipe.features) for clip in noise_segments(model.config, 2.0, 1))
    (encoded,) = SegmentEncoder(model, recipe, 1).encode(features)
    assert encoded.ctc.ids == ()
    assert encoded.ctc.end_probability > 0.99
