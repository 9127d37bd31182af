"""The page: audio in from file or microphone, the canvas shown as it settles, words that follow the player.

Knows Gradio and the events of `POST /transcribe?stream=denoise`, nothing else of this project: `dgasr model space`
copies it, with its style and script, into a folder that runs where only Gradio and httpx are installed.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import httpx

Events = AsyncGenerator[tuple[str, dict[str, Any]]]
"""`canvas` after each step of each segment, then `done` with the transcript or `error` with a message."""

Watch = Callable[[str, str, int], Events]
"""(path of the audio, language, steps) → what becomes of it."""

MAX_FRAMES = 400
"""Canvases that stay to be looked at again: half a minute of speech has about eight."""

STYLE, FOLLOW = (Path(__file__).with_suffix(ending).read_text(encoding="utf-8") for ending in (".css", ".js"))
"""How it looks, and what lets words follow the player."""

THEME = gr.themes.Default(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)  # fonts that the machine has: nothing is fetched from elsewhere


def build_page(
    watch: Watch,
    languages: Sequence[str],
    step_counts: Sequence[int],
    prefix: str,
    lake: Callable[[], None] | None = None,
) -> gr.Blocks:
    """Build the page of what `watch` transcribes.

    The first language is the default, and the last number of steps; `prefix` is the path that the page is mounted
    under, empty for the root; `lake` fills a second tab, where there is one.
    """
    with gr.Blocks(title="dgasr", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        with gr.Tab("Transcribe"):
            _transcribe_tab(watch, languages, step_counts, prefix)
        if lake is not None:
            with gr.Tab("Lake"):
                lake()
    return page


def _transcribe_tab(watch: Watch, languages: Sequence[str], step_counts: Sequence[int], prefix: str) -> None:
    audio = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Audio", buttons=["download"],
                     elem_id="audio")  # fmt: skip
    with gr.Row():
        language = gr.Dropdown(list(languages), value=languages[0], label="Language")
        steps = gr.Radio(sorted(step_counts), value=step_counts[-1], label="Denoising steps at most")
    button = gr.Button("Transcribe", variant="primary", elem_id="transcribe")
    shown = gr.HTML(js_on_load=FOLLOW, elem_id="shown")
    with gr.Row():
        files = [gr.DownloadButton(name, interactive=False, elem_id=name.lower()) for name in ("SRT", "VTT", "JSON")]

    async def transcribe(path: str | None, code: str, count: int) -> AsyncIterator[list[Any]]:
        waiting = [gr.DownloadButton(interactive=False)] * len(files)
        if path is None:
            yield ["<p class='note'>Choose a file, or record something first.</p>", *waiting]
            return
        canvases: dict[int, dict[str, Any]] = {}
        frames: list[str] = []
        yield ["<p class='note'>Reading …</p>", *waiting]
        async with aclosing(watch(path, code, count)) as events:  # who closes the page waits for nothing any more
            async for name, data in events:
                if name == "canvas":
                    canvases[data["segment_index"]] = data
                    frames.append(_canvas(data))
                    yield ["".join(_canvas(canvases[index]) for index in sorted(canvases)), *waiting]
                elif name == "done":
                    with tempfile.TemporaryDirectory(prefix="dgasr-page-") as folder:  # Gradio keeps copies for an hour
                        text = transcript_html(data["segments"], path, prefix, data["message"])
                        yield [text + _history(frames), *_downloads(data, Path(folder))]
                else:
                    yield [f"<p class='note' role='alert'>{escape(data['message'])}</p>", *waiting]

    button.click(transcribe, [audio, language, steps], [shown, *files], concurrency_limit=None)


def _canvas(canvas: dict[str, Any]) -> str:
    """Write a canvas as it is after a step; the greener a token, the likelier."""
    tokens = "".join(
        f"<span class='token' style='--likely:{likely}' title='{100 * likely:.0f} %'>{escape(text)}</span> "
        for text, likely in canvas["tokens"]
    )
    return f"<p class='canvas'><span class='where'>{canvas['start_s']:.1f} s, step {canvas['step']}</span> {tokens}</p>"


def _history(frames: Sequence[str]) -> str:
    """Keep the canvases, folded: a fast model settles before anybody has looked."""
    if not frames:
        return ""
    return f"<details><summary>How it settled, step by step</summary>{''.join(frames[:MAX_FRAMES])}</details>"


def transcript_html(segments: Sequence[dict[str, Any]], path: str | None, prefix: str, message: str | None) -> str:
    """Write words that can be clicked, below a player of their audio; a paragraph for each segment."""
    player = f"<audio class='player' controls src='{prefix}/gradio_api/file={quote(path)}'></audio>" if path else ""
    note = f"<p class='note' role='alert'>{escape(message)}</p>" if message else ""
    spoken = [segment for segment in segments if segment["text"]]
    paragraphs = "".join(f"<p class='words'>{''.join(map(_word, segment['words']))}</p>" for segment in spoken)
    return player + note + (paragraphs or "<p class='note'>Nobody speaks.</p>")


def _word(word: dict[str, Any]) -> str:
    return (
        f"<button type='button' class='word' data-start='{word['start_s']}' data-end='{word['end_s']}'"
        f" style='--likely:{word['confidence']:.2f}' title='{word['start_s']:.2f} s, {100 * word['confidence']:.0f} %'>"
        f"{escape(word['word'])}</button> "
    )


def _downloads(done: dict[str, Any], folder: Path) -> list[gr.DownloadButton]:
    texts = {"srt": done["srt"], "vtt": done["vtt"], "json": json.dumps(done, ensure_ascii=False, indent=2)}
    for name, text in texts.items():
        (folder / f"transcript.{name}").write_text(text, encoding="utf-8")
    return [gr.DownloadButton(value=str(folder / f"transcript.{name}"), interactive=True) for name in texts]


def watch_endpoint(url: str, token: str) -> Watch:
    """Let `dgasr serve` at a URL do the work; the token is the one that it asks for, empty for none."""

    async def watch(path: str, language: str, steps: int) -> Events:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        asked = {"stream": "denoise", "language": language, "max_steps": str(steps)}
        name, content = "error", await asyncio.to_thread(Path(path).read_bytes)
        try:
            async with (
                httpx.AsyncClient(base_url=url, headers=headers, timeout=600) as client,
                client.stream("POST", "/transcribe", params=asked, content=content) as answer,
            ):
                if answer.status_code != httpx.codes.OK:
                    yield "error", json.loads(await answer.aread())["error"]
                    return
                async for line in answer.aiter_lines():
                    kind, _, rest = line.partition(": ")
                    if kind == "event":
                        name = rest
                    elif kind == "data":
                        yield name, json.loads(rest)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            yield "error", {"message": f"{url} does not answer as it should ({error!r})."}

    return watch


def launch_page(page: gr.Blocks) -> None:
    """Serve the page by itself, until a signal ends it."""
    page.launch(css=STYLE, theme=THEME, ssr_mode=False, footer_links=[])
