"""The benchmark of decoding: what it counts, on sizes that are known, and that it runs on a small model."""

import json

import pytest
import torch

from benchmarks.bound import Work, window_work
from benchmarks.bound import main as forecast
from benchmarks.decode import LARGEST, Comparison, DecodeBenchmark, compare, lines_of, measure
from benchmarks.decode import report as run_benchmark
from benchmarks.decode_case import ENGINES, PHASES, DecodeCase, Measured, decode_ours, phases_of, tokens_per_expert
from benchmarks.decode_model import Reduction, noise_segments, random_model
from benchmarks.machine import GAP, PeakMemory, Rates, Stopwatch, largest_fitting
from dgasr.errors import ConfigError
from dgasr.features import segment_features
from dgasr.model.asr import AsrModel
from dgasr.model.presets import full, tiny
from dgasr.recipe import build_recipe
from dgasr.transcriber.encoding import SegmentEncoder

RATES = Rates(copy_bytes=1e10, flops=1e10)
SMALL = {"model": "tiny", "device": "cpu", "steps": 2, "rounds": 1, "batches": (2,), "canvas": 8, "dtype": "float32"}


@pytest.fixture(scope="module")
def model():
    return random_model("tiny", Reduction(), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def measured(model):
    return list(measure(DecodeBenchmark(**SMALL, has_random_weights=True), model, RATES))


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


def test_both_engines_are_measured_at_every_clip_length(measured):
    assert [(row.engine, row.clip_s) for row in measured] == [
        ("ours", 8.0), ("transformers", 8.0), ("ours", 7.0), ("transformers", 7.0),
    ]  # fmt: skip
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


def test_every_row_of_ours_stands_beside_that_of_transformers(measured):
    assert [(each.clip_s, each.batch, each.batch_ratio) for each in compare(measured)] == [(8.0, 2, 1.0), (7.0, 2, 1.0)]
    ours, theirs = measured[:2]
    assert compare(measured)[0].rtfx_ratio == pytest.approx(ours.rtfx / theirs.rtfx, abs=0.006)


def test_largest_batches_are_compared_with_each_other_only():
    rows = [
        Measured(engine="ours", clip_s=30.0, batch=16, canvas=192, rtfx=600.0),
        Measured(engine="transformers", clip_s=30.0, batch=16, canvas=192),
        Measured(engine="ours", clip_s=30.0, batch=160, canvas=192, rtfx=800.0, is_largest=True),
        Measured(engine="transformers", clip_s=30.0, batch=16, canvas=192, rtfx=200.0, is_largest=True),
    ]
    assert compare(rows) == [Comparison(clip_s=30.0, batch=160, batch_ratio=10.0, rtfx_ratio=4.0)]
    assert "batch 160: 4.00 times the RTFx, 10.00 times the batch" in lines_of(compare(rows))


def holding(limit):
    """An engine whose device holds so many segments, and which decodes nothing."""

    def decode(model, recipe, segments, batch_size, canvas):
        if batch_size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    return decode


def test_each_engine_is_measured_at_the_largest_batch_that_it_can_hold(model, monkeypatch):
    monkeypatch.setitem(ENGINES, "transformers", holding(5))
    benchmark = DecodeBenchmark(**{**SMALL, "batches": (4, LARGEST, 8)}, engines=("transformers",), clips_s=(8.0,))
    rows = list(measure(benchmark, model, RATES))
    assert [(row.batch, row.is_largest, row.rtfx is None) for row in rows] == [
        (4, False, False), (5, True, False), (8, False, True),
    ]  # fmt: skip


def test_a_device_that_holds_nothing_has_no_largest_batch(model, monkeypatch):
    monkeypatch.setitem(ENGINES, "transformers", holding(0))
    benchmark = DecodeBenchmark(**{**SMALL, "batches": (LARGEST,)}, engines=("transformers",), clips_s=(8.0,))
    (row,) = measure(benchmark, model, RATES)
    assert (row.batch, row.rtfx) == (0, None)


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


def test_the_host_is_not_asked_for_more_memory_than_it_has():
    with pytest.raises(ConfigError, match="--batch max needs a GPU"):
        run_benchmark(DecodeBenchmark(**{**SMALL, "batches": (LARGEST,)}, has_random_weights=True))


def test_the_peak_of_a_process_holds_what_was_given_back():
    peak = PeakMemory(torch.device("cpu"))
    before = peak.bytes()
    if before is None:
        pytest.skip("this system does not count a process's peak anew")
    float(torch.ones(25_000_000).sum())
    assert 60e6 < peak.bytes() - before < 150e6


def test_a_compiled_decoder_is_seen_routing_too():
    model = random_model("tiny", Reduction(), torch.device("cpu"), torch.float32)
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


def test_a_reduced_model_keeps_the_shapes_of_its_layers_and_ids_that_exist():
    config = Reduction(layers=6, experts=4, vocabulary=64).apply(full())
    changed = {name for name, value in full().backbone.items() if config.backbone[name] != value}
    assert changed == {"num_hidden_layers", "num_experts", "top_k_experts", "vocab_size"}
    ids = (config.prompt.begin_audio_id, config.prompt.audio_id, config.prompt.end_audio_id)
    assert len(set(ids)) == 3
    assert max(ids) < 63, "the last id is the image's"


def test_random_weights_hear_one_text_as_trained_ones_do(model):
    recipe = build_recipe(model.config, model.identity)
    features = (segment_features(*clip, recipe.features) for clip in noise_segments(model.config, 2.0, 1))
    (encoded,) = SegmentEncoder(model, recipe, 1).encode(features)
    assert encoded.ctc.ids == ()
    assert encoded.ctc.end_probability > 0.99


def test_trained_weights_are_not_reduced():
    with pytest.raises(ConfigError, match="need --random-weights"):
        run_benchmark(DecodeBenchmark(**SMALL, reduction=Reduction(layers=1)))


def test_the_figures_are_written_as_json(tmp_path, capsys):
    run_benchmark(DecodeBenchmark(**SMALL, has_random_weights=True, engines=("ours",)), tmp_path / "bench.json")
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert figures["rates"].keys() == {"copy_bytes", "flops"}
    assert len(figures["measured"]) == 2
    assert "of bound" in capsys.readouterr().out
