"""Write the page of a balance run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vlbias.files import write_file
from vlbias.pages.folder import RunFiles
from vlbias.pages.page import render
from vlbias.pages.run_page import run_values
from vlbias.version import __version__

__all__ = ["AuditPart", "write_page", "write_run"]


class AuditPart(NamedTuple):
    """What the page of a run says of classifiers before and after.

    Attributes:
        values: of the section.
        tiles: figures that come first.
        lede: sentences that come first.
        limits: what to distrust.
    """

    values: Mapping[str, Any]
    tiles: Sequence[Mapping[str, Any]]
    lede: Sequence[str]
    limits: Sequence[str]


def write_run(
    out: Path,
    *,
    audit: AuditPart | None = None,
    title: str | None = None,
    command: str | None = None,
    follow_links: bool = False,
) -> Path:
    """Write ``report.html`` of a balance run; arguments as for :func:`vlbias.report.write`.

    Raises:
        DatasetError: the folder is not a finished run.
        OutputError: it cannot be written.
    """
    files = RunFiles(out, follow_links=follow_links)
    with files.of_one_run():
        values = run_values(files, title=title, command=command)
    contents = [("asked", "Asked"), ("counts", "Changed"), ("edits", "Edits"), ("rejected", "Turned down")]
    values["audit"] = None
    if audit is not None:
        values["audit"] = audit.values
        # The result first, then what was done to get it.
        values["tiles"] = [*audit.tiles, *values["tiles"]][:4]
        values["lede"] = [*audit.lede, *values["lede"]]
        values["limits"] = [*values["limits"], *audit.limits]
        contents.append(("classifiers", "Classifiers"))
    contents += [("labels", "Labels")] if values["labelling"] else []
    contents += [("leak", "Leak")] if values["leak"] else []
    contents += [("scorers", "Scorers"), ("cost", "Cost"), ("limits", "Distrust"), ("provenance", "Again")]
    return write_page(files.out, "balance.html.j2", values | {"contents": contents})


def write_page(out: Path, template: str, values: Mapping[str, object]) -> Path:
    """Fill a template into ``report.html`` of a folder."""
    page = out / "report.html"
    write_file(page, render(template, {**values, "version": __version__}))
    return page
