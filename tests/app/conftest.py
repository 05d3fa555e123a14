"""A tiny editor that can be dragged, read and taught, in memory and as a folder."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from doubles import TINY

from vlbias import Dipole, Editor, PathSet
from vlbias.clip import load as load_clip
from vlbias.diffae import DiffAE
from vlbias.images import to_pil
from vlbias.paths import Probes
from vlbias.rendering import RenderSettings
from vlbias.world import render, sample

# for the run that is written down by hand, and the editor that is all formulas
sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("report", "balance")]

DIPOLES = {"age": Dipole("an old person", "a young person"), "skin_tone": Dipole("dark skin", "light skin")}


@pytest.fixture(scope="session")
def editor(repository):
    """32 px, random weights, with the CLIP that is shipped and probes of no meaning."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        diffae = DiffAE(replace(TINY, image_size=32))
        for parameter in diffae.parameters():
            if not parameter.any():
                parameter.data.normal_(std=0.1)
        paths = PathSet(DIPOLES, 16, mean=diffae.z_mean, std=diffae.z_std)
        with torch.no_grad():
            z_sem = diffae.encode(render(sample(64, seed=1), size=32))
    labels = {name: z_sem[:, k] > z_sem[:, k].median() for k, name in enumerate(DIPOLES)}
    probes = Probes.fit(z_sem, labels, dipoles=DIPOLES)
    clip = load_clip(repository / "checkpoints" / "synthfaces-64" / "clip")
    info = {"name": "tiny", "license": "MIT", "trained_on": "synthfaces"}
    settings = RenderSettings(edit_steps=5)
    return Editor(diffae.requires_grad_(False), clip=clip, paths=paths, probes=probes, settings=settings, info=info)


@pytest.fixture(scope="session")
def editor_folder(editor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("editors") / "tiny"
    editor.save_pretrained(folder)
    return folder


@pytest.fixture
def face(tmp_path):
    """A drawn face of 48 pixels as a file."""
    path = tmp_path / "face.png"
    to_pil(render(sample(1, seed=3), size=48))[0].save(path)
    return path
