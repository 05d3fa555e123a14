"""Pages of simulations and searches, and the command that makes a page again."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_report_pages import Page
from typer.testing import CliRunner

from vlbias import report, simulate
from vlbias.cli.application import Application, typed_command
from vlbias.report.studies import _estimate, simulation_values
from vlbias.search.front import Front

sys.path.insert(0, str(Path(__file__).parents[1] / "simulate"))
from tests_simulate_faces import TableFaces, face_table, stub


def simulated(**options):
    faces = TableFaces(face_table())
    plan = simulate.plan(faces, target="emotion", protected="race", n=120, **{"repeats": 3} | options)
    own = stub(plan, lambda group, training: 0.4 + 0.4 * float(np.mean(training.groups == group)))
    return simulate.run(plan, faces, model=own, storage=None, show_progress=False)


@pytest.fixture(scope="module")
def result():
    return simulated(shares=(0.0, 0.2, 0.5))


def front(low=-0.04):
    table = pd.DataFrame({"trial": [3, 7], "label": ["small <b>net</b>", "wide net"], "on_front": [True, False]})
    table = table.assign(p_dominated=[0.1, 0.97])
    for name, values in {"error": [0.2, 0.1], "rank_gap": [0.01, 0.3]}.items():
        table[name], table[f"val_{name}"] = values, [value / 2 for value in values]
        table[f"{name}_low"], table[f"{name}_high"] = low, [value + 0.05 for value in values]
    index = pd.MultiIndex.from_product([[3, 7], ["dark", "light"]], names=["trial", "group"])
    groups = pd.DataFrame({"images": [40, 41, 40, 41], "error": [0.1, 0.3, 0.1, 0.1]}, index=index)
    return Front(table.set_index("trial"), pd.DataFrame(), ("error", "rank_gap"), 0.95, 2, "test", groups)


STUDY = SimpleNamespace(table=lambda: pd.DataFrame({"state": ["complete", "complete", "stopped"]}))


def is_self_contained(text):
    assert "default-src 'none'" in text and "<script" not in text
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", re.sub(r'xlink:href="#[^"]*"', "", text))


def test_a_simulation_page_says_what_the_tables_say(result, tmp_path):
    text = report.write_simulation(tmp_path, result, command="vlbias simulate faces/ OUT").read_text("utf-8")
    page = Page(text)
    is_self_contained(text)
    assert all(sentence in page.text for sentence in result.verdicts())
    row = result.summary().set_index("focal").loc["z"]
    assert f"{row['own_slope'] / 10:+.3f}".replace("-", "−") in page.text
    assert f"{row['own_p']:.3f}" in page.text or "< 0.001" in page.text
    assert text.count('role="img"') == 2 and "vlbias simulate faces/ OUT" in page.text
    assert len(page.ids) == len(set(page.ids))


def test_bands_are_those_of_the_change_from_the_smallest_share(result):
    from vlbias.report.studies import _line

    line = _line(result, "f1[z]", "z", "real", "substitute")
    shares, points, _ = result.points("f1[z]", "z")
    assert line.x == shares.tolist()
    assert line.value == pytest.approx((points - points[:, :1]).mean(0).tolist())
    assert line.low[0] == line.high[0] == 0.0 and line.low[2] < line.value[2] < line.high[2]
    gain = result.contrast("f1[z]", "z", "slope")
    assert (line.low[2] > 0) == (line.value[2] > 0 and gain.p_greater < 0.025) or line.low[2] <= 0


def test_whole_compositions_have_a_table_and_no_curve(tmp_path):
    given = simulated(shares=[{"x": 0.5, "y": 0.25, "z": 0.25}, {"x": 0.2, "y": 0.4, "z": 0.4}], repeats=1)
    values = simulation_values(given)
    assert values["own_plot"] is None and [row["n"] for row in values["compositions"]] == ["120", "120"]
    page = Page(report.write_simulation(tmp_path, given).read_text("utf-8"))
    assert "x 50 %, y 25 %, z 25 %" in page.text and "One repeat has no interval" in page.text


def test_a_search_page_shows_no_interval_below_zero(tmp_path):
    text = report.write_search(tmp_path, STUDY, front(), command="vlbias search synthfaces OUT").read_text("utf-8")
    page = Page(text)
    is_self_contained(text)
    assert "0.000 to 0.060" in page.text and "−0.040" not in page.text
    assert "small <b>net</b>" in page.text and "<b>net" not in text
    wide = text[text.index("wide net") : text.index("wide net") + 60]
    assert "baseline" in wide and page.text.count("on the front") >= 1  # trial 7 has the lowest validation error
    assert "3 trials (2 complete, 1 stopped)" in page.text and "dark" in page.text


def test_the_command_of_a_page_works_as_printed(tmp_path, monkeypatch):
    app = Application()
    told = []

    @app.command()
    def measure(
        data: list[str],
        out: Path,
        steps: int = 3,
        tag: list[str] = [],  # noqa: B006
        quick: bool = True,
        overwrite: bool = False,
    ):
        told.append((typed_command(), data, steps, tag, quick))

    @app.command("measure again")
    def other(data: str):
        told.append(typed_command())

    monkeypatch.chdir(tmp_path)
    words = ["measure", str(tmp_path / "my faces"), "b", "results", "--steps", "7", "--tag", "x=1;2", "--tag", "y"]
    assert CliRunner().invoke(app, [*words, "--no-quick", "--overwrite"]).exit_code == 0
    command, *values = told[0]
    assert command == "vlbias measure 'my faces' b OUT --steps 7 --tag 'x=1;2' --tag y --no-quick"
    assert CliRunner().invoke(app, shlex.split(command)[1:]).exit_code == 0
    assert CliRunner().invoke(app, ["measure again", "b"]).exit_code == 0 and told.pop() == "vlbias measure again b"
    assert told[1][0] == command and told[1][2:] == tuple(values[1:])
    away = ["/home/jane/faces", "folder:/home/jane/others", "~/mine", "../jane", "results"]
    assert CliRunner().invoke(app, ["measure", *away, "--tag", "COLUMN=/home/jane/n.onnx"]).exit_code == 0
    places = "PATH/faces folder:PATH/others PATH/mine PATH/jane OUT --tag COLUMN=PATH/n.onnx"
    assert told[2][0] == f"vlbias measure {places}"
    urls = ["postgresql://me:secret@db/faces", "sqlite:////home/jane/study.db"]
    assert CliRunner().invoke(app, ["measure", "a", "results", "--tag", urls[0], "--tag", urls[1]]).exit_code == 0
    assert told[3][0] == "vlbias measure a OUT --tag 'postgresql://me:***@db/faces' --tag sqlite:PATH/study.db"


def test_an_interval_that_is_not_known_is_not_zero():
    row = {"error": 0.2, "error_low": float("nan"), "error_high": float("nan")}
    found = _estimate(row, "error")
    assert found.value == 0.2 and found.low is None and found.high is None
