"""The page of figures is what the generator makes of the results; the demo's task is what its rule makes of them."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from vlbias.bench import BenchTable, Result
from vlbias.bench.results import open_store
from vlbias.demo import GRID, MIN_GAP, TIED, biased_faces, choose, validation_faces


def benchmark(repository, name):
    spec = importlib.util.spec_from_file_location(name, repository / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def evidence(repository):
    return benchmark(repository, "evidence")


def test_the_page_is_what_the_generator_makes(evidence, repository):
    assert (repository / "docs" / "evidence.md").read_text(encoding="utf-8") == evidence.page()


def test_a_changed_figure_changes_the_page(evidence, repository, tmp_path):
    """What stands on the page stands nowhere else: the files of figures are what it is made of."""
    measured = sorted((repository / "benchmarks" / "results").glob("bench_*.json"))
    assert measured
    for path in measured:
        record = json.loads(path.read_text())
        record["table"]["methods"]["erm"]["accuracy"] = 1.2345678  # no accuracy there is
        (tmp_path / path.name).write_text(json.dumps(record))
    assert "1.235 (" in evidence.page(results=tmp_path) and "1.235 (" not in evidence.page()


def test_the_picture_is_of_the_figures_that_stand_in_the_tables(repository):
    picture = benchmark(repository, "methods_picture")
    drawn = picture.figures()
    with Image.open(picture.PICTURE) as image:
        assert image.info["Figures"] == picture.digest(drawn), "run `python benchmarks/methods_picture.py`"
    assert {"erm", "edits"} <= set.intersection(*map(set, drawn.values()))
    drawn["standard"]["edits"]["accuracy"] += 1e-6
    assert image.info["Figures"] != picture.digest(drawn)


def test_every_table_names_tasks_and_arms_that_there_are(evidence):
    from vlbias.audit.arms import find_arm
    from vlbias.bench import BenchSettings, Variant, find_tasks

    for table in evidence.TABLES.values():
        assert [find_arm(name) for name in table.methods] and find_tasks(*table.tasks)
        assert [Variant(**one) for one in table.variants] and BenchSettings(**table.options)


def test_marks_of_the_template_are_tables(evidence):
    marks = re.findall(r"<!-- bench: (\S+) -->", evidence.TEMPLATE.read_text(encoding="utf-8"))
    assert sorted(marks) == sorted(evidence.TABLES)


def test_without_names_a_full_budget_measures_every_table_that_there_are_faces_for(evidence):
    drawn = [name for name in evidence.TABLES if not name.startswith("utkface")]
    assert evidence.tables("quick", None) == ["world-0.9"] == drawn[:1]
    assert evidence.tables("full", None) == drawn and len(drawn) > 1
    assert evidence.tables("full", "UTKFace") == list(evidence.TABLES) != drawn


def test_fits_are_handed_on_from_one_folder_to_another(evidence, tmp_path):
    """Those of the table alone, in one order, whoever came first; a photograph's label is in none of the files."""
    y = np.array([0, 1, 1, 0])
    fits = {
        f"{seed:032x}": Result("world-smile-skin-0.9", label, seed, y, y, codes, ["0", "1"], ["a", "b"], {}, [[1, 1]])
        for seed, (label, codes) in enumerate([("erm", y), ("edits", 1 - y), ("mixup", 0 * y)])
    }
    for folder, order in (("a", list(fits)), ("b", list(fits)[::-1])):
        store = open_store(tmp_path / folder / "results.jsonl")
        for key in order:
            store.add(key, fits[key].to_dict())
        (tmp_path / f"of_{folder}").mkdir()
        evidence.keep(
            "some",
            tmp_path / folder,
            [fits[key] for key in order if fits[key].label != "mixup"],
            tmp_path / f"of_{folder}",
        )
    kept = [(tmp_path / f"of_{folder}" / "fits_some.jsonl").read_text() for folder in "ab"]
    assert kept[0] == kept[1] and len(kept[0].splitlines()) == 2

    for _ in range(2):  # what is there already is not added again
        evidence.recall("some", tmp_path / "new", tmp_path / "of_a")
    evidence.recall("another", tmp_path / "new", tmp_path / "of_a")
    found = open_store(tmp_path / "new" / "results.jsonl")
    assert found.path.read_bytes().count(b"\n") == 3  # with its first line
    assert found.read() == {key: fit.to_dict() for key, fit in fits.items() if fit.label != "mixup"}


def test_tables_are_what_their_fits_say(evidence):
    """To the last digit, on the first task of each; no fits of photographs are kept."""
    kept = {path.stem.removeprefix("fits_"): path for path in evidence.RESULTS.glob("fits_*.jsonl")}
    assert kept and set(kept) <= {name for name in evidence.TABLES if not name.startswith("utkface")}
    for name, path in kept.items():
        record = json.loads((evidence.RESULTS / f"bench_{name}.json").read_text())["table"]
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        fits = [Result.from_dict({key: value for key, value in line.items() if key != "run"}) for line in lines]
        assert {fit.label for fit in fits} == set(record["methods"])
        assert {fit.task for fit in fits} == set(record["tasks"])
        task = fits[0].task
        found = BenchTable([fit for fit in fits if fit.task == task]).to_dict()["tasks"][task]
        assert found == {label: record["tasks"][task][label] for label in found}
        assert set(found) == set(record["tasks"][task])


def test_tables_are_of_the_definitions_that_stand_here(evidence):
    """The command below a table measures that table."""
    for path in sorted(evidence.RESULTS.glob("bench_*.json")):
        record, name = json.loads(path.read_text()), path.stem.removeprefix("bench_")
        definition = json.loads(json.dumps(asdict(evidence.TABLES[name])))
        assert {key: record["definition"][key] for key in ("tasks", "methods", "variants")} == {
            key: definition[key] for key in ("tasks", "methods", "variants")
        }, name
        assert record["definition"]["options"] == definition["options"] and record["title"] == definition["title"], name


def test_findings_follow_from_the_figures(evidence):
    row = {
        "accuracy": 0.8,
        "accuracy_gap": 0.2,
        "equalized_odds_difference": 0.5,
        "way": None,
        "dominated": 0,
        "tasks": 8,
        "on_average": "",
    }
    better = row | {
        "accuracy": 0.9,
        "accuracy_gap": 0.1,
        "equalized_odds_difference": 0.1,
        "way": 0.75,
        "dominated": 3,
        "on_average": "x",
    }
    text = " ".join(evidence._findings({"erm": row, "edits": better, "oracle": row}))
    assert "accuracy gap of plain training by 50 % (bar 70, missed)" in text
    assert "odds difference of plain training by 80 % (bar 70, met)" in text
    assert "75 % of the way to the oracle (bar 80, missed)" in text
    assert "an accuracy of 0.900, plain training to 0.800 (bar: not lower, met)" in text
    assert "dominated on 3 of 8 tasks, on average by x" in text
    assert evidence._findings({"erm": row}) == []
    both = evidence._findings({"erm": row, "edits": better, "edits+oversample": row, "oracle": row})
    assert both[-1] == (
        "Edits and copies (`edits+oversample`) are dominated on 0 of 8 tasks, on average by none (bar: on one of eight "
        "at most, on average by none; met)."
    )


def test_tasks_that_nobody_learned_are_told_apart(evidence):
    def task(accuracy, gap):
        return {
            name: {"accuracy": accuracy, "equalized_odds_difference": gap + shift}
            for name, shift in (("erm", 0.2), ("oracle", 0.0))
        }

    (text,) = evidence._not_learned({"noses": task(0.51, 0.4), "smiles": task(0.9, 0.1), "beards": task(0.8, 0.3)})
    assert "on `noses` the classifier is right on less than 0.6" in text
    assert text.endswith("on the other 2: `erm` 0.850, 0.400; `oracle` 0.850, 0.200.")
    assert not list(evidence._not_learned({"smiles": task(0.9, 0.1)}))


def test_flip_rates_are_held_against_the_true_ones(evidence, tmp_path):
    """Five points are the bar, on three of the four targets, for each protected attribute by itself."""

    def row(difference):
        rest = {"accuracy": 0.9, "agree": 0.95, "rate": 0.3 + difference, "true_rate": 0.3, "num_faces": 400}
        return rest | {"difference": difference, "difference_low": difference - 0.02, "difference_high": 0.1}

    targets = ("smile", "glasses", "nose", "gender")
    tasks = {f"world-{one}-skin-0.9": row(far) for one, far in zip(targets, (0.05, -0.02, 0.0, 0.2), strict=True)}
    tasks |= {f"world-{one}-age_group-0.9": row(-0.06) for one in targets}
    path = tmp_path / "flips.json"
    path.write_text(json.dumps({"command": "flips", "seed": 0, "date": "2026-01-01", "tasks": tasks}))
    text = evidence._flips(path)
    assert "| smile | skin | 0.900 | 35.0 % | 30.0 % | +5.0 (+3.0 to +10.0) | 95.0 % |" in text
    assert text.endswith("(bar: 3 of 4 targets): skin 3 of 4, met; age group 0 of 4, missed.")
    assert evidence._flips(tmp_path / "none.json").startswith("Not measured yet")


# -- the demo's task --------------------------------------------------------------------------------------------------


def test_the_tie_of_the_demo_follows_from_what_was_recorded(repository):
    record = json.loads((repository / "benchmarks" / "results" / "demo_task.json").read_text())
    gaps = {int(tied): row["accuracy_gap"] for tied, row in record["found"].items()}
    assert record["chosen"] == choose(gaps) == TIED
    assert list(gaps) == list(GRID[: len(gaps)]), "every weaker tie was tried"
    for row in record["found"].values():
        assert row["accuracy_gap"] == pytest.approx(sum(row["gaps"]) / len(row["gaps"]), abs=1e-4)


def test_the_weakest_tie_that_misleads_is_chosen():
    assert choose({24: MIN_GAP, 12: MIN_GAP + 0.01, 6: 0.5}) == 12
    assert choose({24: 0.0}) is None


def test_the_faces_that_choose_are_in_no_other_set():
    faces = validation_faces(seed=0)
    assert set(faces.table["split"]) == {"val"} and not set(faces.ids) & set(biased_faces(400, seed=0).ids)
    assert min(int(item.rsplit("-", 1)[1]) for item in faces.ids) >= 2_000_000  # the test begins at 1,000,000
    cells = biased_faces(400, seed=0).table.groupby(["smile", "skin"]).size().tolist()
    assert cells == [200 - TIED, 24, TIED, 176]
