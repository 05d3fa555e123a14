"""Photographs in which the face lies anywhere: the options that find it, and what is told about it."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbias.cli.options import tell_problems

if TYPE_CHECKING:
    from vlbias.data import FaceDataset
    from vlbias.editor import Editor


class Write(StrEnum):
    """What becomes of an edit of a photograph."""

    whole = "whole"
    crop = "crop"


class Face(StrEnum):
    """Which face of a photograph is taken."""

    only = "only"
    largest = "largest"


AlignOption = Annotated[
    bool, typer.Option("--align", help="DATASET is photographs: find the face in each, and cut it for the editor.")
]
WriteOption = Annotated[
    Write | None,
    typer.Option(
        help="With --align: put edits back into the whole photographs (the default), or write the aligned crop of "
        "originals and edits alike."
    ),
]
FaceOption = Annotated[
    Face | None,
    typer.Option(help="With --align: leave photographs of several faces out (only, the default), or take the largest."),
]
LandmarksOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With --align: where found faces are kept, so that no photograph is searched twice; by default in the "
        "user's cache.",
    ),
]


def check_alignment(align: bool, write: Write | None, face: Face | None, landmarks: Path | None) -> None:
    """Refuse options that do nothing without ``--align``."""
    for option, value in (("--write", write), ("--face", face), ("--landmarks", landmarks)):
        if value is not None and not align:
            raise typer.BadParameter("goes with --align", param_hint=option)


def find_faces(
    photos: FaceDataset, model: Editor, write: Write | None, face: Face | None, landmarks: Path | None
) -> FaceDataset:
    """The faces in photographs, as the editor wants them; what is left out is told."""
    from vlbias.data import align_dataset

    faces = align_dataset(
        photos,
        layout=model.layout,
        write=(write or Write.whole).value,
        face=(face or Face.only).value,
        cache=landmarks,
    )
    left_out = faces.problems[len(photos.problems) :]
    tell_problems(left_out)
    counts = ", ".join(f"{code} {n}" for code, n in Counter(problem.code for problem in left_out).items())
    typer.echo(f"faces found in {len(faces)} of {len(photos)} photographs; left out: {counts or 'none'}")
    return faces
