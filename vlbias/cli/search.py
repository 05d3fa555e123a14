"""``vlbias search``: fair architectures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlbias.cli.application import app, typed_command
from vlbias.cli.options import (
    AddressOption,
    AmpOption,
    CoresOption,
    DeviceOption,
    EngineKind,
    EngineOption,
    FollowLinksOption,
    SeedOption,
    StudyNameOption,
    WorkersOption,
    engine_of,
    named_storage,
    open_faces,
    or_drawn,
)
from vlbias.cli.outputs import OverwriteOption, claim_folder
from vlbias.cli.parsing import columns_of, files_of, names_of, number_of, numbers_of
from vlbias.errors import ConfigError

if TYPE_CHECKING:
    from vlbias.data import FaceDataset
    from vlbias.search import Space

#: What ``Study.write`` and ``Study.save`` write.
FILES = ("trials.csv", "timing.csv", "trials.png", "front.csv", "groups.csv", "dominance.csv", "front.png", "best")
#: What ``report.write_search`` writes.
PAGES = ("report.html", "report.json")


def _faces_asked_for(spec: str, default: int) -> int:
    """The N of ``synthfaces:N``."""
    _, colon, count = spec.partition(":")
    if not colon:
        return default
    if not (count.isascii() and count.isdigit()):
        raise ConfigError(f"'{spec}': expected a number of faces after the colon, such as synthfaces:1200.")
    return int(count)


def _without_small_groups(faces: FaceDataset, columns: str | list[str], min_cell: int) -> FaceDataset:
    """The dataset without groups of fewer images; which they are is said on stderr."""
    from vlbias.labels import group_texts

    names = [columns] if isinstance(columns, str) else columns
    if min_cell < 2 or not set(names) <= set(faces.table.columns):
        return faces  # a column that is not there is named by the search
    groups = group_texts(faces.table, names)
    sizes = groups.value_counts()
    small = sizes[sizes < min_cell]
    if small.empty:
        return faces
    left_out = ", ".join(f"{name} ({count})" for name, count in small.items())
    typer.echo(f"Left out, fewer than {min_cell} images: {left_out}.", err=True)
    return faces.select(list(faces.table.index[~groups.isin(small.index)]))


def _rungs_of(text: str) -> list[int]:
    numbers = numbers_of(text, "--rungs")
    if any(number != int(number) for number in numbers):
        raise typer.BadParameter(f"expected whole epochs separated by commas; got '{text}'", param_hint="--rungs")
    return [int(number) for number in numbers]


def _range_of(text: str) -> tuple[str, tuple[float, float]]:
    """OPTIMIZER=LOW:HIGH."""
    option, form = "--learning-rate", "OPTIMIZER=LOW:HIGH such as sgd=0.01:0.5"
    name, _, ends = text.partition("=")
    low, colon, high = ends.partition(":")
    return name.strip(), (number_of(low, option, form, text), number_of(high if colon else low, option, form, text))


def _space(
    is_published: bool, has_edits: bool, *, learning_rates: list[str], pretrained: list[str], **names: str | None
) -> Space:
    """The published or a laptop's space with what was asked for in its place."""
    from vlbias import search as searches

    share = (0.0, 1.0) if has_edits else (0.0, 0.0)
    base = searches.published_space(share) if is_published else searches.laptop_space(share)
    chosen = {name: names_of(text, f"--{name}") for name, text in names.items() if text is not None}
    return searches.space(
        chosen.get("backbones", base.backbones),
        chosen.get("heads", base.heads),
        chosen.get("optimizers", base.optimizers),
        share,
        learning_rates={**base.learning_rates, **dict(map(_range_of, learning_rates))},
        skeleton=base.skeleton,
        embedding_size=base.embedding_size,
        pretrained=files_of(pretrained, "--pretrained", "BACKBONE=FILE such as resnet18=resnet18.safetensors"),
    )


@app.command(epilog="Example: vlbias search synthfaces out/search --protected skin --trials 20")
def search(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="synthfaces[:N] (drawn people), or a dataset's folder.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the study, its front and the best model.")],
    protected: Annotated[
        list[str],
        typer.Option(
            "--protected",
            metavar="COLUMN",
            help="Attribute that must not drive them; for synthfaces: skin. Repeatable, or COLUMN,COLUMN: every "
            "combination is a group.",
        ),
    ] = [],  # noqa: B006  (Typer reads it, nobody changes it)
    task: Annotated[str, typer.Option(metavar="NAME", help="identify or classify.")] = "identify",
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="Label of task classify.")] = None,
    subject: Annotated[
        str, typer.Option("--subject", "--identity", metavar="COLUMN", help="Person; never in two splits.")
    ] = "identity",
    balance_gallery: Annotated[
        bool,
        typer.Option("--balance-gallery/--natural-gallery", help="Equally many people of each group, or all."),
    ] = True,
    min_cell: Annotated[int, typer.Option(min=1, metavar="N", help="Groups of fewer images are left out.")] = 1,
    edits: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Edited images; their share becomes a searched variable.")
    ] = None,
    objectives: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Error and gap; else those that suit the task.")
    ] = None,
    max_error: Annotated[float, typer.Option(metavar="E", help="Trials with more are never on the front.")] = 0.9,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="tpe, nsga2 or random.")] = "tpe",
    image_size: Annotated[int, typer.Option(min=16, metavar="PX", help="Edge of the images in training.")] = 48,
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Trials in all, whoever runs them.")] = 16,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Largest budget of a trial.")] = 9,
    rungs: Annotated[
        str | None, typer.Option(metavar="N,...", help="Epochs at which trials are compared; else 1, 3, ... --epochs.")
    ] = None,
    backbones: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="timm architectures and dpn-cell; else a laptop's.")
    ] = None,
    heads: Annotated[str | None, typer.Option(metavar="NAME,...", help="cosface, arcface, magface, softmax.")] = None,
    optimizers: Annotated[str | None, typer.Option(metavar="NAME,...", help="adamw, adam, sgd.")] = None,
    mitigation: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="How training mitigates bias, searched if several: none, flipped, angular, discriminator, "
            "sensitivenets.",
        ),
    ] = "none",
    learning_rate: Annotated[
        list[str],
        typer.Option(metavar="OPTIMIZER=LOW:HIGH", help="Range of an optimizer, sgd=0.01:0.5. Repeatable."),
    ] = [],  # noqa: B006
    pretrained: Annotated[
        list[str],
        typer.Option(metavar="BACKBONE=FILE", help="Local timm weights that a backbone starts from. Repeatable."),
    ] = [],  # noqa: B006
    batch_size: Annotated[int, typer.Option(min=2, metavar="N", help="Images per step.")] = 64,
    device: DeviceOption = None,
    amp: AmpOption = False,
    refit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Refits of each candidate for the held-out front.")
    ] = 2,
    baselines: Annotated[
        str | None,
        typer.Option(metavar="NAME,...|all", help="Published networks beside the held-out front, dpn-cosface-sgd."),
    ] = None,
    published: Annotated[bool, typer.Option("--published-space", help="The paper's space; wants a GPU.")] = False,
    storage: Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="Journal file or database; else OUT/study.log.")
    ] = None,
    study_name: StudyNameOption = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For checkpoints; else beside the journal, or in OUT.")
    ] = None,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    engine: EngineOption = EngineKind.local,
    workers: WorkersOption = None,
    cores: CoresOption = None,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Search architectures and hyperparameters for the error/gap front; the same command elsewhere joins the study."""
    from vlbias import report
    from vlbias import search as searches
    from vlbias.search.baselines import baseline_names
    from vlbias.search.team import team

    machines = engine_of(engine, workers, cores, address)
    if dataset.partition(":")[0] == "synthfaces" and not Path(dataset).exists() and task == "identify":
        count = _faces_asked_for(dataset, 1200)
        faces: FaceDataset = searches.drawn_people(count, seed=seed, image_size=image_size)
    else:
        faces = open_faces(dataset, seed, follow_links=follow_links)
    columns = columns_of([or_drawn(",".join(protected) or None, "skin", "--protected", dataset)])
    faces = _without_small_groups(faces, columns, min_cell)
    budgets = None if rungs is None else _rungs_of(rungs)
    space = _space(
        published, edits is not None, backbones=backbones, heads=heads, optimizers=optimizers,
        learning_rates=learning_rate, pretrained=pretrained,
    )  # fmt: skip
    space = replace(space, mitigations=tuple(names_of(mitigation, "--mitigation")))
    place = named_storage(storage, study_name)
    beside = [] if baselines is None else baseline_names(names_of(baselines, "--baselines"))
    if beside and refit == 0:
        raise typer.BadParameter(
            "are trained for the comparison; that needs --refit 1 or more", param_hint="--baselines"
        )
    # More trials, or more refits of the candidates, are the same search carried on.
    job: dict[str, Any] = {
        "dataset": dataset,
        "protected": columns,
        "task": task,
        "target": target,
        "identity": subject,
    }
    job |= {"edits": None if edits is None else str(edits), "objectives": objectives, "max_error": max_error}
    job |= {"sampler": sampler, "image_size": image_size, "epochs": epochs, "published": published, "seed": seed}
    job |= {"balance_gallery": balance_gallery, "min_cell": min_cell, "rungs": budgets, "space": space.to_dict()}
    job |= {"batch_size": batch_size, "amp": amp}
    if team(device).is_first:
        claim_folder(out, "search", job, (*FILES, *PAGES), overwrite=overwrite)
    study = searches.run(
        faces,
        protected=columns,
        task=task,
        target=target,
        identity=subject,
        edits=None if edits is None else open_faces(str(edits), seed, follow_links=follow_links),
        image_size=image_size,
        balance_gallery=balance_gallery,
        objectives=None if objectives is None else names_of(objectives, "--objectives"),
        max_error=max_error,
        sampler=sampler,
        space=space,
        training=searches.TrainSettings(batch_size=batch_size, device=device, amp=amp),
        storage=place or str(out / "study.log"),
        folder=folder or (out / "study.files" if place and "://" in place else None),
        n_trials=trials,
        fidelity=("epochs", 1, epochs),
        rungs=budgets,
        seed=seed,
        engine=machines,
    )
    front = study.front(refit=refit, baselines=beside, engine=machines)
    study.write(out, front)
    best = study.best()
    study.save(best, out / "best", front)
    typer.echo(front.brief().to_string())
    typer.echo(front.verdict())
    typer.echo(". ".join(study.reliability()["advice"]) + ".")
    page = report.write_search(out, study, front, command=typed_command())
    typer.echo(f"Open {page}; the best model is in {out / 'best'} (trial {best.number})")
