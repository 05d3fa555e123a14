from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from vlbias import simulate
from vlbias.classify import FitSettings
from vlbias.errors import ConfigError, PlanError, ShapeError, UnknownNameError
from vlbias.simulate.statistics import contrast, curve_values, exchange_rate, gain_weights, holm, slope_weights

OPTIONS = {"target": "emotion", "protected": "race"}
QUIET = {"show_progress": False}
SMALL = FitSettings(image_size=16)


@pytest.fixture
def plan(faces):
    return simulate.plan(faces, **OPTIONS, n=120, shares=(0.0, 0.2, 0.5), repeats=3)


def _own_share(group, training):
    return float(np.mean(training.groups == group))


def test_a_planted_slope_is_recovered_and_its_verdict_says_so(faces, plan, make_stub):
    result = simulate.run(
        plan, faces, model=make_stub(plan, lambda g, t: 0.3 + _own_share(g, t)), storage=None, **QUIET
    )
    summary = result.summary().set_index("focal")
    # Accuracy a and guesses of 3 classes give an F1 near a + (1 - a) / 3: two thirds of the slope of a.
    assert all(summary["own_slope_low"] < 0.7) and all(summary["own_slope_high"] > 0.6)
    assert (summary["own_p"] < 0.05).all()
    assert "raise its F1" in summary.loc["z", "verdict"] and len(result.verdicts()) == 3
    assert (summary["parity_gain"] > 0).all()
    assert repr(result) == f"<SimulationResult: emotion by race, {len(plan)} runs finished>"
    assert result._repr_html_().count("<tr>") == 1 + len(summary) and "raise its F1" in result._repr_html_()
    assert repr(plan) == f"<SimulationPlan: {plan.describe()}>" and "<td>120</td>" in plan._repr_html_()


def test_no_effect_is_not_found(faces, plan, make_stub):
    result = simulate.run(plan, faces, model=make_stub(plan, lambda g, t: 0.6), storage=None, **QUIET)
    summary = result.summary()
    # One 95 % interval in twenty misses; the claim is corrected for asking three groups.
    assert ((summary["own_slope_low"] < 0) & (summary["own_slope_high"] > 0)).sum() >= 2
    assert (summary["own_p"] >= 0.05).all()
    assert any("no effect of its own share" in text for text in result.verdicts())
    # With nothing there, the chance level takes the whole gap away.
    table = result.table()
    assert abs(table["equalized_odds_excess"].mean()) < 0.02 < table["equalized_odds_difference"].mean()


def test_verdicts_say_what_cannot_be_judged(make_faces, make_stub):
    faces = make_faces(n_train=300, n_test=10)
    plan = simulate.plan(faces, **OPTIONS, n=60, shares=(0.0, 0.5), repeats=1, focal="z")
    result = simulate.run(plan, faces, model=make_stub(plan, lambda g, t: 0.6), storage=None, **QUIET)
    (verdict,) = result.verdicts()
    assert "equalized odds excess is undefined, too few test images (a cell needs 5)" in verdict
    assert "nan" not in verdict
    assert "one repeat cannot tell an effect of its own share on its F1 from the luck of the draw" in verdict
    summary = result.summary()
    assert summary[["own_slope_low", "own_slope_high", "own_p", "parity_p"]].isna().all(axis=None)


def test_size_alone_is_taken_off_by_the_control(faces, make_stub):
    plan = simulate.plan(faces, **OPTIONS, n=200, shares=(0.1, 0.3, 0.5), mode=("add", "control"), repeats=4, focal="z")
    model = make_stub(plan, lambda g, t: 0.2 + 0.4 * np.log(len(t.ids) / 100))  # more images help, whoever is on them
    result = simulate.run(plan, faces, model=model, storage=None, **QUIET)
    points = result.points("f1[z]", "z", mode="add")
    alone = contrast(points[1], points[2], slope_weights(points[0]))
    assert alone.p_greater < 0.05, "without the control size looks like composition"
    assert result.contrast("f1[z]", "z", "slope").p_greater > 0.05


def test_table_equals_scikit_learn(faces, plan, make_stub):
    result = simulate.run(plan, faces, model=make_stub(plan, lambda g, t: 0.6), storage=None, **QUIET)
    row, record = result.table().iloc[4], list(result.records.values())[4]
    true = np.asarray([plan.labels[item][1] for item in plan.test])
    predicted = np.asarray(plan.classes)[record["predicted"]]
    groups = np.asarray([plan.labels[item][0] for item in plan.test])
    for group in "xyz":
        inside = groups == group
        assert row[f"f1[{group}]"] == pytest.approx(f1_score(true[inside], predicted[inside], average="macro"))
    rates = np.asarray([[np.mean(predicted[groups == g] == c) for g in "xyz"] for c in "abc"])
    assert row["demographic_parity_ratio"] == pytest.approx((rates.min(1) / rates.max(1)).mean())
    assert row["demographic_parity_ratio_min"] == pytest.approx((rates.min(1) / rates.max(1)).min())
    assert row["demographic_parity_difference"] == pytest.approx(np.ptp(rates, axis=1).mean())


def test_a_real_classifier_on_one_thread(faces):
    plan = simulate.plan(faces, **OPTIONS, n=60, shares=(0.0, 0.5), repeats=1, focal="z")
    options = {"num_steps": 12, "image_size": 16, "batch_size": 16, "shift_px": 0, "ema_decay": 0.0, "device": "cpu"}
    result = simulate.run(plan, faces, storage=None, **QUIET, **options)
    assert result.table()["f1"].min() > 0.5 and len(result.table()) == 2


def test_edits_take_the_place_of_their_donors(faces, plan, make_stub, tmp_path):
    seen = {}

    def model(training):
        seen[training.key] = training
        # An edited image of the focal group is worth half a real one.
        worth = {g: np.mean((training.groups == g) * np.where(training.edited, 0.5, 1.0)) for g in "xyz"}
        return make_stub(plan, lambda g, t: 0.3 + 0.1 * np.log1p(100 * worth[g]))(training)

    fill = {"real": None, "edited": simulate.CounterfactualFill("race")}
    result = simulate.run(plan, faces, model=model, storage=tmp_path / "sim.log", fill=fill, settings=SMALL, **QUIET)
    baseline = {key: set(plan.files(key)) for key in plan.runs.index}
    for key, run in plan.runs.iterrows():
        if plan.baseline(key) == key:
            assert f"edited|{key}" not in seen, "the smallest share is fitted once"
            continue
        edited = seen[f"edited|{key}"]
        assert len(edited.ids) == run["n"] and edited.edited.sum() == run[f"n[{run['focal']}]"]
        assert sorted(edited.labels) == sorted(seen[f"real|{key}"].labels), "labels as with real images"
        donors = [item for item, is_edit in zip(edited.ids, edited.edited, strict=True) if is_edit]
        assert all(plan.labels[donor][0] != run["focal"] for donor in donors)
        in_base = np.mean([donor in baseline[plan.baseline(key)] for donor in donors])
        assert in_base > 0.9, "edits are made of the images they displace"
        assert edited.images.shape[0] == run["n"]
    summary = result.summary().set_index(["fill", "focal"])
    rate = summary.loc["edited", "exchange_rate"]
    assert (rate > 0.1).all() and (rate < 1.0).all() and summary.loc["real", "exchange_rate"].isna().all()
    assert any("one edited image is worth" in text for text in result.verdicts())
    assert result.plot(tmp_path / "curves.png").stat().st_size > 5000


def test_rejected_edits_are_replaced_or_missed(faces, make_stub):
    plan = simulate.plan(faces, **OPTIONS, n=60, shares=(0.0, 0.4), repeats=1, focal="z")
    kept = []

    def some(dataset, donors, to, folder):
        edits = dataset.counterfactual([d for i, d in enumerate(donors) if i % 4], race=to)
        kept.extend(edits.table["source_id"])
        return edits

    simulate.run(plan, faces, model=make_stub(plan, lambda g, t: 0.5), storage=None, fill={"edited": some}, **QUIET)
    assert len(kept) >= 24

    def few(dataset, donors, to, folder):
        return dataset.counterfactual(donors[:3], race=to)

    with pytest.raises(PlanError, match=r"needs \d+ edits towards 'z' labelled '.' and \d passed verification"):
        simulate.run(plan, faces, model=make_stub(plan, lambda g, t: 0.5), storage=None, fill={"edited": few}, **QUIET)


def _slow(plan, faces, storage, marker):
    def model(training):
        marker.touch()
        time.sleep(60)

    simulate.run(plan, faces, model=model, storage=storage, **QUIET)


def _quick(plan, faces, storage):
    def model(training):
        return [plan.labels[item][1] for item in plan.test]

    simulate.run(plan, faces, model=model, storage=storage, **QUIET)


def test_workers_share_and_a_killed_one_leaves_nothing_behind(faces, plan, tmp_path):
    processes = multiprocessing.get_context("fork")
    storage, marker = tmp_path / "sim.log", tmp_path / "busy"
    victim = processes.Process(target=_slow, args=(plan, faces, storage, marker))
    victim.start()
    while not marker.exists():
        assert victim.is_alive()
        time.sleep(0.02)
    others = [processes.Process(target=_quick, args=(plan, faces, storage)) for _ in range(2)]
    for other in others:
        other.start()
    time.sleep(0.3)
    os.kill(victim.pid, signal.SIGKILL)
    for other in others:
        other.join(timeout=600)
        assert other.exitcode == 0
    lines = [json.loads(line) for line in storage.read_text().splitlines()[1:]]
    assert sorted(line["run"] for line in lines) == sorted(f"real|{key}" for key in plan.runs.index), "each once"


def test_resuming_takes_up_where_it_stopped(faces, plan, tmp_path, make_stub):
    calls = []

    def model(training):
        calls.append(training.key)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return make_stub(plan, lambda g, t: 0.6)(training)

    storage = tmp_path / "sim.log"
    with pytest.raises(KeyboardInterrupt):
        simulate.run(plan, faces, model=model, storage=storage, **QUIET)
    with storage.open("ab") as file:
        file.write(b'{"run": "real|cut off while be')
    simulate.run(plan, faces, model=model, storage=storage, **QUIET)
    assert len(calls) == len(plan) + 1 and len(set(calls)) == len(plan)
    result = simulate.run(plan, faces, model=model, storage=storage, **QUIET)
    assert len(calls) == len(plan) + 1 and len(result.table()) == len(plan)


def test_more_repeats_take_up_the_runs_that_are_there(faces, tmp_path, make_stub):
    calls, asked, storage = [], [], tmp_path / "sim.log"

    def edited(dataset, donors, to, folder):
        asked.append((folder.name, tuple(donors)))
        return dataset.counterfactual(donors, race=to)

    def run(repeats):
        plan = simulate.plan(faces, **OPTIONS, n=60, shares=(0.0, 0.4), repeats=repeats, focal="z")

        def model(training):
            calls.append(training.key)
            return make_stub(plan, lambda g, t: 0.6)(training)

        fill = {"real": None, "edited": edited}
        return simulate.run(plan, faces, model=model, storage=storage, fill=fill, settings=SMALL, **QUIET)

    two = run(2)
    assert len(calls) == 6 and len(asked) == 2
    four = run(4)
    assert len(calls) == 12 and len(set(calls)) == 12, "only the runs of the new repeats"
    assert asked[:2] == asked[2:4] and len(asked) == 6, "edits of the first repeats are asked for as before"
    everybody = [donor for _, donors in asked[2:] for donor in donors]
    assert len(everybody) == len(set(everybody)), "nobody is edited twice"
    of_two, of_four = (found.table().set_index(["fill", "run"])["f1"] for found in (two, four))
    assert of_four[of_two.index].tolist() == of_two.tolist()
    assert len(run(2).table()) == len(two.table()) and len(calls) == 12


def test_several_protected_columns_are_one_group_each(make_faces, make_stub):
    faces = make_faces()
    faces.table["sex"] = np.where(np.arange(len(faces.table)) % 2 == 0, "f", "m")
    options = {"target": "emotion", "n": 60, "shares": (0.0, 0.3), "repeats": 2, "min_cell": 3}
    plan = simulate.plan(faces, protected=["race", "sex"], focal="z & m", **options)
    assert plan.groups == tuple(f"{a} & {b}" for a in "xyz" for b in "fm") and plan.protected == "race & sex"
    result = simulate.run(plan, faces, model=make_stub(plan, lambda g, t: 0.6), storage=None, **QUIET)
    assert result.min_cell == 3 and result.summary()["focal"].tolist() == ["z & m"]
    with pytest.raises(ConfigError, match="`target` and `protected` are both 'emotion'"):
        simulate.plan(faces, protected=["race", "emotion"], **options)
    with pytest.raises(ConfigError, match="must name one column or different ones"):
        simulate.plan(faces, protected=["race", "race"], **options)


def test_bands_are_paired(faces, plan, make_stub):
    """Repeats differ in how hard they are and not in how the curve moves: the band does not widen by that."""
    result = simulate.run(plan, faces, model=make_stub(plan, lambda g, t: 0.6), storage=None, **QUIET)
    (curve,) = result._curves("own_f1", ["x", "y", "z"])["z"]
    _, points, resampled = result.points("f1[z]", "z")
    middle = contrast(points, resampled, np.array([-1, 2, -1]) / 3)
    assert curve.high[1] - curve.mean[1] == pytest.approx(middle.high - middle.value)
    assert curve.note.startswith(f"{result.contrast('f1[z]', 'z', 'slope').value / 10:+.3f} per 10 points, p ")


def test_wrong_storages_and_models(faces, plan, tmp_path, make_stub):
    model = make_stub(plan, lambda g, t: 0.6)
    storage = tmp_path / "sim.log"
    simulate.run(plan, faces, model=model, storage=storage, **QUIET)
    other = simulate.plan(faces, **OPTIONS, n=60, shares=(0.0, 0.5), repeats=1)
    with pytest.raises(ConfigError, match="belongs to another job: `plan` is another. Give another folder"):
        simulate.run(other, faces, model=model, storage=storage, **QUIET)
    text = tmp_path / "notes.txt"
    text.write_text("hello\n")
    with pytest.raises(ConfigError, match="not the storage of `vlbias simulate`"):
        simulate.run(plan, faces, model=model, storage=text, **QUIET)
    newer = tmp_path / "newer.log"
    newer.write_text(storage.read_text().replace('"format": 1', '"format": 9', 1))
    with pytest.raises(ConfigError, match="format 9; this version reads 1"):
        simulate.run(plan, faces, model=model, storage=newer, **QUIET)
    with pytest.raises(ConfigError, match="must give 600 labels"):
        simulate.run(plan, faces, model=lambda training: ["a"], storage=None, **QUIET)
    with pytest.raises(ConfigError, match="no meaning with a callable"):
        simulate.run(plan, faces, model=model, storage=None, num_steps=3, **QUIET)
    with pytest.raises(ConfigError, match="Unknown backbone 'resnet10'. Near names in timm: .*resnet10t"):
        simulate.run(plan, faces, model="resnet10", storage=None, fill={"edited": model}, **QUIET)
    with pytest.raises(ConfigError, match="A fill must be"):
        simulate.run(plan, faces, model=model, storage=None, fill={"edited": 3}, **QUIET)
    with pytest.raises(ConfigError, match="names no way"):
        simulate.run(plan, faces, model=model, storage=None, fill={}, **QUIET)
    result = simulate.run(plan, faces, model=model, storage=storage, **QUIET)
    with pytest.raises(UnknownNameError, match="parity measure"):
        result.summary(parity="parity")
    with pytest.raises(UnknownNameError, match="Unknown metric 'f1_x'"):
        result.points("f1_x", "x")
    with pytest.raises(UnknownNameError, match="Unknown contrast"):
        result.contrast("f1", "x", "rise")
    partial = simulate.SimulationResult(plan, dict(list(result.records.items())[:2]), ["real"])
    with pytest.raises(PlanError, match="is not finished"):
        partial.contrast("f1", "z", "slope")


def test_contrasts_by_hand():
    shares = [0.0, 0.2, 0.4]
    line = np.asarray([[1.0, 1.4, 1.8], [1.1, 1.5, 1.9]])
    assert (line @ slope_weights(shares)).tolist() == pytest.approx([2.0, 2.0])
    assert (line @ gain_weights(shares, 4)).tolist() == pytest.approx([0.5, 0.5])  # 1/4 lies between 0.2 and 0.4
    exact = contrast(line, np.repeat(line[None], 5, 0), slope_weights(shares))
    assert exact.value == pytest.approx(2.0) and exact.standard_error == pytest.approx(0.0, abs=1e-12)
    assert holm({"a": 0.02, "b": 0.3}) == {"a": 0.04, "b": 0.3}
    with pytest.raises(ShapeError, match="two different shares"):
        slope_weights([0.3, 0.3])
    with pytest.raises(ShapeError, match="lies outside"):
        gain_weights([0.0, 0.1], 3)
    with pytest.raises(ShapeError, match="`resampled` must be"):
        contrast(line, line[None, :1], slope_weights(shares))


def test_variance_of_a_contrast_counts_each_source_once():
    """Values = repeat noise + test noise + their meeting; the standard error equals that of the truth."""
    generator = np.random.default_rng(0)
    r, images, trials = 5, 100, 300
    found, errors = [], []
    for _ in range(trials):
        repeat = 0.05 * generator.normal(size=(r, 1))
        image = generator.normal(size=images)
        meeting = 0.6 * generator.normal(size=(r, images))
        scores = image[None] + meeting  # (r, images)
        values = repeat[:, 0] + scores.mean(1)
        weights = generator.multinomial(images, np.full(images, 1 / images), size=200) / images
        draws = repeat[None, :, 0] + weights @ scores.T
        one = contrast(values[:, None], draws[:, :, None], np.ones(1))
        found.append(one.value)
        errors.append(one.standard_error**2)
    assert np.mean(errors) == pytest.approx(np.var(found), rel=0.2)


def test_few_bootstrap_draws_widen_the_interval():
    """Repeats that agree leave the test set as the only source: b draws know it with b - 1 degrees of freedom."""
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(8, 1)) * np.ones((1, 4))  # all repeats move alike with the test set
    one = contrast(np.ones((4, 1)), draws[:, :, None], np.ones(1))
    assert one.standard_error == pytest.approx(draws[:, 0].std(ddof=1))
    assert one.high - 1 == pytest.approx(2.365 * one.standard_error, rel=1e-3)  # t of 7 degrees of freedom


def test_one_repeat_tells_nothing_of_the_luck_of_the_draw():
    draws = np.random.default_rng(0).normal(size=(50, 1, 1))
    one = contrast(np.ones((1, 1)), draws, np.ones(1))
    assert one.value == 1 and one.standard_error > 0
    assert np.isnan([one.low, one.high, one.p_greater, one.p_less, one.p_either]).all()


@pytest.mark.parametrize("num_repeats", [2, 3])
def test_few_repeats_claim_no_more_than_they_may(num_repeats):
    """Two sources of chance, that of the repeats three times as large: claims in either direction in 5 % of worlds."""
    generator = np.random.default_rng(num_repeats)
    p_values = []
    for _ in range(300):
        of_test = generator.normal() + generator.normal(size=(60, 1, 1))
        of_repeats = generator.normal(size=(num_repeats, 1)) * np.sqrt(3 * num_repeats)
        points = of_repeats + generator.normal()
        p_values.append(contrast(points, points + of_test - of_test.mean(), np.ones(1)).p_either)
    # Two standard errors of 300 worlds above the level. Satterthwaite's single t claims in 10, 7 and 6 % of them.
    assert np.mean(np.array(p_values) < 0.05) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def test_a_quantile_of_two_errors_by_drawing():
    from vlbias.simulate.statistics import _Error

    error = _Error(repeats=0.7, repeats_freedom=2, test=1.1, test_freedom=9)
    generator = np.random.default_rng(0)
    drawn = 0.7 * generator.standard_t(2, 400_000) + 1.1 * generator.standard_t(9, 400_000)
    assert error.quantile(0.975) == pytest.approx(np.quantile(drawn, 0.975), rel=0.02)
    assert error.beyond(2.0) == pytest.approx(np.mean(drawn > 2.0), abs=0.002)
    assert _Error(1e-4, 1, 1.0, 9).quantile(0.975) == pytest.approx(2.262, rel=0.02), "hardly any luck of the draw"
    assert _Error(1.0, 1, 1e-4, 9).quantile(0.975) == pytest.approx(12.706, rel=0.02)
    assert _Error(0.0, 2, 1.0, 9).quantile(0.975) == pytest.approx(2.262, abs=1e-3)
    assert _Error(1.0, 2, 0.0, 9).quantile(0.975) == pytest.approx(4.303, abs=1e-3)


def test_what_was_not_tested_is_not_corrected_for():
    corrected = holm({"a": float("nan"), "b": 0.02, "c": 0.04})
    assert corrected["b"] == 0.04 and corrected["c"] == 0.04 and np.isnan(corrected["a"])
    assert list(corrected) == ["a", "b", "c"] and holm({}) == {}


def _tables(counts):
    """Counts of one run as its own only resample, and as its own only permutation."""
    return np.asarray(counts, float)[None, None], np.asarray(counts, float)[None, None]


def test_a_gap_of_one_known_group_is_unknown():
    one = [[[5, 1], [1, 5]], [[0, 0], [0, 0]]]
    values = curve_values(*_tables(one), ["a", "b"])
    for name in ("f1_gap", "demographic_parity_ratio", "equalized_odds_difference", "demographic_parity_excess"):
        assert np.isnan(values[name]).all(), name


def test_cells_are_left_out_by_what_was_observed_not_by_what_was_drawn():
    """A cell of 5 images is there in every resample, one of 4 in none, however often its images were drawn."""
    observed = np.array([[[5, 0], [2, 8]], [[4, 2], [3, 6]], [[4, 0], [1, 9]]], float)
    fewer, more = observed.copy(), observed.copy()
    fewer[0, 0, 0], more[2, 0, 0] = 3, 9
    counts = np.stack([observed, fewer, more])[None]
    values = curve_values(counts, counts[:, :1], list("abc"))["equalized_odds_difference"][0]
    # class 0: groups a and b alone have 5 images; false positives of it are 2/10, 3/9 (and 1/10 of c, of 10)
    assert values == pytest.approx([(max(1 / 3, 1 / 3 - 0.1) + 1 / 3) / 2] * 3)


def test_a_group_may_be_called_nan(make_faces, make_stub, tmp_path):
    faces = make_faces()
    words = {"x": "nan", "y": "None", "z": "NA"}
    faces.table["race"] = faces.table["race"].map(words)
    plan = simulate.plan(faces, **OPTIONS, n=60, shares=(0.0, 0.5), repeats=2)
    assert plan.groups == ("NA", "None", "nan")
    result = simulate.run(plan, faces, model=make_stub(plan, lambda g, t: 0.6), storage=None, **QUIET)
    summary = result.summary()
    assert summary["focal"].tolist() == list(plan.groups) and summary["own_p"].notna().all()
    result.write(tmp_path)
    stored = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    assert stored["focal"].tolist() == list(plan.groups)


def test_exchange_rate_by_hand():
    counts = [0, 10, 30, 60]
    real = 0.3 + 0.1 * np.log1p(counts) + np.asarray([[0.0], [0.01], [-0.01], [0.005]])
    half = 0.3 + 0.1 * np.log1p(0.5 * np.asarray(counts)) + np.asarray([[0.0], [0.01], [-0.01], [0.005]])
    rate, low, high = exchange_rate(counts, real, counts, half)
    assert 0.4 < rate < 0.62 and low <= rate <= high
    assert exchange_rate(counts, real, counts, real)[0] == pytest.approx(1.0)
    assert exchange_rate(counts, real, counts, np.full_like(real, 0.3))[0] == pytest.approx(0.0, abs=0.02)
    assert np.isnan(exchange_rate(counts, np.full_like(real, 0.3) - real / 10, counts, real)[0])
    hardly = 0.3 + (real - 0.3) / 50  # real images hardly help: an edit is not worth 5e19 of them
    assert np.isnan(exchange_rate(counts, hardly, counts, real)[0])
    assert np.isnan(exchange_rate(counts, real, [0, 0, 0, 0], half)).all()  # no edit at all


def test_counterfactuals_need_the_embedded_world():
    with pytest.raises(ConfigError, match="only in the embedded world"):
        simulate.CounterfactualFill("race")(object(), ["a"], "x", None)
    with pytest.raises(ConfigError, match="`storage` file"):
        simulate.BalancerFill(object())(object(), ["a"], "x", None)
