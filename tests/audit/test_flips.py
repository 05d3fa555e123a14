"""Flip rates: counted by hand, of every kind of classifier, and on drawn faces beside the truth."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from doubles import tiny_editor

from vlbias import audit, classify, load_dataset
from vlbias.errors import ConfigError, DatasetError, LabelError, ShapeError
from vlbias.images import to_tensor
from vlbias.report import write_flips


def brightness(x):
    """1 for bright pictures: an answer that leans on the skin."""
    return (x.mean((1, 2, 3)) > 0).long()


@pytest.fixture(scope="module")
def faces():
    return load_dataset("synthfaces", n=24, image_size=32)


def edited(faces, ids=None):
    """True counterfactuals under the name of edits."""
    skin = faces.table["skin"]
    parts = [
        faces.counterfactual([i for i in ids or faces.ids if skin[i] == one], skin=other)
        for one, other in (("dark", "light"), ("light", "dark"))
    ]
    table = pd.concat([part.table for part in parts])
    donors = faces.select([item.split("~")[0] for item in table.index])
    world = donors.faces.replace(skin=table["skin"].tolist())
    return replace(faces, table=table.assign(origin="edited"), faces=world)


def test_faces_whose_answers_change_are_shown(faces, tmp_path):
    report = audit.flips(brightness, faces, protected="skin")
    assert 0 < len(report.examples) <= 12
    flipped = report.pairs[report.pairs["flipped"]].set_index("donor")
    for one in report.examples:
        assert (one.group, one.to, one.before, one.after) == tuple(
            flipped.loc[one.donor, ["from", "to", "before", "after"]]
        )
        before, after = (to_tensor(picture, 32) for picture in one.pictures)
        assert torch.equal(before, to_tensor(faces.image(one.donor), 32))
        assert str(int(brightness(before))) == one.before and str(int(brightness(after))) == one.after
    made = edited(faces)
    given = audit.flips(brightness, faces, made, protected="skin")
    assert [one.donor for one in given.examples] and {one.group for one in given.examples} <= {"dark", "light"}
    page = write_flips(tmp_path, report, command="vlbias audit")
    text = page.read_text()
    assert text.count('<figure class="pair">') == len(report.examples) and "data:image/png" in text
    whole = report.table.loc["all"]
    assert f"{100 * whole['low']:.1f}" in text and "by true counterfactuals" in text
    assert json.loads((tmp_path / "flips.json").read_text()) == report.to_dict()
    none = audit.flips(lambda x: torch.zeros(len(x)), faces, made, protected="skin")
    assert none.examples == () and "There is none" in write_flips(tmp_path / "none", none).read_text()


def test_rates_by_hand(faces, tmp_path):
    made = edited(faces)
    dark = [i for i in faces.ids if faces.table.at[i, "skin"] == "dark"]
    answers = dict.fromkeys([*faces.ids, *made.ids], "no")
    for row, item in enumerate(made.ids):
        if row in (0, 1, 2):  # three of the dark faces flip
            answers[item] = "yes"
    path = tmp_path / "answers.csv"
    pd.DataFrame({"id": list(answers), "prediction": list(answers.values())}).to_csv(path, index=False)
    report = audit.flips(path, faces, made, protected="skin")
    with pytest.raises(ConfigError, match="there are no edits"):  # a CSV says nothing of true counterfactuals
        audit.flips(path, faces, protected="skin")
    assert report.table["true_rate"].isna().all()
    assert report.table.loc["dark", "num_pairs"] == len(dark)
    assert report.table.loc["dark", "rate"] == pytest.approx(3 / len(dark))
    assert report.table.loc["all", "rate"] == pytest.approx(3 / 24)
    # Wilson's interval of 3 in 24, of statsmodels.
    assert report.table.loc["all", ["low", "high"]].tolist() == pytest.approx([0.0434, 0.3100], abs=1e-4)
    light = report.table.loc["light"]
    assert light["rate"] == light["low"] == 0 < light["high"] < 0.4
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()


def test_edits_that_are_true_flip_as_the_truth(faces):
    report = audit.flips(brightness, faces, edited(faces), protected="skin", size=32)
    row = report.table.loc["all"]
    assert row["rate"] == row["true_rate"] > 0 and row["difference"] == 0
    assert row["difference_low"] < 0 < row["difference_high"]
    alone = audit.flips(brightness, faces, protected="skin", size=32)
    assert alone.table.loc["all", "rate"] == row["rate"]
    never = audit.flips(lambda x: torch.zeros(len(x)), faces, protected="skin")
    assert never.table["rate"].eq(0).all() and never.table["high"].gt(0).all()


def test_every_kind_of_classifier_gives_the_same(faces, tmp_path):
    tiny = classify.FitSettings(
        backbone_options={"channels": [8, 8, 8, 8], "stem_width": 4}, image_size=32, num_steps=2, batch_size=8
    )
    fitted = classify.fit(faces, "skin", settings=tiny)
    fitted.save_pretrained(tmp_path / "fitted")
    by_scores = audit.flips(fitted.predict_proba, faces, protected="skin", size=32)
    for one in (fitted, tmp_path / "fitted", fitted.predict):
        assert audit.flips(one, faces, protected="skin", size=32).table["rate"].equals(by_scores.table["rate"])


def test_an_editor_makes_the_edits(faces):
    editor = tiny_editor()
    report = audit.flips(brightness, faces.select(faces.ids[:6]), protected="skin", editor=editor)
    assert len(report.pairs) == 6 and report.table.loc["all", "true_rate"] >= 0
    again = audit.flips(brightness, faces.select(faces.ids[:6]), protected="skin", editor=editor)
    assert again.pairs.equals(report.pairs)
    with pytest.raises(ConfigError, match="has no path for 'glasses'"):
        audit.flips(brightness, faces, protected="glasses", editor=editor)


def test_pictures_of_one_person_are_no_evidence_of_their_own(faces):
    few = audit.flips(brightness, faces, protected="skin", size=32).table.loc["all"]
    people = faces.with_column("identity", np.repeat(["a", "b", "c"], 8))
    many = audit.flips(brightness, people, protected="skin", size=32).table.loc["all"]
    assert many["rate"] == few["rate"] and many["high"] - many["low"] >= few["high"] - few["low"]


def test_what_cannot_be_measured_is_refused(faces, tmp_path):
    with pytest.raises(DatasetError, match="has no column source_id"):
        audit.flips(brightness, faces, faces, protected="skin")
    with pytest.raises(DatasetError, match="has no edit"):
        audit.flips(brightness, faces, faces.counterfactual(smile=1), protected="skin")
    with pytest.raises(DatasetError, match="all faces .* have the same skin"):
        audit.flips(brightness, faces.select(faces.table["skin"] == "dark"), protected="skin")
    with pytest.raises(ShapeError, match=r"gave \(3,\); expected"):
        audit.flips(lambda x: torch.zeros(3), faces, protected="skin")
    with pytest.raises(ConfigError, match="`classifier` must be a Classifier"):
        audit.flips(3, faces, protected="skin")
    (tmp_path / "bad.csv").write_text("name,answer\na,b\n")
    with pytest.raises(LabelError, match="rows with the columns prediction and id, or file_name; it has name, answer"):
        audit.flips(tmp_path / "bad.csv", faces, edited(faces), protected="skin")
    made = edited(faces)
    rows = "".join(f"{item},0.{place:03d}1\n" for place, item in enumerate([*faces.ids, *made.ids]))
    (tmp_path / "scores.csv").write_text(f"id,prediction\n{rows}")
    for scores in (tmp_path / "scores.csv", lambda x: x.mean((1, 2, 3)).abs()):
        with pytest.raises(LabelError, match="answers 0.*looks like a probability. Give classes: 1 from 0.5 on"):
            audit.flips(scores, faces, made, protected="skin")


def test_edits_of_a_balanced_folder_are_those_of_its_own_originals(faces, tmp_path):
    """There originals have new names, and edits name them by the old ones."""
    edits = edited(faces)
    donors = [item.split("~")[0] for item in edits.ids]
    named = replace(edits, table=edits.table.assign(source_id=donors))
    real = faces.table.assign(origin="real", source_id=faces.ids)
    renamed = replace(faces, table=real.set_axis([f"train/{item}.png" for item in faces.ids]))
    wanted = audit.flips(brightness, faces, named, protected="skin", size=32)
    found = audit.flips(brightness, renamed, named, protected="skin", size=32)
    pd.testing.assert_frame_equal(found.table, wanted.table)
    assert set(found.pairs["donor"]) == set(renamed.ids)
