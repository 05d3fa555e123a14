"""A simulation filled with verified edits of a Balancer (on an editor that is all formulas)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "balance"))
import tiny_editor

from vlbias import simulate
from vlbias.balance import Balancer
from vlbias.classify import FitSettings
from vlbias.errors import PlanError

CELLS = {
    (split, smile, skin): n
    for split, n in (("train", 14), ("test", 6))
    for smile in (0, 1)
    for skin in ("dark", "light")
}


def test_edits_reach_the_share_and_are_made_once(tmp_path, capsys):
    faces = tiny_editor.make_faces(tmp_path / "faces", CELLS)
    plan = simulate.plan(faces, target="smile", protected="skin", focal="dark", n=16, shares=(0.0, 0.5), repeats=2)
    # what a simulation is filled with is edits alone, whatever the balancer's own sets have
    balancer = Balancer(tiny_editor.TinyEditor(leak=0.12), target="smile", protected="skin", chunk_size=8, copies=0.5)
    seen = []

    def model(training):
        seen.append((training.key, training.images, training.edited))
        return [plan.labels[item][1] for item in plan.test]

    options = {"settings": FitSettings(image_size=16), "show_progress": False, "storage": tmp_path / "sim.log"}
    fill = {"real": None, "edited": balancer}
    result = simulate.run(plan, faces, model=model, fill=fill, **options)
    assert len(result.records) == 2 * 2 + 2
    edited = {key: (images, mask) for key, images, mask in seen if key.startswith("edited")}
    assert len(edited) == 2 and all(mask.sum() == 8 and len(images) == 16 for images, mask in edited.values())
    # Dark faces have a larger first code: the edits are read as dark ones by the formula they were made with.
    images, mask = next(iter(edited.values()))
    assert np.unique(images[mask].flatten(1).numpy(), axis=0).shape[0] == 8
    calls = balancer.backend.diffae.evaluations
    (tmp_path / "sim.log").unlink()
    simulate.run(plan, faces, model=model, fill=fill, **options)
    assert balancer.backend.diffae.evaluations - calls <= 64, (
        "the edits on disk are taken, only the price is timed again"
    )


def test_an_editor_without_the_path_says_so(tmp_path):
    faces = tiny_editor.make_faces(tmp_path / "faces", CELLS)
    plan = simulate.plan(faces, target="smile", protected="skin", focal="dark", n=16, shares=(0.0, 0.5), repeats=1)
    blunt = Balancer(tiny_editor.TinyEditor(blunt=True), target="smile", protected="skin", chunk_size=8)
    options = {"settings": FitSettings(image_size=16), "show_progress": False, "storage": tmp_path / "sim.log"}
    with pytest.raises(PlanError, match=r"No edit towards 'dark' passed verification \(\w+ \d+"):
        simulate.run(plan, faces, model=lambda training: [], fill={"edited": blunt}, **options)
