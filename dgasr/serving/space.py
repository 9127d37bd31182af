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

CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"
"""Where torch's small build for CPUs lies, which the package index does not have."""

SILERO = ("silero_vad/data/silero_vad_16k_op15.onnx", "licenses/LICENSE")
"""Of silero-vad's wheel, what is used, by the ends of their names: its own code would need torchaudio."""

END = """
    page.launch(css=STYLE, theme=THEME, ssr_mode=False, footer_links=[])
"""

APP = (
    '''"""The page of dgasr; `dgasr serve` at DGASR_ENDPOINT does the work."""

import os

from page import STYLE, THEME, build_page, watch_endpoint

watch = watch_endpoint(os.environ.get("DGASR_ENDPOINT", {endpoint!r}), os.environ.get("DGASR_TOKEN", ""))
page = build_page(watch, {languages!r}, {step_counts!r}, {default_steps}, "")

if __name__ == "__main__":'''
    + END
)

OWN_APP = (
    '''"""The page of dgasr, with the model in the same process."""

from pathlib import Path

FOLDER = Path(__file__).parent

if __name__ == "__main__":  # the process that reads audio runs this file as well, and needs none of it
    from dgasr.commands.serve import start_service
    from dgasr.serving.page import STYLE, THEME, build_page
    from dgasr.serving.service import ServingConfig
    from dgasr.stages.engine import EngineConfig

    config = EngineConfig(model={model}, adapter={adapter})
    service = start_service(config, ServingConfig(), max_waiting=1000, processes=1)
    page = build_page(service.watch, service.languages, sorted(service.step_counts), config.max_steps, "")'''
    + END
)

CARD = """---
title: dgasr
sdk: gradio
app_file: app.py
python_version: "3.11"
---

Speech to text by a diffusion decoder, shown as it settles. {work}
"""

ASKS = """The work is done at the address in the variable
`DGASR_ENDPOINT` ({endpoint} where it is not set), with the secret `DGASR_TOKEN` if that server asks for one."""

WORKS = "The model ({model}) runs here."


def write_space(
    endpoint: str, folder: Path, languages: tuple[str, ...], step_counts: tuple[int, ...], default_steps: int
) -> None:
    """Write a Space whose work an endpoint does.

    Args:
        endpoint: address of `dgasr serve`.
        folder: that is not there yet.
        languages: codes to choose from, the first one being the default.
        step_counts: denoising steps to choose from.
        default_steps: of these, what is chosen at first.

    Raises:
        ConfigError: no such address, or the folder is there already.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{endpoint}: no address of an endpoint. Write https://HOST, where `dgasr serve` listens.")
    app = APP.format(endpoint=endpoint, languages=languages, step_counts=step_counts, default_steps=default_steps)
    _write(folder, app, ASKS.format(endpoint=endpoint), REQUIREMENTS)
    shutil.copyfile(Path(__file__).with_name("page.py"), folder / "page.py")


def write_own_space(model: Path, adapter: Path | None, folder: Path) -> None:
    """Write a Space that runs the model itself: this package, the model, and the speech model's weights lie in it.

    Args:
        model: folder of the model; of a bundled one, its own in this package.
        adapter: folder or file of what is put on it, `None` for nothing.
        folder: that is not there yet.

    Raises:
        ConfigError: the folder is there already, or silero-vad is not installed.
    """
    package = Path(__file__).parents[1]
    is_bundled = model.parent == package / "model"
    places = {"model": repr(model.name) if is_bundled else 'str(FOLDER / "model")', "adapter": "None"}
    if adapter is not None:
        places["adapter"] = f"str(FOLDER / {adapter.name!r})"
    _write(folder, OWN_APP.format(**places), WORKS.format(model=model.name), OWN_REQUIREMENTS)
    others = {path.parent for path in (package / "model").glob("*/config.json")} - {model}
    left_out = {"__pycache__", "samples", *(path.name for path in others)}
    shutil.copytree(package, folder / "dgasr", ignore=lambda _, names: left_out.intersection(names))
    if not is_bundled:
        shutil.copytree(model, folder / "model")
    if adapter is not None:
        (shutil.copytree if adapter.is_dir() else shutil.copyfile)(adapter, folder / adapter.name)
    _copy_speech_model(folder / "silero_vad")


def _copy_speech_model(folder: Path) -> None:
    try:
        found = [own for own in metadata.files("silero-vad") or () if str(own).endswith(SILERO)]
    except metadata.PackageNotFoundError as error:
        raise ConfigError("silero-vad is not installed, and the Space needs its weights. Run `make setup`.") from error
    (folder / "data").mkdir(parents=True)
    for own in found:
        shutil.copyfile(own.locate(), folder / ("data" if own.suffix else "") / own.name)


def _write(folder: Path, app: str, work: str, packages: tuple[str, ...]) -> None:
    """Write what both kinds have: the app, its card, and the packages as they are installed here."""
    if folder.exists():
        raise ConfigError(f"--out {folder}: is there already. Name another folder, or remove it.")
    folder.mkdir(parents=True)
    pinned = {name: metadata.version(name) for name in packages}
    lines = [f"{name}=={version.partition('+')[0]}" for name, version in pinned.items()]
    is_for_cpu = any(version.endswith("+cpu") for version in pinned.values())
    texts = {
        "app.py": app,
        "requirements.txt": "\n".join([CPU_WHEELS] * is_for_cpu + lines) + "\n",
        "README.md": CARD.format(work=work),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
