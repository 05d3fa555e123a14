"""``vlbias app``: the interactive page."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from vlbias.cli.application import app
from vlbias.shown import printable


@app.command("app", epilog="Example: vlbias app balanced/ faces/ --editor my-editor/")
def serve_page(
    folders: Annotated[
        list[Path], typer.Argument(metavar="[FOLDER]...", help="Datasets and finished runs that the page may open.")
    ] = [],  # noqa: B006  # typer copies it
    editor: Annotated[
        list[Path], typer.Option("--editor", metavar="FOLDER", help="An editor beside the shipped ones; repeatable.")
    ] = [],  # noqa: B006
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen on; any other lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0: the first free one from 7860.")] = 0,
    show: Annotated[bool, typer.Option("--open", help="Show the page in your browser.")] = False,
) -> None:
    """A page on this machine: edit a face with sliders, review a finished run, look at a dataset."""
    from vlbias.app import AppSettings, serve

    settings = AppSettings(host=host, port=port, open_browser=show)
    if not settings.is_private:
        typer.echo(
            f"warning: everybody who reaches {printable(host)} can use this page, without a password: open the "
            "folders that you gave, and write reviews. Leave --host out to keep it to this machine.",
            err=True,
        )
    with serve(folders, editor, settings) as page:
        typer.echo(f"the page is at {page.url} (Ctrl+C ends it)")
        with suppress(KeyboardInterrupt):
            page.wait()
