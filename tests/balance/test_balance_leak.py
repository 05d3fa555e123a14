"""What gives edits away is in the report, the card, the summary and on the page of every run."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from vlbias import report
from vlbias.balance import Balancer
from vlbias.cli import app
from vlbias.errors import ConfigError
from vlbias.images import open_image
from vlbias.leak import Leak, LeakSettings

CELLS = {
    ("train", 0, "light"): 24,
    ("train", 0, "dark"): 11,
    ("train", 1, "light"): 11,
    ("train", 1, "dark"): 24,
    ("test", 0, "light"): 2,
}
QUICK = LeakSettings(sizes=())


def enlarged(tiny, folder):
    """Faces of 32 pixels, which the editor sees at 8."""
    faces = tiny.make_faces(folder, CELLS)
    for name in faces.table["file_name"]:
        open_image(folder / name).resize((32, 32), Image.Resampling.BICUBIC).save(folder / name)
    return faces


@pytest.fixture(scope="module")
def large(tiny, tmp_path_factory):
    return enlarged(tiny, tmp_path_factory.mktemp("large"))


def balancer(tiny, **settings):
    return Balancer(tiny.TinyEditor(), target="smile", protected="skin", **({"leak": QUICK} | settings))


@pytest.fixture(scope="module")
def small_edits(tiny, large, tmp_path_factory):
    """Edits of 8 pixels among originals of 32."""
    made = balancer(tiny, size="editor")
    return made.run(large, made.plan(large), tmp_path_factory.mktemp("run") / "out", show_progress=False)


def test_edits_of_another_size_are_warned_of_everywhere(small_edits):
    leak = Leak.from_dict(small_edits.report["leak"])
    worst = leak.worst
    assert worst.edits.value == 1.0 and worst.statistic_auc == 1.0
    assert worst.statistic in ("width", "height") and worst.donors.value < 0.9
    told = "Edits told from originals of the same cell by low-level traces, AUC of"
    warned = "low-level traces tell edits from originals of the same cell with an AUC of 1.00"
    summary = small_edits.summary()
    assert told in summary and f"warning: {warned}" in summary and "--size own" in summary
    card = (small_edits.out_dir / "README.md").read_text()
    assert "## How well edits can be told from originals" in card and told in card and f"**Warning:** {warned}" in card
    page = re.sub(r"\s+", " ", report.write(small_edits.out_dir).read_text())
    assert 'id="leak"' in page and 'href="#leak"' in page and f"Warning: {warned}" in page
    assert f"{leak.num_edits} edits and {leak.num_originals} originals were compared" in page
    assert "the width in pixels: alone 1.00" in page or "the height in pixels: alone 1.00" in page
    assert json.loads((small_edits.out_dir / "report.json").read_text())["leak"] == small_edits.report["leak"]


def test_edits_at_their_donors_size_are_not_told(tiny, tmp_path):
    faces, made = tiny.make_faces(tmp_path / "faces", CELLS), balancer(tiny)
    result = made.run(faces, made.plan(faces), tmp_path / "out", show_progress=False)
    leak = Leak.from_dict(result.report["leak"])
    # in these pictures the group is itself a pattern of pixels, which an edit changes and a donor keeps
    assert leak.worst.edits.low < 0.5 < leak.worst.edits.high and leak.worst.donors.value > 0.8
    assert not leak.is_warned_of and "warning" not in result.summary()


def test_a_finished_run_is_measured_again_when_asked_otherwise(tiny, large, small_edits, tmp_path):
    made = balancer(tiny, size="editor")
    plan = made.plan(large)
    first = made.run(large, plan, tmp_path / "out", show_progress=False)
    pictures = {path: path.read_bytes() for path in first.out_dir.rglob("*.png")}
    assert made.run(large, plan, tmp_path / "out", show_progress=False).report == first.report
    sized = balancer(tiny, size="editor", leak=replace(QUICK, sizes=(24,)))
    again = sized.run(large, plan, tmp_path / "out", show_progress=False)
    assert [row["size"] for row in again.report["leak"]["readings"]] == [None, 24]
    assert "at 24 px" in (first.out_dir / "README.md").read_text()
    rest = {key: value for key, value in again.report.items() if key != "leak"}
    assert rest == {key: value for key, value in first.report.items() if key != "leak"}
    assert pictures == {path: path.read_bytes() for path in first.out_dir.rglob("*.png")}


def test_originals_that_were_left_out_are_read_where_they_are(tiny, large, small_edits, tmp_path):
    made = balancer(tiny, size="editor")
    result = made.run(large, made.plan(large), tmp_path / "out", originals="omit", show_progress=False)
    assert result.report["leak"] == small_edits.report["leak"]


def test_too_few_pictures_say_so(tiny, faces, editor, tmp_path):
    made = Balancer(editor, target="smile", protected="skin")
    result = made.run(faces, made.plan(faces, limit=6), tmp_path / "out", show_progress=False)
    assert result.report["leak"]["readings"] == [] and "Too few pictures to tell" in result.summary()
    page = report.write(result.out_dir).read_text()
    assert "Too few pictures to tell" in page and "AUC against originals" not in page


def test_the_report_of_an_older_run_has_no_section(small_edits, tmp_path):
    import shutil

    out = shutil.copytree(small_edits.out_dir, tmp_path / "out")
    values = json.loads((out / "report.json").read_text())
    del values["leak"]
    (out / "report.json").write_text(json.dumps(values))
    assert 'id="leak"' not in report.write(out).read_text()


def test_a_probe_that_does_not_exist_is_refused(editor):
    with pytest.raises(ConfigError, match="`probe` of LeakSettings must be one of low-level, network; got 'eyes'"):
        Balancer(editor, target="smile", protected="skin", leak="eyes")


def test_faces_of_the_prior_are_compared_with_those_kept(tiny, tmp_path):
    made = balancer(tiny, source="prior")
    result = made.run(None, made.plan(None, num_images=120), tmp_path / "out", show_progress=False)
    leak = Leak.from_dict(result.report["leak"])
    assert leak.num_edits >= 20 and leak.readings[0].donors is not None
    table = pd.read_csv(result.out_dir / "metadata.csv")
    assert set(table["origin"]) == {"edited", "sampled"}


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
def test_drawn_donors_that_nobody_kept_are_not_compared(tiny, large, tmp_path, layout):
    made = balancer(tiny, source="prior", keep_pairs=False, format=layout)
    result = made.run(large, made.plan(large), tmp_path / "out", show_progress=False)
    leak = Leak.from_dict(result.report["leak"])
    assert leak.num_edits >= 20 and leak.readings and leak.readings[0].donors is None


@pytest.fixture
def command(tiny, large, monkeypatch):
    import vlbias.cli.balance as module

    monkeypatch.setattr(module, "open_editor", lambda *_, **__: tiny.TinyEditor())
    monkeypatch.setattr(module, "open_faces", lambda *_, **__: large)

    def call(out, *options, code=0):
        words = ["balance", "large", str(out), "--target", "smile", "--protected", "skin", *options]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, result.output
        return re.sub(r"\s+", " ", result.output)

    return call


def test_the_command_line_warns(command, tmp_path):
    output = command(tmp_path / "out", "--size", "editor", "--leak-sizes", "24,48")
    assert "warning: low-level traces tell edits from originals" in output and "at 24 px" in output
    assert "at 48 px" in output


def test_sizes_are_whole_numbers(command, tmp_path):
    output = command(tmp_path / "out", "--leak-sizes", "24,big", code=2)
    assert "expected whole numbers of pixels separated by commas; got '24,big'" in output.replace(" │ │", "")
