"""``vlbias convert``: a published checkpoint as an editor folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlbias.cli.application import app
from vlbias.cli.outputs import OverwriteOption, claim_folder


@app.command(epilog="Example: vlbias convert ffhq256_autoenc/last.ckpt ffhq256/")
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="last.ckpt", help="A published DiffAE checkpoint.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Editor folder to write.")],
    paths: Annotated[
        Path | None, typer.Option("--paths", metavar="FOLDER", help="Published path checkpoint to take along.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Turn a published checkpoint into an editor folder (safetensors); no code of the file is run."""
    from vlbias.editor import Editor

    job = {"checkpoint": str(checkpoint), "paths": None if paths is None else str(paths)}
    editor = Editor.from_pretrained(str(checkpoint), paths=paths)
    claim_folder(out, "convert", job, overwrite=overwrite)
    editor.save_pretrained(out)
    config = editor.renderer.diffae.config
    prior = "with" if config.prior else "without"
    typer.echo(f"{out}: {config.image_size} px, z_sem of {config.embed_channels} numbers, {prior} latent prior")
