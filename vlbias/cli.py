"""The command line: thin, one function a command."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlbias import __version__
from vlbias.errors import ConfigError, ImageError, OutputError, VlbiasError

if TYPE_CHECKING:
    from PIL import Image

    from vlbias.data import FaceDataset
    from vlbias.editor import Editor
    from vlbias.labelling import ColumnReport

__all__ = ["app", "main"]

app = typer.Typer(
    name="vlbias",
    help="Measure and mitigate bias in face datasets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train the networks of an editor; every run resumes after a kill.", no_args_is_help=True)
app.add_typer(train_app, name="train")

DEFAULT_EDITOR = "synthfaces-64"

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="synthfaces[:N], or a dataset's folder.")]
EditorOption = Annotated[str, typer.Option("--editor", metavar="NAME|FOLDER", help="Editor checkpoint.")]
TargetOption = Annotated[str, typer.Option("--target", metavar="COLUMN", help="Attribute that classifiers predict.")]
ProtectedOption = Annotated[
    str, typer.Option("--protected", metavar="COLUMN[,COLUMN]", help="Attribute that must not drive them.")
]
TiedTargetOption = Annotated[
    str | None, typer.Option("--target", metavar="COLUMN", help="What classifiers predict; for synthfaces: smile.")
]
TiedProtectedOption = Annotated[
    str | None,
    typer.Option("--protected", metavar="COLUMN", help="Attribute that must not drive them; for synthfaces: skin."),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="S", help="Seed of all that is drawn.")]


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


def _version(show: bool) -> None:
    if show:
        typer.echo(f"vlbias {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    import torch

    # Denormal numbers make CPU convolutions crawl once weights or activations decay towards zero.
    torch.set_flush_denormal(True)


def _editor(name: str, clip: str | None = None) -> Editor:
    from vlbias.editor import Editor

    return Editor.from_pretrained(name, clip=clip)


def _dataset(spec: str, seed: int = 0) -> FaceDataset:
    from vlbias.data import open_dataset

    dataset = open_dataset(spec, seed=seed)
    for problem in dataset.problems[:3]:
        typer.echo(f"note: {problem.file}: {problem.code}: {problem.detail}", err=True)
    more = len(dataset.problems) - 3
    if more > 0:
        typer.echo(f"note: {more} more like these. What is left out is listed in a report.", err=True)
    return dataset


def _protected(columns: str) -> str | list[str]:
    names = [name.strip() for name in columns.split(",") if name.strip()]
    return names[0] if len(names) == 1 else names


# -- the whole job --------------------------------------------------------------------------------------------------


@app.command(epilog="Example: vlbias demo out/demo")
def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the result; made if missing.")],
    seed: SeedOption = 0,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Classifiers fitted on each dataset.")] = 3,
    faces: Annotated[int, typer.Option(min=100, metavar="N", help="Size of the biased dataset.")] = 400,
    editor: EditorOption = DEFAULT_EDITOR,
) -> None:
    """The whole job on the embedded world: biased set, edits, balanced set, classifiers before and after, report."""
    from vlbias.demo import run_demo

    report = run_demo(out, editor=_editor(editor), num_faces=faces, num_seeds=seeds, seed=seed)
    typer.echo(f"Open {report}")


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
    faces, model = _dataset(dataset, seed), _editor(editor)
    faces, labelled = _labelled(faces, label, model, min_confidence)
    balancer = Balancer(
        model,
        target=target,
        protected=_protected(protected),
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


# -- single pictures ------------------------------------------------------------------------------------------------


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: vlbias edit face.png out/ --age 1 --skin-tone -0.5",
)
def edit(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="IMAGE... OUT", help="Pictures, then the folder for results.")],
    editor: EditorOption = DEFAULT_EDITOR,
    seed: Annotated[int | None, typer.Option(metavar="S", help="Draw a fresh stochastic code.")] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Find the face in each photo, edit it and put it back into the whole photo.")
    ] = False,
    face: Annotated[
        str, typer.Option("--face", metavar="only|largest|N", help="With --align: which face, N counted from the left.")
    ] = "only",
) -> None:
    """Edit pictures: one --ATTRIBUTE STRENGTH for each path of the editor (vlbias paths EDITOR lists them)."""
    from vlbias.images import open_image, save_png

    # Typer hands unknown options and their values over among the arguments, in order.
    files, given = _split_strengths([*map(str, paths), *context.args])
    strengths: dict[str, Any] = dict(given)
    if len(files) < 2:
        raise typer.BadParameter("give at least one picture and the output folder", param_hint="IMAGE... OUT")
    *sources, out = map(Path, files)
    model = _editor(editor)
    pictures = [open_image(source) for source in sources]
    names = _distinct_names(sources)
    _make_folder(out)
    if align:
        edited = [_edit_photo(model, *item, face, seed, strengths) for item in zip(sources, pictures, strict=True)]
    else:
        edited = model.edit(pictures, seed=seed, **strengths)
    for name, source, picture in zip(names, sources, edited, strict=True):
        provenance = {"synthetic": "true", "editor": model.name, "source": source.name, "edits": str(strengths)}
        save_png(picture, out / name, provenance)
        typer.echo(out / name)


def _edit_photo(
    model: Editor, source: Path, photo: Image.Image, face: str, seed: int | None, strengths: dict[str, Any]
) -> Image.Image:
    choice = int(face) if face.isdigit() else face
    try:
        return model.edit(photo, seed=seed, align=True, face=choice, **strengths)
    except ImageError as error:
        text = str(error).replace("face=0", "--face 0").replace("face='largest'", "--face largest")
        raise ImageError(f"{source}: {text}") from error


def _split_strengths(arguments: list[str]) -> tuple[list[str], dict[str, float]]:
    files: list[str] = []
    strengths: dict[str, float] = {}
    queue = iter(arguments)
    for argument in queue:
        if not argument.startswith("--"):
            files.append(argument)
            continue
        name, _, value = argument[2:].partition("=")
        value = value or next(queue, "")
        try:
            strengths[name.replace("-", "_")] = float(value)
        except ValueError:
            raise typer.BadParameter(f"needs a number, got '{value}'", param_hint=f"--{name}") from None
    return files, strengths


def _distinct_names(sources: list[Path]) -> list[str]:
    names = [f"{source.stem}.png" for source in sources]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ConfigError(f"several pictures would be written as {sorted(doubled)[0]}; rename them or edit them apart.")
    return names


def _make_folder(folder: Path) -> None:
    """Make a folder for results, before the work that fills it."""
    if folder.is_file():
        raise OutputError(f"{folder} is a file. Give a folder for the results.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the folder {folder}: {error.strerror}. Choose another place.") from error


@app.command(epilog="Example: vlbias strip face.png age.png --path age --steps 7")
def strip(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of a face.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="Where the strip is written.")],
    path: Annotated[str, typer.Option("--path", metavar="ATTRIBUTE", help="The path to walk.")],
    steps: Annotated[int, typer.Option(min=2, max=25, metavar="N", help="Pictures in the strip.")] = 7,
    reach: Annotated[float, typer.Option(metavar="R", help="Walk from strength -R to +R.")] = 1.0,
    editor: EditorOption = DEFAULT_EDITOR,
) -> None:
    """One picture, a path walked: a strip from the negative to the positive pole."""
    from vlbias.images import open_image, save_png

    if out.suffix.lower() != ".png":
        raise ConfigError(f"the strip is written as PNG, so OUT must end in .png; got {out}.")
    _make_folder(out.parent)
    model = _editor(editor)
    sheet = model.strip(open_image(image), path, steps=steps, reach=reach)
    save_png(sheet, out, {"synthetic": "true", "editor": model.name, "source": image.name, "path": path})
    typer.echo(out)


# -- editors --------------------------------------------------------------------------------------------------------


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
    limit: Annotated[int, typer.Option(min=16, metavar="N", help="Use at most N faces.")] = 1500,
    seed: SeedOption = 0,
) -> None:
    """Learn a new path from two texts; the editor with it is written to FOLDER."""
    from vlbias.paths import Dipole

    _make_folder(out)
    if any(out.iterdir()) and not (out / "config.json").is_file():
        raise OutputError(f"{out} holds something else than an editor. Give a new or empty folder.")
    model = _editor(editor)
    faces = _dataset(images, seed)
    x = faces.tensor(faces.ids[:limit], model.image_size)
    settings: dict[str, Any] = {} if steps is None else {"steps": steps}
    model.learn(name, Dipole(tuple(positive), tuple(negative)), x, seed=seed, **settings)
    model.save_pretrained(out)
    record = model.paths.calibration.get(name, {}) if model.paths is not None else {}
    for direction, found in record.items():
        state = "reached" if found.get("reached") else "did not reach"
        typer.echo(f"{name} {direction}: {state} the other pole")
    typer.echo(f"{out}: paths {', '.join(model.attributes)}")


@app.command(epilog="Example: vlbias paths synthfaces-64 --images synthfaces:100")
def paths(
    editor: Annotated[str, typer.Argument(metavar="EDITOR", help="Editor checkpoint.")] = DEFAULT_EDITOR,
    images: Annotated[
        str, typer.Option("--images", metavar="DATASET", help="Unseen faces to measure on.")
    ] = "synthfaces:60",
    strength: Annotated[float, typer.Option(metavar="S", help="Strength of the walks.")] = 1.0,
    seed: SeedOption = 4242,
) -> None:
    """What each path does to decoded faces, read by CLIP: success, identity kept, drift of every other reading."""
    from vlbias.paths import measure_paths

    model = _editor(editor)
    if model.paths is None or model.clip is None:
        raise ConfigError(f"'{model.name}' has no paths or no CLIP to measure them with.")
    faces = _dataset(images, seed)
    x = faces.tensor(faces.ids, model.image_size)
    report = measure_paths(model.paths, model.diffae, model.clip, model.dipoles, x, strength=strength)
    for title, table in (
        ("Walks: share that reads as the other pole, identity (cosine), faces", report.summary),
        ("Share of faces whose reading changed sides", report.changed),
        ("Mean change of each reading, 1 = the distance between its poles", report.moved),
    ):
        typer.echo(f"{title}\n{table.round(2).to_string()}\n")


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
    backbone: Annotated[str | None, typer.Option(metavar="NAME", help="A timm architecture.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write report.html and report.json.")
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Fit the same classifier on each training set and compare accuracy and fairness on one test set."""
    from vlbias import audit as audits

    opened = {}
    for number, spec in enumerate(datasets):
        label = "baseline" if number == 0 else Path(spec).name or spec
        opened[label if label not in opened else f"{label} ({number + 1})"] = _dataset(spec, seed)
    changes: dict[str, Any] = {"loss": loss} | ({} if backbone is None else {"backbone": backbone})
    if out is not None:
        _make_folder(out)
    result = audits.measure(
        opened,
        target=target,
        protected=_protected(protected),
        test=None if test is None else _dataset(test, seed),
        seeds=seeds,
        cache=None if out is None else out / "fits",
        **changes,
    )
    typer.echo(result.table[["mean", "low", "high", "change"]].round(3).to_string())
    if out is not None:
        from vlbias import report

        compositions = [
            audits.composition(faces, target=target, protected=_protected(protected)) for faces in opened.values()
        ]
        typer.echo(f"Open {report.write_audit(out, result, compositions=compositions)}")


@app.command(epilog="Example: vlbias convert ffhq256_autoenc/last.ckpt ffhq256/")
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="last.ckpt", help="A published DiffAE checkpoint.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Editor folder to write.")],
    paths: Annotated[
        Path | None, typer.Option("--paths", metavar="FOLDER", help="Published path checkpoint to take along.")
    ] = None,
) -> None:
    """Turn a published checkpoint into an editor folder (safetensors); no code of the file is run."""
    from vlbias.editor import Editor

    editor = Editor.from_pretrained(str(checkpoint), paths=paths)
    editor.save_pretrained(out)
    config = editor.diffae.config
    prior = "with" if config.prior else "without"
    typer.echo(f"{out}: {config.image_size} px, z_sem of {config.embed_channels} numbers, {prior} latent prior")


@app.command(epilog="Example: vlbias doctor")
def doctor() -> None:
    """Versions, devices, memory, checkpoints: what is here, what is not, and what to do about it."""
    from vlbias.doctor import examine

    findings = examine()
    marks = {"ok": "ok", "missing": "- ", "broken": "!!"}
    for finding in findings:
        typer.echo(f"{marks[finding.state]} {finding.topic}: {finding.detail}")
        if finding.remedy:
            typer.echo(f"     {finding.remedy}")
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


# -- studies --------------------------------------------------------------------------------------------------------


@app.command(
    epilog="Example: vlbias simulate synthfaces:2000 out/simulate --target smile --protected skin --shares 0,0.25,0.5"
)
def simulate(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for table, curves and verdicts.")],
    target: TiedTargetOption = None,
    protected: TiedProtectedOption = None,
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
    model: Annotated[str, typer.Option(metavar="NAME", help="timm backbone of the classifiers.")] = "resnet10t",
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Optimisation steps of a classifier.")] = 300,
    image_size: Annotated[int, typer.Option(min=16, metavar="PX", help="Edge of the classifier's images.")] = 48,
    seed: SeedOption = 0,
) -> None:
    """Train on varied group compositions and see how F1 and parity move; the same command resumes, or joins a run."""
    from vlbias import simulate as simulations

    faces = _dataset(dataset, seed)
    target = _or_drawn(target, "smile", "--target", dataset)
    protected = _or_drawn(protected, "skin", "--protected", dataset)
    plan = simulations.plan(
        faces,
        target=target,
        protected=protected,
        focal=focal if focal == "all" else focal.split(","),
        shares=_numbers(shares, "--shares"),
        n="max" if n is None else n,
        mode=mode.split(","),
        subject=subject,
        repeats=repeats,
        seed=seed,
    )
    fill: dict[str, Any] = {"real": None}
    if editor is not None:
        from vlbias.balance import Balancer
        from vlbias.editor import Editor

        fill["edited"] = Balancer(Editor.from_pretrained(editor), target=target, protected=protected, seed=seed)
    _make_folder(out)
    typer.echo(str(plan), err=True)
    result = simulations.run(
        plan, faces, model=model, storage=out / "sim.log", fill=fill, num_steps=steps, image_size=image_size
    )
    result.write(out)
    for sentence in result.verdicts():
        typer.echo(sentence)
    typer.echo(f"Open {out / 'curves.png'}")


def _or_drawn(given: str | None, drawn: str, option: str, dataset: str) -> str:
    """The column asked for; the embedded world has one to fall back on, other datasets must name theirs."""
    if given is None and (dataset.partition(":")[0] != "synthfaces" or Path(dataset).exists()):
        raise typer.BadParameter("this dataset needs it named", param_hint=option)
    return given or drawn


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"expected numbers apart by commas, got '{text}'", param_hint=option) from None


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
) -> None:
    """Search architectures and hyperparameters for the error/gap front; the same command elsewhere joins the study."""
    from vlbias import search as searches

    if dataset.partition(":")[0] == "synthfaces" and not Path(dataset).exists() and task == "identify":
        count = _faces_asked_for(dataset, 1200)
        faces = searches.drawn_people(count, seed=seed, image_size=image_size)
    else:
        faces = _dataset(dataset, seed)
    protected = _or_drawn(protected, "skin", "--protected", dataset)
    share = (0.0, 0.0) if edits is None else (0.0, 1.0)
    _make_folder(out)
    study = searches.run(
        faces,
        protected=protected,
        task=task,
        target=target,
        identity=identity,
        edits=None if edits is None else _dataset(str(edits), seed),
        image_size=image_size,
        objectives=None if objectives is None else objectives.split(","),
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
    typer.echo(f"Open {out / 'front.png'}; the best model is in {out / 'best'}")


# -- training -------------------------------------------------------------------------------------------------------

OutOption = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the result and the state go.")]
ImagesOption = Annotated[int, typer.Option("--images", min=16, metavar="N", help="Images to show, with repetition.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the state that FOLDER holds.")]


@train_app.command("editor", epilog="Example: vlbias train editor synthfaces:30000 my-editor --aux age,smile,glasses")
def train_editor(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Editor folder to write.")],
    clip_images: Annotated[int, typer.Option(min=16, metavar="N", help="Images shown to the CLIP.")] = 60_000,
    diffae_images: Annotated[int, typer.Option(min=16, metavar="N", help="Images shown to the autoencoder.")] = 100_000,
    aux: Annotated[str, typer.Option(metavar="COLUMN,...", help="Labels that z_sem must hold, by a linear head.")] = "",
    path_names: Annotated[str, typer.Option("--paths", metavar="NAME,...", help="Paths to learn.")] = "age,skin_tone",
    seed: SeedOption = 0,
) -> None:
    """All stages: CLIP, autoencoder, prior, probes, paths. The same command goes on after a kill."""
    from vlbias.building import BuildSettings, build_editor

    settings = BuildSettings(
        clip_images=clip_images,
        diffae_images=diffae_images,
        aux_columns=tuple(filter(None, aux.split(","))),
        paths=tuple(filter(None, path_names.split(","))),
    )
    editor = build_editor(_dataset(dataset, seed), out, settings=settings, seed=seed)
    typer.echo(f"{out}: paths {', '.join(editor.attributes)}")


@train_app.command("clip", epilog="Example: vlbias train clip synthfaces:30000 --out clip --images 60000")
def train_clip_command(
    dataset: DatasetArgument, out: OutOption, images: ImagesOption = 60_000, seed: SeedOption = 0
) -> None:
    """A small CLIP on captions made of the dataset's labels."""
    import torch

    from vlbias.building import BuildSettings, build_clip, caption_source, training_images

    _make_folder(out)
    faces = _dataset(dataset, seed).split("train")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = training_images(faces, 64)
    settings = BuildSettings(clip_images=images)
    build_clip(pictures, caption_source(faces, seed=seed), settings, out, seed=seed, device=device).save_pretrained(out)
    typer.echo(out)


@train_app.command("diffae", epilog="Example: vlbias train diffae photos/ --out diffae --images 100000 --resume")
def train_diffae_command(
    dataset: DatasetArgument,
    out: OutOption,
    images: ImagesOption = 100_000,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="DiffAEConfig as JSON; else the shipped small one.")
    ] = None,
    aux: Annotated[str, typer.Option(metavar="COLUMN,...", help="Labels that z_sem must hold, by a linear head.")] = "",
    resume: ResumeOption = False,
    seed: SeedOption = 0,
) -> None:
    """A diffusion autoencoder; FOLDER/model is loadable at any time, FOLDER/samples shows how far it is."""
    from vlbias.building import (
        SMALL_DIFFAE,
        BuildSettings,
        build_diffae,
        held_out_images,
        label_features,
        training_images,
    )
    from vlbias.checkpoints import read_json
    from vlbias.diffae import DiffAEConfig

    if (out / "state.pt").exists() and not resume:
        raise ConfigError(f"{out} holds the state of a run. Add --resume to go on, or choose another folder.")
    architecture = SMALL_DIFFAE if config is None else DiffAEConfig.from_dict(read_json(config))
    columns = tuple(filter(None, aux.split(",")))
    faces = _dataset(dataset, seed)
    train = faces.split("train")
    settings = BuildSettings(diffae_images=images, aux_columns=columns, diffae=architecture)
    features = label_features(train.table, columns) if columns else None
    held_out = held_out_images(faces, architecture.image_size)
    pictures = training_images(train, architecture.image_size)
    build_diffae(pictures, settings, out, held_out=held_out, aux=features, seed=seed)
    typer.echo(out / "model")


@train_app.command("prior", epilog="Example: vlbias train prior synthfaces:5000 --diffae diffae/model --out with-prior")
def train_prior_command(
    dataset: DatasetArgument,
    diffae: Annotated[Path, typer.Option("--diffae", metavar="FOLDER", help="A trained autoencoder.")],
    out: OutOption,
    seed: SeedOption = 0,
) -> None:
    """A latent prior for a trained autoencoder, from the codes of a dataset; minutes."""
    from vlbias.building import build_prior, training_images
    from vlbias.diffae import DiffAE

    model = DiffAE.from_pretrained(diffae)
    pictures = training_images(_dataset(dataset, seed).split("train"), model.config.image_size)
    build_prior(model, pictures, seed=seed).save_pretrained(out)
    typer.echo(out)


def main() -> None:
    """Entry point: errors that vlbias raises on purpose become one or two lines on stderr and exit status 1."""
    try:
        app()
    except VlbiasError as error:
        print(f"vlbias: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("vlbias: stopped; the same command goes on where it was.", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        # A full disk or a folder without permission, outside the places that name it better.
        place = f" ({error.filename})" if error.filename else ""
        print(f"vlbias: {error.strerror or error}{place}", file=sys.stderr)
        raise SystemExit(1) from None
