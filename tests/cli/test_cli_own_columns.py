"""`vlbias balance` on a folder with columns of the user's own, as docs/balance.md shows it."""

from __future__ import annotations

import functools
import re
import shlex
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from vlbias import load_dataset
from vlbias.cli import app, main, options
from vlbias.files import read_json

SEX = {"male": "m", "female": "f"}
OLDER = {"young": "no", "old": "yes"}
#: (sex, older) -> faces in train; one of each cell stands in val, one in test.
CELLS = {("m", "no"): 12, ("m", "yes"): 6, ("f", "no"): 6, ("f", "yes"): 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds `photos`: drawn faces, labelled in words the library does not know."""
    root = tmp_path_factory.mktemp("own")
    (root / "photos").mkdir()
    drawn = load_dataset("synthfaces", n=160, seed=3)
    table = drawn.table
    cells = pd.Series(list(zip(table["gender"].map(SEX), table["age_group"].map(OLDER), strict=True)), table.index)
    rows = []
    for cell, count in CELLS.items():
        for number, item in enumerate(cells.index[cells == cell][: count + 2]):
            name, split = f"{len(rows):03d}.png", {count: "val", count + 1: "test"}.get(number, "train")
            drawn.image(item).save(root / "photos" / name)
            band = "child" if table["age"][item] < 25 else "adult" if table["age"][item] < 60 else "senior"
            words = dict(zip(("sex", "older"), cell, strict=True)) | {"band": band, "skin": table["skin"][item]}
            rows.append({"file_name": name} | words | {"split": split})
    pd.DataFrame(rows).to_csv(root / "photos" / "metadata.csv", index=False)
    return root


@pytest.fixture
def run(folder, monkeypatch):
    """Runs the console script inside the folder; the editor is loaded once."""
    monkeypatch.chdir(folder)

    def call(line, code=0):
        result = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    return call


@pytest.fixture(autouse=True, scope="module")
def _one_editor():
    import vlbias.cli.balance as command

    before = command.open_editor
    command.open_editor = functools.lru_cache(options.open_editor)
    yield
    command.open_editor = before


def documented(repository):
    """The commands of the section in the docs."""
    text = (repository / "docs" / "balance.md").read_text(encoding="utf-8")
    section = text.split("## Your own columns")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_planned_commands_of_the_docs_run(repository, run, folder):
    lines = [line for line in documented(repository) if "--dry-run" in line]
    plans = {line.split()[3]: run(f"{line} --pilot 1") for line in lines}
    assert len(plans) == 6 and not (folder / "out").exists()
    assert "sex=f: child 3 -> 10, adult 5 -> 10, senior 10 -> 10" in plans["out/band"]
    assert "sex=f: no & light 3 -> 7, no & dark 3 -> 7, yes & light 5 -> 7, yes & dark 7 -> 7" in plans["out/both"]
    assert "sex=f: no 6 -> 9, yes 12 -> 9" in plans["out/mean"]
    assert "sex=f: no 6 -> 14, yes 12 -> 14" in plans["out/number"]
    assert "sex=f: no 6 -> 18, yes 12 -> 12" in plans["out/shares"]
    assert "sex=f: no 7 -> 13, yes 13 -> 13" in plans["out/splits"]


@pytest.mark.slow
def test_edited_commands_of_the_docs_run(repository, run, folder):
    lines = [line.replace("--limit 4", "--limit 2") for line in documented(repository) if "--dry-run" not in line]
    assert len(lines) == 4
    kept = 0
    for line in lines:
        output = run(line)
        table = load_dataset("folder", folder / line.split()[3]).table
        edits = table[table["origin"] == "edited"]
        assert f"{len(edits)} of 2 edits kept" in output
        originals = table[table["origin"] == "real"].set_index("source_id")
        for _, edit in edits.iterrows():
            donor = originals.loc[edit["source_id"]]
            assert edit["sex"] == donor["sex"] and {edit["older"], donor["older"]} == {"no", "yes"}
            assert edit["path"] == "age" and (float(edit["strength"]) > 0) == (edit["older"] == "yes")
        kept += len(edits)
    assert kept >= 6
    report = read_json(folder / "out" / "older" / "report.json")
    assert report["poles"] == {"older": {"path": "age", "places": {"no": -1, "yes": 1}}}


def test_without_poles_it_says_what_to_type(run, folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", shlex.split("vlbias balance photos/ out/x --target sex --protected older"))
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert caught.value.code == 1 and len(error.strip().splitlines()) == 1
    assert "known to carry 'older' (no, yes)" in error and "--poles older:PATH=no,yes" in error
    assert "age ('a photo of a young person' to 'a photo of an old person')" in error


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("--poles older:age", 2, "Invalid value for --poles: expected COLUMN:PATH=VALUE,VALUE"),
        ("--poles older:age=no:left,yes:1", 2, "got 'no:left'"),
        ("--path age", 2, "--path age --poles no,yes"),
        ("--to equal", 2, "a number of faces, or GROUP=SHARE,... such as light=.5,dark=.5; got 'equal'"),
        ("--splits train,,val", 2, "Invalid value for --splits: expected names separated by commas; got 'train,,val'"),
        ("--checks gaol=.8", 2, "Unknown check 'gaol'. Did you mean 'goal'?"),
        ("--checks goal=-1", 1, "`goal` of Checks must be a number > 0; got -1.0"),
        ("--mode balance", 2, "'balance' is not one of"),
        ("--label older", 2, "expected COLUMN=LABELLER such as skin=ita:28, got 'older'"),
        ("--size huge", 2, "'huge' is not one of"),
        ("--originals resize", 2, "so edits need it too: add --size editor"),
        ("--protected ''", 2, "an argument is empty"),
        ("--poles older:aeg=no,yes", 1, "name the path 'aeg', which the editor does not have. Available: age"),
        ("--poles odler:age=no,yes", 1, "`poles` name 'odler', neither `target` (sex) nor `protected` (older)"),
        ("--poles older:age=no,yes --splits holdout", 1, "`splits` names 'holdout'"),
        ("--poles older:age=no,yes --to young=1,old=1", 1, "`to` must give a share to each group"),
        ("--poles older:age=no,yes --mode amplify --to all", 1, "`to` must be one of max, mean for mode 'amplify'"),
    ],
)
def test_wrong_words_are_refused_before_any_work(words, code, text, run, folder, monkeypatch, capsys):
    line = f"vlbias balance photos/ out/wrong --target sex --protected older {words}"
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert caught.value.code == code and text in " ".join(error.split())
    assert not (folder / "out" / "wrong").exists()


def test_simulations_take_own_columns_too(run, folder, monkeypatch):
    from vlbias import simulate

    fills = []
    monkeypatch.setattr(simulate, "run", lambda *_, fill, **__: fills.append(fill) or sys.exit(0))
    words = "vlbias simulate photos/ out/s --target sex --protected older --shares 0,.5 --repeats 1"
    assert "so it needs --editor" in run(f"{words} --poles older:age=no,yes", 2)
    run(f"{words} --poles older:age=no,yes --editor synthfaces-64")
    assert fills[0]["edited"].poles["older"].positions == {"no": -1, "yes": 1}


def test_a_new_dataset_is_drawn_without_one(run):
    output = run("vlbias balance prior:16 out/new --target smile --protected skin --prior-steps 4 --dry-run")
    assert "smile=0: light 0 -> 4, dark 0 -> 4" in output and "16 faces to add" in output
    unnumbered = run("vlbias balance prior o --target smile --protected skin", 2)
    assert "expected prior:N, such as prior:400; got 'prior'" in unnumbered
    words = "vlbias balance prior:16 o --target smile --protected skin --label skin=monk"
    assert "prior:N has none" in run(words, 2)
