"""The pipeline end to end on the tiny editor: layout, verified edits, reasons, bad input."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import jsonschema
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from doubles import tree_hash
from PIL import Image

from vlbias.balance import Balancer, Checks, Decision, add_decisions
from vlbias.balance.attempt import ChunkResult
from vlbias.balance.export import add_to_report
from vlbias.balance.run_folder import RunFolder
from vlbias.data.table import Problem
from vlbias.errors import CheckpointError, ConfigError, OutputError, PlanError
from vlbias.images import open_image
from vlbias.leak import LeakSettings
from vlbias.provenance import read_provenance

#: Keys of a report that are for this version of the library alone.
NOT_PROMISED = {"to", "chunk_size", "round_trip", "leak", "poles", "limit"}


def balance(editor, faces, out, *, limit=None, run=None, **settings):
    balancer = Balancer(editor, **({"target": "smile", "protected": "skin", "chunk_size": 8} | settings))
    plan = balancer.plan(faces, limit=limit)
    return balancer.run(faces, plan, out, show_progress=False, **(run or {}))


@pytest.fixture(scope="module")
def balanced(tiny, faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "balanced"
    return balance(tiny.TinyEditor(leak=0.12), faces, out)


def test_counts_come_out_equal(balanced):
    assert balanced.complete
    assert balanced.report["counts_before"] == {"0": {"light": 20, "dark": 4}, "1": {"light": 5, "dark": 18}}
    assert balanced.report["counts_after"] == {"0": {"light": 20, "dark": 20}, "1": {"light": 18, "dark": 18}}
    train = balanced.table[balanced.table["split"] == "train"]
    assert train.groupby(["smile", "skin"]).size().tolist() == [20, 20, 18, 18]
    edits = balanced.report["edits"]
    assert edits["planned"] == 29 == edits["kept"] + edits["unfilled"]
    assert sum(edits["by_reason"].values()) == edits["rejected"]


def test_the_bar_and_the_summary_count_the_same_tries(editor, faces, tmp_path, capsys):
    # a check that nobody passes: places stay empty, which is no try
    balancer = Balancer(editor, target="smile", protected="skin", chunk_size=8, checks=Checks(identity=0.999999))
    result = balancer.run(faces, balancer.plan(faces, limit=4), tmp_path / "out")
    edits = result.report["edits"]
    assert edits["unfilled"] > 0
    assert f"kept {edits['kept']}, rejected {edits['rejected']}\n" in capsys.readouterr().err


def test_the_report_is_what_its_published_schema_says(balanced, repository):
    schema = json.loads((repository / "docs" / "schemas" / "balance-report.json").read_text())
    check = jsonschema.Draft202012Validator(schema)
    assert list(check.iter_errors(balanced.report)) == []
    assert set(balanced.report) - set(schema["properties"]) <= NOT_PROMISED
    assert list(check.iter_errors(balanced.report | {"edits": {}})) and list(check.iter_errors({}))


def test_a_run_writes_its_page(editor, faces, tmp_path):
    out = tmp_path / "out"
    page = out / "report.html"
    balance(editor, faces, out, limit=12, run={"shard": (0, 2)})
    assert not page.exists()  # the other shard is not done
    result = balance(editor, faces, out, limit=12)
    shown = page.read_text()
    assert result.complete and "<table" in shown and "data:image/png" in shown
    page.write_text("with an audit")  # a page that somebody made of the finished run stays
    balance(editor, faces, out, limit=12)
    assert page.read_text() == "with an audit"
    page.unlink()
    balance(editor, faces, out, limit=12)
    assert page.read_text() == shown


def test_what_the_dataset_left_out_is_listed(editor, faces, tmp_path):
    problem = Problem("200_1_0.jpg", "label_out_of_range", "age is 200")
    result = balance(editor, replace(faces, problems=[problem]), tmp_path / "out", limit=2)
    wanted = {"file": "200_1_0.jpg", "code": "label_out_of_range", "detail": "age is 200"}
    assert result.report["left_out"] == [wanted]


def test_labels_that_both_scorers_contradict_are_named(editor, faces, balanced, tmp_path):
    assert not any("labelled" in text for text in balanced.report["warnings"])
    table = faces.table.copy()
    smiling = table.index[(table["split"] == "train") & (table["smile"] == 1) & (table["skin"] == "light")]
    table.loc[smiling, "smile"] = 0
    result = balance(editor, replace(faces, table=table), tmp_path / "out")
    edits = result.table[result.table["origin"] == "edited"]
    wrong = edits[edits["source_id"].isin(smiling)]
    assert 3 <= len(wrong) == (edits[["score_target_latent", "score_target_image"]].max(axis=1) < 0).sum()
    said = [text for text in result.report["warnings"] if "labelled" in text]
    assert len(said) == 1 and said[0].startswith(
        f"{len(wrong)} of {len(edits)} kept edits read as another 'smile' than they are labelled, by both scorers"
    )
    assert said[0].endswith(f"look at these labels, such as that of {wrong['source_id'].iloc[0]}.")
    assert said[0] in result.summary()


def test_figures_measured_afterwards_join_the_report(editor, faces, tmp_path):
    result = balance(editor, faces, tmp_path / "out", limit=2)
    add_to_report(result.out_dir, {"classifiers": {"baseline": {"accuracy": 0.5}}})
    values = json.loads((result.out_dir / "report.json").read_text())
    assert values.pop("classifiers") == {"baseline": {"accuracy": 0.5}} and values == result.report
    with pytest.raises(CheckpointError, match="report.json does not exist"):
        add_to_report(tmp_path / "nothing", {})


def test_the_layout_is_the_house_plan(balanced, faces):
    out = balanced.out_dir
    assert {p.name for p in out.iterdir()} == {
        ".state", "README.md", "metadata.csv", "metadata.schema.json", "plan.csv", "rejected.csv", "report.html",
        "report.json", "test", "train",
    }  # fmt: skip
    table = balanced.table
    assert list(table.columns[:4]) == ["file_name", "split", "smile", "skin"]
    assert {"origin", "source_id", "path", "strength", "seed", "score_identity"} <= set(table.columns)
    assert set(table["origin"]) == {"real", "edited"}
    on_disk = {p.relative_to(out).as_posix() for p in out.glob("*/*.png")}
    assert on_disk == set(table["file_name"]) and len(table) == len(faces) + 29
    assert json.loads((out / "report.json").read_text()) == balanced.report
    card = (out / "README.md").read_text()
    assert '\nlicense: "mit"\n' in card.split("---\n")[1] and "| 0 | dark | 4 | 20 |" in card


def test_originals_are_copied_byte_for_byte(balanced, faces):
    real = balanced.table[balanced.table["origin"] == "real"]
    for row in real.to_dict("records"):
        assert (balanced.out_dir / row["file_name"]).read_bytes() == faces.path(row["source_id"]).read_bytes()


def test_an_edit_stands_in_the_split_of_its_donor(balanced, faces):
    edits = balanced.table[balanced.table["origin"] == "edited"]
    assert (faces.table.loc[edits["source_id"], "split"].to_numpy() == edits["split"].to_numpy()).all()
    assert (faces.table.loc[edits["source_id"], "smile"].to_numpy() == edits["smile"].to_numpy()).all()
    assert (faces.table.loc[edits["source_id"], "skin"].to_numpy() != edits["skin"].to_numpy()).all()


def test_edits_are_what_they_claim_to_be(balanced, tiny, faces):
    """Read the written pictures with the formula that made them."""
    model = tiny.TinyDiffAE()
    for row in balanced.table[balanced.table["origin"] == "edited"].to_dict("records"):
        z = model.encode(tiny.to_tensor(open_image(balanced.out_dir / row["file_name"])))[0]
        donor = model.encode(tiny.to_tensor(faces.image(row["source_id"])))[0]
        assert (z[0] > 0) == (row["skin"] == "dark") and abs(z[0]) > 0.05  # the group was reached, with a margin
        assert (z[1] > 0) == (row["smile"] == 1)  # the target stayed
        assert torch.allclose(z[2:], donor[2:], atol=0.03)  # and so did the person
        assert abs(z[0]) < 0.45  # as far as needed, no further


def test_pictures_say_that_they_are_synthetic(balanced):
    edit = balanced.table[balanced.table["origin"] == "edited"].iloc[0]
    text = read_provenance(balanced.out_dir / edit["file_name"])
    assert text["synthetic"] == "true" and text["editor"] == "tiny" and text["path"] == "skin_tone"
    assert text["source"] == edit["source_id"] and float(text["strength"]) == edit["strength"]


def test_labels_that_an_edit_made_untrue_are_blank(balanced):
    edits = balanced.table["origin"] == "edited"
    assert balanced.table.loc[edits, "skin_tone"].isna().all() and (balanced.table.loc[edits, "age"] == 30).all()
    assert balanced.table.loc[~edits, "skin_tone"].notna().all()


def check_split_metadata(result):
    files = [result.out_dir / split / "metadata.parquet" for split in ("train", "test")]
    assert pq.read_schema(files[0]) == pq.read_schema(files[1])
    parts = [pd.read_parquet(file) for file in files]
    assert sum(len(part) for part in parts) == len(result.table)
    for split, part in zip(("train", "test"), parts, strict=True):
        assert all((result.out_dir / split / name).is_file() for name in part["file_name"])


def test_the_splits_own_metadata_agree_in_types(balanced):
    check_split_metadata(balanced)
    part = pd.read_parquet(balanced.out_dir / "test" / "metadata.parquet")
    assert set(part["source_id"]) <= set(balanced.table["source_id"]) and part["path"].isna().all()


def test_hugging_face_datasets_reads_it(balanced, tmp_path):
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset("imagefolder", data_dir=str(balanced.out_dir), cache_dir=str(tmp_path))
    assert read["train"].num_rows == 76 and read["test"].num_rows == 4
    assert {"image", "smile", "skin", "origin"} <= set(read["train"].features)


def test_the_output_is_a_dataset_again(balanced):
    data = pytest.importorskip("vlbias.data")
    again = data.load_dataset("folder", balanced.out_dir)
    assert len(again) == len(balanced.table)
    assert again.table.groupby(["split", "smile", "skin"]).size()["train", 0, "dark"] == 20


def test_unet_evaluations_are_counted(balanced):
    kept = balanced.report["edits"]["kept"]
    assert balanced.unet_evaluations >= kept * 7  # 4 to invert, 3 to decode
    assert balanced.report["unet_evaluations_per_kept_image"] == round(balanced.unet_evaluations / kept, 2)


# -- the other modes -----------------------------------------------------------------------------------------------


def test_prior_mode_decodes_little_that_is_not_kept(editor, faces, tmp_path):
    result = balance(editor, faces, tmp_path / "out", source="prior")
    assert result.report["edits"]["kept"] == 29
    assert result.report["unet_evaluations_per_kept_image"] <= 30
    edits = result.table[result.table["origin"] == "edited"]
    assert edits["source_id"].str.startswith("sample-").all() and edits["source_id"].is_unique
    assert len(list((tmp_path / "out" / "donors").glob("*.png"))) == 29  # pairs are kept
    check_split_metadata(result)
    alone = balance(editor, faces, tmp_path / "alone", source="prior", keep_pairs=False)
    assert alone.report["unet_evaluations_per_kept_image"] < 15 and not (tmp_path / "alone" / "donors").exists()


def test_a_sampled_donor_is_decoded_once_for_all_its_walks(editor, faces, tmp_path):
    result = balance(editor, faces, tmp_path / "out", source="prior", checks=Checks(identity=2.0))
    edits = result.report["edits"]
    assert edits["kept"] == 0 and edits["unfilled"] == 29 and edits["by_reason"]["identity_lost"] > 29
    decoded = result.rejected["identity"].notna().sum()
    assert result.unet_evaluations == 4 * (1 + 5) * decoded
    alone = {"checks": Checks(identity=2.0), "keep_pairs": False}
    result = balance(editor, faces, tmp_path / "alone", source="prior", **alone)
    assert result.unet_evaluations == 4 * result.rejected["identity"].notna().sum()  # nobody sees the donors


def test_a_sampled_donor_must_look_like_its_code(editor, faces, tmp_path):
    """A donor is looked at before it is edited, and here none is good enough."""
    result = balance(editor, faces, tmp_path / "out", source="prior", checks=Checks(sampled=1e6, retries=0))
    reasons = result.report["edits"]["by_reason"]
    assert result.report["edits"]["kept"] == 0 and reasons["donor_unclear"] > 29
    assert result.unet_evaluations == 4 * reasons["donor_unclear"] and result.rejected["identity"].isna().all()


def test_a_donor_that_decodes_to_nan_is_turned_down(editor, faces, tmp_path):
    sound = editor.diffae.decode

    def decode(z_sem, x_T, num_steps=20, solver="ddim"):
        x_0 = sound(z_sem, x_T, num_steps, solver)
        x_0[z_sem[:, 0] < 0] = float("nan")  # whoever is light
        return x_0

    editor.diffae.decode = decode
    result = balance(editor, faces, tmp_path / "out", source="prior")
    broken = result.rejected[result.rejected["reason"] == "not_finite"]
    assert result.report["edits"]["kept"] == 0 and not list((tmp_path / "out").glob("**/edit-*.png"))
    assert set(broken.loc[broken["from"] == "light", "detail"]) == {"the donor"}
    assert broken.loc[broken["from"] == "dark", "detail"].isna().all()


def test_calibrating_on_sampled_faces_is_counted(editor, tmp_path):
    balancer = Balancer(editor, target="smile", protected="skin", source="prior", chunk_size=8)
    result = balancer.run(None, balancer.plan(None, num_images=16), tmp_path / "new", show_progress=False)
    assert result.report["calibration_evaluations"] == 128  # 32 faces of 4 evaluations
    assert result.unet_evaluations >= 128 + 8 * result.report["edits"]["kept"]


def test_a_new_dataset_from_the_prior_alone(editor, tmp_path):
    balancer = Balancer(editor, target="smile", protected=["skin", "age_group"], source="prior", chunk_size=16)
    result = balancer.run(None, balancer.plan(None, num_images=50), tmp_path / "new", show_progress=False)
    sizes = result.table.groupby(["smile", "skin", "age_group"]).size()
    assert len(sizes) == 8 and sizes.nunique() == 1 and len(result.table) == 48
    assert (result.table["origin"] == "sampled").sum() == (result.table["origin"] == "edited").sum()
    assert result.report["unet_evaluations_per_kept_image"] <= 30


def test_edits_that_take_the_place_of_their_donors(editor, faces, tmp_path):
    result = balance(editor, faces, tmp_path / "out", to="mean")
    assert len(result.table) == len(faces)
    edits = result.table[result.table["origin"] == "edited"]
    real = result.table[result.table["origin"] == "real"]
    assert set(edits["source_id"]).isdisjoint(real["source_id"])
    train = result.table[result.table["split"] == "train"].groupby(["smile", "skin"]).size()
    assert train.tolist() == [12, 12, 12, 11]


def test_amplify_makes_the_bias_stronger_and_says_so(editor, faces, tmp_path):
    result = balance(editor, faces, tmp_path / "out", mode="amplify")
    assert result.report["counts_after"] == {"0": {"light": 24, "dark": 4}, "1": {"light": 5, "dark": 23}}
    assert "more** biased than its source" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("originals", ["link", "resize", "omit"])
def test_originals(editor, faces, tmp_path, originals):
    size = "editor" if originals == "resize" else "own"
    result = balance(editor, faces, tmp_path / "out", limit=4, size=size, run={"originals": originals})
    real = result.table[result.table["origin"] == "real"]
    assert len(real) == (0 if originals == "omit" else len(faces))
    for row in real.head(3).to_dict("records"):
        path = tmp_path / "out" / row["file_name"]
        assert path.is_symlink() == (originals == "link")
        assert open_image(path).tobytes() == faces.image(row["source_id"]).tobytes()


def test_a_target_without_a_dipole_is_read_by_a_fit(editor, faces, tmp_path):
    relabelled = faces.with_column("mouth", faces.table["smile"].map({0: "flat", 1: "wide"}))
    result = balance(editor, relabelled, tmp_path / "out", target="mouth")
    assert result.report["scorers"]["mouth"]["latent"]["kind"] == "fitted"
    assert result.report["edits"]["kept"] >= 20


def test_the_same_seed_gives_the_same_edits_in_any_chunk_size(editor, faces, tmp_path):
    a = balance(editor, faces, tmp_path / "a", chunk_size=3)
    b = balance(editor, faces, tmp_path / "b", chunk_size=16)
    donors = [r.table[r.table["origin"] == "edited"].set_index("file_name")["source_id"] for r in (a, b)]
    # a donor that was turned down is replaced from the reserves of its own chunk
    same = [name for name in donors[0].index if donors[1].get(name) == donors[0][name]]
    assert len(same) >= 20
    for name in same:
        pixels = [torch.tensor(list(open_image(r.out_dir / name).tobytes())) for r in (a, b)]
        assert (pixels[0] - pixels[1]).abs().max() <= 1


# -- what is turned down -------------------------------------------------------------------------------------------


def reasons(result):
    return set(result.rejected["reason"])


def test_a_path_that_does_nothing(tiny, faces, tmp_path):
    result = balance(tiny.TinyEditor(blunt=True), faces, tmp_path / "out", limit=8)
    assert reasons(result) == {"out_of_reach", "no_donor_left"}
    assert result.unet_evaluations == 0  # found out before anything was decoded
    assert result.report["edits"] == {
        "planned": 8,
        "kept": 0,
        "unfilled": 8,
        "rejected": len(result.rejected) - 8,
        "by_reason": {"out_of_reach": len(result.rejected) - 8},
    }
    assert result.report["counts_after"] == result.report["counts_before"]


def test_a_path_that_takes_the_target_along(tiny, faces, tmp_path):
    result = balance(tiny.TinyEditor(leak=0.9), faces, tmp_path / "out", limit=8)
    assert "target_changed" in reasons(result)


def test_a_path_that_makes_somebody_else(tiny, faces, tmp_path):
    result = balance(tiny.TinyEditor(drift=3.0), faces, tmp_path / "out", limit=8)
    assert "identity_lost" in reasons(result) and result.report["edits"]["kept"] < 8
    lost = result.rejected[result.rejected["reason"] == "identity_lost"]
    assert (lost["identity"] < 0.4).all()


def test_a_scorer_that_sees_no_change_in_the_picture(tiny, faces, tmp_path):
    editor = tiny.TinyEditor()
    seen = editor.score

    def stubborn(x, name):
        # CLIP reads originals, but every picture that was rendered from a walked code as light
        walked = ((x + 1) * 127.5 - ((x + 1) * 127.5).round()).abs().amax() > 2
        return seen(x, name) * (0 if walked else 1)

    editor.score = stubborn
    editor.render = lambda x_0, *_: x_0  # an edit that never reaches the pixels
    result = balance(editor, faces, tmp_path / "out", limit=4)
    assert reasons(result) == {"protected_not_reached", "no_donor_left"}


def test_nan_from_a_network_is_turned_down(tiny, faces, tmp_path):
    editor = tiny.TinyEditor()
    editor.render = lambda x_0, *_: x_0 * float("nan")
    result = balance(editor, faces, tmp_path / "out", limit=4)
    assert reasons(result) == {"not_finite", "no_donor_left"}


def test_mislabelled_donors_are_left_alone(tiny, tmp_path):
    faces = tiny.make_faces(tmp_path / "faces", tiny.CELLS)
    table = faces.table.copy()
    light = table.index[(table["smile"] == 0) & (table["skin"] == "light") & (table["split"] == "train")]
    dark = table.index[(table["smile"] == 1) & (table["skin"] == "dark") & (table["split"] == "train")]
    for a, b in zip(light[:3], dark[:3], strict=True):  # swap the files behind three pairs
        table.loc[[a, b], "file_name"] = table.loc[[b, a], "file_name"].to_numpy()
    swapped = type(faces)("swapped", table, root=faces.root)
    result = balance(tiny.TinyEditor(), swapped, tmp_path / "out")
    turned = result.rejected[result.rejected["reason"] == "already_in_group"]
    assert set(turned["donor"]) <= set(light[:3]) | set(dark[:3]) and len(turned) > 0


def test_unreadable_donors_are_skipped_counted_and_replaced(tiny, tmp_path):
    faces = tiny.make_faces(tmp_path / "faces", tiny.CELLS)
    balancer = Balancer(tiny.TinyEditor(), target="smile", protected="skin", chunk_size=8)
    plan = balancer.plan(faces)
    broken = plan.table["donor"].iloc[0]
    path = faces.path(broken)
    path.write_bytes(path.read_bytes()[:100])
    empty = faces.table.index[faces.table["split"] == "test"][0]
    faces.path(empty).write_bytes(b"")
    result = balancer.run(faces, plan, tmp_path / "out", show_progress=False)
    listed = result.rejected[result.rejected["reason"] == "unreadable"]
    assert set(listed["donor"]) == {broken, empty} and set(result.report["unreadable"]) == {broken, empty}
    assert "damaged" in listed.set_index("donor").loc[broken, "detail"]
    assert f"2 pictures of the dataset are damaged and left out, such as {min(broken, empty)}" in result.summary()
    assert result.report["edits"]["kept"] == 29  # another donor took its place
    assert result.report["counts_after"]["0"]["light"] == 19 and broken not in set(result.table["source_id"])


# -- bad input -----------------------------------------------------------------------------------------------------


def fails(error, text, editor, faces, out, *, run=None, limit=None, **settings):
    with pytest.raises(error, match=text):
        balance(editor, faces, out, run=run, limit=limit, **settings)


def test_bad_attributes(editor, faces, tmp_path):
    out = tmp_path / "out"
    fails(PlanError, "both 'skin'", editor, faces, out, target="skin")
    bare = replace(faces, table=faces.table[["file_name", "split"]], attributes=[])
    fails(PlanError, "`protected` is 'skin', but the dataset has no labels. They go into a meta", editor, bare, out)
    fails(PlanError, "Unknown attribute 'sex' for `protected`", editor, faces, out, protected="sex")
    fails(PlanError, "Unknown attribute 'smlie' for `target`. Did you mean 'smile'", editor, faces, out, target="smlie")
    fails(PlanError, "can read 'smile' but has no path for it", editor, faces, out, target="skin", protected="smile")
    named = faces.with_column("region", [("north", "south", "west")[i % 3] for i in range(len(faces))])
    fails(PlanError, "No path of editor 'tiny' is known to carry 'region'", editor, named, out, protected="region")
    twin = faces.with_column("Pale_Skin", (faces.table["skin"] == "light").astype(int))
    fails(PlanError, "same dipole 'skin_tone'", editor, twin, out, target="Pale_Skin")
    fails(PlanError, "`path` needs one protected column", editor, faces, out, path="age")
    assert not out.exists()  # nothing was begun


def test_an_editor_that_cannot(tiny, faces, tmp_path):
    no_prior = tiny.TinyEditor()
    no_prior.can_sample = False
    fails(PlanError, "'tiny' has no latent prior", no_prior, faces, tmp_path / "a", source="prior")
    no_clip = tiny.TinyEditor()
    no_clip.can_read_pictures = False
    fails(PlanError, "'tiny' has no CLIP", no_clip, faces, tmp_path / "b")
    random = tiny.TinyEditor(blind=True)
    noise = faces.with_column("smile", [0, 1] * (len(faces) // 2) + [0] * (len(faces) % 2))
    text = "cannot tell the groups of 'smile' apart"
    fails(PlanError, text, random, noise, tmp_path / "c", checks=Checks(min_skill=0.9))


def test_bad_output_places(editor, faces, tmp_path):
    full = tmp_path / "mine"
    full.mkdir()
    (full / "thesis.tex").write_text("x")
    fails(OutputError, r"mine has other files in it \(thesis.tex\)", editor, faces, full)
    assert (full / "thesis.tex").read_text() == "x" and len(list(full.iterdir())) == 1
    fails(OutputError, "thesis.tex is a file", editor, faces, full / "thesis.tex")
    fails(OutputError, "lies in the dataset's own folder", editor, faces, faces.root / "out")
    fails(OutputError, "cannot be written", editor, faces, Path("/proc/nowhere/out"))
    moved = {"originals": "move"}
    fails(ConfigError, "`originals` must be one of copy, exact, link", editor, faces, tmp_path / "o", run=moved)
    fails(ConfigError, r"`shard` must be \(i, n\)", editor, faces, tmp_path / "s", run={"shard": (2, 2)})
    fails(
        ConfigError,
        "`prior_steps` of [A-Za-z]+ must be a whole number in 1..1000",
        editor,
        faces,
        tmp_path / "p",
        prior_steps=0,
    )


def test_another_job_is_refused(balanced, tiny, faces):
    fails(
        OutputError,
        "belongs to another job: `plan.seed` is 0 there and 1 here",
        tiny.TinyEditor(leak=0.12),
        faces,
        balanced.out_dir,
        seed=1,
    )
    fails(
        OutputError,
        "another job: `checks.goal` is 1.0",
        tiny.TinyEditor(leak=0.12),
        faces,
        balanced.out_dir,
        checks=Checks(goal=0.9),
    )


def test_a_full_disk_keeps_the_finished_chunks(editor, faces, tmp_path, monkeypatch):
    real_rename, renames = os.rename, []

    def rename(source, target, **kwargs):
        renames.append(target)
        if len(renames) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_rename(source, target, **kwargs)

    monkeypatch.setattr(os, "rename", rename)
    text = "The disk is full: free some space and run the same command again. 2 finished chunks are kept"
    fails(OutputError, text, editor, faces, tmp_path / "out")
    monkeypatch.undo()
    assert balance(editor, faces, tmp_path / "out").complete


def test_a_commit_does_not_look_through_the_other_chunks(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "out", {})
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("looked through a folder"))
    folder.commit_chunk(3, ChunkResult(unet_evaluations=7))
    assert folder.read_chunk(3)["unet_evaluations"] == 7


def test_too_little_space_is_found_before_the_work(editor, faces, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("usage", (), {"free": 10})())
    fails(OutputError, "0 MB free, the dataset needs about", editor, faces, tmp_path / "out")
    assert editor.diffae.evaluations == 0


def test_the_plan_says_what_it_will_cost(editor, faces):
    plan = Balancer(editor, target="smile", protected="skin").plan(faces)
    assert plan.cost.faces == 29 and 29 * 7 <= plan.cost.unet_evaluations <= 29 * 14
    assert plan.cost.minutes >= 0 and "UNet evaluations" in plan.describe() and str(plan) == plan.describe()
    assert editor.diffae.evaluations == 0  # timing is not work


def test_nothing_to_do_still_writes_a_dataset(editor, tiny, tmp_path):
    even = tiny.make_faces(tmp_path / "even", {("train", s, g): 3 for s in (0, 1) for g in ("light", "dark")})
    result = balance(editor, even, tmp_path / "out")
    assert result.complete and len(result.table) == 12 and result.report["edits"]["planned"] == 0


def test_edits_are_as_large_as_their_donors_and_of_their_kind(editor, faces, tmp_path):
    """Donors of 24 px as JPEG and PNG in turn: edits have the size, format and tables of their own donor."""
    root = tmp_path / "photos"
    root.mkdir()
    for number, item in enumerate(faces.ids):
        large = faces.image(item).resize((24, 24), Image.Resampling.NEAREST)
        if number % 2:
            large.save(root / f"{item}.jpg", quality=88, subsampling=0)
        else:
            large.save(root / f"{item}.png")
    names = [f"{item}.{'jpg' if number % 2 else 'png'}" for number, item in enumerate(faces.ids)]
    large_faces = replace(faces, root=root, table=faces.table.assign(file_name=names))
    # the tiny editor's patterns change from pixel to pixel; enlarged smoothly they are too weak for its scorers
    anything = Checks(reached=-1e6, target=-1e6, identity=-1e6)
    result = balance(editor, large_faces, tmp_path / "out", checks=anything)
    edits = result.table[result.table["origin"] == "edited"]
    assert len(edits) >= 20 and set(edits["file_name"].str[-4:]) == {".jpg", ".png"}
    for row in edits.to_dict("records"):
        donor = large_faces.path(row["source_id"])
        with Image.open(donor) as old, Image.open(tmp_path / "out" / row["file_name"]) as new:
            assert (new.format, new.mode, new.size) == (old.format, old.mode, old.size)
            assert getattr(new, "quantization", None) == getattr(old, "quantization", None)
        said = read_provenance(tmp_path / "out" / row["file_name"])
        assert said["synthetic"] == "true" and said["source"] == row["source_id"]
    assert result.report["size"] == "own" and not any("pixels" in text for text in result.report["warnings"])
    small = balance(editor, large_faces, tmp_path / "small", size="editor", limit=3)
    assert open_image(small.out_dir / "train" / "edit-000000.png").size == (8, 8)
    (warning,) = small.report["warnings"]
    assert "originals are about 24 pixels wide and edits 8" in warning and f"warning: {warning}" in small.summary()
    assert warning in (tmp_path / "small" / "README.md").read_text()


@pytest.mark.parametrize("originals", ["copy", "exact", "link", "omit", "resize"])
def test_what_is_balanced_stays_as_it_was(tiny, tmp_path, originals):
    faces = tiny.make_faces(tmp_path / "faces", tiny.CELLS)
    before = tree_hash(tmp_path / "faces")
    size = "editor" if originals == "resize" else "own"
    balancer = Balancer(tiny.TinyEditor(), target="smile", protected="skin", size=size, leak=LeakSettings(sizes=()))
    plan = balancer.plan(faces, limit=3)
    assert balancer.run(faces, plan, tmp_path / "out", originals=originals, show_progress=False).complete
    assert balancer.run(faces, plan, tmp_path / "out", originals=originals, show_progress=False).complete
    assert tree_hash(tmp_path / "faces") == before


@pytest.mark.parametrize("settings", [{}, {"to": "mean"}, {"source": "prior"}])
def test_rows_picked_from_a_plan_are_what_is_made(editor, faces, tmp_path, settings):
    # slots are names: those of the last rows stand beyond the end of a table of so few
    balancer = Balancer(editor, target="smile", protected="skin", chunk_size=4, **settings)
    given = None if settings.get("source") else faces
    plan = balancer.plan(given, num_images=24) if given is None else balancer.plan(given)
    picked = plan.table[plan.table["chunk"] >= plan.num_chunks - 2].iloc[::-1]
    some, out = plan.pick(picked), tmp_path / "out"
    result = balancer.run(given, some, out, show_progress=False)
    assert 4 < len(picked) == result.report["edits"]["planned"] <= 8 < len(plan)
    assert given is None or result.report["counts_planned"] == some.counts_after != plan.counts_after
    edited, wanted = result.table[result.table["origin"] == "edited"], picked.set_index("slot")
    assert len(edited) == result.report["edits"]["kept"] > 0
    for row in edited.to_dict("records"):
        slot = int(Path(row["file_name"]).stem.removeprefix("edit-"))
        assert (str(row["smile"]), row["skin"]) == (wanted.loc[slot, "target"], wanted.loc[slot, "to"])
    origins = result.table["origin"].value_counts()
    if given is None:
        assert origins["sampled"] == len(edited) and wanted["keep_donor"].all()
    else:
        assert origins["real"] == len(faces) - len(edited) * ("to" in settings)
        assert wanted["replaces_donor"].all() == ("to" in settings)
    refused = edited.iloc[0]
    add_decisions(out / "review.csv", [Decision(refused["file_name"], refused["source_id"], "reject", "anna", "odd")])
    reviewed = balancer.run(given, some, out, review=out / "review.csv", show_progress=False)
    assert reviewed.report["review"]["refused"] == 1
    assert refused["source_id"] not in set(reviewed.table["source_id"][reviewed.table["origin"] == "edited"])
