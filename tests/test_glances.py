"""What a prompt and a notebook show of an object: a line, and a small table."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from vlbias import Balancer, Editor, load_dataset
from vlbias.audit import composition
from vlbias.balance.plan import Cost
from vlbias.balance.run import Result
from vlbias.cli import app
from vlbias.shown import MAX_ROWS, Glance, Shown

sys.path.insert(0, str(Path(__file__).parent / "report"))
from finished_run import audit_result


class Thing(Shown):
    def __init__(self, line="a thing", rows=()):
        self.line, self.rows = line, rows

    def _glance(self) -> Glance:
        return Glance(self.line, ("a", "b"), self.rows)


@pytest.fixture(scope="module")
def editor():
    return Editor.from_pretrained("synthfaces-64", device="cpu")


@pytest.fixture(scope="module")
def faces():
    return load_dataset("synthfaces", n=60, seed=1)


def is_small(thing) -> bool:
    line, page = repr(thing), thing._repr_html_()
    return "\n" not in line and len(line) < 300 and page.count("<tr>") <= MAX_ROWS + 1 and len(page) < 5000


def test_values_of_strangers_do_nothing():
    thing = Thing("<script>\x1b[2J\nsecond", [("<img src=x>", 0.123456)])
    assert repr(thing) == "<Thing: <script>\\x1b[2J\\nsecond>"
    assert "<script>" not in thing._repr_html_() and "<img" not in thing._repr_html_()
    assert "<td>0.123</td>" in thing._repr_html_()


def test_a_long_table_is_cut_and_says_so():
    page = Thing(rows=[(i, i) for i in range(40)])._repr_html_()
    assert page.count("<tr>") == MAX_ROWS + 1 and "28 more" in page
    assert "<table>" not in Thing()._repr_html_()


def test_an_editor_names_what_it_moves(editor):
    assert repr(editor).startswith("<Editor: 'synthfaces-64', 64 px, moves age")
    assert all(f"<td>{name}</td>" in editor._repr_html_() for name in editor.attributes)
    assert is_small(editor)


def test_a_dataset_a_balancer_and_a_plan(editor, faces):
    assert repr(faces).startswith("<SynthFaces: 'synthfaces', 60 faces (") and "smile" in faces._repr_html_()
    low, middle, high = (f"{found:.3g}" for found in faces.table["age"].quantile([0, 0.5, 1]))
    assert f"<td>age</td><td>{low} to {high}, median {middle}</td>" in faces._repr_html_()  # not four of 60 numbers
    balancer = Balancer(editor, target="smile", protected="skin")
    assert repr(balancer) == "<Balancer: smile by skin, mode reduce, source real, editor 'synthfaces-64'>"
    plan = balancer.plan(faces, limit=3)
    assert repr(plan).startswith("<Plan: 3 edits in 1 chunk, 3 faces to add")
    before, after = plan.counts_before["1"]["dark"], plan.counts_after["1"]["dark"]
    assert f"<td>{before} → {after}</td>" in plan._repr_html_()
    assert all(map(is_small, (faces, balancer, plan)))


def test_the_shell_completes_commands():
    words = {"_VLBIAS_COMPLETE": "complete_bash", "COMP_WORDS": "vlbias prov", "COMP_CWORD": "1"}
    told = CliRunner().invoke(app, [], env=words, prog_name="vlbias")
    assert told.output.split() == ["provenance"]


@pytest.mark.parametrize("use_jedi", [True, False])
def test_a_notebook_completes_attributes(editor, use_jedi):
    completer = pytest.importorskip("IPython.core.completer")
    prompt = completer.IPCompleter(namespace={"editor": editor, "face": None}, use_jedi=use_jedi)

    def offered(typed):
        with completer.provisionalcompleter():
            return {found.text for found in prompt.completions(typed, len(typed))}

    assert {"age=", "align="} <= offered("editor.edit(face, a")
    assert "skin_tone=" in offered("editor.edit(face, age=1, sk")
    assert {"edit", "encode"} <= {name.removeprefix("editor.").lstrip(".") for name in offered("editor.e")}


def test_help_of_edit_names_attributes_and_the_class_stays_general(editor):
    of_one, of_all = (list(inspect.signature(thing.edit).parameters) for thing in (editor, Editor))
    assert of_one == [*of_all[1:-1], *editor.attributes, "strengths"]
    assert editor.edit.__doc__ == Editor.edit.__doc__ and "edit" in dir(editor)


def test_a_result_finished_and_not(tmp_path):
    counts = {"0": {"dark": 3, "light": 1}}
    report = {"edits": {"kept": 1, "planned": 2}, "target": "smile", "counts_before": counts, "counts_after": counts}
    done = Result(tmp_path, True, pd.DataFrame({"file_name": range(5000)}), pd.DataFrame(), report)
    assert "1 of 2 edits kept, 5,000 pictures" in repr(done) and "3 → 3" in done._repr_html_() and is_small(done)
    half = Result(tmp_path, False, pd.DataFrame(), pd.DataFrame(), {"chunks_done": 1, "chunks": 4})
    assert "1 of 4 chunks done" in repr(half) and is_small(half)


def test_an_audit_and_a_composition(faces):
    audit = audit_result(bootstrap=0)
    assert "smile by skin; baseline, balanced, oracle; 3 seeds" in repr(audit) and is_small(audit)
    value = audit.per_seed["baseline"]["accuracy"].mean()
    assert re.search(rf"<td>Accuracy</td><td>{value:.3f}</td>", audit._repr_html_())
    found = composition(faces, target="smile", protected="skin")
    assert repr(found).startswith("<Composition: 'synthfaces', smile by skin") and is_small(found)


def test_counts_have_their_nouns_and_short_times_no_zero():
    said = str(Cost(1, 7, 0.02, 1.3))
    assert said == "1 face to add, 7 UNet evaluations, less than a minute, 1.3 MB"
    assert str(Cost(2, 7, 1.26, 1.3, evaluations_range=(5, 9), pilot=1)) == (
        "2 faces to add, 7 UNet evaluations (5 to 9, after 1 edit on trial), about 1.3 minutes, 1.3 MB"
    )


def test_the_terminal_says_in_words_what_an_audit_found(monkeypatch):
    found = audit_result(bootstrap=20, num_test=80)
    monkeypatch.setattr("vlbias.audit.measure", lambda *_, **__: found)
    words = ["audit", "synthfaces:30", "--target", "smile", "--protected", "skin"]
    shown = CliRunner().invoke(app, words).output
    assert "change" in shown and "Trained on the balanced set instead of the dataset as it is" in shown
    alone = replace(found, predictions={"baseline": np.zeros_like(found.predictions["baseline"])})
    monkeypatch.setattr("vlbias.audit.measure", lambda *_, **__: alone)
    shown = CliRunner().invoke(app, words).output
    assert "hardly better than guessing, so their gaps mean little" in shown and "change" not in shown
