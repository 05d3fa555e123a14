from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from vlbias import simulate
from vlbias.cli import app
from vlbias.errors import ConfigError, DatasetError, LabelError
from vlbias.labelling import ColumnReport, write_reports
from vlbias.simulate import LabelNoise
from vlbias.simulate.unmixing import Unmixing, mixture, true_given_label

OPTIONS = {"target": "emotion", "protected": "race"}
#: P(labelled | truly x, y, z).
RATES = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.0, 0.1, 0.9]])
COUNTS = pd.DataFrame(100 * RATES, index=list("xyz"), columns=list("xyz"))


@pytest.fixture
def noisy(make_faces):
    """Faces whose "race" is a labeller's; ``true`` has the groups."""
    faces = make_faces(n_train=2000, n_test=900)
    rng = np.random.default_rng(5)
    faces.true = faces.table["race"].copy()
    codes = faces.true.map("xyz".index).to_numpy()
    faces.table["race"] = np.array(list("xyz"))[(rng.random((len(codes), 1)) > RATES.cumsum(1)[codes]).sum(1)]
    return faces


def _model(faces):
    """Accuracy of a true group: .3 and its true share, and a fifth of the true share of the next group."""

    def model(training):
        rng = np.random.default_rng(training.seed)
        shares = faces.true[list(training.ids)].value_counts(normalize=True)
        right = {g: 0.3 + shares.get(g, 0) + 0.2 * shares.get("yzx"["xyz".index(g)], 0) for g in "xyz"}
        test = faces.table[faces.table["split"] == "test"]
        is_right = rng.random(len(test)) < faces.true[test.index].map(right)
        return np.where(is_right, test["emotion"], rng.choice(list("abc"), len(test)))

    return model


def test_slopes_are_those_of_true_groups(noisy):
    found = {}
    for name, noise in (("corrected", LabelNoise.from_confusion(COUNTS)), ("as labelled", None)):
        plan = simulate.plan(noisy, **OPTIONS, n=300, shares=(0.0, 0.2, 0.5), repeats=4, label_noise=noise)
        result = simulate.run(plan, noisy, model=_model(noisy), storage=None, show_progress=False)
        found[name] = result.summary().set_index("focal")
    # Accuracy a gives an F1 near a + (1 - a) / 3. The next group's share falls as the others make room.
    others = {"x": 0.6, "y": 0.3, "z": 0.6}  # share of the next group among the others
    right = pd.Series({g: (1 - 0.2 * others[g]) * 2 / 3 for g in "xyz"})
    corrected, labelled = found["corrected"], found["as labelled"]
    assert ((corrected["own_slope_low"] < right) & (right < corrected["own_slope_high"])).all()
    assert (labelled["own_slope_high"] < right).all(), "wrong labels make slopes flat"
    width = corrected["own_slope_high"] - corrected["own_slope_low"]
    assert (width > 1.2 * (labelled["own_slope_high"] - labelled["own_slope_low"])).all()
    shares = result.points("f1[x]", "x")[0]
    assert list(shares) == [0.0, 0.2, 0.5]


def test_a_labeller_without_errors_changes_nothing(faces, make_stub):
    slopes = []
    for noise in (None, LabelNoise(list("zyx"), np.eye(3).tolist(), splits="train")):
        plan = simulate.plan(faces, **OPTIONS, n=120, shares=(0.0, 0.2, 0.5), repeats=2, label_noise=noise)
        model = make_stub(plan, lambda g, t: 0.3 + float(np.mean(t.groups == g)))
        result = simulate.run(plan, faces, model=model, storage=None, show_progress=False)
        slopes.append(result.summary()[["own_slope", "own_slope_low", "own_slope_high", "parity_gain"]].to_numpy())
    np.testing.assert_allclose(*slopes, rtol=1e-9)


def test_shares_and_counts_are_unmixed(noisy):
    noise = LabelNoise.from_confusion(COUNTS)
    plan = simulate.plan(noisy, **OPTIONS, n=300, shares=(0.0, 0.5), repeats=1, label_noise=noise)
    assert plan.settings.label_noise.groups == tuple("xyz") and "right for 80% of x" in plan.describe()
    unmixing = Unmixing(plan, 400)
    for key in plan.runs.index:
        true = noisy.true[plan.files(key)].value_counts(normalize=True).reindex(list("xyz")).to_numpy()
        shares = unmixing.shares(key, is_edited=False)
        assert np.abs(shares[0] - true).max() < 0.08 < np.abs(unmixing.nominal(key) - true).max() + 0.05
        assert shares.sum(1) == pytest.approx(np.ones(401)) and 0.001 < shares[1:].std(0).max() < 0.1
    true = np.random.default_rng(0).integers(1, 50, (3, 2, 2)).astype(float)
    labelled = np.einsum("ag,ayp->gyp", RATES, true)
    np.testing.assert_allclose(unmixing.counts(labelled), true)
    drawn = unmixing.drawn_counts(np.stack([labelled] * 401))
    np.testing.assert_allclose(drawn[0], true)
    assert 0.5 < drawn[1:].std(0).max() < 20
    assert Unmixing(simulate.plan(noisy, **OPTIONS), 2).shares("substitute|x|0.1|r0", is_edited=False)[0, 0] < 0.11


def test_edits_are_what_they_were_edited_into(noisy):
    noise = LabelNoise.from_confusion(COUNTS)
    plan = simulate.plan(noisy, **OPTIONS, n=100, shares=(0.0, 0.5), focal="z", repeats=1, label_noise=noise)
    unmixing = Unmixing(plan, 1)
    real, edited = (unmixing.shares("substitute|z|0.5|r0", is_edited=one)[0] for one in (False, True))
    alone = unmixing.shares("substitute|z|0|r0", is_edited=True)[0]
    assert edited[2] == pytest.approx(0.5 + alone[2] / 2, abs=0.01) and real[2] < edited[2]


def test_who_is_behind_a_label_by_hand():
    rates = np.array([[[0.8, 0.2], [0.1, 0.9]]] * 3)
    # 100 of the first group and 300 of the second: 80 + 30 are called the first, 20 + 270 the second.
    behind = true_given_label(rates, np.array([110, 290]), np.array([110, 290]), np.random.default_rng(0))
    np.testing.assert_allclose(behind[0], [[80 / 110, 30 / 110], [20 / 290, 270 / 290]])
    assert behind[1:].sum(-1) == pytest.approx(np.ones((2, 2))) and (behind[1] != behind[0]).all()


def test_curves_are_weighted_so_that_shares_move_as_asked():
    asked = np.array([1.0, -0.6, -0.4])
    moved = np.array([[[0.7, -0.5, -0.2], [-0.2, 0.6, -0.4], [-0.3, -0.2, 0.5]]])
    np.testing.assert_allclose(mixture(asked, moved, 0, 0)[0] @ moved[0], asked)
    # One curve alone cannot do that: its own share decides.
    np.testing.assert_allclose(mixture(asked, moved[:, :1], 0, 0), [[1 / 0.7]])


def test_faces_of_one_person_count_for_less():
    given = np.repeat(list("xy") * 50, 4)
    rng = np.random.default_rng(0)
    alike = np.repeat(np.where(rng.random(100) < 0.8, list("xy") * 50, list("yx") * 50), 4)
    persons = np.repeat(np.arange(100), 4)
    assert LabelNoise.from_labels(given, alike).sizes == (200, 200)
    clustered = LabelNoise.from_labels(given, alike, persons=persons)
    assert clustered.sizes == pytest.approx((50, 50)) and clustered.rates[0][1] == np.mean(alike[given == "x"] == "y")
    assert LabelNoise.from_labels(given, given, persons=persons).sizes == (50, 50), "never wrong is not certainty"
    wide, narrow = (noise.draws(2000, 0)[1:, 0, 1].std() for noise in (clustered, LabelNoise.from_labels(given, alike)))
    assert 1.8 < wide / narrow < 2.2
    exact = LabelNoise(list("xy"), [[0.9, 0.1], [0.2, 0.8]])
    assert (exact.draws(3, 0) == exact.rates).all()


def test_files(tmp_path):
    csv = tmp_path / "matrix.csv"
    COUNTS.rename_axis("given").to_csv(csv)
    from_csv = LabelNoise.load(csv, splits="test")
    np.testing.assert_allclose(from_csv.rates, RATES)
    assert from_csv.sizes == (100, 100, 100) and from_csv.splits == "test"
    csv.write_text("given,z,x,y\nx,.05,.8,.15\ny,.2,.1,.7\nz,.9,0,.1\n")
    np.testing.assert_allclose(LabelNoise.load(csv).rates, RATES)
    assert LabelNoise.load(csv).sizes is None, "rates have no sizes"
    confusion = [[*row, 7] for row in COUNTS.to_numpy()]
    score = {"labels": list("xyz"), "columns": [*"xyz", "(none)"], "confusion": confusion}
    report = ColumnReport("race", "a labeller", 300, {}, {}, "given", score)
    written = write_reports(tmp_path, [report])
    assert LabelNoise.load(written).groups == LabelNoise.load(written, column="race").groups == tuple("xyz")
    with pytest.raises(ConfigError, match=r"has no score of the labels of `skin`; it scores \['race'\]"):
        LabelNoise.load(written, column="skin")
    with pytest.raises(DatasetError, match=r"no.csv does not exist"):
        LabelNoise.load(tmp_path / "no.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("given,x,y\nx,1,2\nz,1,2\n", r"same groups as rows and columns; got \['x', 'z'\] and \['x', 'y'\]"),
        ("given,x,y\nx,9,one\ny,1,9\n", r"needs counts or rates; could not convert"),
        ("given,x,y\nx,9,-1\ny,1,9\n", r"counts or rates >= 0"),
        ("given,x,y\nx,0,0\ny,1,9\n", r"no row of zeros"),
        ("given,x,y\nx,5,5\ny,5,5\n", r"say next to nothing about the groups x, y"),
        ("", r"has no confusion matrix"),
    ],
)
def test_what_is_no_confusion_matrix(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(LabelError, match=message):
        LabelNoise.load(tmp_path / "m.csv")


def test_wrong_rates_and_groups(faces):
    with pytest.raises(ConfigError, match=r"row and a column for each of two or more groups"):
        LabelNoise(["x", "y"], [[1.0, 0.0]])
    with pytest.raises(ConfigError, match=r"must sum to 1"):
        LabelNoise(["x", "y"], [[1.0, 0.5], [0.0, 1.0]])
    with pytest.raises(ConfigError, match=r"`sizes` must hold a number for each of 2 groups"):
        LabelNoise(["x", "y"], np.eye(2).tolist(), [5])
    with pytest.raises(LabelError, match=r"of the groups \['x', 'y'\], the dataset has \['x', 'y', 'z'\]"):
        simulate.plan(faces, **OPTIONS, label_noise=LabelNoise(["x", "y"], np.eye(2).tolist()))
    with pytest.raises(LabelError, match=r"a given and an estimated label for each face; got 2 and 1"):
        LabelNoise.from_labels(["x", "y"], ["x"])


def test_the_command_takes_a_matrix(tmp_path):
    (tmp_path / "m.csv").write_text("given,dark,light\ndark,90,10\nlight,20,80\n")
    call = ["simulate", "synthfaces:240", str(tmp_path / "out"), "--n", "24", "--shares", "0,0.5", "--repeats", "1"]
    call += ["--steps", "1", "--focal", "dark", "--image-size", "16", "--noisy-splits", "test"]
    alone = CliRunner().invoke(app, call)
    assert alone.exit_code == 2 and "it needs --label-noise" in alone.output
    found = CliRunner().invoke(app, [*call, "--label-noise", str(tmp_path / "m.csv")], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert "groups by a labeller that is right for 90% of dark, 80% of light" in found.output
    assert "Groups are labels of a labeller" in (tmp_path / "out" / "report.html").read_text()
    assert '"splits": "test"' in (tmp_path / "out" / "plan.json").read_text()
