"""``vlbias search``: fair architectures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlbias.cli.application import app, typed_command
from vlbias.cli.options import FollowLinksOption, SeedOption, TiedProtectedOption, open_faces, or_drawn
from vlbias.cli.outputs import OverwriteOption, claim_folder
from vlbias.cli.parsing import names_of
from vlbias.errors import ConfigError

if TYPE_CHECKING:
    from vlbias.data import FaceDataset

#: What ``Study.write`` and ``Study.save`` write.
FILES = ("trials.csv", "timing.csv", "trials.png", "front.csv", "groups.csv", "dominance.csv", "front.png", "best")
PAGE = "report.html"


def _faces_asked_for(spec: str, default: int) -> int:
    """The N of ``synthfaces:N``."""
    _, colon, count = spec.partition(":")
    if not colon:
        return default
    if not (count.isascii() and count.isdigit()):
        raise ConfigError(f"'{spec}': expected a number of faces behind the colon, such as synthfaces:1200.")
    return int(count)


@app.command(epilog="Example: vlbias search synthfaces out/search --protected skin --trials 20")
def search(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="synthfaces[:N] (drawn people), or a dataset's folder.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the study, its front and the best model.")],
    protected: TiedProtectedOption = None,
    task: Annotated[str, typer.Option(metavar="NAME", help="identify or classify.")] = "identify",
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="Label of task classify.")] = None,
    identity: Annotated[str, typer.Option(metavar="COLUMN", help="Person of task identify.")] = "identity",
    edits: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Edited images; their share becomes a searched variable.")
    ] = None,
    objectives: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Error and gap; else those that suit the task.")
    ] = None,
    max_error: Annotated[float, typer.Option(metavar="E", help="Trials above are never on the front.")] = 0.9,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="tpe, nsga2 or random.")] = "tpe",
    image_size: Annotated[int, typer.Option(min=16, metavar="PX", help="Edge of the images in training.")] = 48,
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Trials in all, whoever runs them.")] = 16,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Largest budget of a trial.")] = 9,
    refit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Refits of each candidate for the held-out front.")
    ] = 2,
    published: Annotated[bool, typer.Option("--published-space", help="The paper's space; wants a GPU.")] = False,
    storage: Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="Journal file or database; else OUT/study.log.")
    ] = None,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Search architectures and hyperparameters for the error/gap front; the same command elsewhere joins the study."""
    from vlbias import report
    from vlbias import search as searches

    if dataset.partition(":")[0] == "synthfaces" and not Path(dataset).exists() and task == "identify":
        count = _faces_asked_for(dataset, 1200)
        faces: FaceDataset = searches.drawn_people(count, seed=seed, image_size=image_size)
    else:
        faces = open_faces(dataset, seed, follow_links=follow_links)
    protected = or_drawn(protected, "skin", "--protected", dataset)
    share = (0.0, 0.0) if edits is None else (0.0, 1.0)
    # More trials, or more refits of the candidates, are the same search carried on.
    job: dict[str, Any] = {
        "dataset": dataset,
        "protected": protected,
        "task": task,
        "target": target,
        "identity": identity,
    }
    job |= {"edits": None if edits is None else str(edits), "objectives": objectives, "max_error": max_error}
    job |= {"sampler": sampler, "image_size": image_size, "epochs": epochs, "published": published, "seed": seed}
    claim_folder(out, "search", job, (*FILES, PAGE), overwrite=overwrite)
    study = searches.run(
        faces,
        protected=protected,
        task=task,
        target=target,
        identity=identity,
        edits=None if edits is None else open_faces(str(edits), seed, follow_links=follow_links),
        image_size=image_size,
        objectives=None if objectives is None else names_of(objectives, "--objectives"),
        max_error=max_error,
        sampler=sampler,
        space=searches.published_space(share) if published else searches.laptop_space(share),
        storage=storage or str(out / "study.log"),
        n_trials=trials,
        fidelity=("epochs", 1, epochs),
        seed=seed,
    )
    front = study.front(refit=refit)
    study.write(out, front)
    study.save(study.best(), out / "best", front)
    typer.echo(front.table.round(4).to_string())
    typer.echo(front.verdict())
    page = report.write_search(out, study, front, command=typed_command())
    typer.echo(f"Open {page}; the best model is in {out / 'best'}")
