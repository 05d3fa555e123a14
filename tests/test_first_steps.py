"""Everything on the page of first steps is done, in its order, in an empty folder."""

from __future__ import annotations

import re
import shlex

import pandas as pd
import pytest
from typer.testing import CliRunner

from vlbias.cli import app


@pytest.mark.slow
def test_the_first_steps_are_gone(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (repository / "docs" / "first_steps.md").read_text("utf-8")
    namespace: dict[str, object] = {}
    done = []
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL):
        if language == "python":
            exec(compile(block, "first_steps.md", "exec"), namespace)
            continue
        for line in block.splitlines():
            words = shlex.split(line)
            assert words[0] == "vlbias"
            told = CliRunner().invoke(app, words[1:])
            assert told.exit_code == 0, f"{line}: {told.output} {told.exception}"
            done.append(words[1])
    assert done == ["edit", "balance", "balance", "audit", "review", "balance"]
    assert (tmp_path / "out/edited/me.png").is_file() and (tmp_path / "out/audit/report.html").is_file()
    rejected = pd.read_csv(tmp_path / "out/own/rejected.csv")
    assert (rejected["reason"] == "refused_by_person").sum() == 3
    assert namespace["images"].classes == ["no", "yes"]
