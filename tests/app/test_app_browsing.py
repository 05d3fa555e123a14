"""The third tab without a page: counts, faces of a cell, and drift."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vlbias import Editor
from vlbias.app.browsing import Browser, _in_ranges, open_faces
from vlbias.app.places import checked_roots
from vlbias.errors import CheckpointError, ConfigError, DatasetError, UnknownNameError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 pictures: a smile on every fourth, ages 0..39, two without a label of skin."""
    folder = tmp_path_factory.mktemp("faces")
    rows = []
    for i in range(40):
        Image.new("RGB", (16, 16), (i * 6, 90, 90)).save(folder / f"{i:02d}.png")
        skin = None if i < 2 else ("dark", "light")[i % 2]
        rows.append({"file_name": f"{i:02d}.png", "smile": int(i % 4 == 0), "age": i, "skin": skin, "code": f"a{i}"})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def browser(folder):
    return Browser(open_faces(str(folder), checked_roots([folder])))


def test_counts_add_up(browser):
    assert browser.counts(["smile"]) == [("0", 30), ("1", 10)]
    counts = dict(browser.counts(["smile", "skin"]))
    assert sum(counts.values()) == 40 and counts["1 & dark"] == 9 and counts["1 & unknown"] == 1


def test_many_numbers_are_counted_in_ranges_and_names_are_no_column(browser):
    assert browser.counts(["age"]) == [("0 to 9", 10), ("10 to 19", 10), ("20 to 29", 10), ("30 to 39", 10)]
    assert browser.first_columns == ["smile", "skin"]
    assert "code" not in browser.columns and "smile" in browser.columns


def test_ranges_lie_between_round_numbers():
    names = _in_ranges(pd.Series([*np.linspace(0.02, 0.94, 20), np.nan, np.inf]))
    assert names.iloc[0] == "0 to under 0.2" and names.iloc[19] == "0.8 to under 1" and names[20:].isna().all()
    assert _in_ranges(pd.Series([-7, *range(3, 30)])).iloc[0] == "-10 to -1"
    assert _in_ranges(pd.Series([1.5, 2.0, np.nan])).tolist()[:2] == ["1.5", "2"]


def test_faces_of_a_cell(browser):
    found = browser.pictures(["smile"], "1", number=4)
    assert [name for name, _ in found] == ["00.png", "12.png", "24.png", "36.png"]
    assert found[1][1].getpixel((3, 3)) == (72, 90, 90)


def test_what_is_not_there_is_named(browser, folder):
    with pytest.raises(UnknownNameError, match="Unknown column 'code'"):
        browser.counts(["code"])
    with pytest.raises(ConfigError, match="at least one column"):
        browser.counts([])
    with pytest.raises(UnknownNameError, match="Unknown cell"):
        browser.pictures(["smile"], "2")
    with pytest.raises(DatasetError, match="may open"):
        open_faces(str(folder), ())
    with pytest.raises(ConfigError, match="at most synthfaces:2000"):
        open_faces("synthfaces:9000", ())
    assert len(open_faces("synthfaces:20", ()).table) == 20


def test_drift_has_a_row_for_each_walk(editor):
    drift = Browser(open_faces("synthfaces:40", ())).drift(editor)
    assert drift.names == ["age", "skin_tone"] and [len(row[-1]) for row in drift.rows] == [2] * len(drift.rows)
    assert {row[0].split()[0] for row in drift.rows} == {"age", "skin_tone"}
    assert drift.rows[0][0] == "age +1" and drift.rows[0][-1][0] > 0
    with pytest.raises(CheckpointError, match="no probes"):
        Browser(open_faces("synthfaces:20", ())).drift(Editor(editor.renderer.diffae, info={"name": "bare"}))
