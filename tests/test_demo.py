"""The demo gives the same bytes and figures, whoever works and however many processors there are."""

from __future__ import annotations

import json

import pytest
import torch
from doubles import tree_hash

from vlbias import Editor, demo
from vlbias.engine import Engine


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A demo with a few faces and steps; its files, and what the classifiers came to."""
    for name, few in {"SMILING_LIGHT": 40, "OTHER_LIGHT": 24, "DARK": 64, "_TEST_FACES": 60}.items():
        monkeypatch.setattr(demo, name, few)
    editor = Editor.from_pretrained("synthfaces-64")

    def run(name, **options):
        out = tmp_path / name
        demo.run_demo(out, editor=editor, num_faces=100, num_seeds=1, num_steps=1, **options)
        outcome = json.loads((out / "balanced" / "report.json").read_text())["classifiers"]
        files = {path.removeprefix(str(out)): value for path, value in tree_hash(out).items() if ".state" not in path}
        return files, outcome

    return run


def test_workers_and_threads_change_nothing(run, monkeypatch):
    torch.set_num_threads(2)
    try:
        here, figures = run("here")  # so few steps are not worth a worker
        assert torch.get_num_threads() == 2
        there, same = run("there", engine=Engine(workers=2))
    finally:
        torch.set_num_threads(1)
    assert same == figures and there == here and any(name.endswith(".png") for name in here)
