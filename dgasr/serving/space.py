"""The page as a folder that runs by itself: a Hugging Face Space, which asks an endpoint for its work or does it."""

import shutil
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from dgasr.errors import ConfigError

REQUIREMENTS = ("gradio", "httpx")
"""All that `page.py` imports."""

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

CARD = """---
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
        shutil.copy(Path(__file__).with_name(name), folder)


def write_own_space(model: Path, adapter: Path | None, folder: Path) -> None:
    """Write a Space that runs the model itself: this package, the model, and the speech model's weights lie in it.

    `model` is a folder, of a bundled one its own in this package; `adapter` a folder or file of what is put on it.

    Raises:
        ConfigError: the folder is there already, or silero-vad is not installed.
    """
    package = Path(__file__).parents[1]
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
    (folder / "README.md").write_text(CARD.format(work=work), encoding="utf-8")
