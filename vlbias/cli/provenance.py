"""``vlbias provenance``: what pictures say of how they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbias.cli.application import app
from vlbias.errors import ImageError
from vlbias.shown import printable

if TYPE_CHECKING:
    from vlbias.provenance import Provenance


@app.command(epilog="Example: vlbias provenance out/face.png")
def provenance(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pictures, or folders of them.")],
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="CERT.pem", help="Sign synthetic pictures in place (C2PA) with this chain."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="KEY.pem", help="With --sign: its private key.")] = None,
    algorithm: Annotated[
        str, typer.Option("--algorithm", metavar="es256|es384|ps256|ed25519", help="With --sign: of the key.")
    ] = "es256",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line instead of sentences.")] = False,
) -> None:
    """What pictures say of how they were made: source type (IPTC), signature (C2PA), notes; and what is missing."""
    from vlbias.provenance import examine_provenance, read_provenance, sign_picture

    if (sign is None) != (key is None):
        raise typer.BadParameter("--sign and --key belong together", param_hint="--sign")
    num_silent = 0
    for path in _pictures(files):
        if sign is not None and key is not None and read_provenance(path).get("synthetic") == "true":
            found = sign_picture(path, sign, key, algorithm=algorithm)
        else:
            found = examine_provenance(path)
        if as_json:
            typer.echo(json.dumps(found.to_dict(), sort_keys=True))
        elif found.is_synthetic or path in files:
            typer.echo("\n".join(_lines(found)))
        else:
            num_silent += 1
    if num_silent:  # of a folder, one line for all photographs
        what = "1 picture says" if num_silent == 1 else f"{num_silent:,} pictures say"
        typer.echo(f"{what} nothing of being synthetic.")


def _pictures(files: list[Path]) -> list[Path]:
    from vlbias.images import IMAGE_SUFFIXES

    found: list[Path] = []
    for path in files:
        inside = path.rglob("*") if path.is_dir() else [path]
        found += sorted(
            item
            for item in inside
            if item == path
            or (item.suffix.lower() in IMAGE_SUFFIXES and not _is_hidden(item.relative_to(path)) and _is_own(item))
        )
    if not found:
        raise ImageError(f"{files[0]} has no picture. Give pictures, or a folder of them.")
    return found


def _is_own(path: Path) -> bool:
    """Whether a picture of a folder is in it: what a link leads to is another's, and would be signed in its place."""
    return path.is_file() and not path.is_symlink()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _lines(found: Provenance) -> list[str]:
    if not found.is_synthetic:
        return [f"{printable(found.path)}: says nothing of being synthetic."]
    lines = [f"{printable(found.path)}: synthetic"]
    lines += [f"  source type  {found.source_type}"] if found.source_type else []
    lines += [f"  C2PA         {found.manifest}"] if found.manifest != "none" else []
    lines += [f"  {key:<12} {printable(value)}" for key, value in sorted(found.said.items()) if key != "synthetic"]
    return lines + [f"  missing: {sentence}" for sentence in found.missing]
