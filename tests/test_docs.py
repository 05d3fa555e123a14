"""The pages say what the program says, and their commands are understood."""

from __future__ import annotations

import ast
import re
import shlex

import pytest
from documented import blocks_of, check_parsed, pages_with_blocks

PAGES = ["README.md", "docs/*.md", "checkpoints/README.md"]


def pages(repository):
    return [path for pattern in PAGES for path in sorted(repository.glob(pattern))]


def test_every_command_in_readme_and_docs_is_understood(repository):
    blocks = [block for name in pages_with_blocks(repository) for block in blocks_of(repository / name)]
    told = [line for block in blocks if block.language == "bash" for line in block.commands]
    typed = [shlex.split(line, comments=True)[1:] for line in told if line.startswith("vlbias ")]
    assert len(typed) > 60
    for words in typed:
        check_parsed(words)


def test_a_wrong_option_would_be_found():
    with pytest.raises(Exception, match="--targets"):
        check_parsed(["balance", "a", "b", "--targets", "x", "--protected", "y"])


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
