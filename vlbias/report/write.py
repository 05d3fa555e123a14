"""Write a page and its JSON beside the data they speak of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from vlbias.arguments import checked_call
from vlbias.audit import AuditResult, Composition, DriftReport, FlipReport
from vlbias.balance.export import add_to_report
from vlbias.errors import ConfigError, OutputError
from vlbias.files import AnyPath, make_folder, read_object, refuse_links, write_json
from vlbias.pages import AuditPart, write_page, write_run
from vlbias.pages.run_page import versions
from vlbias.report.audits import audit_limits, audit_values, composition_values, headline, summary_sentence
from vlbias.report.measured import drift_values, flip_values
from vlbias.report.paths_page import path_values
from vlbias.report.studies import search_numbers, search_values, simulation_numbers, simulation_values
from vlbias.shown import plural

if TYPE_CHECKING:
    from vlbias.editor import Editor
    from vlbias.paths import PathReport
    from vlbias.search import Front, Study  # needs the extra "search"
    from vlbias.simulate import SimulationResult

__all__ = ["write", "write_audit", "write_drift", "write_flips", "write_paths", "write_search", "write_simulation"]

_NUMBERS = [("report.json", "the numbers of this page")]


@checked_call
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
    part = None
    if audit is not None:
        part = AuditPart(audit_values(audit), headline(audit), summary_sentence(audit), audit_limits(audit))
    page = write_run(Path(out_dir), audit=part, title=title, command=command, follow_links=follow_links)
    if audit is not None:
        add_to_report(page.parent, audit.to_dict())
    return page


@checked_call
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
        OutputError: the folder cannot be written, its report is a link, or that of a balance run.
    """
    if audit is None and not compositions:
        raise ConfigError("nothing to report: pass an audit, compositions, or both.")
    out = make_folder(out_dir)
    refuse_links(out / "report.json", out / "report.html")
    if (out / "report.json").is_file() and "counts_before" in read_object(out / "report.json"):
        raise OutputError(f"{out} has the report of a balance run; use report.write there, or another folder.")
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
        "facts": versions(),
        "command": command,
        "files": _NUMBERS,
    }
    numbers: dict[str, Any] = {"datasets": [item.to_dict() for item in compositions]}
    return _write_both(out, "audit.html.j2", values, numbers | (audit.to_dict() if audit is not None else {}))


def write_flips(out_dir: AnyPath, flips: FlipReport, *, title: str | None = None, command: str | None = None) -> Path:
    """Write ``report.html`` and ``flips.json``: how often a classifier's answer changes, and of which faces.

    Args:
        out_dir: folder, made if need be.
        flips: what was measured.
        title: heading; ``None`` makes one.
        command: what to type to make it again, or ``None``.

    Raises:
        OutputError: the folder cannot be written, or its files are links.
    """
    values = {
        "title": title or f"Answers that change with {flips.protected}",
        "eyebrow": "vlbias flip report",
        **flip_values(flips),
    }
    return _write_measured(out_dir, values, "flips.json", flips.to_dict(), command)


def write_drift(out_dir: AnyPath, drift: DriftReport, *, title: str | None = None, command: str | None = None) -> Path:
    """Write ``report.html`` and ``paths.json``: what the paths of an editor do, and what they leave alone.

    Args:
        out_dir: folder, made if need be.
        drift: what was measured.
        title: heading; ``None`` makes one.
        command: what to type to make it again, or ``None``.

    Raises:
        OutputError: the folder cannot be written, or its files are links.
    """
    values = {"title": title or "What edits do", "eyebrow": "vlbias path report", **drift_values(drift)}
    return _write_measured(out_dir, values, "paths.json", drift.to_dict(), command)


def _write_measured(
    out_dir: AnyPath, values: Mapping[str, Any], name: str, numbers: Mapping[str, Any], command: str | None
) -> Path:
    """A page of sections, and its numbers in a file of that name."""
    contents = [(section["anchor"], section["title"]) for section in values["sections"]]
    common = {
        "tiles": [],
        "contents": [*contents, ("limits", "Distrust")],
        "facts": versions(),
        "command": command,
        "files": [(name, "the numbers of this page")],
    }
    return _write_both(out_dir, "measured.html.j2", {**common, **values}, numbers, name)


def write_simulation(
    out_dir: AnyPath, result: SimulationResult, *, title: str | None = None, command: str | None = None
) -> Path:
    """Write ``report.html`` and ``report.json`` of a simulation beside its tables (``SimulationResult.write``).

    Args:
        out_dir: folder, made if need be.
        result: all its runs are finished.
        title: heading; ``None`` makes one.
        command: what to type to make it again, or ``None``.

    Raises:
        PlanError: a run is missing.
        OutputError: the folder cannot be written.
    """
    plan = result.plan
    contents = [("own", "The group itself"), ("parity", "Parity"), ("numbers", "Numbers"), ("limits", "Limits")]
    values = {
        "title": title or f"{plan.target.capitalize()} by {plan.protected}: what the composition of training does",
        "eyebrow": "vlbias simulation report",
        "tiles": [],
        "contents": contents if any(plan.runs["focal"]) else contents[2:],
        "facts": versions(),
        "command": command,
        "files": [
            *_NUMBERS,
            ("runs.csv", "every run"),
            ("summary.csv", "the slopes"),
            ("plan.json", "every training list"),
        ],
    }
    return _write_both(out_dir, "simulation.html.j2", values | simulation_values(result), simulation_numbers(result))


def write_search(
    out_dir: AnyPath, study: Study, front: Front, *, title: str | None = None, command: str | None = None
) -> Path:
    """Write ``report.html`` and ``report.json`` of an architecture search beside its tables (``Study.write``).

    Args:
        out_dir: folder, made if need be.
        study: the search.
        front: its candidates on held-out data.
        title: heading; ``None`` makes one.
        command: what to type to make it again, or ``None``.

    Raises:
        OutputError: the folder cannot be written.
    """
    words = " and ".join(name.replace("_", " ") for name in front.objectives)
    values = {
        "title": title or f"Architectures by {words}: {plural(len(front.table), 'candidate')} on held-out data",
        "eyebrow": "vlbias search report",
        "tiles": [],
        "contents": [("front", "Front"), ("groups", "Groups"), ("limits", "Limits")],
        "facts": versions(),
        "command": command,
        "files": [
            *_NUMBERS,
            ("front.csv", "this front"),
            ("trials.csv", "every trial"),
            ("groups.csv", "group by group"),
        ],
    }
    return _write_both(out_dir, "search.html.j2", values | search_values(study, front), search_numbers(study, front))


def write_paths(
    out_dir: AnyPath,
    editor: Editor,
    measured: PathReport,
    *,
    strips: Sequence[tuple[str, Image.Image]] = (),
    strength: float = 1.0,
    title: str | None = None,
    command: str | None = None,
) -> Path:
    """Write ``report.html`` and ``report.json`` of what an editor's paths do.

    Args:
        out_dir: folder, made if need be.
        editor: whose paths they are.
        measured: what :func:`vlbias.paths.measure_paths` says of them.
        strips: (path, one face along it), as :meth:`vlbias.Editor.strip` draws them.
        strength: of the walks.
        title: heading; ``None`` makes one.
        command: what to type to make it again, or ``None``.

    Raises:
        OutputError: the folder cannot be written.
    """
    walks, paths = plural(len(measured.summary), "walk"), ", ".join(editor.attributes)
    contents = [("walks", "Walks"), ("edits", "Looks"), ("drift", "Drift"), ("limits", "Limits")]
    values = {
        "title": title or f"{editor.name}: what its paths do, and what they take along",
        "eyebrow": "vlbias paths report",
        "asked": f"{walks} along {paths} at strength {strength:g}, each by unseen faces of the pole that it leaves; "
        "faces are encoded, walked and decoded, and read before and after.",
        "tiles": [],
        "contents": [item for item in contents if strips or item[0] != "edits"],
        "facts": [("editor", editor.name), ("licence", editor.renderer.license or "not stated"), *versions()],
        "command": command,
        "files": _NUMBERS,
    }
    values |= path_values(measured, editor.dipoles, strips, strength)
    numbers = {"editor": editor.name, "strength": strength, **measured.to_dict()}
    return _write_both(out_dir, "paths.html.j2", values, numbers)


def _write_both(
    out_dir: AnyPath, template: str, values: Mapping[str, Any], numbers: Mapping[str, Any], name: str = "report.json"
) -> Path:
    """A page, and its numbers beside it in a file of that name."""
    out = make_folder(out_dir)
    refuse_links(out / name, out / "report.html")
    page = write_page(out, template, values)
    write_json(out / name, dict(numbers))
    return page
