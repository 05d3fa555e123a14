"""What the doors are to a type checker: the classes that they are, not ``Any``."""

from __future__ import annotations

import re
import tomllib

import pytest

api = pytest.importorskip("mypy.api")

DOORS = """
from vlbias.classify import Classifier, fit
from vlbias.clip import Clip, load
from vlbias.diffae import DiffAE, DiffAEConfig, train_diffae
from vlbias.images import load_pixels, open_image
from vlbias import Balancer, Editor, audit, load_dataset, search, simulate

reveal_type(DiffAE.from_pretrained("x"))
reveal_type(DiffAE.from_published("x").config)
reveal_type(DiffAEConfig().image_size)
reveal_type(train_diffae)
reveal_type(load("x"))
reveal_type(fit)
reveal_type(open_image("x"))
reveal_type(load_pixels)
editor, faces = Editor.from_pretrained("x"), load_dataset("folder", "x")
reveal_type(editor)
reveal_type(faces.ids)
balancer = Balancer(editor, target="a", protected="b")
reveal_type(balancer.plan(faces))
reveal_type(balancer.run(faces, balancer.plan(faces), "x"))
reveal_type(audit.compare(faces, faces, target="a", protected="b"))
plan = simulate.plan(faces, target="a", protected="b")
reveal_type(plan)
reveal_type(simulate.run(plan, faces).summary())
study = search.run(faces, protected="b")
reveal_type(study)
reveal_type(study.best().configuration)
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
    "vlbias.editor.Editor",
    "list[str]",
    "vlbias.balance.plan.Plan",
    "vlbias.balance.run.Result",
    "vlbias.audit.results.AuditResult",
    "vlbias.simulate.plans.SimulationPlan",
    "pandas",
    "vlbias.search.study.Study",
    "vlbias.search.spaces.Configuration",
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


def test_no_room_is_exempt_from_strict_checking(repository):
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"] is True
    loosened = {module for entry in settings["overrides"] for module in entry["module"]}
    assert not any(module.startswith("vlbias") for module in loosened)
