"""Fixtures over ``tests_simulate_faces``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tests_simulate_faces import TableFaces, face_table, stub


@pytest.fixture
def faces():
    return TableFaces(face_table())


@pytest.fixture
def make_faces():
    return lambda **options: TableFaces(face_table(**options))


@pytest.fixture
def make_stub():
    return stub
