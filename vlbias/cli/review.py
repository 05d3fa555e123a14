"""``vlbias review``: refuse edits of a finished run, or accept them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlbias.cli.application import app


@app.command(
    epilog="""\b
Example: vlbias review out/balanced train/edit-000003.png train/edit-000007.png --reason "odd teeth"
         vlbias balance ... out/balanced --review     (the command that made it, once more)"""
)
def review(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a finished balance run.")],
    pictures: Annotated[
        list[str],
        typer.Argument(metavar="PICTURE...", help="Edits, as OUT/metadata.csv names them: train/edit-000003.png."),
    ],
    accept: Annotated[bool, typer.Option("--accept", help="Accept them; without it they are refused.")] = False,
    reviewer: Annotated[str, typer.Option(metavar="NAME", help="Who decides; one name for each person.")] = "me",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for rejected.csv.")] = "",
) -> None:
    """Note in OUT/review.csv which edits people refuse; `vlbias balance ... OUT --review` then makes others."""
    from vlbias.balance.review import REVIEW_FILE, add_decisions, decide

    decisions = decide(out, pictures, "accept" if accept else "reject", reviewer=reviewer, reason=reason)
    add_decisions(out / REVIEW_FILE, decisions)
    word = "accepted" if accept else "refused"
    typer.echo(f"{len(decisions)} {word} in {out / REVIEW_FILE}. Run the command that made {out} again, with --review.")
