"""``vlbias demo``: the whole job on the embedded world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlbias.cli.application import app
from vlbias.cli.options import (
    DEFAULT_EDITOR,
    AddressOption,
    ChosenWorkersOption,
    CoresOption,
    EditorOption,
    EngineKind,
    EngineOption,
    SeedOption,
    engine_of,
    open_editor,
)


@app.command(epilog="Example: vlbias demo out/demo")
def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the result; made if missing.")],
    seed: SeedOption = 0,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Classifiers fitted on each dataset.")] = 3,
    faces: Annotated[int, typer.Option(min=100, metavar="N", help="Size of the biased dataset.")] = 400,
    editor: EditorOption = DEFAULT_EDITOR,
    engine: EngineOption = EngineKind.local,
    workers: ChosenWorkersOption = None,
    cores: CoresOption = None,
    address: AddressOption = None,
) -> None:
    """The whole job on the embedded world: biased set, edits, balanced set, classifiers before and after, report.

    Each worker has one thread unless --cores says otherwise, so that the numbers are the same on every machine.
    """
    from vlbias.demo import run_demo

    machines = engine_of(engine, workers, cores, address, auto=True)
    report = run_demo(out, editor=open_editor(editor), num_faces=faces, num_seeds=seeds, seed=seed, engine=machines)
    typer.echo(f"Open {report}")
