"""``vlbias balance``: a balanced copy of a dataset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbias.cli.application import app
from vlbias.cli.options import (
    DEFAULT_EDITOR,
    DatasetArgument,
    EditorOption,
    ProtectedOption,
    SeedOption,
    TargetOption,
    open_editor,
    open_faces,
    protected_columns,
)

if TYPE_CHECKING:
    from vlbias.data import FaceDataset
    from vlbias.editor import Editor
    from vlbias.labelling import ColumnReport


class Mode(StrEnum):
    """Which way a plan moves the counts."""

    reduce = "reduce"
    amplify = "amplify"


class Source(StrEnum):
    """Where donors come from."""

    real = "real"
    prior = "prior"


class Originals(StrEnum):
    """What happens to the pictures that are not edited."""

    copy = "copy"
    link = "link"
    resize = "resize"
    omit = "omit"


@app.command(
    epilog="Example: vlbias balance synthfaces:1000 out/balanced --target smile --protected skin --limit 50 --dry-run"
)
def balance(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the balanced dataset.")],
    target: TargetOption,
    protected: ProtectedOption,
    editor: EditorOption = DEFAULT_EDITOR,
    mode: Annotated[
        Mode, typer.Option(help="Equalise the groups in each class, or amplify the bias for study.")
    ] = Mode.reduce,
    source: Annotated[
        Source, typer.Option(help="Edit the dataset's own faces, or faces from the prior.")
    ] = Source.real,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Plan at most N edits.")] = None,
    originals: Annotated[
        Originals, typer.Option(help="Copy, link, resize to the edits' size, or leave out the originals.")
    ] = Originals.copy,
    seed: SeedOption = 0,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do part I of N (1/4 ... 4/4); parts may run at once.")
    ] = None,
    chunk_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Edits computed and saved together; a kill loses at most as many.")
    ] = 32,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its price; write nothing.")] = False,
    label: Annotated[
        list[str],
        typer.Option(
            "--label",
            metavar="COLUMN=LABELLER",
            help="Let a machine fill a column: ita:ANGLE, monk, or 'clip:LABEL=PROMPT;LABEL=PROMPT'. A column of that "
            "name is replaced and scores the labeller. Repeatable.",
        ),
    ] = [],  # noqa: B006  (Typer reads it, nobody changes it)
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="P", help="With --label: leave out less confident labels.")
    ] = 0.0,
) -> None:
    """Write a balanced copy of DATASET; a run that was killed goes on where it stopped."""
    from vlbias.balance import Balancer

    part = _shard(shard)
    faces, model = open_faces(dataset, seed), open_editor(editor)
    faces, labelled = _labelled(faces, label, model, min_confidence)
    balancer = Balancer(
        model,
        target=target,
        protected=protected_columns(protected),
        mode=mode.value,
        source=source.value,
        seed=seed,
        chunk_size=chunk_size,
    )
    plan = balancer.plan(faces, limit=limit)
    typer.echo(plan.describe())
    if dry_run:
        return
    result = balancer.run(faces, plan, out, shard=part, originals=originals.value)
    if result.complete:
        from vlbias import report
        from vlbias.labelling import write_reports

        if labelled:
            write_reports(out, labelled)
        typer.echo(f"{result.summary()}\nOpen {report.write(out)}")
    else:
        typer.echo(result.summary())


def _labelled(
    faces: FaceDataset, wishes: list[str], model: Editor, min_confidence: float
) -> tuple[FaceDataset, list[ColumnReport]]:
    from vlbias.labelling import label_column, labeller_of, layout_of

    reports = []
    layout = layout_of(faces, model.layout)
    for wish in wishes:
        column, equals, words = wish.partition("=")
        if not (column and equals and words):
            raise typer.BadParameter(
                f"expected COLUMN=LABELLER such as skin=ita:28, got '{wish}'", param_hint="--label"
            )
        labeller = labeller_of(words, clip=model.clip, layout=layout)
        faces, report, score = label_column(faces, column, labeller, min_confidence=min_confidence)
        reports.append(report)
        typer.echo(f"{column}: {report.source}")
        typer.echo(str(score) if score is not None else f"{dict(report.counts)}; no given labels to score it against")
    return faces, reports


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        index, total = (int(part) for part in text.split("/"))
    except ValueError:
        raise typer.BadParameter(f"expected I/N such as 1/4, got '{text}'", param_hint="--shard") from None
    if not 1 <= index <= total:
        raise typer.BadParameter(f"I must lie in 1..N, got '{text}'", param_hint="--shard")
    return index - 1, total
