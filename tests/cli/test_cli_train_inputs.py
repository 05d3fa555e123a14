"""Training and the demo change nothing but their own folder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import doubles
import pytest
from doubles import tree_hash
from typer.testing import CliRunner

from vlbias import load_dataset, recipes
from vlbias.cli import app
from vlbias.diffae import DiffAE, PriorConfig
from vlbias.files import write_json

PRIOR = PriorConfig(num_layers=3, hidden_channels=24, skip_layers=(1, 2), time_channels=8)
TINY = replace(doubles.TINY, prior=PRIOR)
SETTINGS = recipes.BuildSettings(
    clip_images=16, diffae_images=16, path_faces=16, probe_faces=16, text_steps=1, prior_steps=1, path_steps=1,
    diffae=TINY,
)  # fmt: skip


@pytest.fixture
def inputs(tmp_path):
    """Drawn faces as a folder, an architecture and an autoencoder: all that the commands read."""
    folder = tmp_path / "inputs"
    faces = load_dataset("synthfaces", n=48, seed=3, image_size=16)
    (folder / "faces").mkdir(parents=True)
    for item in faces.ids:
        faces.image(item).save(folder / "faces" / f"{item}.png")
    table = faces.table.assign(file_name=[f"{item}.png" for item in faces.ids])
    table["race"] = table["skin"].map({"dark": "Black", "light": "White"})
    columns = ["file_name", "split", "age", "gender", "race", "skin"]
    table[columns].to_csv(folder / "faces" / "metadata.csv", index=False)
    write_json(folder / "tiny.json", TINY.to_dict())
    DiffAE(TINY).save_pretrained(folder / "diffae")
    return folder


@pytest.mark.parametrize("stage", ["editor", "clip", "diffae", "prior"])
def test_training_leaves_its_inputs_alone(stage, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "BuildSettings", lambda **given: replace(SETTINGS, **given))
    monkeypatch.setattr(recipes, "build_prior", partial(recipes.build_prior, num_steps=1))
    faces, out = str(inputs / "faces"), tmp_path / "out"
    words = {
        "editor": (faces, str(out), "--clip-images", "16", "--diffae-images", "16"),
        "clip": (faces, "--out", str(out), "--images", "16"),
        "diffae": (faces, "--out", str(out), "--images", "16", "--config", str(inputs / "tiny.json")),
        "prior": (faces, "--out", str(out), "--diffae", str(inputs / "diffae")),
    }[stage]
    before = tree_hash(inputs)
    result = CliRunner().invoke(app, ["train", stage, *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert tree_hash(inputs) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs", "out"] and any(out.iterdir())
