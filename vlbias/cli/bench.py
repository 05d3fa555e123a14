"""``vlbias bench``: methods entered into the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vlbias.cli.application import app
from vlbias.cli.options import arm_of
from vlbias.cli.parsing import names_of
from vlbias.errors import CheckpointError, CheckpointNotFoundError, OutputError
from vlbias.files import make_folder, read_object, refuse_links, write_json

DEFAULT_OUT = Path("out/bench")


@app.command(epilog="Example: vlbias bench oversample my_module:my_arm --tasks 'world-smile-*-0.9' --budget quick")
def bench(
    methods: Annotated[
        list[str],
        typer.Argument(metavar="METHOD...", help="Arms by name, MODULE:NAME for one of your own, or all."),
    ],
    tasks: Annotated[
        str, typer.Option(metavar="TASK,...", help="Tasks by name or pattern, such as utkface-*-planted.")
    ] = "world-*-0.9",
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Fits of each method on each task.")] = 3,
    budget: Annotated[str, typer.Option(metavar="NAME", help="full, or quick to see that everything works.")] = "full",
    classifier: Annotated[str, typer.Option(metavar="NAME", help="small, or standard, which takes longer.")] = "small",
    size: Annotated[
        int | None, typer.Option(min=16, max=2048, metavar="PX", help="Edge of what classifiers see; else 64.")
    ] = None,
    tune: Annotated[bool, typer.Option("--tune/--no-tune", help="Choose settings on validation faces.")] = True,
    protocol: Annotated[
        str, typer.Option(metavar="NAME", help="How methods begin: from scratch, or fine-tune (from plain training).")
    ] = "scratch",
    change: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="How the balanced set is made: share, source, mode, verified, wrong_labels, edit_steps, "
            "strength (closed-loop or random), varied. Repeatable.",
        ),
    ] = [],  # noqa: B006  (Typer reads it, nobody changes it)
    utkface: Annotated[str | None, typer.Option(metavar="FOLDER", help="Photographs of its tasks.")] = None,
    celebahq: Annotated[str | None, typer.Option(metavar="FOLDER", help="Photographs of its tasks.")] = None,
    editor: Annotated[str | None, typer.Option(metavar="NAME|FOLDER", help="Used in place of each task's own.")] = None,
    ranks: Annotated[
        bool, typer.Option("--ranks", help="Enter with both classifiers and say whether they rank methods alike.")
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where results are kept, and grow.")
    ] = DEFAULT_OUT,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the table there.")
    ] = None,
) -> None:
    """Enter methods into the benchmark and print one row for each; what was measured before is not measured again."""
    from vlbias import bench as benches

    roots = {kind: folder for kind, folder in (("utkface", utkface), ("celebahq", celebahq)) if folder is not None}
    settings: dict[str, Any] = {"num_seeds": seeds, "budget": budget, "tune": tune, "roots": roots, "editor": editor}
    settings |= {"image_size": size, "protocol": protocol}
    variant = benches.Variant.from_dict(dict(_setting(text) for text in change))
    entered = ["all"] if methods == ["all"] else [arm_of(word, "METHOD") for word in methods]
    patterns = names_of(tasks, "--tasks")
    if json_file is not None:
        _refuse_other(json_file)

    def table(classifier: str) -> benches.BenchTable:
        return benches.bench(entered, out, tasks=patterns, variant=variant, classifier=classifier, **settings)

    found = table(classifier)
    typer.echo(str(found))
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if json_file is not None:
        write_json(json_file, found.to_dict())
    if ranks:
        same = benches.rank_agreement(table("small"), table("standard"))
        typer.echo(
            f"ranks by the small and the standard classifier: correlation {same.mean:.2f} on a task, "
            f"{same.overall:.2f} over all, {same.num_methods} methods on {same.num_tasks} tasks"
        )


def _refuse_other(path: Path) -> None:
    """Before the work: a file that is no table of the benchmark is not replaced by one."""
    make_folder(path.parent)
    refuse_links(path)
    try:
        found = set(read_object(path))
    except CheckpointNotFoundError:
        return
    except CheckpointError:
        found = set()
    if found != {"methods", "tasks", "notes"}:
        raise OutputError(f"{path} already exists and is not a table of the benchmark. Give another file.")


def _setting(text: str) -> tuple[str, Any]:
    """``share=0.5`` as a name and a value."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"expected NAME=VALUE; got '{text}'", param_hint="--set")
    words: dict[str, Any] = {"true": True, "false": False}
    if value in words:
        return name, words[value]
    try:
        return name, float(value) if "." in value else int(value)
    except ValueError:
        return name, value
