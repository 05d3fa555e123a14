"""What runs leave as JSON, against the schemas that are published for it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

SCHEMAS = Path(__file__).resolve().parents[1] / "docs" / "schemas"

#: A key that only reports of its kind have => their schema.
REPORTS = {
    "counts_before": "balance-report",
    "datasets": "audit-report",
    "summary": "paths-report",
    "slopes": "simulation-report",
    "front": "search-report",
}
OTHERS = {"flips.json": "flips-report", "paths.json": "path-drift"}


def schema_of(file: Path) -> str | None:
    """The schema of a file, by its name and keys; ``None`` for what is no report."""
    if file.name in OTHERS:
        return OTHERS[file.name]
    keys = json.loads(file.read_text("utf-8")) if file.name == "report.json" else ()
    return next((name for key, name in REPORTS.items() if key in keys), None)


def problems(values: object, name: str) -> list[str]:
    """What a report has against its schema."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    found = jsonschema.Draft202012Validator(schema).iter_errors(values)
    return [f"{name} at {'/'.join(map(str, one.path))}: {one.message[:200]}" for one in found]


def problems_below(folder: Path) -> tuple[set[str], list[str]]:
    """Schemas of all reports below a folder, and what is wrong with them."""
    files = [file for file in sorted(folder.rglob("*.json")) if file.name in (*OTHERS, "report.json")]
    named = {file: schema_of(file) for file in files}
    wrong = [f"{file}: no schema" for file, name in named.items() if name is None]
    for file, name in named.items():
        wrong += [] if name is None else problems(json.loads(file.read_text("utf-8")), name)
    return {name for name in named.values() if name}, wrong
