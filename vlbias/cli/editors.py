"""``vlbias learn`` and ``vlbias paths``: what an editor can do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlbias.cli.application import app, typed_command
from vlbias.cli.options import (
    DEFAULT_EDITOR,
    EditorOption,
    FollowLinksOption,
    PushOption,
    SeedOption,
    open_editor,
    open_faces,
)
from vlbias.cli.outputs import OverwriteOption, claim_folder
from vlbias.errors import ConfigError

if TYPE_CHECKING:
    from vlbias.data import FaceDataset
    from vlbias.editor import Editor

#: Faces of the split "train" that paths are learned on where several are compared.
MAX_LEARNED = 1000
#: Faces that are walked where CLIP reads them: each is inverted, and decoded for every path.
MAX_WALKED = 100


@app.command(
    epilog="Example: vlbias learn smile --positive 'a smiling person' --negative 'a person who is not smiling' "
    "--images synthfaces:800 --out my-editor"
)
def learn(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the path will be called.")],
    positive: Annotated[list[str], typer.Option("--positive", metavar="TEXT", help="Text of the + pole; repeatable.")],
    negative: Annotated[list[str], typer.Option("--negative", metavar="TEXT", help="Text of the - pole; repeatable.")],
    images: Annotated[str, typer.Option("--images", metavar="DATASET", help="Faces to learn on; no labels needed.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Editor folder to write.")],
    editor: EditorOption = DEFAULT_EDITOR,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Optimisation steps.")] = None,
    limit: Annotated[int, typer.Option(min=16, metavar="N", help="Use at most N faces, drawn by the seed.")] = 1500,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
    push_to_hub: PushOption = None,
) -> None:
    """Learn a new path from two texts; the editor with it is written to FOLDER."""
    from vlbias.paths import Dipole

    job: dict[str, Any] = {"name": name, "positive": positive, "negative": negative, "images": images, "editor": editor}
    job |= {"steps": steps, "limit": limit, "seed": seed}
    dipole = Dipole(tuple(positive), tuple(negative))
    model = open_editor(editor)
    model.check_new_path(name)
    claim_folder(out, "learn", job, overwrite=overwrite)
    faces = open_faces(images, seed, follow_links=follow_links)
    faces = faces.sample(limit, seed=seed)
    x = faces.tensor(faces.ids, model.image_size)
    settings: dict[str, Any] = {} if steps is None else {"steps": steps}
    model.learn(name, dipole, x, seed=seed, **settings)
    model.save_pretrained(out)
    paths = model.renderer.paths
    record = {} if paths is None else paths.calibration.get(name, {})
    for direction, found in record.items():
        state = "reached" if found.get("reached") else "did not reach"
        typer.echo(f"{name} {direction}: {state} the other pole")
    typer.echo(f"{out}: paths {', '.join(model.attributes)}")
    if push_to_hub is not None:
        typer.echo(model.push_to_hub(push_to_hub))


@app.command(epilog="Example: vlbias paths synthfaces-64 --images synthfaces:100 --out out/paths")
def paths(
    editor: Annotated[str, typer.Argument(metavar="EDITOR", help="Editor checkpoint.")] = DEFAULT_EDITOR,
    images: Annotated[
        str | None,
        typer.Option("--images", metavar="DATASET", help="Unseen faces: synthfaces:60, with --labels synthfaces:1500."),
    ] = None,
    strength: Annotated[float, typer.Option(metavar="S", help="Strength of the walks.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write report.html and report.json.")
    ] = None,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels",
            help="With --out: read by classifiers of the dataset's labels in CLIP's place, at several strengths and, "
            "of drawn faces, beside the truth; writes paths.json.",
        ),
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Like --labels, and beside newly learned paths: RBF, linear, affine, logistic, as published.",
        ),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Optimisation steps of paths that --compare learns.")
    ] = None,
    reader_steps: Annotated[
        int | None,
        typer.Option("--reader-steps", min=1, metavar="N", help="Optimisation steps of each classifier of --labels."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Walk at most N faces, drawn by the seed [100; with --labels 60 of each value]."
        ),
    ] = None,
    seed: SeedOption = 4242,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """What each path does to faces: success, identity kept, drift of every other reading, by CLIP or by labels."""
    from vlbias.paths import measure_paths

    if steps is not None and not compare:
        raise typer.BadParameter("goes with --compare", param_hint="--steps")
    if strength != 1 and (labels or compare):
        raise typer.BadParameter("--labels measures at .5, 1 and 1.5", param_hint="--strength")
    if reader_steps is not None and not (labels or compare):
        raise typer.BadParameter("goes with --labels or --compare", param_hint="--reader-steps")
    if out is not None:
        job: dict[str, Any] = {"editor": editor, "images": images, "strength": strength, "seed": seed}
        if labels or compare:
            asked: dict[str, Any] = {"compare": compare, "steps": steps, "reader_steps": reader_steps, "limit": limit}
            job |= {"labels": True} | asked
            claim_folder(out, "paths", job, ("report.html", "paths.json"), overwrite=overwrite)
            faces = open_faces(images or "synthfaces:1500", seed, follow_links=follow_links)
            return _write_drift(out, open_editor(editor), faces, seed=seed, **asked)
        claim_folder(out, "paths", job | {"limit": limit}, ("report.html", "report.json"), overwrite=overwrite)
    elif labels or compare:
        raise typer.BadParameter("goes with --out FOLDER", param_hint="--compare" if compare else "--labels")
    model = open_editor(editor)
    parts = model.renderer
    if parts.paths is None or parts.clip is None:
        raise ConfigError(f"'{model.name}' has no paths or no CLIP to measure them with.")
    faces = open_faces(images or "synthfaces:60", seed, follow_links=follow_links)
    faces = faces.sample(limit or MAX_WALKED, seed=seed)
    x = faces.tensor(faces.ids, model.image_size)
    report = measure_paths(parts.paths, parts.diffae, parts.clip, parts.dipoles, x, strength=strength)
    for title, table in (
        ("Walks: share that reads as the other pole, identity (cosine), faces", report.summary),
        ("Share of faces whose reading changed sides", report.changed),
        ("Mean change of each reading, 1 = the distance between its poles", report.moved),
    ):
        typer.echo(f"{title}\n{table.round(2).to_string()}\n")
    if out is not None:
        from vlbias.report import write_paths

        strips = [
            (name, model.strip(face, name, reach=abs(strength), check=False))
            for name in model.attributes
            for face in map(faces.image, faces.ids[:2])
        ]
        page = write_paths(out, model, report, strips=strips, strength=strength, command=typed_command())
        typer.echo(f"Open {page}")


def _write_drift(
    out: Path,
    editor: Editor,
    faces: FaceDataset,
    *,
    compare: bool,
    steps: int | None,
    reader_steps: int | None,
    limit: int | None,
    seed: int,
) -> None:
    """``--labels``: the page, and a table of the variants."""
    from vlbias import audit, report
    from vlbias.paths import PathTrainingSettings

    renderer = editor.renderer
    if renderer.paths is None:
        raise ConfigError(f"'{editor.name}' has no paths to measure.")
    paths: dict[str, audit.Walks] = {"as it is": audit.Walks(renderer)}
    if compare:
        changes: dict[str, Any] = {} if steps is None else {"steps": steps}
        taught = audit.taught_faces(faces).sample(MAX_LEARNED, seed=seed)
        x_0 = taught.tensor(taught.ids, renderer.image_size)
        paths = audit.path_variants(renderer, x_0, settings=PathTrainingSettings.from_dict(changes))
    reading = audit.DriftSettings(seed=seed)
    if limit is not None:
        reading = replace(reading, num_faces=limit)
    if reader_steps is not None:
        reading = replace(reading, fit=replace(reading.fit, num_steps=reader_steps))
    measured = audit.drift(paths, faces, settings=reading)
    typer.echo(measured.summary().join(measured.costs).round(3).to_string())
    typer.echo(f"Open {report.write_drift(out, measured, command=typed_command())}")
