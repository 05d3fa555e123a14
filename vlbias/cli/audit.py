"""``vlbias audit``: classifiers of several training sets compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlbias.cli.application import app, typed_command
from vlbias.cli.options import (
    AddressOption,
    AmpOption,
    ChosenWorkersOption,
    CoresOption,
    DeviceOption,
    EngineKind,
    EngineOption,
    FollowLinksOption,
    ProtectedOption,
    SeedOption,
    TargetOption,
    arm_of,
    engine_of,
    open_editor,
    open_faces,
)
from vlbias.cli.outputs import OverwriteOption, claim_folder, refuse_inside
from vlbias.cli.parsing import columns_of, names_of
from vlbias.shown import printable

if TYPE_CHECKING:
    from vlbias.audit import AuditResult
    from vlbias.data import FaceDataset

#: What ``report.write_audit`` writes.
FILES = ("report.html", "report.json")


@app.command(epilog="Example: vlbias audit biased/ balanced/ --target smile --protected skin --seeds 3")
def audit(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET...", help="One or more training sets; the first is the baseline. With --arms, it alone."
        ),
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
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="ARM,...|all",
            help="Compare ways to train: erm,oversample,edits, ..., or MODULE:NAME; see docs/arms.md.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=DATASET",
            help="Further sets that arms use: balanced, prior, amplified, more, validation. Repeatable.",
        ),
    ] = None,
    editor: Annotated[
        str | None, typer.Option(metavar="NAME|FOLDER", help="Editor, for the arms that make pictures.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(metavar="NAME", help="How arms begin: from scratch, or fine-tune (from plain training).")
    ] = "scratch",
    tune: Annotated[bool, typer.Option(help="Tune arms on validation faces.")] = True,
    flips: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSIFIER",
            help="Measure instead how often a classifier's answer (a file, a folder, or a CSV of predictions) changes "
            "when only the protected attribute does: between DATASET and its edits, a second DATASET, those of "
            "--editor, or, of drawn faces, true counterfactuals.",
        ),
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column of the test set that says how much each face counts, such as survey weights."
        ),
    ] = None,
    backbone: Annotated[str | None, typer.Option(metavar="NAME", help="A timm architecture.")] = None,
    pretrained: Annotated[
        str | None, typer.Option(metavar="FILE", help="Local timm weights that the backbone starts from.")
    ] = None,
    device: DeviceOption = None,
    amp: AmpOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write report.html and report.json.")
    ] = None,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    engine: EngineOption = EngineKind.local,
    workers: ChosenWorkersOption = None,
    cores: CoresOption = None,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Fit the same classifier on each training set and compare accuracy and fairness on one test set."""
    from vlbias import audit as audits
    from vlbias.report.audits import summary_sentence

    columns, machines = columns_of(protected), engine_of(engine, workers, cores, address, auto=True)
    if flips is not None:
        if out is not None:
            refuse_inside(out, *datasets)
        faces = [open_faces(spec, seed, follow_links=follow_links) for spec in datasets]
        return _measure_flips(flips, faces, columns, editor, out, overwrite)
    names = None if arms is None else [arm_of(word, "--arms") for word in names_of(arms, "--arms")]
    further = _sets(sets or [], names, len(datasets))
    unused = {"--editor": editor is not None, "--protocol": protocol != "scratch", "--no-tune": not tune}
    for option in [option for option, is_given in unused.items() if is_given and names is None]:
        raise typer.BadParameter("goes with --arms", param_hint=option)
    opened = {}
    for number, spec in enumerate(datasets):
        label = "baseline" if number == 0 else Path(spec).name or spec
        label = label if label not in opened else f"{label} ({number + 1})"
        opened[label] = open_faces(spec, seed, follow_links=follow_links)
    changes: dict[str, Any] = {"loss": loss} | ({} if backbone is None else {"backbone": backbone})
    changes |= {} if steps is None else {"num_steps": steps}
    changes |= {} if pretrained is None else {"pretrained_file": pretrained}
    changes |= {"amp": True} if amp else {}
    changes |= {} if weight is None else {"weight": weight}
    how = {"arms": arms, "sets": sets, "editor": editor, "protocol": protocol, "tune": tune} if names else {}
    if out is not None:
        refuse_inside(out, *further.values())
        job = {"datasets": datasets, "target": target, "protected": columns, "test": test, "seeds": seeds}
        claim_folder(out, "audit", {**job, **changes, **how, "seed": seed}, FILES, overwrite=overwrite)
    common: dict[str, Any] = {
        "target": target,
        "protected": columns,
        "test": None if test is None else open_faces(test, seed, follow_links=follow_links),
        "seeds": seeds,
        "cache": None if out is None else out / "fits",
        "engine": machines,
        **changes,
        **({} if device is None else {"device": device}),
    }
    if names is None:
        result = audits.measure(opened, **common)
    else:
        given: dict[str, Any] = {
            name: open_faces(spec, seed, follow_links=follow_links) for name, spec in further.items()
        }
        given |= {} if editor is None else {"editor": open_editor(editor, clip=False)}
        result = audits.compare(opened["baseline"], arms=names, protocol=protocol, tune=tune, **given, **common)
    typer.echo(_measured(result) if names is None else _ranked(result))
    typer.echo("\n".join(map(printable, summary_sentence(result))))
    if out is not None:
        from vlbias import report

        compositions = [audits.composition(faces, target=target, protected=columns) for faces in opened.values()]
        typer.echo(f"Open {report.write_audit(out, result, compositions=compositions, command=typed_command())}")


def _measure_flips(
    classifier: str,
    faces: list[FaceDataset],
    protected: str | list[str],
    editor: str | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """``--flips``: the table on stdout, and a page with ``flips.json``."""
    from vlbias import audit as audits
    from vlbias import report as reports

    if len(faces) > 2 or not isinstance(protected, str):
        raise typer.BadParameter("takes one or two DATASETs and one protected attribute", param_hint="--flips")
    edited = faces[1] if len(faces) > 1 else None
    opened = None if editor is None or edited is not None else open_editor(editor, clip=False)
    if out is not None:
        job = {"flips": classifier, "faces": [one.name for one in faces], "protected": protected, "editor": editor}
        claim_folder(out, "audit", job, ("report.html", "flips.json"), overwrite=overwrite)
    report = audits.flips(classifier, faces[0], edited, protected=protected, editor=opened)
    typer.echo(report.table.round(3).dropna(axis="columns", how="all").to_string())
    if out is not None:
        typer.echo(f"Open {reports.write_flips(out, report, command=typed_command())}")


def _measured(result: AuditResult) -> str:
    """Every metric of every training set; the change from the first one where there are others."""
    columns = ["mean", "low", "high", *(["change"] if len(result.predictions) > 1 else [])]
    return str(result.table[columns].round(3).to_string())


def _ranked(result: AuditResult) -> str:
    """Arms, the smallest gap first, with the interval of that gap and who beats them."""
    import pandas as pd

    gap = "equalized_odds_difference"
    means = result.table["mean"].unstack("metric")
    shown = means[["accuracy", "balanced_accuracy", "accuracy_gap", "worst_cell_accuracy", gap]].round(3)
    of_gap = result.table.xs(gap, level="metric")[["low", "high"]].round(3)
    dominated = pd.Series({name: ", ".join(others) or "-" for name, others in result.dominated(gap).items()})
    rows = shown.join(of_gap).assign(dominated_by=dominated).rename_axis(index="arm")
    return str(rows.sort_values(gap).to_string())


#: Names of ``--set``.
SETS = ("balanced", "prior", "amplified", "more", "validation")


def _sets(texts: list[str], arms: Sequence[object] | None, num_datasets: int) -> dict[str, str]:
    """What ``--set`` says: name => dataset."""
    if arms is not None and num_datasets > 1:
        raise typer.BadParameter("with --arms, give one DATASET and the others by --set", param_hint="DATASET")
    found: dict[str, str] = {}
    for text in texts:
        name, equals, spec = text.partition("=")
        if not equals or not spec or name not in SETS or name in found:
            raise typer.BadParameter(
                f"expected NAME=DATASET with one of {', '.join(SETS)}; got '{text}'", param_hint="--set"
            )
        found[name] = spec
    if found and arms is None:
        raise typer.BadParameter("sets belong to --arms", param_hint="--set")
    return found
