"""`vlbias balance --identity FILE --scorer COLUMN=FILE`: files are read before anything starts."""

from __future__ import annotations

import json
import shlex

import numpy as np
import onnx_files
import pytest
from typer.testing import CliRunner

from vlbias.cli import app, main

pytest.importorskip("onnxruntime", reason="needs the extra 'faces'")

BALANCE = "balance synthfaces:60 out --target smile --protected skin --limit 2 --dry-run"


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx_files.flat(tmp_path / "who.onnx", size=112)
    onnx_files.linear(tmp_path / "skin.onnx", np.eye(3)[:, :2], np.zeros(2))
    about = {"layout": None, "classes": ["light", "dark"]}
    (tmp_path / "skin.json").write_text(json.dumps(about))
    return lambda line: CliRunner().invoke(app, shlex.split(f"{BALANCE} {line}"))


def test_files_are_taken(call):
    result = call("--identity who.onnx --scorer skin=skin.onnx")
    assert result.exit_code == 0 and "2 edits" in result.output, result.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--identity gone.onnx", "got 'gone.onnx', and there is no such file"),
        ("--identity skin.onnx", "skin.onnx is not a face embedder"),
        ("--scorer skin=who.onnx", "what the outputs of who.onnx mean is not known"),
        ("--scorer skim=skin.onnx", "Unknown column 'skim'"),
        ("--scorer smile=skin.onnx", "skin.onnx tells light, dark; 'smile' has 0, 1"),
        ("--scorer skin=gone.onnx", "gone.onnx does not exist. Give a local file"),
    ],
)
def test_what_cannot_read_ends_with_one_clear_line(call, monkeypatch, capsys, line, message):
    monkeypatch.setattr("sys.argv", ["vlbias", *shlex.split(f"{BALANCE} {line}")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1 and message in capsys.readouterr().err


def test_wrong_usage_of_the_option(call):
    result = call("--scorer skin.onnx")
    assert result.exit_code == 2 and "COLUMN=FILE" in result.output
