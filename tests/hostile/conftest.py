"""Fixtures of the hostile tests: a trap, and the tiny editor of the balance tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "balance"))

import corpus
import tiny_editor


@pytest.fixture
def trap(tmp_path):
    """A folder of private things that nobody may open."""
    return corpus.make_trap(tmp_path / "trap")


@pytest.fixture(scope="session")
def tiny_faces(tmp_path_factory):
    """51 faces that the tiny editor understands."""
    return tiny_editor.make_faces(tmp_path_factory.mktemp("faces"), tiny_editor.CELLS)


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A whole editor that can be loaded."""
    return corpus.sound_editor(tmp_path_factory.mktemp("sound") / "editor")
