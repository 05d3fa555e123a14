"""``vlbias balance``: a balanced copy of a dataset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlbias.cli.application import app, typed_command
from vlbias.cli.options import (
    DEFAULT_EDITOR,
    AddressOption,
    ChosenWorkersOption,
    CoresOption,
    EditorOption,
    EngineKind,
    EngineOption,
    FollowLinksOption,
    PolesOption,
    ProtectedOption,
    PushOption,
    Quality,
    QualityOption,
    SeedOption,
    engine_of,
    open_editor,
    open_faces,
)
from vlbias.cli.parsing import checks_of, columns_of, files_of, names_of, poles_of, shard_of, sizes_of, to_of
from vlbias.cli.photographs import (
    AlignOption,
    FaceOption,
    LandmarksOption,
    WriteOption,
    check_alignment,
    find_faces,
)
from vlbias.errors import PlanError

if TYPE_CHECKING:
    from vlbias.data import FaceDataset
    from vlbias.editor import Editor
    from vlbias.labelling import ColumnReport


class Mode(StrEnum):
    """Which way a plan moves the counts."""

    reduce = "reduce"
    amplify = "amplify"


class Layout(StrEnum):
    """Where pictures lie in the output."""

    flat = "flat"
    class_folders = "class-folders"


class Format(StrEnum):
    """What the output is when it is done."""

    imagefolder = "imagefolder"
    webdataset = "webdataset"
    parquet = "parquet"


class Source(StrEnum):
    """Where donors come from."""

    real = "real"
    prior = "prior"


class Size(StrEnum):
    """Width and height that an edit is written at."""

    own = "own"
    editor = "editor"


class Leak(StrEnum):
    """What looks for traces that give edits away."""

    low_level = "low-level"
    network = "network"


class ReviewRule(StrEnum):
    """How several people's decisions on an edit are counted."""

    any = "any"
    majority = "majority"


class Originals(StrEnum):
    """What happens to the pictures that are not edited."""

    copy = "copy"
    exact = "exact"
    link = "link"
    resize = "resize"
    omit = "omit"


def _verify(out: Path | None) -> None:
    """Compare a finished run with what it wrote, and leave."""
    if out is None:
        return
    from vlbias.balance import verify_run

    problems = verify_run(out)
    for problem in problems:
        typer.echo(problem)
    if not problems:
        typer.echo(f"{out}: every file is as it was written")
    raise typer.Exit(1 if problems else 0)


@app.command(
    epilog="""\b
Example: vlbias balance synthfaces:1000 out/balanced --target smile --protected skin --limit 50 --dry-run
         vlbias balance UTKFace/ out/utk --target gender --protected age_group --editor utkface-64
         vlbias balance photos/ out/mine --target sex --protected older --poles older:age=no,yes
         vlbias balance photos/ out/whole --target sex --protected older --poles older:age=no,yes --align
         vlbias balance photos/ out/both --target sex --protected skin,age_group --to mean --splits train,val
         vlbias balance photos/ out/half --target sex --protected older --poles older:age=no,yes --copies .5
         vlbias balance prior:400 out/new --target smile --protected skin
         vlbias balance faces/ /shared/out --target sex --protected skin --engine ray --address auto
         vlbias balance synthfaces:1000 out/balanced --target smile --protected skin --limit 50 --review"""
)
def balance(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="synthfaces[:N], a dataset's folder, or prior:N for a new dataset of N faces drawn from the prior.",
        ),
    ],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="Folder for the balanced dataset, or its URL in an object store.")
    ],
    target: Annotated[
        str, typer.Option("--target", metavar="COLUMN", help="Attribute that classifiers predict; edits keep it.")
    ],
    protected: ProtectedOption,
    editor: EditorOption = DEFAULT_EDITOR,
    poles: PolesOption = [],  # noqa: B006  (Typer reads it, nobody changes it)
    path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="With one protected column: its path, so that --poles has only the values (no,yes)."
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="Equalise the groups in each class, or amplify the bias for study.")
    ] = Mode.reduce,
    to: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="How many faces each group of a class ends with: max (as many as the largest group), mean (edits take "
            "the place of their donors), all (as many as the class), a number, or shares such as light=.5,dark=.5.",
        ),
    ] = "max",
    copies: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Share of what each short cell lacks that copies of its own originals fill, below 1; edits fill the "
            "rest, and copies take the places of those that are turned down. docs/evidence.md tells of half and half, "
            ".5; 0 is edits alone.",
        ),
    ] = 0.0,
    splits: Annotated[
        str, typer.Option(metavar="SPLIT,...", help="Splits to balance; the others are passed on as they are.")
    ] = "train",
    source: Annotated[
        Source, typer.Option(help="Edit the dataset's own faces, or faces from the prior.")
    ] = Source.real,
    prior_steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="With faces from the prior: network evaluations of each picture.")
    ] = 4,
    keep_pairs: Annotated[
        bool,
        typer.Option(
            "--keep-pairs/--no-keep-pairs", help="With faces from the prior: also write donors to OUT/donors."
        ),
    ] = True,
    checks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=NUMBER,...",
            help="What an edit must pass, such as goal=.8,sure=.9,identity=.5; docs/balance.md lists them.",
        ),
    ] = None,
    identity: Annotated[
        str,
        typer.Option(
            metavar="latent|clip|FILE",
            help="What decides that a face is still the same person: the semantic codes, CLIP, or a face embedder (an "
            "ONNX file, or a folder of timm); docs/balance.md names some.",
        ),
    ] = "latent",
    scorer: Annotated[
        list[str],
        typer.Option(
            "--scorer",
            metavar="COLUMN=FILE",
            help="A classifier that reads a column from pictures in CLIP's place: an ONNX file with its classes beside "
            "it in a .json, or a folder of Classifier.save_pretrained. Repeatable.",
        ),
    ] = [],  # noqa: B006  (Typer reads it, nobody changes it)
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Plan at most N edits.")] = None,
    align: AlignOption = False,
    write: WriteOption = None,
    face: FaceOption = None,
    landmarks: LandmarksOption = None,
    quality: QualityOption = Quality.standard,
    size: Annotated[
        Size,
        typer.Option(help="Write an edit at its donor's own size and in its file format, or as a PNG of the editor's."),
    ] = Size.own,
    originals: Annotated[
        Originals,
        typer.Option(
            help="Copy the originals without private metadata, copy them exactly, link to them, resize them (with "
            "--size editor), or leave them out."
        ),
    ] = Originals.copy,
    keep_metadata: Annotated[
        bool,
        typer.Option("--keep-metadata", help="Copy originals with their camera notes, places and comments: exactly."),
    ] = False,
    round_trip: Annotated[
        bool,
        typer.Option(
            "--round-trip",
            help="Let the originals pass through the editor as well, to another group and back, so that traces of "
            "editing say nothing about the cell. Costs about two edits for each original.",
        ),
    ] = False,
    layout: Annotated[
        Layout,
        typer.Option(help="Folders of the splits, or class folders inside them, as torchvision's ImageFolder needs."),
    ] = Layout.flat,
    format: Annotated[
        Format,
        typer.Option(
            "--format", help="An imagefolder of loose pictures, or tar or Parquet shards below OUT/data instead."
        ),
    ] = Format.imagefolder,
    shard_size: Annotated[int, typer.Option(min=1, metavar="N", help="With shards: pictures in each.")] = 10_000,
    pseudonymise: Annotated[
        bool,
        typer.Option("--pseudonymise", help="Give pictures other names, so that none tells a donor's."),
    ] = False,
    pseudonyms: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --pseudonymise: keep key and names in FILE, outside OUT; a FILE that is there gives its key.",
        ),
    ] = None,
    leak: Annotated[
        Leak,
        typer.Option(
            help="Measure how well edits can be told from originals of the same cell: by low-level traces, or by a "
            "small network as well, which takes minutes. With another value a finished run is measured again."
        ),
    ] = Leak.low_level,
    leak_sizes: Annotated[
        str, typer.Option(metavar="PX,...", help="Sizes that people will train at, for --leak.")
    ] = "128,224",
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do part I of N (1/4 ... 4/4); parts may run at once.")
    ] = None,
    engine: EngineOption = EngineKind.local,
    workers: ChosenWorkersOption = None,
    cores: CoresOption = None,
    address: AddressOption = None,
    chunk_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Edits that are saved together; a killed run loses at most N.")
    ] = 32,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its price; write nothing.")] = False,
    pilot: Annotated[
        int, typer.Option(min=0, metavar="N", help="With --dry-run: try N edits, for a better estimate; 0 for none.")
    ] = 16,
    label: Annotated[
        list[str],
        typer.Option(
            "--label",
            metavar="COLUMN=LABELLER",
            help="Let a machine fill a column: ita:ANGLE, monk, 'clip:LABEL=PROMPT;LABEL=PROMPT', clip alone where the "
            "column is a known one, or file:CLASSIFIER. A column of that name is replaced and scores the labeller. "
            "Repeatable.",
        ),
    ] = [],  # noqa: B006  (Typer reads it, nobody changes it)
    review: Annotated[
        str | None,
        typer.Option(
            metavar="[FILE]",
            help="Remove the edits that people refused in FILE (by default OUT/review.csv), and make others in their "
            "place; docs/balance.md lists its columns. A finished OUT is opened again.",
        ),
    ] = None,
    review_rule: Annotated[
        ReviewRule, typer.Option(help="With --review: one reject refuses an edit, or more rejects than accepts.")
    ] = ReviewRule.any,
    push_to_hub: PushOption = None,
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            is_eager=True,
            callback=_verify,
            help="Compare the files of a finished run with the digests that it wrote; does nothing else.",
        ),
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="P", help="With --label: leave out less confident labels.")
    ] = 0.0,
) -> None:
    """Write a balanced copy of DATASET; a run that was killed goes on where it stopped."""
    from vlbias.balance import Balancer, Review, push_dataset
    from vlbias.balance.review import REVIEW_FILE
    from vlbias.leak import LeakSettings
    from vlbias.remote import is_url, send_folder, work_folder

    machines = engine_of(engine, workers, cores, address, auto=True)
    part, num_images, wishes = shard_of(shard), _new_faces(dataset), _wishes(label)
    if push_to_hub is not None and not pseudonymise and num_images is None and source is Source.real:
        raise typer.BadParameter(
            "would say what donors' files are called: add --pseudonymise", param_hint="--push-to-hub"
        )
    if wishes and num_images is not None:
        raise typer.BadParameter("fills a column of a dataset, and prior:N has none", param_hint="--label")
    check_alignment(align, write, face, landmarks)
    if align and num_images is not None:
        raise typer.BadParameter("prior:N has no photographs to find faces in", param_hint="--align")
    if originals is Originals.resize and size is Size.own:
        raise typer.BadParameter(
            "'resize' brings originals to the editor's size, so edits need it too: add --size editor",
            param_hint="--originals",
        )
    if copies and originals is Originals.omit:
        raise typer.BadParameter(
            "'omit' leaves out the originals that --copies writes once more: use --originals copy",
            param_hint="--originals",
        )
    settings: dict[str, Any] = {
        "target": target,
        "protected": columns_of(protected),
        "poles": poles_of(poles, path),
        "path": path,
        "mode": mode.value,
        "to": to_of(to),
        "copies": copies,
        "splits": names_of(splits, "--splits"),
        "source": "prior" if num_images is not None else source.value,
        "prior_steps": prior_steps,
        "keep_pairs": keep_pairs,
        "checks": checks_of(checks),
        "identity": identity,
        "scorers": files_of(scorer, "--scorer"),
        "seed": seed,
        "chunk_size": chunk_size,
        "quality": quality.value,
        "size": size.value,
        "round_trip": round_trip,
        "layout": layout.value,
        "format": format.value,
        "shard_size": shard_size,
        "pseudonymise": pseudonymise,
        "pseudonyms": pseudonyms,
        "leak": LeakSettings(probe=leak.value, sizes=sizes_of(leak_sizes), seed=seed),
    }
    place = work_folder(out) if is_url(out) else Path(out)
    decided = None if review is None else Review.read(review or place / REVIEW_FILE, review_rule.value)
    faces = None if num_images is not None else open_faces(dataset, seed, follow_links=follow_links)
    model = open_editor(editor)
    balancer = Balancer(model, **settings)
    labelled: list[ColumnReport] = []
    if faces is not None and align:
        faces = find_faces(faces, model, write, face, landmarks)
    if faces is not None:
        faces, labelled = _labelled(faces, wishes, model, min_confidence)
    plan = balancer.plan(faces, limit=limit, num_images=num_images)
    if dry_run and pilot:
        try:
            plan = balancer.pilot(faces, plan, num_edits=pilot)
        except PlanError:  # what would stop the run after the plan; the plan itself stands
            typer.echo(plan.describe())
            raise
    typer.echo(plan.describe())
    if dry_run:
        return
    if keep_metadata and originals not in (Originals.copy, Originals.exact):
        raise typer.BadParameter(f"goes with --originals copy, not {originals.value}", param_hint="--keep-metadata")
    kept = Originals.exact if keep_metadata else originals
    result = balancer.run(faces, plan, out, shard=part, originals=kept.value, engine=machines, review=decided)
    if result.complete:
        from vlbias import report
        from vlbias.labelling import write_reports

        if labelled:
            write_reports(place, labelled)
        # the links of this run are its own
        page = report.write(place, follow_links=originals.value == "link", command=typed_command())
        if is_url(out):
            send_folder(place, out)
        typer.echo(f"{result.summary()}\nOpen {page}")
        if push_to_hub is not None:
            typer.echo(push_dataset(place, push_to_hub))
    else:
        typer.echo(result.summary())


def _new_faces(dataset: str) -> int | None:
    """The N of ``prior:N``; ``None`` for a dataset that exists."""
    word, _, count = dataset.partition(":")
    if word != "prior" or Path(dataset).exists():
        return None
    if not (count.isascii() and count.isdigit()):
        raise typer.BadParameter(f"expected prior:N, such as prior:400; got '{dataset}'", param_hint="DATASET")
    return int(count)


def _wishes(texts: list[str]) -> list[tuple[str, str]]:
    """``--label COLUMN=LABELLER`` as (column, labeller in words)."""
    wishes = []
    for text in texts:
        column, equals, words = text.partition("=")
        if not (column and equals and words):
            raise typer.BadParameter(
                f"expected COLUMN=LABELLER such as skin=ita:28, got '{text}'", param_hint="--label"
            )
        wishes.append((column, words))
    return wishes


def _labelled(
    faces: FaceDataset, wishes: list[tuple[str, str]], model: Editor, min_confidence: float
) -> tuple[FaceDataset, list[ColumnReport]]:
    from vlbias.labelling import label_column, labeller_of, layout_of

    reports = []
    layout = layout_of(faces, model.layout)
    labellers = [labeller_of(words, column=column, clip=model.renderer.clip, layout=layout) for column, words in wishes]
    for (column, _), labeller in zip(wishes, labellers, strict=True):
        faces, report, score = label_column(faces, column, labeller, min_confidence=min_confidence)
        reports.append(report)
        typer.echo(f"{column}: {report.source}")
        typer.echo(str(score) if score is not None else f"{dict(report.counts)}; no given labels to score it against")
    return faces, reports
