"""The page's second tab: a lake to search, read and listen to. Its tables are views of `sql/`, none is its own."""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gradio as gr

from dgasr.errors import printable
from dgasr.lake import connect
from dgasr.records import Recording
from dgasr.serving.page import FOLLOW, transcript_html
from dgasr.store import open_object
from dgasr.tables import cell

VIEWS = ("coverage", "rejections", "throughput")

MAX_ROWS = 200
"""Rows and recordings that are shown at once."""

KEPT_FILES = 20
"""Recordings that lie ready to be listened to."""

MAX_AUDIO_BYTES = 500_000_000
"""Larger ones have no player."""

CHARACTER_PX, PADDING_PX, WIDEST_PX = 9, 60, 240
"""Of a column. Left to itself, a browser makes narrow ones of many columns, whose names it then breaks into letters."""


class LakeTab:
    """Asks a lake, and fetches its audio into a folder that the browser may ask; the page is mounted under `prefix`."""

    def __init__(self, lake_uri: str, folder: Path, prefix: str) -> None:
        self._lake_uri, self._folder, self._prefix = lake_uri, folder, prefix

    def build(self) -> None:
        """Put the tab's parts where Gradio builds a page."""
        words = gr.Textbox(label="Search", placeholder="what was said, then Enter", elem_id="search")
        found = gr.Dataframe(label="Found, best first", elem_id="found", wrap=True)
        recording = gr.Dropdown(label="Recording", choices=self.recordings(), value=None, elem_id="recording")
        shown = gr.HTML(js_on_load=FOLLOW, elem_id="transcript")
        view = gr.Radio(list(VIEWS), value=VIEWS[0], label="View", elem_id="view")
        table = gr.Dataframe(**_table(*self._ask(f"from {VIEWS[0]} limit {MAX_ROWS}")), elem_id="rows", wrap=True)
        words.submit(self.search, words, [found, recording])
        recording.change(self.transcript, recording, shown)
        view.change(self.view, view, table)

    def search(self, words: str) -> tuple[gr.Dataframe, gr.Dropdown]:
        """Find where words were said, and offer these recordings; all of them where nothing is asked for."""
        found = self._ask(f"select text, start_s, end_s, uri, score from search(?, max_results := {MAX_ROWS})", words)
        choices = _choices(row[3] for row in found[1]) if words.strip() else self.recordings()
        chosen = choices[0][1] if choices and words.strip() else None
        return gr.Dataframe(**_table(*found)), gr.Dropdown(choices=choices, value=chosen)

    def recordings(self) -> list[tuple[str, str]]:
        """List recordings of the lake, each as it is shown and as it is."""
        return _choices(
            uri for (uri,) in self._ask(f"select uri from recordings_latest order by uri limit {MAX_ROWS}")[1]
        )

    def view(self, name: str) -> gr.Dataframe:
        """Show a view."""
        assert name in VIEWS, "it stands in a question as it is"
        return gr.Dataframe(**_table(*self._ask(f"from {name} limit {MAX_ROWS}")))

    def transcript(self, uri: str | None) -> str:
        """Show what a recording says, with its player."""
        if uri is None:
            return ""
        names, rows = self._ask("select text, words from segments_latest where uri = ? order by segment_index", uri)
        segments = [dict(zip(names, row, strict=True)) for row in rows]
        _, [(etag, size_bytes, modified_at, message)] = self._ask(
            "select etag, size_bytes, modified_at, message from recordings_latest where uri = ?", uri
        )
        recording = Recording(uri=uri, etag=etag, size_bytes=size_bytes, modified_at=modified_at)
        try:
            audio = self._fetch(recording)
        except Exception as error:  # whatever a store raises, the text is still there to be read
            audio, message = None, f"{message or ''} Its audio cannot be fetched ({error}).".strip()
        return transcript_html(segments, audio, self._prefix, printable(message or ""))

    def _fetch(self, recording: Recording) -> str | None:
        """Copy a recording to where the browser may ask for it; the oldest copies make room."""
        if recording.size_bytes > MAX_AUDIO_BYTES:
            return None
        path = self._folder / (recording.recording_id + Path(recording.uri).suffix)
        if not path.exists():
            with open_object(recording) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        kept = sorted(self._folder.iterdir(), key=lambda own: own.stat().st_mtime)
        for old in kept[:-KEPT_FILES]:
            old.unlink(missing_ok=True)
        return str(path)

    def _ask(self, sql: str, *values: Any) -> tuple[list[str], list[Any]]:
        with contextlib.closing(connect(self._lake_uri)) as lake:
            answer = lake.execute(sql, list(values))
            return [column[0] for column in answer.description], answer.fetchall()


def _choices(uris: Iterable[str]) -> list[tuple[str, str]]:
    """List recordings, each once, as they are shown and as they are."""
    return [(printable(uri), uri) for uri in dict.fromkeys(uris)]


def _table(names: list[str], rows: list[Any]) -> dict[str, Any]:
    """Give what Gradio shows of an answer: on a telephone a table is wider than the page, and scrolls."""
    data = [[cell(value) for value in row] for row in rows]
    longest = [max(map(len, (name, *(row[n] for row in data)))) for n, name in enumerate(names)]
    widths = [min(WIDEST_PX, PADDING_PX + CHARACTER_PX * length) for length in longest]
    return {"value": {"headers": names, "data": data}, "column_widths": widths}
