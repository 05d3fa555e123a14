"""What the pages for contributors promise is there."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from importlib.util import find_spec

import vlbias


def test_files_and_targets_that_the_guide_names_exist(repository):
    guide = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:vlbias|docs|tests|benchmarks|\.ci)/[\w./-]+)`", guide):
        if "NAME" not in path:
            assert (repository / path).exists(), f"CONTRIBUTING.md names {path}"
    for link in re.findall(r"\]\(([\w./-]+)\)", guide):
        assert (repository / link).exists(), f"CONTRIBUTING.md links to {link}"
    targets = re.findall(r"^([\w-]+):", (repository / "Makefile").read_text(), re.MULTILINE)
    for line in re.findall(r"^make ([\w -]+?) +#", guide, re.MULTILINE):
        assert set(line.split()) <= set(targets)


def test_fast_tests_exist(repository):
    text = (repository / "Makefile").read_text()
    names = re.search(r"FAST_TESTS := ((?:.*\\\n)*.*)", text)[1].replace("\\\n", " ").split()
    assert len(names) > 5 and all((repository / name).is_file() for name in names)


def test_every_page_stands_in_the_navigation(repository):
    pages = {str(path.relative_to(repository / "docs")) for path in (repository / "docs").rglob("*.md")}
    text = (repository / "mkdocs.yml").read_text()
    assert set(re.findall(r": ([\w/]+\.md)$", text, re.MULTILINE)) == pages


def test_every_public_room_is_in_the_reference(repository):
    text = "".join(path.read_text() for path in (repository / "docs" / "api").glob("*.md"))
    found = set(re.findall(r"^::: (vlbias\.\w+)", text, re.MULTILINE))
    homes = {module.rpartition(".")[0] if module.count(".") > 1 else module for module in vlbias._HOMES.values()}
    assert {f"vlbias.{name}" for name in vlbias._MODULES} | homes <= found
    assert all((repository / module.replace(".", "/")).is_dir() or find_spec(module) for module in found)


def test_lower_bounds_are_pinned(repository):
    command = [sys.executable, str(repository / ".ci" / "lower_bounds.py")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    settings = configparser.ConfigParser()
    settings.read(repository / "setup.cfg")
    required = settings["options"]["install_requires"].split()
    assert {line.split("==")[0] for line in lines} >= {re.split("[>=]", line)[0] for line in required}
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+", line) for line in lines)


def test_the_baseline_has_every_benchmark(repository):
    stored = json.loads((repository / "benchmarks" / "baseline.json").read_text())
    source = (repository / "benchmarks" / "compare.py").read_text()
    named = re.search(r"BENCHMARKS.*?= \{(.*?)\n\}", source, re.DOTALL)[1]
    assert set(stored["seconds"]) == set(re.findall(r'"(\w+)":', named)) and min(stored["seconds"].values()) > 0
