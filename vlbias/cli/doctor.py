"""``vlbias doctor``: what is here, and what is not."""

from __future__ import annotations

import typer

from vlbias.cli.application import app


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
