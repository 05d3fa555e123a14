"""What several commands share: options, arguments, and how their words are read."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlbias.shown import printable

if TYPE_CHECKING:
    from vlbias.audit.arms import Arm
    from vlbias.data import FaceDataset, Problem
    from vlbias.editor import Editor
    from vlbias.engine import Engine

DEFAULT_EDITOR = "synthfaces-64"
#: Kinds of problems of a dataset that are told.
MAX_TOLD = 6


class Quality(StrEnum):
    """How near edits come to those of many evaluations."""

    draft = "draft"
    standard = "standard"
    exact = "exact"


class EngineKind(StrEnum):
    """Who does the pieces of a job."""

    local = "local"
    ray = "ray"


DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="synthfaces[:N], or a dataset's folder.")]
EditorOption = Annotated[str, typer.Option("--editor", metavar="NAME|FOLDER", help="Editor checkpoint.")]
QualityOption = Annotated[
    Quality,
    typer.Option(
        "--quality",
        help="Draft: a preview in few network evaluations. Exact: so many that hardly a pixel is half a level off.",
    ),
]
TargetOption = Annotated[str, typer.Option("--target", metavar="COLUMN", help="Attribute that classifiers predict.")]
ProtectedOption = Annotated[
    list[str],
    typer.Option(
        "--protected",
        metavar="COLUMN",
        help="Attribute that must not drive them. Repeatable, or COLUMN,COLUMN: every combination is a group.",
    ),
]
PolesOption = Annotated[
    list[str],
    typer.Option(
        "--poles",
        metavar="COLUMN:PATH=VALUES",
        help="Where the values of your own column stand on a path of the editor: in order from its negative pole, "
        "older:age=no,yes, or each with a place in -1..1, race:skin_tone=White:-1,Black:1. Repeatable.",
    ),
]
TiedTargetOption = Annotated[
    str | None, typer.Option("--target", metavar="COLUMN", help="What classifiers predict; for synthfaces: smile.")
]
FollowLinksOption = Annotated[
    bool, typer.Option("--follow-links", help="Read pictures that are links; otherwise they are left out and listed.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, metavar="S", help="Seed of everything that is drawn at random.")
]

EngineOption = Annotated[
    EngineKind,
    typer.Option(
        "--engine", help="Work in processes of this machine, or on a Ray cluster (pip install 'vlbias[ray]')."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, metavar="N", help="Workers at once; else one per GPU, or one that uses all processors."
    ),
]
ChosenWorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="Workers at once; else one per GPU. Without a GPU: as many as processors, memory (1.5 GB each) and the "
        "length of the job are good for.",
    ),
]
CoresOption = Annotated[
    int | None, typer.Option("--cores", min=1, metavar="N", help="Processors of each worker; else a fair share.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="auto|HOST:PORT", help="With --engine ray: a running cluster; else one is started here."
    ),
]


def engine_of(
    kind: EngineKind, workers: int | None, cores: int | None, address: str | None, *, auto: bool = False
) -> Engine:
    """The engine of ``--engine``, ``--workers``, ``--cores`` and ``--address``; ``auto`` as for ``Engine``."""
    from vlbias.engine import Engine

    if address is not None and kind is not EngineKind.ray:
        raise typer.BadParameter("is that of a Ray cluster: add --engine ray", param_hint="--address")
    return Engine(kind=kind.value, workers=workers, cores=cores, auto=auto, address=address)


def open_editor(name: str, clip: str | Literal[False] | None = None) -> Editor:
    """The editor of ``--editor``; ``clip`` as in ``Editor.from_pretrained``."""
    from vlbias.editor import Editor

    return Editor.from_pretrained(name, clip=clip)


def tell_problems(problems: Sequence[Problem]) -> None:
    """The first few files that are left out, on stderr: one of each kind before others."""
    firsts = list({problem.code: problem for problem in reversed(problems)}.values())[::-1]
    others = [problem for problem in problems if problem not in firsts]
    shown = firsts[:MAX_TOLD] + others[: max(0, 3 - len(firsts))]
    for problem in shown:
        typer.echo(printable(f"note: {problem.file}: {problem.code}: {problem.detail}"), err=True)
    more = len(problems) - len(shown)
    if more > 0:
        typer.echo(f"note: {more} more like these. A report lists all.", err=True)


def open_faces(spec: str, seed: int = 0, *, follow_links: bool = False) -> FaceDataset:
    """The dataset of an argument; files that are left out are told on stderr."""
    from vlbias.data import open_dataset

    dataset = open_dataset(spec, seed=seed, follow_links=follow_links)
    tell_problems(dataset.problems)
    return dataset


def arm_of(word: str, hint: str) -> str | Arm:
    """An arm by name, or ``module:name`` of one that a user wrote, in the working directory or installed.

    Args:
        word: what was typed.
        hint: where, for the message.
    """
    module, colon, name = word.partition(":")
    if not colon:
        return word
    from vlbias.audit.arms import Arm

    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(f"'{word}' cannot be imported: {error}", param_hint=hint) from error
    finally:
        sys.path.remove(here)
    if not isinstance(found, Arm):
        raise typer.BadParameter(f"'{word}' is not an arm; see docs/arms.md for how to write one", param_hint=hint)
    if here not in sys.path:
        sys.path.append(here)  # for the workers; last, so that no file there takes the place of a package
    return found


def _hub_name(name: str | None) -> str | None:
    """Refuse what is no name of a repository before anything is made for it."""
    if name is not None:
        from vlbias.hub import check_hub_name

        check_hub_name(name)
    return name


PushOption = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        metavar="USER/NAME",
        callback=_hub_name,
        help="Send the result to a private repository of the Hugging Face hub as well; docs/hub.md says what is sent.",
    ),
]
DeviceOption = Annotated[str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, ...; else CUDA if any.")]
AmpOption = Annotated[bool, typer.Option("--amp", help="Train backbones in bfloat16.")]

StudyNameOption = Annotated[
    str | None,
    typer.Option("--study-name", metavar="NAME", help="Of this job in a database that has several; --storage a URL."),
]


def named_storage(storage: str | None, name: str | None) -> str | None:
    """A database's URL with the name of a job in it; a file has one job and takes no name."""
    if name is None:
        return storage
    if storage is None or "://" not in storage or "#" in storage:
        raise typer.BadParameter("needs a database's URL without a name as --storage", param_hint="--study-name")
    return f"{storage}#{name}"


def or_drawn(given: str | None, drawn: str, option: str, dataset: str) -> str:
    """The column asked for; the embedded world has one to fall back on, other datasets must name theirs."""
    if given is None and (dataset.partition(":")[0] != "synthfaces" or Path(dataset).exists()):
        raise typer.BadParameter("this dataset needs it named", param_hint=option)
    return given or drawn
