"""`dgasr corpora`: a public corpus or one's own folder in, manifests for `dgasr train` and `dgasr evaluate` out."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dgasr.commands.arguments import finite_float, names, positive_int, progress
from dgasr.corpora.layouts import CORPORA
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    from dgasr.corpora.layouts import Corpus
    from dgasr.corpora.prepare import Summary


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "corpora", help="make manifests of LibriSpeech, FLEURS, VoxPopuli, Common Voice, Hub datasets, own folders"
    )
    add = parser.add_argument
    add("kind", choices=CORPORA, metavar="KIND", help=", ".join(CORPORA))
    source = "its folder, archive or manifest, with --download where archives go; of hf also a Hub id"
    add("source", metavar="SOURCE", help=source)
    add("--out", type=Path, required=True, metavar="DIR", help="folder for manifests and what is unpacked")
    subset = "such as train.clean.100,test.clean or train,dev (default: all that the kind has)"
    add("--subset", type=names, default=(), metavar="NAME,…", help=subset)
    language = "such as de,fr (default: the kind's own where it has one, else to be given)"
    add("--language", type=names, default=(), metavar="CODE,…", help=language)
    add("--download", action="store_true", help="fetch it first from its publisher (default: off)")
    limit = "longer clips are refused, s (default: 30)"
    add("--max-duration", type=finite_float, default=30.0, metavar="S", help=limit)
    cores = os.cpu_count() or 1
    add("--processes", type=positive_int, default=cores, metavar="N", help="that decode (default: one a core)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prepare every subset in every language; 3 where clips were refused."""
    from dgasr.corpora.layouts import Subset
    from dgasr.corpora.prepare import prepare

    corpus = CORPORA[options.kind]
    summaries = []
    for name, language in _parts(options, corpus):
        source = _source(options, name, language)
        if not source.exists():
            raise ConfigError(f"{source}: not there. Give the corpus's folder, or fetch it with --download.")
        subset = Subset(source=source, name=name, language=language, out=options.out)
        with progress(f"{options.kind} {language} {name}", "clips") as bar:
            summaries.append(prepare(options.kind, subset, options.max_duration, options.processes, bar.update))
        sys.stdout.write(_line(summaries[-1], options.out) + "\n")
    return 3 if any(summary.refused for summary in summaries) else 0


def _parts(options: argparse.Namespace, corpus: "Corpus") -> list[tuple[str, str]]:
    unknown = [name for name in options.subset if corpus.subsets and name not in corpus.subsets]
    if unknown:
        known = ", ".join(corpus.subsets)
        raise ConfigError(f"--subset {','.join(unknown)}: {options.kind} has {known}. Choose of these.")
    if options.kind in ("commonvoice", "hf") and not options.subset:
        raise ConfigError(f"--subset: say which part of the {options.kind} corpus, such as train,dev,test.")
    languages = (corpus.language,) if corpus.language else options.language
    if not languages and options.kind != "nemo":
        raise ConfigError(f"--language: say which language of the {options.kind} corpus, such as en,de.")
    names = options.subset or corpus.subsets or (Path(options.source).stem if options.kind == "nemo" else "",)
    return [(name, language) for language in languages or ("",) for name in names]


def _source(options: argparse.Namespace, name: str, language: str) -> Path:
    """Give the corpus's folder, fetched first where that was asked for."""
    from dgasr.corpora.prepare import download

    is_hub_id = options.kind == "hf" and options.source.count("/") == 1 and not Path(options.source).exists()
    if not options.download and not is_hub_id:
        return Path(options.source)
    folder = options.out / "hub" if is_hub_id else Path(options.source)
    with progress(f"fetching {options.kind} {language} {name}", "B") as bar:

        def show(count: int, total: int) -> None:
            bar.total = total or None
            bar.update(count)

        return download(options.kind, name, language, folder, show, options.source if is_hub_id else None)


def _line(summary: "Summary", out: Path) -> str:
    people = f", {summary.num_speakers} speakers" if summary.num_speakers else ""
    line = f"{out / summary.name}.jsonl: {summary.num_clips:,} clips, {summary.hours:.2f} h{people}"
    if summary.refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.refused.items())
        line += f"; refused {sum(summary.refused.values())} ({reasons}), each in {summary.name}.refused.jsonl"
    return line
