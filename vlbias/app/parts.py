"""What the three tabs share of Gradio: errors as sentences, one line for the networks, lists, downloads."""

from __future__ import annotations

import asyncio
import functools
import itertools
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec

import gradio as gr
from gradio.blocks import Block

from vlbias.app.editing import Shelf
from vlbias.app.markup import sentence
from vlbias.errors import VlbiasError

__all__ = ["NETWORKS", "Updates", "Visits", "Workplace", "choices", "click", "download_button", "told"]

#: Component => its new value or its changes.
Updates = dict[Block, object]
Given = ParamSpec("Given")

#: Work on networks waits in one line: two edits at once would take twice as long each.
NETWORKS: dict[str, Any] = {"concurrency_id": "networks", "concurrency_limit": 1}


class Visits:
    """Pages that are open, each with an event that ends with it.

    Gradio closes the stream of answers when a page waits for none, and a page that asks again before it has heard so
    waits on the closed stream for ever. While one event goes on, the stream stays open.
    """

    _BEAT_S = 0.2
    _BEATS_BETWEEN_SIGNS = 75  # a page that does not read a sign of life is gone
    _PATIENCE_S = 2.0

    def __init__(self) -> None:
        self._open = 0
        self._over = threading.Event()

    async def stay(self) -> AsyncIterator[None]:
        """The event of one page."""
        self._open += 1
        try:
            for beat in itertools.count():
                if self._over.is_set():
                    return
                if beat % self._BEATS_BETWEEN_SIGNS == 0:
                    yield None
                await asyncio.sleep(self._BEAT_S)
        finally:
            self._open -= 1

    def end(self) -> None:
        """Let the pages go: a server waits for streams that are open."""
        if not self._open:
            return
        self._over.set()
        given_up = time.monotonic() + self._PATIENCE_S
        while self._open and time.monotonic() < given_up:
            time.sleep(self._BEAT_S / 2)
        time.sleep(self._BEAT_S)  # for the last answer to leave


@dataclass(frozen=True)
class Workplace:
    """What every tab may use.

    Attributes:
        shelf: the editors.
        roots: folders that may be opened.
        folder: where files for downloads are made.
        visits: the pages that are open.
    """

    shelf: Shelf
    roots: tuple[Path, ...]
    folder: Path
    visits: Visits = field(default_factory=Visits)

    def new_folder(self) -> Path:
        """An empty folder for one download: two visitors may call their pictures alike."""
        return Path(tempfile.mkdtemp(dir=self.folder))


def told(
    said: gr.HTML, cleared: Updates | None = None
) -> Callable[[Callable[Given, Updates]], Callable[Given, Updates]]:
    """An error that the library raises on purpose becomes a sentence in ``said``.

    Args:
        said: where it stands.
        cleared: what goes then, for it belongs to what was open before; ``None`` if all stays.
    """

    def decorate(function: Callable[Given, Updates]) -> Callable[Given, Updates]:
        @functools.wraps(function)
        def told(*arguments: Given.args, **named: Given.kwargs) -> Updates:
            try:
                return {said: "", **function(*arguments, **named)}
            except VlbiasError as error:
                return {**(cleared or {}), said: sentence(str(error), is_error=True)}

        return told

    return decorate


def choices(
    names: Sequence[str], value: Sequence[str] | None = None, *, title: Callable[[str], str] = str
) -> gr.Dropdown:
    """Other choices for a list; ``title`` says how one reads."""
    chosen = value if value is not None else (names[0] if names else None)
    return gr.Dropdown(choices=[(title(name), name) for name in names], value=chosen)


def download_button(label: str, name: str) -> tuple[gr.Button, gr.DownloadButton]:
    """A button that makes a file, and a hidden one, which :func:`click` clicks, that hands it over."""
    return gr.Button(label, elem_id=f"{name}-make"), gr.DownloadButton(elem_id=name, visible="hidden")


def click(name: str) -> str:
    """JavaScript that clicks a hidden button once its file has arrived."""
    return f"() => setTimeout(() => document.getElementById('{name}')?.click(), 200)"
