"""A finished or interrupted run whose files somebody changed: nothing is silently wrong, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from vlbias.balance import Balancer, verify_run
from vlbias.balance.run_folder import RunFolder
from vlbias.cli import app
from vlbias.data import load_dataset
from vlbias.errors import ConfigError, OutputError, PlanError


def balance(tiny, faces, out, *, limit=6, **settings):
    balancer = Balancer(tiny.TinyEditor(leak=0.12), target="smile", protected="skin", chunk_size=3, **settings)
    return balancer.run(faces, balancer.plan(faces, limit=limit), out, show_progress=False)


@pytest.fixture(scope="module")
def whole(tiny, faces, tmp_path_factory):
    """A finished run of two chunks, never changed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    balance(tiny, faces, out)
    return out


@pytest.fixture
def begun(tiny, faces, tmp_path, monkeypatch):
    """A run that was killed when all chunks were done, before anything was put in place."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vlbias.balance.run.assemble", killed)
        with pytest.raises(KeyboardInterrupt):
            balance(tiny, faces, tmp_path / "out")
    return tmp_path / "out"


def contents(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".state" not in path.parts
    }


# -- chunks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"\x89PNG", None])
def test_a_damaged_chunk_picture_is_made_again(tiny, faces, whole, begun, damage):
    picture = sorted((begun / ".state" / "chunks" / "0001").glob("edit-*.png"))[0]
    if damage is None:
        picture.unlink()
    else:
        picture.write_bytes(damage)
    assert balance(tiny, faces, begun).complete
    assert contents(begun) == contents(whole)


UNKNOWN_SLOT = '{"kept": [{"slot": 99, "split": "train"}], "rejected": []}'


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kept": 3}', UNKNOWN_SLOT, "\x00\x01"])
def test_a_damaged_chunk_result_is_made_again(tiny, faces, whole, begun, text):
    (begun / ".state" / "chunks" / "0000" / "result.json").write_text(text)
    assert balance(tiny, faces, begun).complete
    assert contents(begun) == contents(whole)


def test_a_chunk_of_another_place_is_made_again(tiny, faces, whole, begun):
    """A split or an ending that leads out of OUT is no result of this plan."""
    path = begun / ".state" / "chunks" / "0000" / "result.json"
    sound = json.loads(path.read_text())
    for key, value in (("split", "../../x"), ("suffix", "/../../../x.png")):
        record = sound["kept"][0] | {key: value}
        path.write_text(json.dumps(sound | {"kept": [record, *sound["kept"][1:]]}))
        assert balance(tiny, faces, begun).complete
        assert contents(begun) == contents(whole) and not (begun.parent / "x").exists()
        shutil.rmtree(begun / ".state" / "chunks" / "0001", ignore_errors=True)
        (begun / ".state" / "done.json").unlink()


@pytest.mark.parametrize("name", ["job.json", "scorers.json"])
@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"attributes": 3}', '{"attributes": [{"column": "smile"}]}'])
def test_a_damaged_state_is_named(tiny, faces, begun, name, text):
    (begun / ".state" / name).write_text(text)
    with pytest.raises(OutputError, match=r"job.json|scorers.json|another job"):
        balance(tiny, faces, begun)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", None])
def test_a_damaged_report_is_named_and_made_again(tiny, faces, whole, tmp_path, text):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    report = out / "report.json"
    report.unlink() if text is None else report.write_text(text)
    with pytest.raises(OutputError, match=r"report.json .*Remove it and .*done.json"):
        balance(tiny, faces, out)
    report.unlink(missing_ok=True)
    (out / ".state" / "done.json").unlink()
    assert balance(tiny, faces, out).complete and contents(out) == contents(whole)


def test_links_in_the_output_are_refused(tiny, faces, tmp_path, begun):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    for place in (".state/tmp", ".state/chunks/0000", "train"):
        link = begun / place
        if link.is_dir():
            shutil.rmtree(link)
        link.symlink_to(mine)
        with pytest.raises(OutputError, match="is a link to"):
            balance(tiny, faces, begun)
        link.unlink()
        if place == ".state/tmp":
            link.mkdir()
    assert (mine / "thesis.tex").read_text() == "x" and len(list(mine.iterdir())) == 1


# -- what the job is ---------------------------------------------------------------------------------------------------


def test_changed_pictures_are_another_job(tiny, tmp_path, begun):
    faces = tiny.make_faces(tmp_path / "copy", tiny.CELLS)
    out = tmp_path / "own"
    balance(tiny, faces, out)
    path = faces.path(faces.ids[0])
    other = faces.path(faces.ids[1]).read_bytes()
    path.write_bytes(other)
    with pytest.raises(OutputError, match="another job: `.*pictures`"):
        balance(tiny, faces, out)


def test_the_editor_says_what_decides_its_pixels(repository):
    from vlbias import Editor

    editor = Editor.from_pretrained("synthfaces-64").renderer
    before = editor.fingerprint()
    assert json.loads(json.dumps(before)) is not None
    editor.paths.step_size /= 2
    assert editor.fingerprint() != before
    editor.paths.step_size *= 2
    assert editor.fingerprint() == before
    for name in ("prediction_type", "beta_schedule"):
        assert name in before["diffae"]
    assert {"mean", "std"} <= set(before["clip"])


# -- finished runs -----------------------------------------------------------------------------------------------------


def test_a_finished_run_is_compared_with_what_it_wrote(tiny, faces, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out, symlinks=True)
    assert verify_run(out) == [] and balance(tiny, faces, out).complete
    first, second = sorted((out / "train").glob("edit-*.png"))[:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:50])
    (out / "README.md").write_text("mine")  # reports may be written anew
    name = second.relative_to(out).as_posix()
    assert verify_run(out) == [f"{first.relative_to(out).as_posix()} is missing", f"{name} has changed"]
    with pytest.raises(OutputError, match="is not what was written: train/edit-.* is missing and 1 more"):
        balance(tiny, faces, out)
    (out / ".state" / "done.json").write_text("[]")
    with pytest.raises(OutputError, match=r"done.json must hold one JSON object .*Remove"):
        verify_run(out)
    with pytest.raises(OutputError, match="is not a finished run of balance"):
        verify_run(tmp_path)


def test_the_command_verifies(whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    good = CliRunner().invoke(app, ["balance", "--verify", str(out)])
    assert good.exit_code == 0 and "every file is as it was written" in good.output
    (out / "plan.csv").unlink()
    bad = CliRunner().invoke(app, ["balance", "--verify", str(out)])
    assert bad.exit_code == 1 and "plan.csv is missing" in bad.output


# -- a balanced set, balanced again ------------------------------------------------------------------------------------


def test_a_balanced_set_is_balanced_again(tiny, faces, whole, tmp_path):
    again = load_dataset("folder", whole)
    result = balance(tiny, again, tmp_path / "two", limit=4, seed=1)
    table = result.table.set_index("file_name", drop=False)
    assert len(table) == len(again) + result.report["edits"]["kept"]
    before = pd.read_csv(whole / "metadata.csv").set_index("file_name")
    older = table[(table["origin"] == "edited") & ~table["file_name"].isin(result.table["file_name"].tail(4))]
    assert len(older) == (before["origin"] == "edited").sum() > 0
    # what is said of how an older edit was made stays; its donor is named as this set names it
    assert set(older["path"]) == {"skin_tone"} and older["score_identity"].notna().all()
    assert set(older["source_id"]) <= set(again.ids)
    for _, row in older.iterrows():
        donor = again.table.loc[row["source_id"]]
        assert donor["origin"] == "real" and donor["smile"] == row["smile"] and donor["skin"] != row["skin"]
    assert set(table["origin"]) == {"real", "edited"}
    third = load_dataset("folder", tmp_path / "two")
    assert len(balance(tiny, third, tmp_path / "three", limit=2, seed=2).table) == len(third) + 2


@pytest.mark.parametrize("column", ["seed", "path", "strength", "source_id", "origin", "face_box", "score_identity"])
def test_columns_named_like_ours_are_refused_before_the_first_edit(tiny, faces, tmp_path, column):
    own = type(faces)("mine", faces.table.assign(**{column: "Spain"}), root=faces.root)
    with pytest.raises(PlanError, match=f"has a column '{column}', and balancing writes one of that name.*Rename"):
        balance(tiny, own, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shard", [(1, 2, 3), (2, 2), (0.0, 1), "1/2", 3, (-1, 2)])
def test_shards_are_two_numbers(tiny, faces, tmp_path, shard):
    balancer = Balancer(tiny.TinyEditor(), target="smile", protected="skin")
    plan = balancer.plan(faces, limit=2)
    with pytest.raises(ConfigError, match=r"`shard` (must be \(i, n\)|of Balancer\.run must be a list)"):
        balancer.run(faces, plan, tmp_path / "out", shard=shard, show_progress=False)


def test_options_are_checked_when_the_balancer_is_made(tiny):
    def refused(text, error=(PlanError, ConfigError), **options):
        with pytest.raises(error, match=text):
            Balancer(tiny.TinyEditor(), **({"target": "smile", "protected": "skin"} | options))

    refused("`mode` must be one of reduce, amplify; got 'balance'", mode="balance")
    refused("`to` must be one of max, mean, all, a number", to="equal")
    refused("`checks` must be a Checks", checks={})
    refused("must be a path and the values in order", protected="older", poles={"older": "age"})
    refused("Unknown setting 'chunks'", chunks=3)
    refused("`seed` of Balancer must be a whole number", seed="x")
    refused("`target` of Balancer must be a text", target=3)
    refused("`protected` of Balancer must be a text or a list", protected=None)
    refused("`protected` of Balancer must be a text or a list", protected=[1])


def test_state_files_are_the_runs_own(tmp_path):
    run = RunFolder(tmp_path / "out", {"seed": 1})
    assert os.listdir(run.out) == [".state"]
