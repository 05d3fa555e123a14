"""``vlbias search transfer``: the front of a search on other data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlbias.cli.application import app
from vlbias.cli.options import DeviceOption, FollowLinksOption, SeedOption, open_faces
from vlbias.cli.outputs import OverwriteOption, claim_folder
from vlbias.cli.parsing import columns_of

#: What is written, beside evaluations that a killed run goes on from.
FILES = ("transfer.json", "refits")


@app.command("search transfer", epilog="Example: vlbias search transfer out/search --data vggface2/ --protected gender")
def transfer(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="Folder of a search, its study.log, or a database URL.")
    ],
    data: Annotated[str, typer.Option("--data", metavar="DATASET", help="The other dataset, or the same.")],
    protected: Annotated[
        list[str], typer.Option("--protected", metavar="COLUMN", help="Groups there. Repeatable, or COLUMN,COLUMN.")
    ],
    subject: Annotated[str, typer.Option("--subject", "--identity", metavar="COLUMN", help="Person.")] = "identity",
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Label of task classify; else that of the search.")
    ] = None,
    refit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Trainings of each candidate there; 0 takes the search's networks.")
    ] = 2,
    device: DeviceOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="For transfer.json; a killed run goes on there.")
    ] = None,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Take the front of a search to another attribute or dataset: its numbers there, and whether their order holds."""
    from vlbias import search as searches

    place = Path(study) / "study.log" if Path(study).is_dir() else study
    found = searches.open_study(place)
    faces = open_faces(data, seed, follow_links=follow_links)
    columns = columns_of([",".join(protected)])
    if out is not None:
        job = {"study": study, "data": data, "protected": columns, "subject": subject, "target": target, "refit": refit}
        claim_folder(out, "search transfer", job | {"seed": seed}, FILES, overwrite=overwrite)
    moved = searches.transfer(
        found, faces, protected=columns, identity=subject, target=target, refit=refit, device=device, folder=out
    )
    typer.echo(moved.front.brief().to_string())
    typer.echo(moved.correlation.round(3).to_string())
    if out is not None:
        typer.echo(f"Wrote {moved.write(out / 'transfer.json')}")
