"""What the README shows runs as it stands."""

from __future__ import annotations

import re

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vlbias.cli import app


def blocks(repository, language):
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_python_snippets_run(repository):
    namespace: dict = {}
    for block in blocks(repository, "python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert isinstance(namespace["older"], Image.Image) and namespace["older"].size == (64, 64)
    assert len(namespace["plan"]) == 8


def test_commands_of_the_readme_exist(repository):
    lines = [line for block in blocks(repository, "bash") for line in block.splitlines() if line.startswith("vlbias ")]
    assert len(lines) >= 5
    for line in lines:
        words = line.split("#")[0].split()
        known = CliRunner().invoke(app, [words[1], "--help"]).output
        for word in words[2:]:
            # The strengths of `vlbias edit` are named after the editor's paths.
            if word.startswith("--") and word not in ("--age", "--skin-tone"):
                assert word in known, f"{word} of '{line}' is no option of vlbias {words[1]}"


def test_linked_files_exist(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (repository / target).exists(), target


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vlbias.errors.OutOfRangeWarning")  # from pole to pole is far for some of them
def test_the_shipped_editor_edits_a_drawn_face():
    from vlbias import Editor, world

    editor = Editor.from_pretrained("synthfaces-64", device="cpu")
    faces = world.sample(6, seed=77)
    x = world.render(faces, 64)
    code = editor.encode(x)
    assert (editor.decode(code) - x).abs().mean() < 0.02
    dark = editor.edit(x, skin_tone=+1.0)
    read = editor.renderer.score
    reading = read(dark, "skin_tone") - read(editor.edit(x, skin_tone=-1.0), "skin_tone")
    assert torch.isfinite(dark).all() and (reading > 0.5).float().mean() >= 0.8
