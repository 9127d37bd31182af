"""What a run came to, made ready for others: a card from the run's own record, checks, a folder or a Hub repository.

The page becomes a folder that runs by itself, a Hugging Face Space, which asks an endpoint for its work or does it.
Knows folders and JSON, no tensors.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from dgasr.errors import ConfigError
from dgasr.evaluation.tables import groups_cells
from dgasr.model.hub import described, http_error
from dgasr.model.identity import (
    ADAPTER_FILES,
    CALIBRATION,
    CONFIG_FILE,
    MORE_FILES,
    PROJECTOR_CONFIG,
    RUN_FILE,
    TOKENIZER_FILE,
    weight_files,
)
from dgasr.tables import markdown_table

CARD = "README.md"

TEMPLATE = Path(__file__).parent / "model" / "card.md"

LOCAL_PATH = re.compile(r'"(/[^"/\s]+){2,}/?"|^base_model: /', re.MULTILINE)
"""A folder that only this machine has, as JSON or the card's head write it."""


def write_card(
    folder: Path, name: str, licence: str, licences: Mapping[str, str], figures: Sequence[Path], commit: str
) -> Path:
    """Write the model card of `final` or `best` of a run, from what it and evaluations wrote down; nothing is made up.

    `licences` are those of each set of training data, `figures` JSON files of `dgasr evaluate --json`; `licence` is an
    SPDX identifier, or `other`.

    Raises:
        ConfigError: the folder is not of a run, a set has no licence, or a figure cannot be read.
    """
    from huggingface_hub import ModelCard, ModelCardData

    record = folder.parent / RUN_FILE
    try:
        run = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{record}: no record of a run ({error}). Give `final` or `best` of a training run."
        ) from error
    unlicensed = sorted({row["set"] for row in run["data"]} - licences.keys())
    if unlicensed:
        raise ConfigError(f"--data: say under which licence {', '.join(unlicensed)} is, as --data 'NAME=LICENCE'.")
    languages = sorted({row["language"] for row in run["data"]})
    settings = run["settings"]
    card = ModelCard.from_template(
        ModelCardData(
            license=licence, language=languages, library_name="dgasr", base_model=run["base"],
            tags=["automatic-speech-recognition", "diffusion"],
        ),
        template_path=str(TEMPLATE), name=name, run=run, settings=settings, languages=languages, commit=commit,
        adapts=(folder / ADAPTER_FILES[0]).is_file(), version=version("dgasr"), today=f"{datetime.now(UTC):%Y-%m-%d}",
        losses=", ".join(f"{loss} {weight:g}" for loss, weight in settings["losses"].items() if weight),
        data=markdown_table(
            ("set", "language", "clips", "hours", "speakers", "licence"),
            [
                (row["set"], row["language"], row["utterances"], row["hours"], row["speakers"] or "unknown",
                 licences[row["set"]])
                for row in run["data"]
            ],
        ),
        figures=_figures(figures),
    )  # fmt: skip
    card.save(folder / CARD)
    return folder / CARD


def _figures(paths: Sequence[Path]) -> str:
    """Lay out what evaluations found, a table each; nothing where there are none."""
    tables = []
    for path in paths:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            how = f"Normaliser {found['normalizer']}, at most {found['steps']} steps:"
            tables.append(f"{how}\n\n{markdown_table(*groups_cells(found['groups']))}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: no figures of `dgasr evaluate --json` ({error!r}).") from error
    return "\n".join(tables)


def publish(folder: Path, to: str) -> str:
    """Copy a folder with its card to `hf:owner/name`, or to a folder that is not there yet; return where it lies now.

    Raises:
        ConfigError: something is missing, names what only this machine has, or the Hub refuses.
    """
    files = _published(folder)
    if not to.startswith("hf:"):
        target = Path(to)
        if target.exists():
            raise ConfigError(f"--to {to}: is there already. Name another folder, or remove it.")
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in files:
            shutil.copyfile(path, partial / path.name)
        partial.rename(target)
        return str(target)
    from huggingface_hub import HfApi

    repository = to.removeprefix("hf:")
    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, allow_patterns=[path.name for path in files],
            commit_message=f"dgasr {version('dgasr')}",
        )  # fmt: skip
    except (OSError, ValueError, http_error()) as error:
        raise ConfigError(
            f"--to {to}: the Hub takes nothing ({described(error)}). Run `hf auth login` with a "
            "token that may write, and name a repository of yours."
        ) from error
    return str(done.commit_url)


def _published(folder: Path) -> list[Path]:
    """List what is published, and refuse what would be of no use elsewhere."""
    is_adapter = (folder / ADAPTER_FILES[0]).is_file()
    names = ADAPTER_FILES if is_adapter else (CONFIG_FILE, TOKENIZER_FILE)
    wanted = [folder / name for name in (*names, CARD)] + ([] if is_adapter else weight_files(folder))
    missing = [path.name for path in wanted if not path.is_file()]
    if missing:
        raise ConfigError(
            f"{folder}: {', '.join(missing)} missing. Give `final` or `best` of a run, after `dgasr model card` has "
            "written its card."
        )
    more = [folder / name for name in (PROJECTOR_CONFIG, CALIBRATION, "tokenizer_config.json", *MORE_FILES)]
    files = [*wanted, *(path for path in more if path.is_file())]
    texts = {path.name: path.read_text("utf-8") for path in files if path.suffix in (".json", ".md")}
    local = [name for name, text in texts.items() if LOCAL_PATH.search(text)]
    if local:
        raise ConfigError(
            f"{', '.join(local)}: names a folder of this machine. Train with a `--base` that others have."
        )
    return files


REQUIREMENTS = ("gradio", "httpx")
"""All that `serving/page.py` imports."""

OWN_REQUIREMENTS = (
    *REQUIREMENTS, "av", "fastapi", "librosa", "numpy", "onnxruntime", "peft", "pyarrow", "rapidfuzz", "safetensors",
    "scipy", "soundfile", "soxr", "tokenizers", "torch", "transformers",
)  # fmt: skip
"""All that reading, transcribing and the page import."""

CPU_WHEELS = "--index-url https://download.pytorch.org/whl/cpu"
"""Where torch's small build for CPUs lies, which the package index does not have. Named in the file that a Space
installs first, for torch alone: in requirements.txt every package would be looked for there too."""

SILERO = ("silero_vad/data/silero_vad_16k_op15.onnx", "licenses/LICENSE")
"""Of silero-vad's wheel, what is used, by the ends of their names: its own code would need torchaudio."""

APP = '''"""The page of dgasr; `dgasr serve` at DGASR_ENDPOINT does the work."""

import os

from page import build_page, launch_page, watch_endpoint

watch = watch_endpoint(os.environ.get("DGASR_ENDPOINT", {endpoint!r}), os.environ.get("DGASR_TOKEN", ""))
page = build_page(watch, {languages!r}, {step_counts!r}, "")

if __name__ == "__main__":
    launch_page(page)
'''

OWN_APP = '''"""The page of dgasr, with the model in the same process."""

from pathlib import Path

FOLDER = Path(__file__).parent

if __name__ == "__main__":  # the process that reads audio runs this file as well, and needs none of it
    from dgasr.commands.serve import start_service
    from dgasr.serving.page import build_page, launch_page
    from dgasr.serving.service import ServingConfig
    from dgasr.stages.engine import EngineConfig

    config = EngineConfig(model={model}, adapter={adapter})
    service = start_service(config, ServingConfig(), max_waiting=1000, processes=1)
    launch_page(build_page(service.watch, service.languages, service.step_counts, ""))
'''

SPACE_CARD = """---
title: dgasr
sdk: gradio
app_file: app.py
python_version: "3.11"
---

Speech to text by a diffusion decoder, shown as it settles. {work}
"""


def write_space(endpoint: str, folder: Path, languages: tuple[str, ...], step_counts: tuple[int, ...]) -> None:
    """Write a Space, a folder that is not there yet, whose work `dgasr serve` does at the address `endpoint`.

    Raises:
        ConfigError: no such address, or the folder is there already.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{endpoint}: no address of an endpoint. Write https://HOST, where `dgasr serve` listens.")
    app = APP.format(endpoint=endpoint, languages=languages, step_counts=step_counts)
    work = (
        f"The work is done at the address in the variable\n`DGASR_ENDPOINT` ({endpoint} where it is not set), with the "
        "secret `DGASR_TOKEN` if that server asks for one."
    )
    _write(folder, app, work, REQUIREMENTS)
    for name in ("page.py", "page.css", "page.js"):
        shutil.copy(Path(__file__).parent / "serving" / name, folder)


def write_own_space(model: Path, adapter: Path | None, folder: Path) -> None:
    """Write a Space that runs the model itself: this package, the model, and the speech model's weights lie in it.

    `model` is a folder, of a bundled one its own in this package; `adapter` a folder or file of what is put on it.

    Raises:
        ConfigError: the folder is there already, or silero-vad is not installed.
    """
    package = Path(__file__).parent
    is_bundled = model.parent == package / "model"
    own = repr(model.name) if is_bundled else 'str(FOLDER / "model")'
    app = OWN_APP.format(model=own, adapter=f"str(FOLDER / {adapter.name!r})" if adapter else None)
    _write(folder, app, f"The model ({model.name}) runs here.", OWN_REQUIREMENTS)
    others = {path.parent for path in (package / "model").glob("*/config.json")} - {model}
    left_out = {"__pycache__", "samples", *(path.name for path in others)}
    shutil.copytree(package, folder / "dgasr", ignore=lambda _, names: left_out.intersection(names))
    if not is_bundled:
        shutil.copytree(model, folder / "model")
    if adapter is not None:
        (shutil.copytree if adapter.is_dir() else shutil.copyfile)(adapter, folder / adapter.name)
    try:
        weights = [found for found in metadata.files("silero-vad") or () if str(found).endswith(SILERO)]
    except metadata.PackageNotFoundError as error:
        raise ConfigError("silero-vad is not installed, and the Space needs its weights. Run `make setup`.") from error
    (folder / "silero_vad" / "data").mkdir(parents=True)
    for found in weights:
        shutil.copyfile(found.locate(), folder / "silero_vad" / ("data" if found.suffix else "") / found.name)


def _write(folder: Path, app: str, work: str, packages: tuple[str, ...]) -> None:
    """Write what both kinds have: the app, its card, and the packages as they are installed here."""
    if folder.exists():
        raise ConfigError(f"--out {folder}: is there already. Name another folder, or remove it.")
    folder.mkdir(parents=True)
    pinned = {name: metadata.version(name).partition("+") for name in packages}
    lines = [f"{name}=={version}" for name, (version, _, _) in pinned.items()]
    first = [f"{name}=={version}+cpu" for name, (version, _, build) in pinned.items() if build == "cpu"]
    (folder / "app.py").write_text(app, encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if first:
        (folder / "pre-requirements.txt").write_text("\n".join([CPU_WHEELS, *first]) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(SPACE_CARD.format(work=work), encoding="utf-8")
