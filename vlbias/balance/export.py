"""From finished chunks to the dataset on disk: a Hugging Face imagefolder with its plan, its rejects and its card.

Everything here is a function of the dataset, the plan and the finished chunks, and every file appears whole; so it can
be killed and started again, or run by two shards at once, and the bytes come out the same.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vlbias.balance.card import dataset_card
from vlbias.balance.copies import missing_faces, write_copies
from vlbias.balance.layout import Placing, placing
from vlbias.balance.originals import PROVENANCE_COLUMNS, label_columns, with_face_boxes, write_originals
from vlbias.balance.packing import summary_of_shards
from vlbias.balance.plan import CellKey, Counts, Plan
from vlbias.balance.poles import Poles, stale_columns
from vlbias.balance.refusals import REJECTED_COLUMNS, FinishedChunk
from vlbias.balance.round_trip import remade_of, summary_of
from vlbias.balance.rows import GatheredRows, TableRows, gathered
from vlbias.balance.run_folder import RunFolder
from vlbias.balance.task import Task
from vlbias.balance.verification import SCORES, Reason
from vlbias.data import FaceDataset
from vlbias.data.metadata import csv_parts, metadata_files, typed_table
from vlbias.files import read_object, write_file, writing
from vlbias.labels import label_text
from vlbias.progress import Progress

__all__ = ["add_to_report", "assemble", "write_report"]

#: (column, label) => the value as the dataset writes it.
Natural = Callable[[str, str], Any]
#: Share of kept edits from which on it is said that their labels are contradicted: scorers err on a few.
CONTRADICTED = 0.02


#: What the report and the counts are made of, of each kept edit.
_KEPT_COLUMNS = ("slot", "split", "target", "donor", "from", "to", "target_latent", "target_image", "identity", "note")


def _made_rows(
    run: RunFolder, task: Task, plan: Plan, chunks: Iterable[FinishedChunk], folder_of: Placing
) -> Iterator[dict[str, Any]]:
    """Put edits (and sampled donors) in place; their metadata rows, in slot order."""
    faces, poles, target = task.faces, task.poles, plan.settings["target"]
    columns = [] if faces is None else label_columns(faces)
    stale = [] if faces is None else stale_columns(poles, faces.table[columns], target)
    keep_donor = set(plan.table["slot"][plan.table["keep_donor"].astype(bool)])
    natural = _natural_values(faces, [target, *(pole.column for pole in poles)])
    for chunk in chunks:
        for record in chunk.kept:
            slot, split = record["slot"], record["split"]
            if faces is not None and record["donor"] in faces.table.index:
                labels = dict(faces.table.loc[record["donor"]].items())
            else:
                labels = dict.fromkeys(columns)
            labels = {column: None if column in stale else labels[column] for column in columns}
            labels[target] = natural(target, record["target"])
            face, edit = f"face-{slot:06d}.png", f"edit-{slot:06d}{record['suffix']}"
            files, folder = chunk.files, folder_of(split, record["target"])
            if slot in keep_donor:
                run.place(face, run.out / folder / face, *files[face])
                groups = _groups(plan, poles, record["from"], natural)
                row = {"file_name": f"{folder}/{face}", "split": split, **labels, **groups, "origin": "sampled"}
                yield row | {"source_id": record["donor"], "seed": record["seed"]}
            elif face in files:
                run.place(face, run.out / "donors" / f"edit-{slot:06d}.png", *files[face])
            run.place(edit, run.out / folder / edit, *files[edit])
            groups = _groups(plan, poles, record["to"], natural)
            row = {"file_name": f"{folder}/{edit}", "split": split, **labels, **groups, "origin": "edited"}
            row |= {"source_id": record["donor"], "path": record["path"], "seed": record["seed"]}
            strength = record["strength"]
            row["strength"] = strength if ";" in strength else float(strength)
            yield row | {f"score_{score}": record.get(score) for score in SCORES}


def _groups(plan: Plan, poles: Sequence[Poles], group: str, natural: Natural) -> dict[str, Any]:
    """The protected columns of a face of a group."""
    return {pole.column: natural(pole.column, value) for pole, value in zip(poles, plan.groups[group], strict=True)}


def _natural_values(faces: FaceDataset | None, columns: Sequence[str]) -> Natural:
    """(column, label) => the value as the dataset writes it: "1" => 1 in a column of integers."""
    known: dict[tuple[str, str], Any] = {}
    for column in columns:
        for value in [] if faces is None else faces.table[column].dropna().unique():
            known[column, str(label_text(value))] = value
    return lambda column, label: known.get((column, label), label)


def assemble(
    run: RunFolder,
    task: Task,
    plan: Plan,
    chunks: Iterable[FinishedChunk],
    *,
    details: Mapping[str, Any],
    bar: Progress,
    trips: Sequence[int] = (),
    measure: Callable[[pd.DataFrame], Mapping[str, Any]] = lambda table: {},
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Write the whole output from finished chunks.

    Args:
        run: the output folder; all its chunks are finished.
        task: the dataset, and where its values stand.
        plan: what was asked for.
        chunks: of the plan, as they are after a review; gone through several times.
        details: what else the report says (editor, checks, scorers, ...), ``originals`` and ``size`` among it.
        bar: progress.
        trips: numbers of the finished chunks whose originals passed through the editor.
        measure: metadata table => further entries of the report; called once all pictures are in place.

    Returns:
        (metadata table, rejected table, report).
    """
    faces, originals = task.faces, details["originals"]
    folder_of = placing(task.settings.layout)
    passed = run.read_chunks(trips)
    kept = gathered((record for chunk in chunks for record in chunk.kept), _KEPT_COLUMNS, object)
    replaced = set(kept["donor"][plan.which("replaces_donor", kept["slot"])])
    attributes = [] if faces is None else label_columns(faces)
    attributes += [name for name in task.columns if name not in attributes]
    columns = ["file_name", "split", *attributes, *PROVENANCE_COLUMNS]
    real = pd.DataFrame(columns=columns, dtype=object)
    unreadable: dict[str, str] = {}
    if faces is not None and originals != "omit":
        real, unreadable = write_originals(run, task, replaced, originals, bar, remade_of(passed), folder_of)
    made = gathered(_made_rows(run, task, plan, chunks, folder_of), columns, object)
    lost = set(unreadable) | replaced
    copied = write_copies(run, plan, TableRows(real), missing_faces(plan, kept, faces, lost))
    # objects first: whole numbers beside a blank must not become floating point
    parts = [real.reindex(columns=columns), made, gathered(copied, columns, object)]
    table = typed_table(pd.concat([part for part in parts if len(part)] or parts, ignore_index=True))
    table = table.astype({"source_id": "str", "path": "str", "seed": "Int64"})
    del real, made, parts
    if faces is not None and faces.alignment is not None and details["size"] == "own":
        table = with_face_boxes(faces, table)

    rejects = _rejected_table(chunks, faces, unreadable)
    copies = Counter(plan.cell_of(row) for row in copied)
    after = _counts_after(plan, kept, faces, lost, copies)
    evaluations = sum(chunk.unet_evaluations for chunk in chunks)
    report = _report(plan, evaluations, kept, rejects, after, sorted(unreadable), details)
    if plan.settings.get("copies_share"):
        report |= _of_copies(plan, kept, report["edits"], copies)
    report["round_trip"] = summary_of(passed)
    report["unet_evaluations"] += sum(chunk["unet_evaluations"] for chunk in passed.values())
    if "format" in details:
        report["shards"] = summary_of_shards(table, task.settings.shard_size)
    report |= measure(table)
    run.put(csv_parts(plan.table), run.out / "plan.csv")
    run.put(csv_parts(rejects), run.out / "rejected.csv")
    write_report(run, report, plan)
    for name, content in metadata_files(table):
        run.put(content, run.out / name)
    return table, rejects, report


def _rejected_table(
    chunks: Iterable[FinishedChunk], faces: FaceDataset | None, unreadable: Mapping[str, str]
) -> pd.DataFrame:
    """One row for each donor that was turned down, and for each original that cannot be read."""
    rejected, noted = GatheredRows(REJECTED_COLUMNS, object), set()
    for chunk in chunks:
        for record in chunk.rejected:
            rejected.add(record)
            if record["reason"] == Reason.UNREADABLE:
                noted.add(record["donor"])
    for item, text in unreadable.items():
        if faces is not None and item not in noted:
            split = str(faces.table.loc[item, "split"])
            rejected.add({"donor": item, "split": split, "reason": str(Reason.UNREADABLE), "detail": text})
    table = rejected.table().infer_objects()
    return table.astype({"slot": "Int64", "seed": "Int64"})


def write_report(run: RunFolder, report: Mapping[str, object], plan: Plan) -> None:
    """Write ``report.json`` and the dataset card that says the same in words."""
    run.put(_json(report), run.out / "report.json")
    run.put(dataset_card(report, plan).encode(), run.out / "README.md")


def add_to_report(out_dir: str | os.PathLike[str], measured: Mapping[str, object]) -> None:
    """Add what was measured on a finished run (classifiers before and after) to its ``report.json``.

    Args:
        out_dir: the output folder.
        measured: plain values; keys that are there already are replaced.

    Raises:
        CheckpointError: there is no report.
        OutputError: it cannot be written.
    """
    path = Path(out_dir) / "report.json"
    with writing(path):
        write_file(path, _json(read_object(path) | dict(measured)))


def _counts_after(
    plan: Plan,
    kept: pd.DataFrame,
    faces: FaceDataset | None,
    lost: set[str],
    copies: Mapping[CellKey | None, int],
) -> Counts:
    """Faces in each cell of the balanced splits: originals that are gone taken off, kept edits and copies added."""
    after: Counts = {target: dict(groups) for target, groups in plan.counts_before.items()}
    for item in lost:
        assert faces is not None  # what is lost was there
        if (cell := plan.cell_of(faces.table.loc[item])) is not None:
            after[cell[1]][cell[2]] -= 1
    for cell, count in copies.items():
        assert cell is not None  # copies are those of a cell
        after[cell[1]][cell[2]] += count
    keep_donor = plan.which("keep_donor", kept["slot"])
    names = (kept[name] for name in ("target", "from", "to"))
    for with_donor, target, giver, group in zip(keep_donor, *names, strict=True):
        after[target][group] += 1
        if with_donor:
            after[target][giver] += 1
    return after


def _report(
    plan: Plan,
    of_chunks: int,
    kept: pd.DataFrame,
    rejects: pd.DataFrame,
    after: Counts,
    unreadable: list[str],
    details: Mapping[str, Any],
) -> dict[str, Any]:
    unfilled = int((rejects["reason"] == str(Reason.NO_DONOR_LEFT)).sum())
    turned_down = rejects[rejects["slot"].notna() & (rejects["reason"] != str(Reason.NO_DONOR_LEFT))]
    evaluations = details["calibration_evaluations"] + of_chunks
    kept_images = len(kept) + int(plan.which("keep_donor", kept["slot"]).sum())
    identity = sorted(kept["identity"])
    return {
        **plan.settings,
        **details,
        "counts_before": plan.counts_before,
        "counts_planned": plan.counts_after,
        "counts_after": after,
        "edits": {
            "planned": len(plan),
            "kept": len(kept),
            "unfilled": unfilled,
            "rejected": len(turned_down),
            "by_reason": {str(key): int(n) for key, n in turned_down["reason"].value_counts().sort_index().items()},
        },
        "images_added": kept_images,
        "unet_evaluations": evaluations,
        "unet_evaluations_per_kept_image": round(evaluations / kept_images, 2) if kept_images else None,
        "median_identity": identity[len(identity) // 2] if identity else None,
        "unreadable": unreadable,
        "warnings": [*details["warnings"], *_contradicted(kept, plan.settings["target"]), *_written_otherwise(kept)],
    }


def _of_copies(
    plan: Plan, kept: pd.DataFrame, edits: Mapping[str, Any], copies: Mapping[CellKey | None, int]
) -> dict[str, Any]:
    """What the report says of copies: how many there are, and how many of them stand where an edit was planned."""
    planned, there = (
        zip(*(one[name] for name in ("split", "target", "to")), strict=True) for one in (plan.table, kept)
    )
    missing = Counter(planned) - Counter(there)
    copied = sum(min(count, copies[cell]) for cell, count in missing.items())
    return {
        "copies": sum(copies.values()),
        "edits": {**edits, "copied": copied, "unfilled": edits["unfilled"] - copied},
    }


def _contradicted(kept: pd.DataFrame, target: str) -> list[str]:
    """A warning where many kept edits read as another class than their donors' labels say."""
    readings = zip(*(kept[name] for name in ("target_latent", "target_image", "donor")), strict=True)
    both = [(latent, image, donor) for latent, image, donor in readings if latent is not None and image is not None]
    donors = [donor for latent, image, donor in both if max(latent, image) < 0]
    if len(donors) < max(3, CONTRADICTED * len(both)):
        return []
    return [
        f"{len(donors)} of {len(kept)} kept edits read as another '{target}' than they are labelled, by both scorers, "
        f"and so did their donors, or nearly: look at these labels, such as that of {donors[0]}."
    ]


def _written_otherwise(kept: pd.DataFrame) -> list[str]:
    """What edits could not keep of their donors' files, with how many it happened to."""
    notes = Counter(note for note in kept["note"] if note)
    return [f"{count} {'edit' if count == 1 else 'edits'}: {note}" for note, count in sorted(notes.items())]


def _json(report: Mapping[str, object]) -> bytes:
    return (json.dumps(report, indent=2) + "\n").encode()
