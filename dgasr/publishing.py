"""What a run came to, made ready for others: a card from the run's own record, checks, a folder or a Hub repository.

Knows folders and JSON, no tensors.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from dgasr.errors import ConfigError
from dgasr.evaluation.tables import groups_cells
from dgasr.model.hub import described, http_error
from dgasr.model.identity import (
    ADAPTER_FILES,
    CALIBRATION,
    CONFIG_FILE,
    PROJECTOR_CONFIG,
    RUN_FILE,
    TOKENIZER_FILE,
    weight_files,
)
from dgasr.prompt import WORD_LIST_FILE
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
    more = [folder / name for name in (PROJECTOR_CONFIG, CALIBRATION, "tokenizer_config.json", WORD_LIST_FILE)]
    files = [*wanted, *(path for path in more if path.is_file())]
    texts = {path.name: path.read_text("utf-8") for path in files if path.suffix in (".json", ".md")}
    local = [name for name, text in texts.items() if LOCAL_PATH.search(text)]
    if local:
        raise ConfigError(
            f"{', '.join(local)}: names a folder of this machine. Train with a `--base` that others have."
        )
    return files
