"""The pages say what the program says, and their commands are understood."""

from __future__ import annotations

import ast
import re
import shlex

import pytest
import typer

from vlbias.cli import app

PAGES = ["README.md", "docs/*.md", "checkpoints/README.md"]


def pages(repository):
    return [path for pattern in PAGES for path in sorted(repository.glob(pattern))]


def commands(repository):
    """(page, words) of every ``vlbias`` command in a block."""
    for page in pages(repository):
        for block in re.findall(r"```(?:bash|text)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("vlbias "):
                    yield page.name, shlex.split(line, comments=True)[1:]


def test_every_command_in_readme_and_docs_is_understood(repository):
    group, told = typer.main.get_command(app), list(commands(repository))
    assert len(told) > 35
    for page, words in told:
        if "--help" in words:
            continue
        command = group
        while hasattr(command, "commands"):
            num = 2 if " ".join(words[:2]) in command.commands else 1  # "search evaluate" is one name
            assert " ".join(words[:num]) in command.commands, f"{page}: {' '.join(words)}"
            command, words = command.commands[" ".join(words[:num])], words[num:]
        # Parses and converts every word as a run would, and runs nothing.
        context = command.make_context(command.name, list(words), resilient_parsing=False)
        left = [word for word in context.args if word.startswith("--") and command.name != "edit"]
        assert left == [], f"{page}: {left}"


def test_a_wrong_option_would_be_found():
    command = typer.main.get_command(app).commands["balance"]
    with pytest.raises(Exception, match="--targets"):
        command.make_context("balance", ["a", "b", "--targets", "x", "--protected", "y"])


def sentences(repository) -> str:
    """All texts of the library as its code has them; a dot stands where a value is put in."""
    found = []
    for path in sorted((repository / "vlbias").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_what_troubleshooting_quotes_is_what_the_program_says(repository):
    text = (repository / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][2:]
    said = sentences(repository)
    assert len(rows) >= 20
    parts = [part.strip(" ()'") for row in rows for part in row.split("...")]
    assert [part for part in parts if part not in said] == []


def test_linked_files_of_the_docs_exist(repository):
    for page in pages(repository):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
