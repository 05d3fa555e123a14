"""Fixtures of a tiny dataset; its classes are in a module that other processes import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_faces import TinyFaces, tiny_space, tiny_table


@pytest.fixture
def tiny():
    return TinyFaces(tiny_table())


@pytest.fixture
def make_tiny():
    return lambda table=None, **options: TinyFaces(tiny_table() if table is None else table, **options)


@pytest.fixture
def small_space():
    return tiny_space()
