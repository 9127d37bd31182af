"""An evaluation as one page of HTML that asks for nothing else: figures, plots, the worst utterances to listen to."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgasr.errors import ConfigError
from dgasr.evaluation import plots
from dgasr.evaluation.tables import figures_lines, groups_cells, non_speech_cells, steps_cells
from dgasr.evaluation.wer import align

TEMPLATE = Path(__file__).with_name("page.html")


def evaluation_page(
    figures: dict[str, Any], worst: Sequence[dict[str, Any]], audio: Mapping[int, bytes], title: str, made: str
) -> str:
    """Lay an evaluation out for a browser.

    Args:
        figures: what `Evaluation.to_json` or `Evaluation.to_json_beside` gives, with `by_steps` where there is one.
        worst: rows of `worst_utterances`.
        audio: MP3 of utterances, by their `number`; those without one have no player.
        title: of the page.
        made: by what command, with which version, when.

    Raises:
        ConfigError: matplotlib or Jinja is not installed.
    """
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise ConfigError(f"Jinja is not installed ({error}). Run `pip install 'dgasr[report]'`.") from error
    spoken = [row for row in figures["groups"] if row["rate"] is not None]
    by_steps, histogram = figures.get("by_steps", ()), figures["timing"]["histogram"]
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE.read_text("utf-8"))
    return page.render(
        title=title,
        made=made,
        lines=[(name, value) for name, value in figures_lines(figures) if name != "failed"],
        groups=groups_cells(spoken),
        groups_plot=plots.error_rates(spoken) if spoken else "",
        steps=steps_cells(by_steps),
        steps_plot=plots.steps(by_steps) if by_steps else "",
        reliability_plot=plots.reliability(figures["calibration"]["bins"]) if figures["calibration"]["bins"] else "",
        times_plot=plots.time_errors(histogram) if figures["timing"]["matched_words"] else "",
        non_speech=non_speech_cells(figures["non_speech"]),
        worst=[row | {"pieces": _pieces(row), "audio": _data_uri(audio.get(row["number"]))} for row in worst],
        failures=figures["failures"],
    )


def _pieces(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pair the words of reference and hypothesis; equal ones are right, an empty one is missing on its side."""
    reference, hypothesis = row["reference_normalised"].split(), row["hypothesis_normalised"].split()
    return [
        ("" if i is None else reference[i], "" if j is None else hypothesis[j]) for i, j in align(reference, hypothesis)
    ]


def _data_uri(mp3: bytes | None) -> str:
    return f"data:audio/mpeg;base64,{base64.b64encode(mp3).decode()}" if mp3 else ""
