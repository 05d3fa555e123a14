"""The command line: thin, but its words, exit codes and error lines are what users meet."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from doubles import failing, run_command, tiny_editor
from PIL import Image
from typer.testing import CliRunner

from vlbias import __version__, doctor, load_dataset
from vlbias.audit.arms import ARMS
from vlbias.cli import app
from vlbias.cli.edit import _split_strengths
from vlbias.cli.options import tell_problems
from vlbias.data import Problem
from vlbias.errors import PlanError
from vlbias.paths import PathReport
from vlbias.provenance import read_provenance


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved editor with random weights and two paths."""
    out = tmp_path_factory.mktemp("editor") / "tiny"
    tiny_editor().save_pretrained(out)
    return out


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "face.png"
    Image.linear_gradient("L").convert("RGB").resize((40, 36)).save(path)
    return path


def test_version_and_help():
    assert run_command("--version").strip() == f"vlbias {__version__}"
    commands = run_command("--help")
    for name in (
        "demo",
        "balance",
        "edit",
        "strip",
        "learn",
        "paths",
        "audit",
        "simulate",
        "search",
        "train",
        "convert",
        "doctor",
    ):
        assert re.search(rf"^\s+{name}\s", commands, re.MULTILINE)


@pytest.mark.parametrize(
    "command", ["demo", "balance", "edit", "strip", "learn", "paths", "audit", "convert", "doctor"]
)
def test_help_of_each_command_has_an_example_to_paste(command):
    assert f"Example: vlbias {command}" in run_command(command, "--help")


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "vlbias.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == f"vlbias {__version__}"


def test_edit_writes_pictures_with_provenance(folder, picture, tmp_path):
    out = tmp_path / "out"
    run_command("edit", picture, out, "--editor", folder, "--age", "1", "--skin-tone", "-0.5")
    assert Image.open(out / "face.png").size == Image.open(picture).size == (40, 36)
    metadata = read_provenance(out / "face.png")
    assert metadata["synthetic"] == "true" and metadata["source"] == "face.png"
    assert metadata["edits"] == "{'age': 1.0, 'skin_tone': -0.5}"


@pytest.mark.parametrize(
    ("name", "written", "options", "kept"),
    [
        ("a.jpg", {"quality": 71}, (), "JPEG"),
        ("a.jpeg", {"quality": 90, "subsampling": 2, "progressive": True}, (), "JPEG"),
        ("a.jpg", {}, ("--format", "png"), "PNG"),
        ("a.jpg", {"quality": 71}, ("--seed", "3"), "JPEG"),
        ("a.webp", {"quality": 60}, (), "WEBP"),
        ("a.webp", {"lossless": True}, (), "PNG"),
        ("a.bmp", {}, (), "PNG"),
        ("a.tif", {}, (), "PNG"),
        ("a.png", {}, (), "PNG"),
    ],
)
def test_an_edit_of_a_lossy_file_is_written_as_that_file_is(folder, tmp_path, name, written, options, kept):
    picture = Image.linear_gradient("L").convert("RGB").resize((40, 36))
    picture.save(tmp_path / name, **written)
    words = ("edit", tmp_path / name, tmp_path / "out", "--editor", folder, "--age", "1", *options)
    (file,) = [tmp_path / "out" / line.rsplit("/", 1)[-1] for line in run_command(*words).splitlines()]
    assert file.suffix == ((tmp_path / name).suffix if kept != "PNG" else ".png")
    assert read_provenance(file)["source"] == name
    with Image.open(file) as edit, Image.open(tmp_path / name) as donor:
        assert edit.format == kept and edit.size == ((40, 36) if not options or "png" in options else (16, 16))
        if kept == "JPEG":
            assert edit.quantization == donor.quantization
            assert edit.info.get("progressive") == donor.info.get("progressive")
    first = file.read_bytes()
    assert run_command(*words) and file.read_bytes() == first


def test_the_same_name_in_two_formats_is_two_edits(folder, tmp_path):
    picture = Image.linear_gradient("L").convert("RGB").resize((36, 36))
    for name in ("a.jpg", "a.png"):
        picture.save(tmp_path / name)
    words = ("edit", tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "out", "--editor", folder, "--age", "1")
    run_command(*words)
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["a.jpg", "a.png"]


def test_strengths_are_told_from_files():
    files, strengths = _split_strengths(["a.png", "--skin-tone", "-0.5", "out", "--age=1"])
    assert files == ["a.png", "out"] and strengths == {"skin_tone": -0.5, "age": 1.0}


def test_strip_writes_one_sheet(folder, picture, tmp_path):
    run_command("strip", picture, tmp_path / "age.png", "--path", "age", "--steps", "3", "--editor", folder)
    assert Image.open(tmp_path / "age.png").width > 3 * 32


def test_wrong_usage_exits_with_2(folder, picture, tmp_path, monkeypatch, capsys):
    error = failing(monkeypatch, capsys, "edit", picture, "--editor", folder, code=2)
    assert "at least one picture and the output folder" in error
    error = failing(monkeypatch, capsys, "edit", picture, tmp_path, "--age", "much", "--editor", folder, code=2)
    assert "expected a number; got 'much'" in error
    error = failing(monkeypatch, capsys, "edit", picture, tmp_path / "new", "--editor", folder, code=2)
    assert "moves --age, --skin-tone" in error and not (tmp_path / "new").exists()
    words = ("balance", "synthfaces:20", tmp_path, "--target", "smile", "--protected", "skin", "--shard", "5/4")
    error = failing(monkeypatch, capsys, *words, code=2)
    assert "I must lie in 1..N" in error


def test_a_path_is_learned_on_faces_that_are_drawn(folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("vlbias.editor.Editor.learn", lambda self, name, dipole, x, **named: seen.append(x))
    words = ("learn", "smile", "--positive", "a", "--negative", "b", "--images", "synthfaces:60", "--limit", "20")
    run_command(*words, "--out", tmp_path / "out", "--editor", folder)
    faces = load_dataset("synthfaces", n=60, seed=0)
    drawn = faces.sample(20)
    assert drawn.ids != faces.ids[:20] and torch.equal(seen[0], faces.tensor(drawn.ids, seen[0].shape[-1]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", "3"), "goes with --compare"),
        (("--reader-steps", "3"), "goes with --labels or --compare"),
        (("--labels", "--strength", "2"), "--labels measures at .5, 1 and 1.5"),
    ],
)
def test_options_of_paths_do_not_go_unread(words, said, tmp_path, monkeypatch, capsys):
    assert said in failing(monkeypatch, capsys, "paths", *words, "--out", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "positive", "text"),
    [("a b", "x", "usable as an argument name"), ("age", "x", "has a path 'age' already"), ("hat", "y", "must differ")],
)
def test_a_path_that_cannot_be_learned_leaves_no_folder(name, positive, text, folder, tmp_path, monkeypatch, capsys):
    words = ("learn", name, "--positive", positive, "--negative", "y", "--images", "synthfaces:16", "--out")
    assert text in failing(monkeypatch, capsys, *words, tmp_path / "out", "--editor", folder)
    assert "is not the folder of a finished balance run" in failing(monkeypatch, capsys, "review", tmp_path, "a.png")
    assert not list(tmp_path.glob("out"))


@pytest.mark.parametrize("words", [("edit", "face.png", "", "--age", "1"), ("strip", "a.png", "b.png", "--path= ")])
def test_a_variable_of_the_shell_that_is_not_set_is_no_folder(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "an argument is empty" in failing(monkeypatch, capsys, *words, code=2)


def test_clear_errors_exit_with_1_and_no_traceback(folder, picture, tmp_path, monkeypatch, capsys):
    error = failing(monkeypatch, capsys, "edit", picture, tmp_path / "o", "--aeg", "1", "--editor", folder)
    assert error.startswith("vlbias: Unknown attribute 'aeg' for tiny. Did you mean 'age'?")
    error = failing(monkeypatch, capsys, "strip", tmp_path / "no.png", "x.png", "--path", "age", "--editor", folder)
    assert "no.png does not exist" in error
    error = failing(monkeypatch, capsys, "edit", picture, picture / "o", "--age", "1", "--editor", folder)
    assert "cannot be written" in error
    error = failing(monkeypatch, capsys, "strip", picture, "x.png", "--path", "age", "--editor", "nowhere")
    assert "No checkpoint 'nowhere'" in error
    for text in (error,):
        assert "Traceback" not in text and len(text.strip().splitlines()) <= 2


def test_a_place_for_results_is_checked_before_the_work(folder, picture, tmp_path, monkeypatch, capsys):
    def refused(*arguments):
        error = failing(monkeypatch, capsys, *arguments, "--editor", folder)
        assert len(error.strip().splitlines()) == 1
        return error

    assert "face.png is a file. Give a folder" in refused("edit", picture, picture, "--age", "1")
    assert "OUT must end in .png; got" in refused("strip", picture, tmp_path / "s.txt", "--path", "age")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    words = ("learn", "smile", "--positive", "a", "--negative", "b", "--images", "synthfaces:40", "--out", other)
    assert "contains notes.txt that this job did not write" in refused(*words)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    run_command("strip", picture, tmp_path / "new" / "s.png", "--path", "age", "--steps", "2", "--editor", folder)
    assert (tmp_path / "new" / "s.png").is_file()


def test_what_paths_do_is_written_as_a_page(tmp_path, monkeypatch, capsys):
    # what is measured has tests of its own; here it is written
    editor = tiny_editor()
    editor.renderer.clip = SimpleNamespace()
    table = pd.DataFrame({name: [0.5, 1.0] for name in editor.attributes}, index=["age +1", "skin_tone -1"])
    summary = pd.DataFrame({"success": [0.5, 1.0], "identity": [0.9, 0.8], "faces": [4, 3]}, index=table.index)
    monkeypatch.setattr("vlbias.cli.editors.open_editor", lambda name: editor)
    seen = []
    monkeypatch.setattr(
        "vlbias.paths.measure_paths",
        lambda *parts, **_: seen.append(len(parts[-1])) or PathReport(summary, table, table),
    )
    words = ("paths", "tiny", "--images", "synthfaces:8", "--out", tmp_path / "out")
    told = run_command(*words)
    assert f"Open {tmp_path / 'out' / 'report.html'}" in told and "Walks: share" in told
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert numbers["strength"] == 1 and set(numbers) == {"editor", "strength", "summary", "changed", "moved"}
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("data:image/") == 4 and "--images synthfaces:8" in page
    error = failing(monkeypatch, capsys, *words, "--strength", ".5")
    assert "of another job (`strength` is 1.0 there" in error
    run_command("paths", "tiny", "--images", "synthfaces:130")
    run_command("paths", "tiny", "--images", "synthfaces:130", "--limit", "5")
    assert seen == [8, 100, 5]


TAKEN = "20170109142408075"  # as UTKFace writes dates


def test_files_that_are_left_out_are_named(tmp_path):
    for number in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{200 + number}_1_0_{TAKEN}.jpg")
    for age in (20, 30, 60, 70):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{age}_{age % 20 // 10}_0_{TAKEN}.jpg")
    words = ("balance", tmp_path, tmp_path / "out", "--target", "gender", "--protected", "age_group", "--dry-run")
    output = run_command(*words, "--pilot", "0")
    assert f"note: 200_1_0_{TAKEN}.jpg: label_out_of_range: age is 200" in output
    assert "note: 2 more like these" in output
    # a pilot finds that nothing reads these pictures; the plan is shown all the same
    result = CliRunner().invoke(app, [*map(str, words)])
    assert "2 edits in 1 chunk" in result.output and isinstance(result.exception, PlanError)


def test_two_pictures_of_one_name_are_refused(folder, picture, tmp_path, monkeypatch, capsys):
    other = tmp_path / "sub" / "face.bmp"
    other.parent.mkdir()
    Image.new("RGB", (16, 16)).save(other)
    error = failing(monkeypatch, capsys, "edit", picture, other, tmp_path / "o", "--age", "1", "--editor", folder)
    assert "would be written as face.png" in error


def test_doctor_names_versions_and_remedies():
    output = CliRunner().invoke(app, ["doctor"]).output
    assert "torch" in output and "vlbias" in output and "published ffhq256_autoenc" in output


def test_doctor_knows_every_extra():
    extras = set(importlib.metadata.metadata("vlbias").get_all("Provides-Extra"))
    # the last is more than a package: `vlbias app` says how it is installed
    assert {extra for extra, _ in doctor.OPTIONAL.values()} == extras - {"dev", "test", "docs", "app"}


def test_training_commands_do_not_overwrite_a_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "state.pt").touch()
    error = failing(monkeypatch, capsys, "train", "diffae", "synthfaces:40", "--out", tmp_path)
    assert "Add --resume to go on" in error


def test_labels_by_a_machine_are_scored_before_the_plan(tmp_path, monkeypatch, capsys):
    words = ("balance", "synthfaces:40", tmp_path / "o", "--target", "smile", "--protected", "skin", "--dry-run")
    output = run_command(*words, "--label", "skin=ita:20")
    assert "skin tone measured in the picture" in output and "accuracy" in output and "smile=0" in output
    assert not (tmp_path / "o").exists()
    error = failing(monkeypatch, capsys, *words, "--label", "skin", code=2)
    assert "expected COLUMN=LABELLER" in error
    error = failing(monkeypatch, capsys, *words, "--label", "skin=ita:warm")
    assert "expected an angle in degrees" in error


def test_audit_passes_arms_and_their_sets_on(monkeypatch):
    from vlbias import audit

    seen = {}
    monkeypatch.setattr(audit, "compare", lambda faces, **options: seen.update(options) or sys.exit(7))
    words = ["audit", "synthfaces:30", "--target", "smile", "--protected", "skin", "--arms", "erm,more-real"]
    further = ["--set", "more=synthfaces:20", "--protocol", "fine-tune", "--no-tune"]
    assert CliRunner().invoke(app, [*words, *further]).exit_code == 7
    assert seen["arms"] == ["erm", "more-real"] and len(seen["more"]) == 20
    assert (seen["protocol"], seen["tune"]) == ("fine-tune", False)
    for wrong, reason in (
        (["--set", "more"], "NAME=DATASET"),
        (["--set", "spare=synthfaces:20"], "balanced, prior, amplified"),
        (["synthfaces:20"], "give one DATASET"),
    ):
        result = CliRunner().invoke(app, [*words, *wrong])
        assert result.exit_code == 2 and reason in " ".join(result.output.split())


def test_an_arm_of_ones_own_is_compared_by_workers(tmp_path, monkeypatch):
    (tmp_path / "own_way.py").write_text(
        "from vlbias.audit import Recipe, register_arm\n"
        "@register_arm('every-other', 'half of the faces')\n"
        "def arm(task, trial):\n"
        "    return Recipe(task.faces.take(range(0, len(task.faces), 2)))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["audit", "synthfaces:200", "--target", "smile", "--protected", "skin", "--arms", "erm,own_way:arm"]
    few = ["--seeds", "1", "--steps", "2", "--no-tune", "--workers", "2", "--out", "out"]
    try:
        assert "every-other" in run_command(*words, *few)
        assert "own_way:nothing" in CliRunner().invoke(app, [*words[:-1], "erm,own_way:nothing"]).output
    finally:
        ARMS.pop("every-other", None)
        sys.modules.pop("own_way", None)


def test_paths_are_read_by_labels(folder, tmp_path, monkeypatch):
    """Readers are stubs here: each says the first of its labels."""

    class First:
        def __init__(self, labels):
            self.label = sorted(set(labels))[0]

        def predict(self, x):
            return [self.label] * len(x)

    monkeypatch.setattr("vlbias.audit.path_drift.fit", lambda images, labels, settings, progress: First(labels))
    said = run_command("paths", folder, "--images", "synthfaces:140", "--labels", "--out", tmp_path / "out")
    assert "edit_evaluations" in said and "report.html" in said
    walks = json.loads((tmp_path / "out" / "paths.json").read_text())["walks"]
    assert {row["walk"] for row in walks} >= {"skin: light → dark", "age_group: old → young"}
    assert {row["strength"] for row in walks} == {0.5, 1.0, 1.5}
    assert "Who reads" in (tmp_path / "out" / "report.html").read_text()
    assert "goes with --out" in run_command("paths", folder, "--compare", code=2)


@pytest.mark.parametrize("words", [("--editor", "nosuch"), ("--protocol", "fine-tune"), ("--no-tune",)])
def test_options_of_arms_do_not_go_unread(words, monkeypatch, capsys):
    words = ("audit", "synthfaces:40", "--target", "smile", "--protected", "skin", *words)
    assert "goes with --arms" in failing(monkeypatch, capsys, *words, code=2)


def test_audit_measures_flips(tmp_path):
    from vlbias import classify, load_dataset

    faces = load_dataset("synthfaces", n=20, image_size=16)
    settings = classify.FitSettings(image_size=16, num_steps=1, backbone_options={"channels": [8] * 4, "stem_width": 4})
    classify.fit(faces, "skin", settings=settings).save_pretrained(tmp_path / "classifier")
    words = ["synthfaces:20", "--target", "skin", "--protected", "skin", "--flips", tmp_path / "classifier"]
    assert "true_rate" in run_command("audit", *words, "--out", tmp_path / "out")
    assert "Answers that change with skin" in (tmp_path / "out" / "report.html").read_text()
    written = json.loads((tmp_path / "out" / "flips.json").read_text())
    assert set(written["groups"]) == {"dark", "light", "all"} and written["groups"]["all"]["num_pairs"] == 20


def test_each_kind_of_problem_is_told_once_before_more_of_one(capsys):
    gone = [Problem(f"{number}.jpg", "missing_image", "not on disk") for number in range(6)]
    tell_problems([*gone, Problem("column 'sex'", "alike_labels", "'M' (1) and 'm' (9) are different labels")])
    assert capsys.readouterr().err.splitlines() == [
        "note: 0.jpg: missing_image: not on disk",
        "note: column 'sex': alike_labels: 'M' (1) and 'm' (9) are different labels",
        "note: 1.jpg: missing_image: not on disk",
        "note: 4 more like these. A report lists all.",
    ]
