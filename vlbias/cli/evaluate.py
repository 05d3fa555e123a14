"""``vlbias search evaluate``: verification of a model, by group."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbias.cli.application import app
from vlbias.cli.options import FollowLinksOption, tell_problems
from vlbias.cli.outputs import OverwriteOption

if TYPE_CHECKING:
    from torch import nn

    from vlbias.networks import FaceNetwork


def _open_model(path: Path) -> nn.Module | FaceNetwork:
    """A model that a search saved, or a network of somebody else."""
    from vlbias.checkpoints import stays_inside
    from vlbias.files import read_object
    from vlbias.networks import load_network
    from vlbias.search import load_model

    config = (stays_inside(path) if path.is_dir() else path) / "config.json"
    if config.is_file() and str(read_object(config).get("format", "")).startswith("vlbias-search"):
        return load_model(path)
    return load_network(path, needs=("embedding",))


@app.command("search evaluate", epilog="Example: vlbias search evaluate out/search/best --pairs lfw.bin")
def evaluate(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Folder that a search saved, an .onnx file, or weights with a sidecar."),
    ],
    pairs: Annotated[
        Path, typer.Option("--pairs", metavar="FILE|FOLDER", help="A .bin, LFW's pairs.txt, a CSV, or RFW's folder.")
    ],
    images: Annotated[
        Path | None, typer.Option("--images", metavar="FOLDER", help="Pictures of a list; else the list's folder.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option("--groups", metavar="FILE", help="CSV: group, one row per pair; or identity,group.")
    ] = None,
    threshold: Annotated[
        str, typer.Option(metavar="NAME", help="group (as published) or common (as in use).")
    ] = "group",
    layout: Annotated[str, typer.Option(metavar="NAME", help="How faces lie in the pictures.")] = "arcface",
    follow_links: FollowLinksOption = False,
    impostors: Annotated[
        int, typer.Option(min=0, metavar="N", help="Further pairs of two people per group; FAR 1e-4 needs 10000.")
    ] = 0,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the table as CSV.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Accuracy in ten folds and true accepts at few false ones, by group, with intervals."""
    from vlbias.data.pairs import load_pairs
    from vlbias.errors import OutputError
    from vlbias.files import make_folder, write_file
    from vlbias.search.verification import verify

    if out is not None and out.exists() and not overwrite:
        raise OutputError(f"{out} already exists. Give another file, or add --overwrite.")
    if out is not None:
        make_folder(out.parent)  # known to be writable before the work
    found = load_pairs(pairs, images=images, groups=groups, follow_links=follow_links)
    tell_problems(found.problems)
    table = verify(_open_model(model), found, threshold=threshold, layout=layout, num_impostors=impostors)  # type: ignore[arg-type]  # checked there
    typer.echo(table.round(4).to_string())
    for key, value in table.attrs["summary"].items():
        if not key.endswith(("_low", "_high")):
            low, high = (table.attrs["summary"][f"{key}_{end}"] for end in ("low", "high"))
            typer.echo(f"{key}: {value:.4f} ({low:.4f} to {high:.4f})")
    for note in table.attrs["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(f"Intervals take {table.attrs['resampled']} as independent.")
    if out is not None:
        write_file(out, table.to_csv())
