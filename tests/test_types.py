"""What the doors are to a type checker: the classes that they are, not ``Any``."""

from __future__ import annotations

import re

import pytest

api = pytest.importorskip("mypy.api")

DOORS = """
from vlbias.classify import Classifier, fit
from vlbias.clip import Clip, load
from vlbias.diffae import DiffAE, DiffAEConfig, train_diffae
from vlbias.images import load_pixels, open_image

reveal_type(DiffAE.from_pretrained("x"))
reveal_type(DiffAE.from_published("x").config)
reveal_type(DiffAEConfig().image_size)
reveal_type(train_diffae)
reveal_type(load("x"))
reveal_type(fit)
reveal_type(open_image("x"))
reveal_type(load_pixels)
"""
EXPECTED = [
    "vlbias.diffae.model.DiffAE",
    "vlbias.diffae.config.DiffAEConfig",
    "int",
    "-> vlbias.diffae.training.TrainResult",
    "vlbias.clip.model.Clip",
    "-> vlbias.classify.Classifier",
    "PIL.Image.Image",
    "-> torch._tensor.Tensor",
]


def test_doors_have_types(tmp_path, repository):
    """With the cache that checking the package leaves it takes seconds."""
    (tmp_path / "doors.py").write_text(DOORS)
    settings = ["--config-file", str(repository / "pyproject.toml"), "--cache-dir", str(repository / ".mypy_cache")]
    out, errors, _ = api.run([*settings, str(tmp_path / "doors.py")])
    revealed = re.findall(r'Revealed type is "(.*)"', out)
    assert len(revealed) == len(EXPECTED), out + errors
    for text, expected in zip(revealed, EXPECTED, strict=True):
        assert expected in text and not text.endswith("Any"), text
