"""``vlbias audit``: classifiers of several training sets compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vlbias.cli.application import app, typed_command
from vlbias.cli.options import FollowLinksOption, ProtectedOption, SeedOption, TargetOption, open_faces
from vlbias.cli.outputs import OverwriteOption, claim_folder
from vlbias.cli.parsing import columns_of

#: What ``report.write_audit`` writes.
FILES = ("report.html", "report.json")


@app.command(epilog="Example: vlbias audit biased/ balanced/ --target smile --protected skin --seeds 3")
def audit(
    datasets: Annotated[
        list[str], typer.Argument(metavar="DATASET...", help="One or more training sets; the first is the baseline.")
    ],
    target: TargetOption,
    protected: ProtectedOption,
    test: Annotated[
        str | None, typer.Option("--test", metavar="DATASET", help="Common test set; else the first one's test split.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Classifiers fitted on each.")] = 5,
    loss: Annotated[str, typer.Option(metavar="NAME", help="cross_entropy or focal.")] = "cross_entropy",
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Optimisation steps of a classifier; fewer are quicker.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(metavar="NAME", help="A timm architecture.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write report.html and report.json.")
    ] = None,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Fit the same classifier on each training set and compare accuracy and fairness on one test set."""
    from vlbias import audit as audits

    columns = columns_of(protected)
    opened = {}
    for number, spec in enumerate(datasets):
        label = "baseline" if number == 0 else Path(spec).name or spec
        label = label if label not in opened else f"{label} ({number + 1})"
        opened[label] = open_faces(spec, seed, follow_links=follow_links)
    changes: dict[str, Any] = {"loss": loss} | ({} if backbone is None else {"backbone": backbone})
    changes |= {} if steps is None else {"num_steps": steps}
    if out is not None:
        job = {"datasets": datasets, "target": target, "protected": columns, "test": test, "seeds": seeds}
        claim_folder(out, "audit", {**job, **changes, "seed": seed}, FILES, overwrite=overwrite)
    result = audits.measure(
        opened,
        target=target,
        protected=columns,
        test=None if test is None else open_faces(test, seed, follow_links=follow_links),
        seeds=seeds,
        cache=None if out is None else out / "fits",
        **changes,
    )
    typer.echo(result.table[["mean", "low", "high", "change"]].round(3).to_string())
    if out is not None:
        from vlbias import report

        compositions = [audits.composition(faces, target=target, protected=columns) for faces in opened.values()]
        typer.echo(f"Open {report.write_audit(out, result, compositions=compositions, command=typed_command())}")
