"""The page of an editor's paths."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
from test_report_pages import Page
from test_report_studies import is_self_contained

from vlbias import Dipole, report
from vlbias.images import contact_sheet, to_pil
from vlbias.paths import PathReport
from vlbias.world import render, sample

DIPOLES = {"age": Dipole("an old <b>person</b>", "a young person"), "beard": Dipole("a beard", "no beard")}
WALKS = ["age +1", "age -1"]


def measured(beard=0.25):
    summary = pd.DataFrame({"success": [0.75, 1.0], "identity": [0.9, 0.8], "faces": [8, 4]}, index=WALKS)
    changed = pd.DataFrame({"age": [0.75, 1.0], "beard": [beard, 0.0]}, index=WALKS)
    return PathReport(summary, changed, changed * [1.5, -1.0])


def written(out, found=None):
    editor = SimpleNamespace(
        name="my <editor>", attributes=["age"], dipoles=DIPOLES, renderer=SimpleNamespace(license="MIT")
    )
    strip = contact_sheet(to_pil(render(sample(5, seed=1), 32)), 5)
    found = measured() if found is None else found
    return report.write_paths(out, editor, found, strips=[("age", strip)], command="vlbias paths mine --out OUT")


def test_the_page_says_what_was_measured(tmp_path):
    text = written(tmp_path).read_text("utf-8")
    page = Page(text)
    is_self_contained(text)
    assert "The walk that arrives least often is age +1: 75 % of 8 faces" in page.text
    assert "changed sides in more than 10 % of the faces: beard by age +1 (25 %)" in page.text
    assert "6 of 8" in page.text and "4 of 4" in page.text and "an old <b>person</b>" in page.text
    assert "<b>person" not in text and "vlbias paths mine --out OUT" in page.text
    assert 'alt="age: one face at strengths from -1 to +1"' in text and len(page.ids) == len(set(page.ids))
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["editor"] == "my <editor>" and numbers["summary"]["age +1"] == {
        "success": 0.75, "identity": 0.9, "faces": 8,
    }  # fmt: skip


def test_a_path_that_takes_nothing_along_is_said_to(tmp_path):
    page = Page(written(tmp_path, measured(beard=0.05)).read_text("utf-8"))
    assert "No other reading changed sides in more than 10 % of the faces." in page.text
