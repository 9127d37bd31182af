"""The page as a folder that runs by itself: a Hugging Face Space, which asks a served endpoint for its work."""

from pathlib import Path
from urllib.parse import urlsplit

from dgasr.errors import ConfigError

REQUIREMENTS = ("gradio>=6.31,<7", "httpx")
"""All that `page.py` imports."""

APP = '''"""The page of dgasr; `dgasr serve` at DGASR_ENDPOINT does the work."""

import os

from page import STYLE, THEME, build_page, watch_endpoint

watch = watch_endpoint(os.environ.get("DGASR_ENDPOINT", {endpoint!r}), os.environ.get("DGASR_TOKEN", ""))
page = build_page(watch, {languages!r}, {step_counts!r}, {default_steps}, "")

if __name__ == "__main__":
    page.launch(css=STYLE, theme=THEME, ssr_mode=False, footer_links=[])
'''

CARD = """---
title: dgasr
sdk: gradio
app_file: app.py
python_version: "3.11"
---

Speech to text by a diffusion decoder, shown as it settles. The work is done at the address in the variable
`DGASR_ENDPOINT` ({endpoint} where it is not set), with the secret `DGASR_TOKEN` if that server asks for one.
"""


def write_space(
    endpoint: str, folder: Path, languages: tuple[str, ...], step_counts: tuple[int, ...], default_steps: int
) -> None:
    """Write the folder.

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
    if folder.exists():
        raise ConfigError(f"--out {folder}: is there already. Name another folder, or remove it.")
    folder.mkdir(parents=True)
    texts = {
        "app.py": APP.format(
            endpoint=endpoint, languages=languages, step_counts=step_counts, default_steps=default_steps
        ),
        "page.py": Path(__file__).with_name("page.py").read_text(encoding="utf-8"),
        "requirements.txt": "\n".join(REQUIREMENTS) + "\n",
        "README.md": CARD.format(endpoint=endpoint),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
