"""Small stand-ins that tests share: an editor with random weights that edits within milliseconds."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vlbias import Dipole, Editor, PathSet
from vlbias.cli import app, main
from vlbias.diffae import DiffAE, DiffAEConfig, PriorConfig
from vlbias.rendering import RenderSettings

#: A browser of this machine; ``None`` where there is none.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: The smallest autoencoder that has every kind of block but attention: 16 px, codes of 16 numbers.
TINY = DiffAEConfig(
    image_size=16,
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    embed_channels=16,
    attention_resolutions=(),
    enc_channel_mult=(1, 2),
    enc_num_res_blocks=1,
    num_groups=4,
)


#: The smallest prior with every kind of layer.
TINY_PRIOR = PriorConfig(num_layers=3, hidden_channels=24, skip_layers=(1, 2), time_channels=8)
DIPOLES = {"age": Dipole("old", "young"), "skin_tone": Dipole("dark", "light")}


def tiny_editor(
    config: DiffAEConfig = TINY,
    dipoles: Mapping[str, Dipole] = DIPOLES,
    *,
    lively: bool = False,
    settings: RenderSettings | None = None,
    **info: str,
) -> Editor:
    """An editor with random weights, named "tiny"; ``lively`` fills the weights that begin at zero, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        diffae = DiffAE(config).requires_grad_(False)
        for parameter in diffae.parameters() if lively else ():
            if not parameter.any():
                parameter.data.normal_(std=0.1)
        paths = PathSet(dipoles, config.embed_channels, mean=diffae.z_mean, std=diffae.z_std)
    settings = settings or RenderSettings(invert_steps=2, decode_steps=2)
    return Editor(diffae, paths=paths, settings=settings, info={"name": "tiny", **info})


def run_command(*arguments: object, code: int = 0) -> str:
    """What a command of ``vlbias`` says, which must end with an exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def failing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 1
) -> str:
    """What the console script says on stderr before it ends with an exit code."""
    monkeypatch.setattr(sys, "argv", ["vlbias", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == code
    return capsys.readouterr().err


def people(folder: Path, **columns: object) -> Path:
    """72 pictures of 12 people, a third of the people in each split."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for i in range(72):
        person = i // 6
        split = ("train", "val", "test")[person % 3]
        gender = ("female", "male")[person // 3 % 2]
        pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        rows.append({"file_name": f"{i:02d}.png", "split": split, "gender": gender, "smile": i % 2, "identity": person})
    pd.DataFrame(rows).assign(**columns).to_csv(folder / "metadata.csv", index=False)
    return folder


def tree_hash(*places: Path) -> dict[str, str]:
    """Every entry below the places: path -> hash of a file, target of a link, or "folder"."""
    found = {}
    for place in places:
        for path in sorted([place, *place.rglob("*")]):
            if path.is_symlink():
                found[str(path)] = f"-> {path.readlink()}"
            else:
                found[str(path)] = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found
