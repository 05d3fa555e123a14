"""Write a page and its JSON beside the data they speak of."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from vlbias.audit import AuditResult, Composition
from vlbias.balance.export import add_to_report
from vlbias.errors import ConfigError, OutputError
from vlbias.files import make_folder, read_json, write_file, write_json
from vlbias.report.audits import audit_limits, audit_values, composition_values, headline, summary_sentence
from vlbias.report.folder import RunFiles
from vlbias.report.page import data_uri, number, percent, render
from vlbias.report.run_page import run_values
from vlbias.version import __version__

__all__ = ["write", "write_audit", "write_paths"]


def write(
    out_dir: str | os.PathLike[str],
    audit: AuditResult | None = None,
    title: str | None = None,
    *,
    command: str | None = None,
    follow_links: bool = False,
) -> Path:
    """Write ``report.html`` of a balance run, and have the audit added to its ``report.json``.

    Args:
        out_dir: folder of a finished run (``metadata.csv``, ``rejected.csv``, ``report.json``).
        audit: classifiers before and after; ``None`` leaves that part out.
        title: heading; ``None`` makes one from the run.
        command: what to type to make it again; ``None`` builds the ``vlbias balance`` command from the settings.
        follow_links: whether pictures that are links (``originals="link"``) are shown in the page. In a folder that
            somebody else made they could lead to any picture of yours.

    Returns:
        Path of the page.

    Raises:
        DatasetError: the folder is not a finished run.
        OutputError: it cannot be written.
    """
    files = RunFiles(Path(out_dir), follow_links=follow_links)
    values = run_values(files, title=title, command=command)
    contents = [("counts", "Counts")]
    if audit is not None:
        values["audit"] = audit_values(audit)
        # The result first, then what was done to get it.
        values["tiles"] = [*headline(audit), *values["tiles"]][:4]
        values["lede"] = [*summary_sentence(audit), *values["lede"]]
        values["limits"] = [*values["limits"], *audit_limits(audit)]
        contents.append(("classifiers", "Classifiers"))
    else:
        values["audit"] = None
    if values["labelling"]:
        contents.append(("labels", "Labels"))
    contents += [("edits", "Edits"), ("rejected", "Turned down")]
    contents += [("leak", "Leak")] if values["leak"] else []
    contents += [("judges", "Judges"), ("limits", "Limits")]
    contents.append(("provenance", "Provenance"))
    values["contents"] = contents
    page = _write_page(files.out, "balance.html.j2", values)
    if audit is not None:
        add_to_report(files.out, audit.to_dict())
    return page


def write_audit(
    out_dir: str | os.PathLike[str],
    audit: AuditResult | None = None,
    *,
    compositions: Sequence[Composition] = (),
    title: str | None = None,
    command: str | None = None,
) -> Path:
    """Write ``report.html`` and ``report.json`` of datasets that were measured, not balanced.

    Args:
        out_dir: folder, made if need be.
        audit: classifiers trained on the datasets; ``None`` shows the composition alone.
        compositions: who is in each dataset.
        title: heading; ``None`` makes one.
        command: what to type to make it again, or ``None``.

    Raises:
        ConfigError: neither an audit nor a composition.
        OutputError: the folder cannot be written, or its report.json belongs to a balance run.
    """
    if audit is None and not compositions:
        raise ConfigError("nothing to report: pass an audit, compositions, or both.")
    out = make_folder(out_dir)
    if (out / "report.json").is_file() and "counts_before" in read_json(out / "report.json"):
        raise OutputError(f"{out} holds the report of a balance run; use report.write there, or another folder.")
    subject = audit if audit is not None else compositions[0]
    protected = " × ".join(subject.protected)
    parts = [composition_values(item) for item in compositions]
    lede = []
    if audit is not None:
        lede += summary_sentence(audit)
    else:
        lede += [part["text"] for part in parts[:1]]
    limits = audit_limits(audit) if audit is not None else []
    limits += [
        "Labels are those of the datasets. Where they are wrong or coarse, so are the counts and the gaps.",
        "Only the attributes named here were looked at; other groups may fare worse.",
    ]
    values = {
        "title": title or f"{subject.target.capitalize()} by {protected}: who is in the data, and who is served worse",
        "eyebrow": "vlbias audit report",
        "lede": lede,
        "tiles": headline(audit) if audit is not None else [],
        "contents": [],
        "compositions": parts,
        "audit": audit_values(audit) if audit is not None else None,
        "limits": limits,
        "facts": _facts(),
        "command": command,
        "files": [("report.json", "the numbers of this page")],
    }
    page = _write_page(out, "audit.html.j2", values)
    numbers: dict[str, Any] = {"datasets": [item.to_dict() for item in compositions]}
    write_json(out / "report.json", numbers | (audit.to_dict() if audit is not None else {}))
    return page


def write_paths(
    out_dir: str | os.PathLike[str],
    summary: pd.DataFrame,
    *,
    changed: pd.DataFrame | None = None,
    moved: pd.DataFrame | None = None,
    strips: Mapping[str, Image.Image] | None = None,
    title: str = "What each path does",
    command: str | None = None,
) -> Path:
    """Write ``report.html`` and ``report.json`` of a path set, as ``vlbias.paths.measure_paths`` measures it.

    Args:
        out_dir: folder, made if need be.
        summary: one row a walk ("age +1"); any columns of numbers.
        changed: rows are walks, columns attributes: share of faces whose reading changed sides, in [0, 1].
        moved: likewise, mean change in units of the distance between the poles.
        strips: path name -> picture of it walked.
        title: heading.
        command: what to type to make it again, or ``None``.

    Raises:
        OutputError: the folder cannot be written.
    """
    out = make_folder(out_dir)
    tables = []
    if changed is not None:
        text = (
            "Share of faces whose reading of each attribute changed sides. The outlined cells are meant to move, the "
            "rest to stay."
        )
        tables.append(_heat(changed, "changed", "What changes sides", text, percent, 1.0))
    if moved is not None:
        top = max(1.0, float(moved.abs().to_numpy().max()))
        text = "Mean change of each reading; 1 is the way from the median of one pole to that of the other."
        tables.append(_heat(moved, "moved", "How far readings move", text, lambda value: number(value, 2), top))
    rows = [{"name": name, "cells": [_cell(value) for value in row]} for name, row in summary.iterrows()]
    values = {
        "title": title,
        "eyebrow": "vlbias path report",
        "lede": ["How often a walk of calibrated strength arrives at the other pole, and what else it drags along."],
        "tiles": [],
        "contents": [],
        "strips": [
            {"image": data_uri(image, max_edge_px=1600), "alt": f"One face walked along {name}", "caption": name}
            for name, image in (strips or {}).items()
        ],
        "summary": {"caption": "One row a walk.", "columns": list(summary.columns), "rows": rows},
        "tables": tables,
        "limits": ["Readings are those of a CLIP and of linear probes, not of people; both err."],
        "facts": _facts(),
        "command": command,
        "files": [("report.json", "the numbers of this page")],
    }
    page = _write_page(out, "paths.html.j2", values)
    frames = {"summary": summary, "changed": changed, "moved": moved}
    write_json(out / "report.json", {key: _plain(frame) for key, frame in frames.items() if frame is not None})
    return page


def _heat(table: pd.DataFrame, anchor: str, title: str, text: str, show: Any, top: float) -> dict[str, Any]:
    rows = []
    for name, row in table.iterrows():
        own = str(name).split(" ")[0]
        cells = [
            {
                "text": show(float(value)),
                "level": 0 if math.isnan(value) else round(70 * min(1.0, abs(value) / top)),
                # What is meant to move is good, what moves along is not.
                "tone": "balanced" if column == own else "oracle",
                "own": column == own,
            }
            for column, value in row.items()
        ]
        rows.append({"name": name, "cells": cells})
    return {"anchor": anchor, "title": title, "text": text, "columns": list(table.columns), "rows": rows}


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{int(value):,}" if float(value).is_integer() and abs(value) > 1 else number(float(value))


def _plain(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    def value_of(value: Any) -> Any:
        return value if isinstance(value, str) else (float(value) if math.isfinite(value) else None)

    return {str(i): {str(c): value_of(v) for c, v in row.items()} for i, row in frame.iterrows()}


def _facts() -> list[tuple[str, str]]:
    import platform

    import torch

    return [("Versions", f"vlbias {__version__}, torch {torch.__version__}, Python {platform.python_version()}")]


def _write_page(out: Path, template: str, values: Mapping[str, Any]) -> Path:
    page = out / "report.html"
    write_file(page, render(template, {**values, "version": __version__}))
    return page
