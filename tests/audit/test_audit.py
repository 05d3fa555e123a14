"""Experiments: what enters training and test, what is cached, and what follows from the predictions."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vlbias import audit, classify, fairness
from vlbias.audit.results import CHANCE_GAPS
from vlbias.data import FaceDataset
from vlbias.errors import CheckpointError, ConfigError, DatasetError, LabelError, UnknownNameError

TINY = classify.FitSettings(
    backbone_options={"channels": [8, 8, 8, 8], "stem_width": 4}, image_size=16, num_steps=2, batch_size=4, shift_px=1
)
QUIET = {"settings": TINY, "show_progress": False, "bootstrap": 20}


class Drawn(FaceDataset):
    """Faces of noise; the picture depends on the column ``key`` alone."""

    def tensor(self, items, size):
        keys = self.table.loc[list(items), "key"]
        return torch.stack(
            [torch.rand(3, size, size, generator=torch.Generator().manual_seed(int(key))) * 2 - 1 for key in keys]
        )


def drawn(name, cells, *, split="train", first_key=0, **columns):
    """cells: (smile, skin) -> count."""
    rows = [cell for cell, count in cells.items() for _ in range(count)]
    table = pd.DataFrame(rows, columns=["smile", "skin"])
    table.insert(0, "file_name", [f"{name}-{row}.png" for row in range(len(table))])
    table.insert(1, "split", split)
    table["key"] = first_key + np.arange(len(table))
    table.index = pd.Index([f"{name}-{row}" for row in range(len(table))], name="id")
    return Drawn(name, table.assign(**columns), attributes=["smile", "skin"])


EVEN = {(1, "light"): 4, (0, "light"): 4, (1, "dark"): 4, (0, "dark"): 4}
BIASED = {(1, "light"): 6, (0, "light"): 2, (1, "dark"): 2, (0, "dark"): 6}


@pytest.fixture
def sets():
    return {
        "baseline": drawn("base", BIASED),
        "balanced": drawn("bal", EVEN, first_key=1000, origin=["real"] * 12 + ["edited"] * 4),
        "test": drawn("test", EVEN, first_key=5000, split="test"),
    }


def compare(sets, **options):
    arguments = {"target": "smile", "protected": "skin", "test": sets["test"], "seeds": 2, **QUIET, **options}
    return audit.compare(sets["baseline"], sets["balanced"], **arguments)


def test_numbers_equal_those_of_fairness(sets):
    result = compare(sets, positive=1)
    classes, groups = np.array(result.classes), np.array(result.groups)
    for name in ("baseline", "balanced"):
        for row, codes in enumerate(result.predictions[name]):
            expected = fairness.evaluate(
                classes[result.y_true], classes[codes], groups=groups[result.group], bootstrap=0
            )
            for metric in fairness.METRICS:
                assert result.per_seed[name][metric][row] == pytest.approx(expected[metric]), metric
        assert result.summary[name]["accuracy"]["mean"] == pytest.approx(result.per_seed[name]["accuracy"].mean())
    values = result.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    for key in ("accuracy", "accuracy_gap", "equal_opportunity_difference", "equalized_odds_difference"):
        assert values["classifiers"]["balanced"][key] == pytest.approx(
            result.summary["balanced"][key]["mean"], abs=1e-6
        )
    assert values["classifiers"]["balanced"]["worst_cell_accuracy"] <= values["classifiers"]["balanced"]["accuracy"]
    assert values["classifiers"]["balanced"]["training_set"] == {
        "num_images": 16,
        "num_missing": 0,
        "num_made": 4,
        "num_in_test": 0,
    }
    assert values["audit"]["seeds"] == [0, 1] and "oracle" not in values["classifiers"]
    cell = result.cells.query("training_set == 'baseline' and `class` == '1' and group == 'dark'").iloc[0]
    assert (cell["num_test"], cell["num_train"]) == (4, 2)


def test_finished_fits_are_not_done_again(sets, tmp_path, monkeypatch):
    calls = []
    real_fit = classify.fit

    def counted(*arguments, **options):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(options["seed"])
        return real_fit(*arguments, **options)

    monkeypatch.setattr(classify, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        compare(sets, cache=tmp_path / "fits")
    assert calls == [0, 0, 1] and len(list((tmp_path / "fits").iterdir())) == 3
    monkeypatch.setattr(classify, "fit", real_fit)
    resumed = compare(sets, cache=tmp_path / "fits")
    whole = compare(sets)
    assert resumed.to_dict() == whole.to_dict()

    monkeypatch.setattr(classify, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert compare(sets, cache=tmp_path / "fits").to_dict() == whole.to_dict()
    with pytest.raises(pytest.fail.Exception):  # another setting is another fit
        compare(sets, cache=tmp_path / "fits", learning_rate=0.01)
    one = next((tmp_path / "fits").iterdir())
    codes = json.loads(one.read_text())["codes"]
    for wrong in ([1, 2], {}, None, [[1], 2], "01", [True] + codes[1:], [0.5] + codes[1:], ["a"] + codes[1:]):
        one.write_text(json.dumps({"codes": wrong}))
        with pytest.raises(CheckpointError, match=rf"{one.name} is not a finished fit.*delete it"):
            compare(sets, cache=tmp_path / "fits")
    for damaged in (b"", b"[]", b"null", b'{"codes": [1,', b"\xff\x00"):
        one.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=one.name):
            compare(sets, cache=tmp_path / "fits")


def test_only_the_train_split_is_learned_from_and_a_test_split_is_found(sets):
    mixed = sets["baseline"].table.assign(split=["train"] * 8 + ["val"] * 8)
    mixed = Drawn("base", mixed, attributes=["smile", "skin"])
    result = audit.measure({"only": mixed}, target="smile", protected="skin", test=sets["test"], seeds=1, **QUIET)
    assert result.training["only"].num_images == 8
    table = pd.concat([sets["baseline"].table, sets["test"].table])
    whole = Drawn("base", table, attributes=["smile", "skin"])
    result = audit.measure({"only": whole}, target="smile", protected="skin", seeds=1, **QUIET)
    assert len(result.y_true) == 16


def test_labels_are_one_spelling_whatever_their_type(sets):
    def retyped(dataset, kind):
        return Drawn(dataset.name, dataset.table.assign(smile=dataset.table["smile"].map(kind)), attributes=["smile"])

    plain = compare(sets)
    other = compare(
        {
            "baseline": retyped(sets["baseline"], float),
            "balanced": retyped(sets["balanced"], bool),
            "test": sets["test"],
        }
    )
    assert other.to_dict() == plain.to_dict()


def test_rows_without_a_label_are_left_out_and_counted(sets):
    table = sets["baseline"].table.astype({"smile": object})
    table.iloc[0, table.columns.get_loc("smile")] = None
    table.iloc[1, table.columns.get_loc("skin")] = None
    holed = Drawn("base", table, attributes=["smile", "skin"])
    result = compare(sets | {"baseline": holed})
    assert (result.training["baseline"].num_images, result.training["baseline"].num_missing) == (15, 1)
    assert result.training["baseline"].counts["unknown"].sum() == 1
    counted = audit.composition(holed, target="smile", protected="skin")
    assert counted.num_missing == 2 and counted.counts.to_numpy().sum() == 14


def test_several_protected_attributes_make_their_product(sets):
    columns = {"glasses": [0, 1] * 8}
    twice = {
        name: Drawn(data.name, data.table.assign(**columns), attributes=["smile", "skin", "glasses"])
        for name, data in sets.items()
    }
    result = compare(twice, protected=["skin", "glasses"])
    assert result.groups == ["dark & 0", "dark & 1", "light & 0", "light & 1"]


def test_several_datasets_are_put_together(sets):
    extra = drawn("extra", {(1, "dark"): 2, (0, "light"): 2}, first_key=9000)
    result = compare(sets | {"balanced": [sets["baseline"], extra]})
    assert result.training["balanced"].num_images == 20


def test_test_images_must_be_originals_that_nothing_was_trained_on(sets):
    made = drawn("test", EVEN, first_key=5000, origin=["edited"] + ["real"] * 15)
    with pytest.raises(DatasetError, match="contains 1 images that an editor made or changed, such as 'test-0'"):
        compare(sets | {"test": made})
    with pytest.raises(DatasetError, match="16 training images of 'balanced' are also in the test set"):
        compare(sets | {"balanced": drawn("bal", EVEN, first_key=5000)})
    whole = pd.concat([sets["baseline"].table, sets["test"].table])
    whole = Drawn("base", whole, attributes=["smile", "skin"])
    child = drawn("bal", EVEN, first_key=1000, source_id=["test-3"] + ["base-0"] * 15)
    with pytest.raises(DatasetError, match="trains on 'bal-0', made from a face of the test set"):
        audit.compare(whole, child, target="smile", protected="skin", **QUIET)


def test_bad_requests_fail_before_any_training(sets, monkeypatch):
    monkeypatch.setattr(classify, "fit", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(DatasetError, match="'base' has no split 'train'|'baseline' has no split 'train'"):
        compare(sets | {"baseline": drawn("base", EVEN, split="val")})
    with pytest.raises(DatasetError, match="'baseline' has no split 'test'; pass a test set"):
        compare(sets, test=None)
    with pytest.raises(ConfigError, match="are both 'smile'"):
        compare(sets, protected="smile")
    with pytest.raises(ConfigError, match="`protected` is empty"):
        compare(sets, protected=[])
    with pytest.raises(UnknownNameError, match="Unknown attribute 'skn'.*Did you mean 'skin'"):
        compare(sets, protected="skn")
    with pytest.raises(ConfigError, match="`seeds` must be a whole number in 1..10,000; got 0"):
        compare(sets, seeds=0)
    with pytest.raises(ConfigError, match="different seeds; got \\[1, 1\\]"):
        compare(sets, seeds=[1, 1])
    with pytest.raises(ConfigError, match="`training_sets` must be a mapping"):
        audit.measure({}, target="smile", protected="skin")
    with pytest.raises(LabelError, match=r"cell \('1', 'dark'\) has no item"):
        compare(sets | {"test": drawn("test", {**EVEN, (1, "dark"): 0}, first_key=5000)})
    with pytest.raises(LabelError, match="'balanced' has smile '2', which the test set lacks"):
        compare(sets | {"balanced": drawn("bal", {**EVEN, (2, "dark"): 1}, first_key=1000)})
    empty = sets["test"].table.assign(skin=None)
    with pytest.raises(DatasetError, match="no test image has both 'smile' and skin"):
        compare(sets, test=Drawn("test", empty, attributes=["smile", "skin"]))


def test_composition_of_hand_counted_cells():
    counted = audit.composition(drawn("base", BIASED), target="smile", protected="skin")
    assert counted.counts.to_dict() == {"dark": {"0": 6, "1": 2}, "light": {"0": 2, "1": 6}}
    assert counted.balance == pytest.approx(2 / 6)
    # Phi of the table 6 2 / 2 6: (36 - 4) / 64.
    assert counted.association == pytest.approx(0.5)
    even = audit.composition(drawn("even", EVEN), target="smile", protected="skin")
    assert (even.balance, even.association) == (1.0, 0.0)
    assert json.loads(json.dumps(counted.to_dict()))["counts"]["1"] == {"dark": 2, "light": 6}


@pytest.mark.parametrize("form", [bool, float, str, lambda value: f" {value}"])
def test_classes_are_the_same_in_any_spelling(sets, form):
    spelled = sets["balanced"].with_column("smile", [form(value) for value in sets["balanced"].table["smile"]])
    result = compare(sets | {"balanced": spelled}, positive=True)
    assert result.classes == ["0", "1"] and result.evaluation.positive == "1"
    assert result.to_dict() == compare(sets).to_dict()


# -- what follows from given predictions ------------------------------------------------------------------------------


def result_from(accuracy, *, seeds=3, num_test=400, bootstrap=200, over=None):
    """accuracy: training set -> {(smile, group): share right}, met exactly in every seed."""
    y_true = np.tile([0, 1], num_test // 2)
    group = np.repeat([0, 1], num_test // 2)
    predictions = {}
    for name, cells in accuracy.items():
        codes = np.zeros((seeds, num_test), dtype=np.int64)
        for (y, g), share in cells.items():
            rows = np.flatnonzero((y_true == y) & (group == g))
            wrong = rows[round(share * len(rows)) :]
            codes[:, rows] = y
            codes[:, wrong] = 1 - y
        predictions[name] = codes
    counts = pd.DataFrame([[1, 1], [1, 1]], index=["0", "1"], columns=["dark", "light"])
    training = {name: audit.TrainingSummary(4, 0, 0, 0, counts) for name in accuracy}
    return audit.AuditResult(
        "smile",
        ["skin"],
        ["0", "1"],
        ["dark", "light"],
        y_true,
        group,
        predictions,
        training,
        list(range(seeds)),
        classify.FitSettings(),
        fairness.EvaluationSettings(positive="1", bootstrap=bootstrap),
        0,
        **(over or {}),
    )


def cells(dark_1, light_1=0.9, dark_0=0.9, light_0=0.9):
    return {(1, 0): dark_1, (1, 1): light_1, (0, 0): dark_0, (0, 1): light_0}


def test_share_of_the_oracles_cut_by_hand():
    result = result_from({"baseline": cells(0.4), "balanced": cells(0.7), "oracle": cells(0.8)})
    # Gaps of the true positive rate: 0.5, 0.2, 0.1; cut 0.3 of 0.4.
    share = result.share_of_oracle_cut()["equal_opportunity_difference"]
    assert share["value"] == pytest.approx(0.75)
    assert share["low"] < 0.75 < share["high"]
    row = result.summary["balanced"]["equalized_odds_difference"]
    assert row["change"] == pytest.approx(-0.3)
    assert row["change_low"] <= -0.3 <= row["change_high"] < 0
    assert result.to_dict()["audit"]["share_of_oracle_cut"]["accuracy_gap"]["value"] == pytest.approx(0.75)
    with pytest.raises(ConfigError, match="no training set 'perfect'"):
        result.share_of_oracle_cut(oracle="perfect")


def test_no_share_where_the_oracle_cuts_nothing():
    result = result_from({"baseline": cells(0.8), "balanced": cells(0.8), "oracle": cells(0.7)})
    assert result.share_of_oracle_cut()["accuracy_gap"] == {"value": None, "low": None, "high": None}
    little = result_from({"baseline": cells(0.79), "balanced": cells(0.8), "oracle": cells(0.8)})
    share = little.share_of_oracle_cut()["equal_opportunity_difference"]
    assert share["value"] == pytest.approx(1.0)
    # Changes are paired, so equal predictions stay equal in every resample; yet a few resamples cut nothing.
    assert share["low"] is None or share["low"] <= 1.0


def test_changes_are_paired():
    same = result_from({"baseline": cells(0.6), "balanced": cells(0.6)})
    row = same.summary["balanced"]["accuracy"]
    assert (row["change"], row["change_low"], row["change_high"]) == (0.0, 0.0, 0.0)
    assert row["low"] < row["high"]


def test_intervals_cover_seeds_as_well_as_items():
    result = result_from({"baseline": cells(0.6)}, num_test=4000)
    steady = result.summary["baseline"]["accuracy"]
    result.predictions["baseline"][0] = result.y_true  # one seed is perfect
    moved = result_from({"baseline": cells(0.6)}, num_test=4000)
    moved.predictions["baseline"][0] = moved.y_true
    spread = moved.summary["baseline"]["accuracy"]
    assert spread["high"] - spread["low"] > 2 * (steady["high"] - steady["low"])


def test_chance_level_shrinks_with_the_test_set():
    small = result_from({"only": cells(0.8, 0.8, 0.8, 0.8)}, num_test=80, bootstrap=0).chance["only"]
    large = result_from({"only": cells(0.8, 0.8, 0.8, 0.8)}, num_test=4000, bootstrap=0).chance["only"]
    assert set(small) == set(CHANCE_GAPS)
    for gap in small:
        assert 0 < large[gap] < 0.4 * small[gap]


def test_without_bootstrap_there_are_no_intervals():
    result = result_from({"baseline": cells(0.6), "balanced": cells(0.7)}, bootstrap=0)
    assert np.isnan(result.table.loc[("balanced", "accuracy"), "low"])
    assert result.table.loc[("balanced", "accuracy"), "change"] == pytest.approx(0.025)
    values = result.to_dict()["classifiers"]["balanced"]
    assert "intervals" not in values and values["change"]["accuracy"] == [pytest.approx(0.025)]
    assert "baseline, balanced; 3 seeds" in repr(result)


def test_the_same_predictions_give_the_same_numbers():
    one = result_from({"baseline": cells(0.6), "balanced": cells(0.7)}).to_dict()
    two = result_from({"baseline": cells(0.6), "balanced": cells(0.7)}).to_dict()
    assert one == two


@pytest.mark.parametrize("wrong", [True, 1.5, "3", [None], [1, 1], 0])
def test_seeds_are_numbers(wrong):
    with pytest.raises(ConfigError, match="`seeds`.* must be"):
        audit.measure({"a": "synthfaces:20"}, target="smile", protected="skin", seeds=wrong)


@pytest.mark.parametrize("wrong", [None, 3])
def test_a_training_set_is_a_dataset(wrong):
    with pytest.raises(ConfigError, match="'a' must be a dataset, its folder, or a list of these"):
        audit.measure({"a": wrong}, target="smile", protected="skin")


# -- intervals and chance ---------------------------------------------------------------------------------------------


def drawn_result(rng, shares, *, seeds=3, per_cell=15, persons=None, wobble=0.0, bootstrap=120):
    """Groups right in these shares, the same for both classes; each seed's shares are off by ``wobble``."""
    shares = np.asarray(shares)
    group = np.repeat(np.arange(len(shares)), 2 * per_cell)
    y_true = np.tile([0, 1], len(group) // 2)
    hard = rng.random(len(group))  # what is hard is so for every seed
    own = np.clip(shares + wobble * rng.standard_normal((seeds, len(shares))), 0, 1)[:, group]
    noise = rng.random((seeds, len(group)))
    is_right = np.where(noise < 0.3, rng.random((seeds, len(group))), hard) < own
    predictions = {"only": np.where(is_right, y_true, 1 - y_true)}
    counts = pd.DataFrame(1, index=["0", "1"], columns=[f"g{i}" for i in range(len(shares))])
    return audit.AuditResult(
        "smile",
        ["skin"],
        ["0", "1"],
        list(counts.columns),
        y_true,
        group,
        predictions,
        {"only": audit.TrainingSummary(4, 0, 0, 0, counts)},
        list(range(seeds)),
        classify.FitSettings(),
        fairness.EvaluationSettings(positive="1", bootstrap=bootstrap),
        0,
        persons=persons,
    )


def test_intervals_of_gaps_of_several_fits_hold():
    for shares in ([0.8, 0.8, 0.8, 0.8], [0.9, 0.85, 0.75, 0.7]):
        true, held, num_worlds = max(shares) - min(shares), 0, 15
        for world in range(num_worlds):
            row = drawn_result(np.random.default_rng(world), shares).summary["only"]["accuracy_gap"]
            assert 0 <= row["low"] <= row["mean"] <= row["high"] <= 1
            held += row["low"] <= true <= row["high"]
        # Percentiles of resampled gaps hold none of the first.
        assert held >= 13, shares


def test_one_seed_gives_the_intervals_of_fairness():
    result = drawn_result(np.random.default_rng(0), [0.9, 0.7], seeds=1)
    codes, classes = result.predictions["only"][0], np.array(result.classes)
    persons = np.arange(len(codes))
    expected = fairness.evaluate(
        classes[result.y_true], classes[codes], groups=result.group, persons=persons, positive="1", bootstrap=120
    )
    for metric, (low, high) in expected.intervals.items():
        row = result.summary["only"][metric]
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-12), metric


def test_images_of_one_person_are_no_evidence_of_their_own():
    once = drawn_result(np.random.default_rng(3), [0.9, 0.7], per_cell=20)
    rows = np.repeat(np.arange(len(once.group)), 10)
    again = audit.AuditResult(
        "smile",
        ["skin"],
        once.classes,
        once.groups,
        once.y_true[rows],
        once.group[rows],
        {"only": once.predictions["only"][:, rows]},
        once.training,
        once.seeds,
        once.settings,
        once.evaluation,
        0,
        persons=rows,
    )
    for metric in ("accuracy", "accuracy_gap"):
        one, ten = once.summary["only"][metric], again.summary["only"][metric]
        assert ten["mean"] == pytest.approx(one["mean"])
        assert ten["high"] - ten["low"] == pytest.approx(one["high"] - one["low"], rel=0.25), metric
        assert ten.get("chance", 0) == pytest.approx(one.get("chance", 0), rel=0.3, nan_ok=True)
    apart = drawn_result(np.random.default_rng(3), [0.9, 0.7], per_cell=200)
    assert apart.chance["only"]["accuracy_gap"] < 0.6 * again.chance["only"]["accuracy_gap"]


def weighted(result, weights):
    return replace(result, weights=np.asarray(weights, dtype=float))


def test_metrics_of_weighted_faces_are_those_of_fairlearn_and_scikit_learn():
    import fairlearn.metrics as theirs
    import sklearn.metrics as sk

    result = drawn_result(np.random.default_rng(5), [0.9, 0.6, 0.7], wobble=0.1, bootstrap=0)
    weights = np.random.default_rng(6).uniform(0, 3, len(result.y_true))
    found = weighted(result, weights).per_seed["only"]
    for seed, codes in enumerate(result.predictions["only"]):
        y = result.y_true, codes
        by_group = {"sensitive_features": result.group, "sample_weight": weights}
        assert found["accuracy"][seed] == pytest.approx(sk.accuracy_score(*y, sample_weight=weights))
        assert found["macro_f1"][seed] == pytest.approx(sk.f1_score(*y, average="macro", sample_weight=weights))
        for name in ("equalized_odds_difference", "demographic_parity_difference"):
            assert found[name][seed] == pytest.approx(getattr(theirs, name)(*y, **by_group)), name
    assert weighted(result, weights).cells["num_test"].tolist() == [15] * 6  # items are counted, not weighed


def test_a_weight_of_two_is_the_same_face_twice():
    result = drawn_result(np.random.default_rng(7), [0.9, 0.7], bootstrap=200)
    times = np.random.default_rng(8).integers(1, 4, len(result.y_true))
    rows = np.repeat(np.arange(len(times)), times)
    again = replace(
        result,
        y_true=result.y_true[rows],
        group=result.group[rows],
        predictions={"only": result.predictions["only"][:, rows]},
        persons=rows,
    )
    by_weight = weighted(result, times)
    for metric in ("accuracy", "accuracy_gap", "equalized_odds_difference", "worst_cell_accuracy"):
        one, many = by_weight.summary["only"][metric], again.summary["only"][metric]
        assert one["mean"] == pytest.approx(many["mean"]), metric
        assert (one["low"], one["high"]) == pytest.approx((many["low"], many["high"]), abs=0.03), metric
        assert one["chance"] == pytest.approx(many["chance"], rel=0.25, nan_ok=True), metric
    level = weighted(result, np.ones(len(times)))
    assert level.per_seed["only"]["accuracy_gap"] == pytest.approx(result.per_seed["only"]["accuracy_gap"])


def test_weights_are_a_column_of_the_test_set(sets):
    counted = sets["test"].with_column("survey", [1.0 + row % 3 for row in range(16)])
    result = compare(sets | {"test": counted}, weight="survey")
    assert result.weights.tolist() == [1.0 + row % 3 for row in range(16)] and result.to_dict()["audit"]["weighted"]
    assert compare(sets).weights is None and "weighted" not in compare(sets).to_dict()["audit"]
    with pytest.raises(UnknownNameError, match="Unknown attribute 'survy'"):
        compare(sets | {"test": counted}, weight="survy")
    for wrong in ("", -1, "many", float("inf")):
        broken = counted.with_column("survey", [1.0] * 15 + [wrong])
        with pytest.raises(LabelError, match="must hold finite numbers >= 0"):
            compare(sets | {"test": broken}, weight="survey")
    with pytest.raises(LabelError, match="are 0; at least one must count"):
        compare(sets | {"test": counted.with_column("survey", [0] * 16)}, weight="survey")


def test_people_are_found_in_the_test_set(sets):
    people = sets["test"].with_column("identity", [f"p{row // 2}" for row in range(16)])
    result = compare(sets | {"test": people})
    assert result.persons.tolist() == [row // 2 for row in range(16)]
    assert compare(sets).persons is None
    with pytest.raises(UnknownNameError, match="Unknown attribute 'who'"):
        compare(sets, person="who")


@pytest.mark.parametrize(("misspelt", "meant"), [("min_cel", "min_cell"), ("backbne", "backbone"), ("persn", "person")])
def test_a_misspelt_setting_is_told_among_all_that_there_are(misspelt, meant):
    with pytest.raises(ConfigError, match=f"'{misspelt}' for an audit. Did you mean '{meant}'") as raised:
        audit.compare("synthfaces:40", "synthfaces:40", target="smile", protected="gender", **{misspelt: 3})
    assert all(name in str(raised.value) for name in ("backbone", "min_cell", "positive", "cache"))
