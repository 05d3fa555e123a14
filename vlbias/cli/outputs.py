"""Files that a command writes are its own: nothing is replaced that it did not write for the same job before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vlbias.errors import CheckpointError, ImageError, OutputError
from vlbias.files import make_folder, read_object, refuse_links, write_json
from vlbias.runstore import differences

__all__ = ["OverwriteOption", "claim_folder", "claim_pictures", "refuse_inside"]

#: Names in a job of the datasets and editors that are read.
_DATASETS, _EDITORS = ("dataset", "datasets", "test", "images", "data", "edits"), ("editor", "diffae")

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that are there already and are not this job's own.")
]


def claim_folder(
    out: Path, command: str, job: Mapping[str, object], names: Sequence[str] | None = None, *, overwrite: bool = False
) -> None:
    """Make a folder for results before the work that fills it, and refuse to replace what is not this job's own.

    What a job is stands in ``OUT/.vlbias-COMMAND.json``, without paths of this disk; the same command again goes on
    with its own files.

    Args:
        out: the folder.
        command: its name.
        job: what decides the results, as plain values.
        names: entries that will be written; None for a folder that belongs to the job as a whole.
        overwrite: replace them whoever wrote them.

    Raises:
        OutputError: something else is there, or a link, or the folder cannot be written, or it lies in a dataset or an
            editor that is read.
    """
    for name in _DATASETS:
        value = job.get(name)
        refuse_inside(out, *(value if isinstance(value, list | tuple) else [value]))
    refuse_inside(out, *(job[name] for name in _EDITORS if "/" in str(job.get(name))), or_itself=False)
    make_folder(out)
    refuse_links(out)
    job = {name: _without_place(value) for name, value in job.items()}
    record = out / f".vlbias-{command}.json"
    known = _job_of(record)
    phrases = ["nothing says what it is"] if known is None else differences(known, job)
    if not phrases:
        return
    present = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
    present = [name for name in present if names is None or name in names]
    if present and not overwrite:
        listed = ", ".join(present[:3]) + (f" and {len(present) - 3} more" if len(present) > 3 else "")
        whose = "that this job did not write" if known is None else f"of another job ({phrases[0]})"
        if known is None and record.is_file():
            whose = f"of a job that {record.name} does not tell any more: it is damaged"
        raise OutputError(f"{out} contains {listed} {whose}. Give another folder, or add --overwrite.")
    write_json(record, {"vlbias": command, "job": dict(job)})


def refuse_inside(out: Path, *sources: object, or_itself: bool = True) -> None:
    """Refuse results in a folder that is read: its next reader would take their pictures for its own.

    Args:
        out: the folder for results.
        sources: datasets and editors as they are typed; what is no folder passes.
        or_itself: whether the folder that is read is refused too.

    Raises:
        OutputError: names the folder that is read.
    """
    place = out.resolve()
    for source in (str(source) for source in sources if isinstance(source, str | Path)):
        for root in (Path(source), Path(source.partition(":")[2])):
            if root.parts and root.is_dir() and root.resolve() in (*([place] if or_itself else []), *place.parents):
                raise OutputError(f"{out} lies in {root}, which is read. Give a folder outside it.")


def _without_place(value: object) -> Any:
    """What a user typed, without where on the disk that is: of a path elsewhere, its name and a digest of the rest."""
    if isinstance(value, list | tuple):
        return [_without_place(item) for item in value]
    if not isinstance(value, str):
        return value
    value = value.encode(errors="backslashreplace").decode()  # names of files may be in another encoding
    kind, colon, place = value.rpartition(":")  # such as folder:/home/...
    if not (os.path.isabs(place) or place.startswith(("~", ".."))):
        return value
    digest = hashlib.sha256(os.path.abspath(os.path.expanduser(place)).encode()).hexdigest()
    return f"{kind}{colon}{Path(place).name} ({digest[:16]})"


def _job_of(record: Path) -> dict[str, Any] | None:
    """The job that a folder was begun with; None if nobody began one, or the record is damaged."""
    try:
        job = read_object(record).get("job")
    except CheckpointError:
        return None
    return job if isinstance(job, dict) else None


def claim_pictures(
    targets: Mapping[Path, Mapping[str, str]], sources: Sequence[Path], *, overwrite: bool = False
) -> None:
    """Refuse to replace pictures other than those that carry the same provenance.

    Args:
        targets: PNG to write -> its provenance.
        sources: pictures that are read; they are never replaced.
        overwrite: replace other pictures too.

    Raises:
        OutputError: a target is there and is not this job's own.
    """
    from vlbias.provenance import read_provenance

    refuse_links(*targets)
    for target, provenance in targets.items():
        if any(_same_file(target, source) for source in sources):
            raise OutputError(f"{target} is the picture itself and would be replaced. Give another folder for results.")
        if overwrite or not os.path.lexists(target):
            continue
        try:
            found = read_provenance(target)
        except ImageError:
            found = {}
        if found != provenance:
            whose = "already exists, made with other options" if found.get("synthetic") else "already exists"
            raise OutputError(f"{target} {whose}. Give another folder, or add --overwrite.")


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
