"""The page of a dataset that a machine labelled shows how the machine was scored."""

from __future__ import annotations

import re
import shutil

import pandas as pd
import pytest
from finished_run import write_run

from vlbias import report
from vlbias.errors import DatasetError
from vlbias.labelling import ColumnReport, Labels, evaluate, write_reports


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("labelled"))


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def skin_report(**changes):
    ids = [str(i) for i in range(8)]
    given = pd.Series(["dark"] * 4 + ["light"] * 4, index=ids)
    found = ["dark", "dark", "light", None, "light", "light", "light", "dark"]
    table = pd.DataFrame({"label": found, "confidence": 0.97, "reason": None}, index=ids)
    score = evaluate(Labels("x", table), given).to_dict()
    values = {
        "column": "skin",
        "source": "measured by a test",
        "num_faces": 1200,
        "counts": {"dark": 500, "light": 660},
    }
    values |= {"unlabelled": {"grey": 40}, "against": "skin", "evaluation": score}
    return ColumnReport(**(values | changes))


def words(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text("utf-8")))


def test_no_labelling_no_section(out):
    text = words(report.write(out))
    assert "Labels that a machine gave" not in text
    assert "labelling.json" not in text


def test_the_confusion_stands_on_the_page(out):
    write_reports(out, [skin_report()])
    page = report.write(out)
    text = words(page)
    assert "Labels that a machine gave" in text and "Measured by a test." in text
    assert "1,160 of 1,200 faces got a label. 40 got none and were left out of the balance (grey 40)." in text
    # 5 of 7 labelled faces agree: 2 of 3 dark ones, 3 of 4 light ones
    assert "on 8 faces it agrees for 71.4 %" in text and "kappa 0.42" in text
    assert "dark 2 1 1 67 %" in text and "light 1 3 0 75 %" in text
    assert "0.95-1.00 7 71 %" in text
    assert 'href="#labels"' in page.read_text() and 'id="labels"' in page.read_text()
    assert "The labels of skin were given by a machine whose errors are in the table above" in text


def test_labels_that_were_not_scored_say_so(out):
    write_reports(out, [skin_report(against=None, evaluation=None, unlabelled={})])
    text = words(report.write(out))
    assert "No labels were given to score it against, so its errors are not known." in text
    assert "given by a machine whose errors are not known" in text and "got none" not in text


def test_a_damaged_file_is_named(out):
    (out / "labelling.json").write_text("{}")
    with pytest.raises(DatasetError, match="labelling.json is not a report of labels"):
        report.write(out)
