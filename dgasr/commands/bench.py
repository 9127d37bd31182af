"""`dgasr bench`: speed of the front end, the whole path, decoding and the lake; how well recordings are cut."""

import argparse
import importlib
from pathlib import Path
from typing import get_args

from dgasr.commands.arguments import check_output_file, finite_float, positive_int
from dgasr.errors import ConfigError
from dgasr.model.identity import Quantize

BENCHMARKS = ("frontend", "path")
"""What runs when nothing is named; the others have flags of their own, and take minutes."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "bench", help="measure speed: front end, whole path, decoding by phase, sql; and where cuts lie"
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=(*BENCHMARKS, "decode", "sql", "segmentation"),
        help="only this one (default: frontend and path)",
    )
    group = parser.add_argument_group("decode")
    group.add_argument("--model", default="tiny", metavar="tiny|full|DIR", help="default: tiny")
    group.add_argument("--adapter", metavar="FILE|DIR|HUB_ID", help="projector and LoRA to put on the model")
    group.add_argument("--random-weights", action="store_true", help="draw the weights: speed without a checkpoint")
    group.add_argument(
        "--layers", type=positive_int, default=0, metavar="N", help="of the backbone, drawn weights only"
    )
    group.add_argument("--experts", type=positive_int, default=0, metavar="N", help="of a layer, drawn weights only")
    group.add_argument("--vocabulary", type=positive_int, default=0, metavar="N", help="entries, drawn weights only")
    group.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of drawn weights")
    group.add_argument(
        "--batch", type=_batch, nargs="+", default=(1, 16), metavar="N|max",
        help="segments at once; max: what the GPU's memory holds, found for each engine (default: 1 16)",
    )  # fmt: skip
    group.add_argument("--clip", type=finite_float, nargs="+", default=(30.0, 7.0), metavar="S", help="default: 30 7")
    group.add_argument("--rounds", type=positive_int, default=2, metavar="N", help="batches timed (default: 2)")
    group.add_argument("--canvas", type=positive_int, default=0, metavar="N", help="tokens (default: by clip length)")
    group.add_argument("--steps", type=positive_int, default=8, metavar="N", help="of every canvas (default: 8)")
    group.add_argument(
        "--engine", nargs="+", choices=("ours", "transformers"), default=("ours", "transformers"), help="default: both"
    )
    group.add_argument("--compile", action="store_true", help="let torch compile the decoder of ours")
    group.add_argument("--quantize", choices=get_args(Quantize), default="none", help="default: %(default)s")
    group.add_argument("--cuda-graphs", action="store_true", help="ours replays steps that the GPU has recorded")
    group.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default: auto")
    group = parser.add_argument_group("sql")
    group.add_argument(
        "--days", type=positive_int, default=56, metavar="N", help="of archive, 36 h each (default: 56, 1 M segments)"
    )
    group = parser.add_argument_group("segmentation")
    group.add_argument("--words", type=Path, metavar="MANIFEST", help="speech, as tools/reference_words.py writes it")
    group.add_argument("--nonspeech", type=Path, metavar="MANIFEST", help="no speech, by tools/make_nonspeech.py")
    group.add_argument("--window", type=finite_float, nargs="+", default=(8.0, 30.0), metavar="S", help="default: 8 30")
    group.add_argument("--limit", type=positive_int, default=0, metavar="N", help="utterances (default: all)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures here (decode, sql, segmentation)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the benchmarks; each prints a table and a line of JSON."""
    check_output_file("--json", options.json)
    if options.what == "decode":
        return _decode(options)
    if options.what == "sql":
        return _sql(options)
    if options.what == "segmentation":
        return _segmentation(options)
    for name in (options.what,) if options.what else BENCHMARKS:
        importlib.import_module(f"dgasr.bench.{name}").main()
    return 0


def _batch(text: str) -> int:
    """Read a batch; `max` is the benchmark's `LARGEST`."""
    return 0 if text == "max" else positive_int(text)


def _decode(options: argparse.Namespace) -> int:
    from dgasr.bench.decode import DecodeBenchmark, main
    from dgasr.bench.decode_model import Reduction

    main(
        DecodeBenchmark(
            model=options.model, adapter=options.adapter, has_random_weights=options.random_weights,
            reduction=Reduction(layers=options.layers, experts=options.experts, vocabulary=options.vocabulary),
            compile=options.compile, quantize=options.quantize, cuda_graphs=options.cuda_graphs, device=options.device,
            dtype=options.dtype, clips_s=tuple(options.clip), batches=tuple(options.batch), canvas=options.canvas,
            steps=options.steps, engines=tuple(options.engine), rounds=options.rounds,
        ),
        options.json,
    )  # fmt: skip
    return 0


def _sql(options: argparse.Namespace) -> int:
    from dgasr.bench.archive import ArchiveConfig
    from dgasr.bench.sql import main

    main(ArchiveConfig(num_days=options.days), options.json)
    return 0


def _segmentation(options: argparse.Namespace) -> int:
    from dgasr.bench.segmentation import SegmentationBenchmark, main

    if options.words is None or options.nonspeech is None:
        raise ConfigError("dgasr bench segmentation: give --words and --nonspeech; two tools make them.")
    benchmark = SegmentationBenchmark(
        words=options.words, nonspeech=options.nonspeech, windows_s=tuple(options.window), limit=options.limit
    )
    main(benchmark, options.json)
    return 0
