"""``vlbias app`` as a command: what it says before the page is there."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import vlbias.app
from vlbias.app import AppSettings, serve
from vlbias.cli import app
from vlbias.errors import ConfigError, DatasetError, MissingDependencyError


@pytest.fixture
def started(monkeypatch):
    """What the page is started with; it ends at once."""
    calls = []

    @contextmanager
    def recorded(*arguments):
        calls.append(arguments)
        yield SimpleNamespace(url="http://here/", wait=lambda: None)

    monkeypatch.setattr(vlbias.app, "serve", recorded)
    return calls


def test_the_page_stays_on_this_machine(started):
    told = CliRunner().invoke(app, ["app", "faces", "out", "--editor", "mine"])
    assert told.exit_code == 0 and "http://here/" in told.stdout and told.stderr == ""
    assert started == [([Path("faces"), Path("out")], [Path("mine")], AppSettings())]
    assert AppSettings().is_private and AppSettings(host="localhost").is_private


def test_letting_others_in_is_warned_of(started):
    told = CliRunner().invoke(app, ["app", "--host", "0.0.0.0", "--port", "7999"])
    assert told.exit_code == 0 and "without a password" in told.stderr
    assert started[0][2] == AppSettings(host="0.0.0.0", port=7999)
    with pytest.raises(ConfigError, match="port"):
        AppSettings(port=70_000)


def test_without_gradio_the_remedy_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "gradio"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("page", "parts", "edit_tab", "review_tab", "dataset_tab"):
        monkeypatch.delitem(sys.modules, f"vlbias.app.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vlbias\[app\]'"), serve():
        pass


def test_a_folder_that_is_none_is_named(tmp_path):
    pytest.importorskip("gradio")
    with pytest.raises(DatasetError, match="nothing is not a folder"), serve([tmp_path / "nothing"]):
        pass
