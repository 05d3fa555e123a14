"""Copies of the short cells' own originals fill what edits do not, and are taken for neither edits nor originals."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
from doubles import run_command
from typer.testing import CliRunner

from vlbias import audit, report
from vlbias.audit.arms import ArmSettings, ArmTask
from vlbias.balance import Balancer, Checks, Decision, add_decisions, verify_run
from vlbias.balance.review import decide, decisions_of
from vlbias.balance.run_folder import RunFolder
from vlbias.cli import app
from vlbias.data import load_dataset, open_dataset
from vlbias.data.origins import donors_of
from vlbias.errors import ConfigError, DatasetError, OutputError, PlanError, UnknownNameError
from vlbias.leak import LeakSettings, measure_leak
from vlbias.pages.page import percent
from vlbias.provenance import read_provenance
from vlbias.search import make_task

#: smile by skin of the tiny faces in train, and what it comes to.
BEFORE = {"0": {"light": 20, "dark": 4}, "1": {"light": 5, "dark": 18}}
EVEN = {"0": {"light": 20, "dark": 20}, "1": {"light": 18, "dark": 18}}
#: A check that no edit passes.
NONE_PASSES = Checks(identity=0.999999)


def balancer(tiny, **options):
    settings = {"chunk_size": 5, "copies": 0.5} | options
    return Balancer(tiny.TinyEditor(leak=0.12), target="smile", protected="skin", **settings)


def balance(tiny, faces, out, *, limit=None, run=None, **options):
    made = balancer(tiny, **options)
    return made.run(faces, made.plan(faces, limit=limit), out, show_progress=False, **(run or {}))


@pytest.fixture(scope="module")
def half(tiny, faces, tmp_path_factory):
    return balance(tiny, faces, tmp_path_factory.mktemp("half") / "out")


def copies_of(result):
    return result.table[result.table["origin"] == "copied"]


def in_cells(table, split="train"):
    """Faces of a split by (smile, skin)."""
    return Counter(zip(*(table.loc[table["split"] == split, name] for name in ("smile", "skin")), strict=True))


# ---------------------------------------------------------------------------------------------------------------------
# The plan


def test_the_share_is_that_of_each_cell(tiny, faces):
    # 16 of smile 0, dark are missing, and 13 of smile 1, light
    expected = {0.0: (16, 13), 0.25: (12, 10), 0.5: (8, 7), 0.99: (0, 0)}
    for share, (dark, light) in expected.items():
        plan = balancer(tiny, copies=share).plan(faces)
        cells = Counter(zip(plan.table["target"], plan.table["to"], strict=True))
        assert cells == Counter({("0", "dark"): dark, ("1", "light"): light}), share
        copies = {("train", "0", "dark"): 16 - dark, ("train", "1", "light"): 13 - light}
        assert plan.copies == (copies if share else {})
        assert plan.counts_before == BEFORE and plan.counts_after == EVEN


def test_a_plan_says_what_copies_come_to_and_cost(tiny, faces):
    half, alone = (balancer(tiny, copies=share).plan(faces) for share in (0.5, 0))
    assert half.describe().startswith("15 edits in 3 chunks, 14 copies of originals\n  smile=0: light 20 -> 20")
    assert "14 copies" in repr(half) and "cop" not in alone.describe()
    assert half.cost.faces == alone.cost.faces == 29 and half.cost.megabytes > 0
    assert half.cost.unet_evaluations == pytest.approx(alone.cost.unet_evaluations * 15 / 29, abs=1)
    fewer = replace(half, copies={**half.copies, ("train", "0", "dark"): 7})
    assert len({half.digest(), alone.digest(), fewer.digest()}) == 3


def test_a_limit_leaves_the_mix_as_it_is(tiny, faces, tmp_path):
    plan = balancer(tiny).plan(faces, limit=8)
    assert len(plan) == 8 and plan.copies == {("train", "0", "dark"): 4, ("train", "1", "light"): 3}
    result = balance(tiny, faces, tmp_path / "out", limit=8)
    assert result.report["counts_after"] == plan.counts_after == {
        "0": {"light": 20, "dark": 12},
        "1": {"light": 12, "dark": 18},
    }  # fmt: skip


def test_donors_suffice_that_would_not_for_edits_alone(tiny, faces):
    shares = {"light": 1, "dark": 2}
    with pytest.raises(PlanError, match="needs 36 edits"):
        balancer(tiny, to=shares, copies=0).plan(faces)
    assert balancer(tiny, to=shares).plan(faces).counts_after["0"] == {"light": 20, "dark": 40}


def test_without_copies_all_is_as_it_was(tiny, faces, tmp_path):
    plan = balancer(tiny, copies=0, chunk_size=8).plan(faces)
    # of this plan before there were copies
    assert plan.digest() == "d704b64044a705fe93a02133dffe1e7ce7830bb89f9eee788772b23236b10fcb"
    result = balance(tiny, faces, tmp_path / "out", copies=0)
    said = "".join((tmp_path / "out" / name).read_text() for name in ("report.json", "README.md", ".state/job.json"))
    assert "copies" not in said and "copied" not in said and "Copies" not in (tmp_path / "out/report.html").read_text()
    assert copies_of(result).empty and not list((tmp_path / "out").rglob("*+*"))


# ---------------------------------------------------------------------------------------------------------------------
# The set


def test_cells_come_out_as_planned(half):
    assert half.report["counts_after"] == half.report["counts_planned"] == EVEN
    assert in_cells(half.table) == {(0, "light"): 20, (0, "dark"): 20, (1, "light"): 18, (1, "dark"): 18}
    assert in_cells(copies_of(half)) == {(0, "dark"): 8, (1, "light"): 6}
    assert half.report["copies"] == 14 and half.report["copies_share"] == 0.5
    schema = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "balance-report.json").read_text())
    jsonschema.validate(half.report, schema)


def test_each_original_is_copied_as_often_as_the_others(half, faces):
    copied = copies_of(half)
    for (smile, skin), times in {(0, "dark"): {2}, (1, "light"): {1, 2}}.items():
        mine = copied[(copied["smile"] == smile) & (copied["skin"] == skin)]
        table = faces.table
        own = table.index[(table["split"] == "train") & (table["smile"] == smile) & (table["skin"] == skin)]
        counts = Counter(mine["source_id"])
        assert set(counts) == set(own) and set(counts.values()) == times


def test_a_copy_is_the_file_of_its_original_with_its_labels(half, faces):
    real = half.table[half.table["origin"] == "real"].set_index("source_id")
    names = Counter()
    for row in copies_of(half).to_dict("records"):
        original = real.loc[row["source_id"]]
        names[row["source_id"]] += 1
        number = names[row["source_id"]]
        assert row["file_name"] == original["file_name"].replace(".png", f"+copy{number}.png")
        assert (half.out_dir / row["file_name"]).read_bytes() == (half.out_dir / original["file_name"]).read_bytes()
        for label in ("split", "smile", "skin", "skin_tone", "age"):
            assert row[label] == original[label]
        assert all(pd.isna(row[name]) for name in ("path", "strength", "seed", "score_identity"))  # as of an original
    assert sum(names.values()) == 14 and verify_run(half.out_dir) == []


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_copies_take_the_places_of_edits_that_are_turned_down(tiny, faces, tmp_path, share):
    result = balance(tiny, faces, tmp_path / "out", checks=NONE_PASSES, copies=share)
    edits = result.report["edits"]
    assert edits["kept"] == edits["unfilled"] == 0 and edits["copied"] == edits["planned"] > 0
    assert result.report["copies"] == 29 and result.report["counts_after"] == EVEN
    assert in_cells(copies_of(result)) == {(0, "dark"): 16, (1, "light"): 13}
    assert f"29 copies of originals, {edits['copied']} of them in places of edits" in result.summary()
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{edits['copied']} in places of edits that were turned down" in page and "stayed empty" not in page
    assert "a copy of an original fills it" in page


def test_copies_alone_need_no_edit(tiny, faces, tmp_path):
    result = balance(tiny, faces, tmp_path / "out", copies=0.99)
    assert result.report["edits"]["planned"] == 0 and result.report["copies"] == 29
    assert result.report["counts_after"] == EVEN and "are filled by 29 copies of their own originals" in report_of(
        result
    )


def report_of(result):
    return (result.out_dir / "report.html").read_text()


def test_an_original_that_cannot_be_read_is_made_up_for(tiny, tmp_path):
    damaged = tiny.make_faces(tmp_path / "faces", tiny.CELLS)
    table = damaged.table
    lost = table.index[(table["split"] == "train") & (table["smile"] == 0) & (table["skin"] == "dark")][1]
    damaged.path(lost).write_bytes(b"no picture")
    result = balance(tiny, damaged, tmp_path / "out")
    assert result.report["unreadable"] == [lost] and result.report["counts_after"] == EVEN
    assert in_cells(result.table)[(0, "dark")] == 20 and lost not in set(result.table["source_id"])


def test_a_cell_without_an_original_gets_edits_alone(tiny, tmp_path):
    few = tiny.make_faces(
        tmp_path / "faces", {("train", 0, "light"): 12, ("train", 1, "light"): 3, ("train", 1, "dark"): 9}
    )
    plan = balancer(tiny).plan(few)
    note = "no original to copy, so edits alone: smile=0, dark (train)"
    assert plan.notes == (note,) and plan.copies == {("train", "1", "light"): 3}
    result = balance(tiny, few, tmp_path / "out")
    assert note in result.report["warnings"] and in_cells(copies_of(result)) == {(1, "light"): 3}
    turned_down = balance(tiny, few, tmp_path / "none", checks=NONE_PASSES)
    assert turned_down.report["counts_after"] == {"0": {"light": 12, "dark": 0}, "1": {"light": 9, "dark": 9}}
    assert turned_down.report["edits"] | {"rejected": 0, "by_reason": {}} == {
        "planned": 15, "kept": 0, "copied": 3, "unfilled": 12, "rejected": 0, "by_reason": {},
    }  # fmt: skip


def test_only_balanced_splits_have_copies_each_its_own(tiny, tmp_path):
    cells = {(split, *cell): n for split in ("train", "val", "test") for cell, n in {(0, "light"): 4, (0, "dark"): 2,
             (1, "light"): 2, (1, "dark"): 4}.items()}  # fmt: skip
    result = balance(tiny, tiny.make_faces(tmp_path / "faces", cells), tmp_path / "out", splits=["train", "val"])
    split_of = result.table[result.table["origin"] == "real"].set_index("source_id")["split"]
    copied = copies_of(result)
    assert Counter(copied["split"]) == {"train": 2, "val": 2}
    assert copied["split"].tolist() == copied["source_id"].map(split_of).tolist()


# ---------------------------------------------------------------------------------------------------------------------
# The same bytes


def test_two_shards_write_the_same_bytes(tiny, faces, half, tmp_path):
    assert not balance(tiny, faces, tmp_path / "out", run={"shard": (1, 2)}).complete
    assert balance(tiny, faces, tmp_path / "out", run={"shard": (0, 2)}).complete
    assert tree_of(tmp_path / "out") == tree_of(half.out_dir)


def tree_of(out):
    files = sorted(path for path in out.rglob("*") if path.is_file() and ".state" not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("left", [50, 58, 66])
def test_a_run_that_is_killed_among_its_copies_goes_on(tiny, faces, half, tmp_path, monkeypatch, left):
    class Killed(BaseException):
        pass

    put, names = RunFolder.put, []

    def dying(self, data, path):
        if len(names) == left:
            raise Killed
        names.append(path.name)
        put(self, data, path)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "put", dying)
        with pytest.raises(Killed):
            balance(tiny, faces, tmp_path / "out")
    assert any("+copy" in name for name in names) == (left > 50)
    balance(tiny, faces, tmp_path / "out")
    assert tree_of(tmp_path / "out") == tree_of(half.out_dir)


def test_who_is_copied_once_more_is_decided_by_the_seed_not_the_order(tiny, faces, half, tmp_path):
    turned = replace(faces, table=faces.table[::-1])
    other = balance(tiny, turned, tmp_path / "turned")
    assert copies_of(other)["file_name"].tolist() == copies_of(half)["file_name"].tolist()
    seeds = [balance(tiny, faces, tmp_path / f"seed {seed}", seed=seed) for seed in (1, 2, 3)]
    assert len({tuple(copies_of(result)["file_name"]) for result in (half, *seeds)}) > 1


def test_a_run_with_another_share_is_another_job(tiny, faces, tmp_path):
    balance(tiny, faces, tmp_path / "out", limit=4)
    with pytest.raises(OutputError, match="belongs to another job"):
        balance(tiny, faces, tmp_path / "out", limit=4, copies=0.25)


# ---------------------------------------------------------------------------------------------------------------------
# Forms of the output


def test_where_originals_are_links_copies_are(tiny, faces, tmp_path):
    result = balance(tiny, faces, tmp_path / "out", run={"originals": "link"})
    for row in copies_of(result).to_dict("records"):
        path = tmp_path / "out" / row["file_name"]
        assert path.is_symlink() and path.resolve() == faces.path(row["source_id"]).resolve()
    assert len(copies_of(result)) == 14 and verify_run(tmp_path / "out") == []
    assert balance(tiny, faces, tmp_path / "out", run={"originals": "link"}).table.equals(result.table)


@pytest.mark.parametrize("wanted", ["webdataset", "parquet"])
def test_shards_hold_copies(tiny, faces, half, tmp_path, wanted):
    result = balance(tiny, faces, tmp_path / "out", format=wanted, shard_size=20)
    packed, loose = open_dataset(tmp_path / "out"), open_dataset(half.out_dir)
    assert set(packed.ids) == set(loose.ids) and (packed.table["origin"] == "copied").sum() == 14
    copied = copies_of(result)["file_name"]
    assert all(packed.file(name).data == (half.out_dir / name).read_bytes() for name in copied)


def test_faces_from_the_prior_stand_beside_copies_of_real_ones(tiny, faces, tmp_path):
    result = balance(tiny, faces, tmp_path / "out", source="prior", size="editor")
    copied = copies_of(result)
    assert result.report["counts_after"] == EVEN and len(copied) == 14
    assert set(copied["source_id"]) <= set(faces.ids)


def test_originals_that_passed_through_the_editor_are_copied_as_they_came_out(tiny, faces, tmp_path):
    result = balance(tiny, faces, tmp_path / "out", round_trip=True)
    trips = result.table[result.table["origin"] == "round-trip"].set_index("source_id")["file_name"]
    copied = copies_of(result)
    passed = copied[copied["source_id"].isin(trips.index)]
    assert len(copied) == 14 and len(passed) > 0
    for row in passed.to_dict("records"):
        ours, theirs = (result.out_dir / name for name in (row["file_name"], trips[row["source_id"]]))
        assert ours.read_bytes() == theirs.read_bytes() != faces.path(row["source_id"]).read_bytes()


def test_pseudonyms_and_class_folders_reach_copies(tiny, faces, tmp_path):
    result = balance(tiny, faces, tmp_path / "out", pseudonymise=True, layout="class-folders")
    copied = copies_of(result)
    real = set(result.table.loc[result.table["origin"] == "real", "source_id"])
    assert len(copied) == 14 and set(copied["source_id"]) <= real and not real & set(faces.ids)
    folders = {(row["smile"], Path(row["file_name"]).parent.as_posix()) for row in copied.to_dict("records")}
    assert folders == {(0, "train/0"), (1, "train/1")}


def test_card_and_page_speak_of_copies(half):
    card = (half.out_dir / "README.md").read_text()
    assert "14 copies of originals of the short cells, 0 of them in places of edits" in card and "copied, " in card
    page = report.write(half.out_dir).read_text()
    assert "The same cells hold 14 copies of originals as well." in page and "--copies 0.5" in page
    assert "Cost of a kept edit" in page  # copies cost nothing
    assert f"{percent(0.5)} of what cells lack" in page and "Copies show nobody new" in page
    assert "14 copies" in repr(half) and "14 copies of originals, 0 of them" in half.summary()


# ---------------------------------------------------------------------------------------------------------------------
# Reviews


def test_a_copy_cannot_be_refused(tiny, faces, half, tmp_path):
    name, donor = copies_of(half).iloc[0][["file_name", "source_id"]]
    add_decisions(tmp_path / "review.csv", [Decision(name, donor, "reject", "anna")])
    with pytest.raises(DatasetError, match=r"\+copy1.png' is not an edit of this run"):
        balance(tiny, faces, half.out_dir, run={"review": tmp_path / "review.csv"})
    with pytest.raises(UnknownNameError, match="nknown edit"):
        decide(half.out_dir, [name], "reject", reviewer="anna")


def test_what_a_review_takes_away_is_filled_again(tiny, faces, tmp_path):
    out = tmp_path / "out"
    result = balance(tiny, faces, out, to="all")
    planned = result.report["counts_planned"]
    for _ in range(6):  # until there are no donors left
        edits = result.table[result.table["origin"] == "edited"]
        if edits.empty:
            break
        pairs = zip(edits["file_name"], edits["source_id"], strict=True)
        add_decisions(out / "review.csv", [Decision(*pair, "reject", "anna") for pair in pairs])
        before, result = result, balance(tiny, faces, out, to="all", run={"review": out / "review.csv"})
        assert result.report["counts_after"] == planned and in_cells(result.table) == in_cells(before.table)
    assert edits.empty and result.report["edits"]["copied"] == result.report["edits"]["planned"] > 0
    assert verify_run(out) == [] and result.report["edits"]["unfilled"] == 0
    # taken back, the first set is there again, without a copy too many
    table = [Decision(row.picture, row.donor, "accept", "anna") for row in decisions_of(out / "review.csv")]
    add_decisions(out / "review.csv", table)
    back = balance(tiny, faces, out, to="all", run={"review": out / "review.csv"})
    names = {path.relative_to(out).as_posix() for path in (out / "train").glob("*.png")}
    assert names == set(back.table.loc[back.table["split"] == "train", "file_name"])
    assert back.report["edits"]["kept"] > 0 and back.report["counts_after"] == planned


# ---------------------------------------------------------------------------------------------------------------------
# Whoever reads the set


def test_the_leak_looks_at_edits_and_originals_alone(tiny, tmp_path):
    cells = {("train", 0, "light"): 24, ("train", 0, "dark"): 11, ("train", 1, "light"): 11, ("train", 1, "dark"): 24}
    many = tiny.make_faces(tmp_path / "faces", cells)
    settings = LeakSettings(sizes=())
    result = balance(tiny, many, tmp_path / "out", copies=0.2, leak=settings)
    kept = result.table[result.table["origin"] != "copied"]
    assert len(kept) == len(result.table) - 6
    options = {"target": "smile", "protected": "skin", "settings": settings}
    alone = measure_leak(kept, tmp_path / "out", **options)
    assert result.report["leak"] == alone.to_dict() and alone.readings and alone.num_originals == 22
    found = audit.artefacts(many, load_dataset("folder", tmp_path / "out"), protected="skin", settings=settings)
    assert found["all"].num_edits == result.report["edits"]["kept"]


def test_a_set_with_copies_is_balanced_again(tiny, half, tmp_path):
    first = load_dataset("folder", half.out_dir)
    second = balance(tiny, first, tmp_path / "out", to=26)
    assert second.report["counts_after"] == {"0": {"light": 26, "dark": 26}, "1": {"light": 26, "dark": 26}}
    assert in_cells(second.table) == dict.fromkeys([(y, g) for y in (0, 1) for g in ("light", "dark")], 26)
    copied = copies_of(second)
    # every copy, old or new, names an original of the first set; none is the copy of a copy or of an edit
    real = set(first.table.index[first.table["origin"] == "real"])
    assert set(copied["source_id"]) <= real and len(copied) == 14 + second.report["copies"]
    files = second.table.loc[second.table["origin"] == "real", ["source_id", "file_name"]]
    assert set(files["source_id"]) == real
    new = copied.loc[copied["file_name"].str.contains("+copy", regex=False), "file_name"]
    assert len(new) == second.report["copies"] and set(new.str.replace(r"\+copy\d", "", regex=True)) <= set(
        files["file_name"]
    )
    # nor are copies edited, and scorers are calibrated on each face once
    plan = balancer(tiny, to="all").plan(first)
    assert len(plan) > 30 and "+copy" not in plan.table[["donor", "reserves"]].to_csv()
    balance(tiny, first.select(first.table["origin"] != "copied"), tmp_path / "once", to=26)
    scorers = [(tmp_path / name / ".state" / "scorers.json").read_text() for name in ("out", "once")]
    assert scorers[0] == scorers[1]


def test_copies_that_pass_through_the_editor_are_copies_still(tiny, half, tmp_path):
    first = load_dataset("folder", half.out_dir)
    second = balance(tiny, first, tmp_path / "out", to=26, copies=0, round_trip=True)
    copied = copies_of(second)
    assert second.report["round_trip"]["planned"] == 76 and len(copied) == 14
    assert any(read_provenance(second.out_dir / name)["made_by"].endswith("the editor") for name in copied["file_name"])


def test_held_out_faces_are_not_learned_from_as_copies(half):
    faces = load_dataset("folder", half.out_dir)
    for seed in range(5):
        settings = ArmSettings(fit=replace(ArmSettings().fit, image_size=16, seed=seed))
        task = ArmTask(faces.split("train"), faces.split("test"), "smile", "skin", settings=settings)
        table = task.train.table
        copied = table[table["origin"] == "copied"]
        chosen_by = set(task.validation_faces.ids)
        learned = set(task.faces.ids)
        owners = donors_of(copied, table)
        assert owners.isin(table.index).all() and owners.isin(chosen_by).any() and owners.isin(learned).any()
        assert not chosen_by & set(copied.index)
        assert learned & set(copied.index) == set(owners.index[owners.isin(learned)])


def test_arms_take_the_edits_of_a_set_not_its_copies(faces, half):
    tested = faces.split("test")
    settings = ArmSettings(fit=replace(ArmSettings().fit, image_size=16))
    sets = {"balanced": load_dataset("folder", half.out_dir)}
    task = ArmTask(faces.split("train"), tested, "smile", "skin", tested, sets=sets, settings=settings)
    added = sets["balanced"].table.loc[list(task.added("balanced").ids)]
    assert set(added["origin"]) == {"edited"} and len(added) == half.report["edits"]["kept"]


def test_copies_are_no_test_faces(half):
    faces = load_dataset("folder", half.out_dir)
    copied = faces.select(faces.table["origin"].isin(["copied", "real"]))
    with pytest.raises(DatasetError, match="test set contains 14 images that are copies of others"):
        audit.compare(faces, faces, target="smile", protected="skin", test=copied.split("train"))


def test_a_search_learns_from_copies_and_tests_on_none(tiny, tmp_path):
    cells = {(split, *cell): n for split in ("train", "val", "test") for cell, n in {(0, "light"): 4, (0, "dark"): 2,
             (1, "light"): 2, (1, "dark"): 4}.items()}  # fmt: skip
    balance(tiny, tiny.make_faces(tmp_path / "faces", cells), tmp_path / "out", splits=["train", "val"])
    faces = load_dataset("folder", tmp_path / "out")
    task = make_task(faces, protected="skin", task="classify", target="smile", image_size=8)
    copied = faces.table.index[faces.table["origin"] == "copied"]
    found = task.table[task.table["id"].isin(copied)]
    assert len(copied) == 4 and found["split"].tolist() == ["train", "train"] and not found["edited"].any()


# ---------------------------------------------------------------------------------------------------------------------
# Refusals, and the command


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan"), "half"])
def test_a_share_is_less_than_all(tiny, share):
    with pytest.raises(ConfigError, match="`copies` of BalanceSettings must be a number.*0"):
        balancer(tiny, copies=share)


def test_settings_that_contradict_copies_are_refused(tiny, faces, tmp_path):
    with pytest.raises(PlanError, match="`copies`=0.5 fills short cells, and mode='amplify' makes them no fuller"):
        balancer(tiny, mode="amplify")
    with pytest.raises(PlanError, match="`copies`=0.5 fills short cells, and to='mean' adds no face to a class"):
        balancer(tiny, to="mean")
    with pytest.raises(PlanError, match="`copies`=0.5 repeats faces of a dataset, and none is given"):
        balancer(tiny, source="prior").plan(None, num_images=40)
    with pytest.raises(
        ConfigError, match="`copies`=0.5 writes originals of short cells once more.*Use originals='copy'"
    ):
        balance(tiny, faces, tmp_path / "out", run={"originals": "omit"})
    assert not (tmp_path / "out").exists()


def test_the_command_writes_copies(tmp_path):
    command = ["balance", "synthfaces:40", str(tmp_path / "out"), "--target", "smile", "--protected", "skin"]
    refused = CliRunner().invoke(app, [*command, "--copies", ".5", "--originals", "omit"])
    assert refused.exit_code == 2 and "that --copies writes once more" in " ".join(refused.output.split())
    assert not (tmp_path / "out").exists()
    said = run_command(*command, "--copies", ".5", "--limit", "2", "--leak-sizes", "64")
    assert "copies of originals" in said or "1 copy of originals" in said
    values = json.loads((tmp_path / "out" / "report.json").read_text())
    assert values["copies_share"] == 0.5 and values["copies"] > 0
    assert values["counts_after"] == values["counts_planned"]
