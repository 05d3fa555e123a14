"""The walkthrough runs from its first cell to its last, with a small budget."""

from __future__ import annotations

import pytest

from vlbias.checkpoints import list_checkpoints

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


@pytest.mark.slow
def test_walkthrough_runs(repository, monkeypatch):
    assert "synthfaces-64" in list_checkpoints()
    monkeypatch.setenv("VLBIAS_WALKTHROUGH_BUDGET", "0.02")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(repository / "notebooks" / "walkthrough.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 8
    # no limit a cell: how long it takes is the machine's affair
    resources = {"metadata": {"path": repository}}
    nbclient.NotebookClient(notebook, timeout=None, startup_timeout=600, resources=resources).execute()
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 5
