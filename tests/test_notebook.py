"""The notebooks run from their first cell to their last, with a small budget, and are committed as they were shown."""

from __future__ import annotations

import pytest

from vlbias.checkpoints import list_checkpoints

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

#: Notebook -> pictures that it shows at least.
NOTEBOOKS = {"walkthrough": 8, "audit_only": 1}


def read(repository, name):
    notebook = nbformat.read(repository / "notebooks" / f"{name}.ipynb", as_version=4)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(code):
    return [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, repository, monkeypatch):
    assert "synthfaces-64" in list_checkpoints()
    monkeypatch.setenv("VLBIAS_WALKTHROUGH_BUDGET", "0.02")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook, code = read(repository, name)
    assert len(code) >= 8
    for cell in code:
        cell.outputs = []
    # no limit a cell: how long it takes is the machine's affair
    resources = {"metadata": {"path": repository}}
    nbclient.NotebookClient(notebook, timeout=None, startup_timeout=600, resources=resources).execute()
    assert len(pictures(code)) >= NOTEBOOKS[name]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_committed_with_what_it_showed(name, repository):
    _, code = read(repository, name)
    assert len(pictures(code)) >= NOTEBOOKS[name]
    for cell in code:
        assert all(output.output_type != "error" for output in cell.outputs)
        # one line of progress, no walls and nothing red
        lines = [output.text.splitlines() for output in cell.outputs if output.output_type == "stream"]
        assert sum(map(len, lines)) <= 12 and all(output.get("name") != "stderr" for output in cell.outputs)
    text = (repository / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert str(repository.parent) not in text and "/tmp/" not in text
