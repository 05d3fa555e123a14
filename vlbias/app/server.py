"""Start the page: bound to this machine, asking nothing of the network, its files in a folder that goes with it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlbias.app.editing import Shelf
from vlbias.app.places import checked_roots
from vlbias.errors import MissingDependencyError, OutputError
from vlbias.settings import Settings, number

__all__ = ["LOOPBACK", "AppSettings", "Served", "serve"]

#: Hosts that other machines cannot reach.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: The largest file that may be dropped; a photograph of 80 megapixels is smaller.
MAX_UPLOAD = "64mb"
#: Pages that are remembered at once; each takes one of the things that Gradio does at a time, which are else 40.
PAGES, THREADS = 32, 40
#: Gradio's metadata ask for an older Pillow than is safe, so it comes without what it asks for.
INSTALL = "pip install 'vlbias[app]' && pip install --no-deps gradio==6.31.0"


@dataclass(frozen=True)
class AppSettings(Settings):
    """Where the page listens.

    Attributes:
        host: name or address; anything but the loopback lets other machines in, without a password.
        port: 1..65535; 0 for the first free one from 7860 on.
        open_browser: show the page in the user's browser.
    """

    host: str = "127.0.0.1"
    port: int = number(0, 0, 65535)
    open_browser: bool = False

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in LOOPBACK


@dataclass(frozen=True)
class Served:
    """A page that runs.

    Attributes:
        url: where.
    """

    url: str

    def wait(self) -> None:
        """Until somebody presses Ctrl+C."""
        threading.Event().wait()


@contextmanager
def serve(
    roots: Sequence[Path] = (), editors: Sequence[Path] = (), settings: AppSettings | None = None
) -> Iterator[Served]:
    """Run the page while the block lasts.

    Args:
        roots: folders that the page may open: datasets and finished runs.
        editors: folders of editors, beside the shipped ones.
        settings: ``None`` for the defaults.

    Raises:
        MissingDependencyError: Gradio is not installed.
        DatasetError: a root is no folder.
        OutputError: the port is taken.
    """
    settings = settings or AppSettings()
    with tempfile.TemporaryDirectory(prefix="vlbias-app-") as folder, _private_gradio(Path(folder)):
        try:
            from vlbias.app.page import build_page, looks
            from vlbias.app.parts import Workplace
        except ImportError as error:
            if (error.name or "").startswith("vlbias"):
                raise
            raise MissingDependencyError(f"the page needs Gradio: {INSTALL}.") from error
        place = Workplace(Shelf(editors), checked_roots(roots), Path(folder))
        blocks = build_page(place)
        try:
            _, url, _ = blocks.launch(
                server_name=settings.host, server_port=settings.port or None, inbrowser=settings.open_browser,
                share=False, quiet=True, prevent_thread_lock=True, max_file_size=MAX_UPLOAD, footer_links=[],
                run_history=False, enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False,
                allowed_paths=[], state_session_capacity=PAGES, max_threads=PAGES + THREADS, **looks(),
            )  # fmt: skip
        except OSError as error:
            raise OutputError(f"port {settings.port or 7860} on {settings.host} cannot be used ({error}).") from error
        try:
            yield Served(url)
        finally:
            place.visits.end()
            blocks.close(verbose=False)


@contextmanager
def _private_gradio(folder: Path) -> Iterator[None]:
    """Gradio keeps its files in ``folder`` and sends nothing; it reads both from the environment."""
    wanted = {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
