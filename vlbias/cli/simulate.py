"""``vlbias simulate``: group compositions varied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vlbias.cli.application import app, typed_command
from vlbias.cli.options import (
    AddressOption,
    AmpOption,
    CoresOption,
    DatasetArgument,
    DeviceOption,
    EngineKind,
    EngineOption,
    FollowLinksOption,
    PolesOption,
    ProtectedOption,
    SeedOption,
    StudyNameOption,
    TiedTargetOption,
    WorkersOption,
    engine_of,
    named_storage,
    open_faces,
    or_drawn,
)
from vlbias.cli.outputs import OverwriteOption, claim_folder, refuse_inside
from vlbias.cli.parsing import columns_of, names_of, numbers_of, poles_of

#: What ``SimulationResult.write`` writes, and ``report.write_simulation``.
FILES = ("plan.json", "runs.csv", "timing.csv", "summary.csv", "verdicts.txt", "curves.png")
PAGES = ("report.html", "report.json")


@app.command(
    epilog="Example: vlbias simulate synthfaces:2000 out/simulate --target smile --protected skin --shares 0,0.25,0.5"
)
def simulate(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the table, the curves and the verdicts.")],
    target: TiedTargetOption = None,
    protected: ProtectedOption = [],  # noqa: B006  (Typer reads it, nobody changes it)
    focal: Annotated[str, typer.Option(metavar="GROUP,...|all", help="Groups whose share moves.")] = "all",
    shares: Annotated[str, typer.Option(metavar="S,...", help="Shares of the focal group.")] = "0,0.25,0.5",
    mode: Annotated[
        str, typer.Option(metavar="NAME,...", help="substitute, add, control; several are compared.")
    ] = "substitute",
    n: Annotated[int | None, typer.Option(min=4, metavar="N", help="Training images; else as many as fit.")] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Independent draws.")] = 3,
    subject: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Person, kept on one side of the split.")
    ] = None,
    editor: Annotated[
        str | None, typer.Option(metavar="E", help="Also reach each share with verified edits by this editor.")
    ] = None,
    poles: PolesOption = [],  # noqa: B006  (Typer reads it, nobody changes it)
    model: Annotated[str, typer.Option(metavar="NAME", help="timm backbone of the classifiers.")] = "resnet10t",
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Optimisation steps of a classifier.")] = 300,
    image_size: Annotated[int, typer.Option(min=16, metavar="PX", help="Edge of the classifier's images.")] = 48,
    min_cell: Annotated[
        int, typer.Option(min=1, metavar="N", help="Test images that a cell needs for parity measures.")
    ] = 5,
    label_noise: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="How groups were mislabelled, and so taken off: labelling.json, or a CSV, a line for each true group.",
        ),
    ] = None,
    noisy_splits: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --label-noise: both (as by default), train or test.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="Where results are shared; a PostgreSQL URL for several hosts."),
    ] = None,
    study_name: StudyNameOption = None,
    pretrained: Annotated[
        str | None, typer.Option(metavar="FILE", help="Local timm weights that the backbone starts from.")
    ] = None,
    device: DeviceOption = None,
    amp: AmpOption = False,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    engine: EngineOption = EngineKind.local,
    workers: WorkersOption = None,
    cores: CoresOption = None,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Train on varied group compositions and see how F1 and parity move; the same command resumes, or adds repeats."""
    from vlbias import report
    from vlbias import simulate as simulations

    places, machines = poles_of(poles), engine_of(engine, workers, cores, address)
    if places and editor is None:
        raise typer.BadParameter("says how edits are made, so it needs --editor", param_hint="--poles")
    if noisy_splits is not None and label_noise is None:
        raise typer.BadParameter("says where labels are wrong, so it needs --label-noise", param_hint="--noisy-splits")
    stored = named_storage(storage, study_name)
    faces = open_faces(dataset, seed, follow_links=follow_links)
    target = or_drawn(target, "smile", "--target", dataset)
    columns = columns_of(protected or [or_drawn(None, "skin", "--protected", dataset)])
    noise = None
    if label_noise is not None:
        column = columns if isinstance(columns, str) else None
        noise = simulations.LabelNoise.load(label_noise, column=column, splits=noisy_splits or "both")
    plan = simulations.plan(
        faces,
        target=target,
        protected=columns,
        focal=focal if focal == "all" else names_of(focal, "--focal"),
        shares=numbers_of(shares, "--shares"),
        n="max" if n is None else n,
        mode=names_of(mode, "--mode"),
        subject=subject,
        repeats=repeats,
        min_cell=min_cell,
        label_noise=noise,
        seed=seed,
    )
    fill: dict[str, Any] = {"real": None}
    if editor is not None:
        from vlbias.balance import Balancer
        from vlbias.editor import Editor

        fill["edited"] = Balancer(
            Editor.from_pretrained(editor), target=target, protected=columns, poles=places, seed=seed
        )
    job = {"plan": plan.design(), "model": model, "steps": steps, "image_size": image_size, "fill": list(fill)}
    refuse_inside(out, dataset)
    claim_folder(out, "simulate", job, (*FILES, *PAGES), overwrite=overwrite)
    typer.echo(str(plan), err=True)
    shared = out / "sim.files" if stored and "://" in stored else None
    changes: dict[str, Any] = {"num_steps": steps, "image_size": image_size, "device": device}
    changes |= {"amp": amp, "pretrained_file": pretrained, "engine": machines}
    place = stored or out / "sim.log"
    result = simulations.run(plan, faces, model=model, storage=place, folder=shared, fill=fill, **changes)
    result.write(out)
    for sentence in result.verdicts():
        typer.echo(sentence)
    typer.echo(f"Open {report.write_simulation(out, result, command=typed_command())}")
