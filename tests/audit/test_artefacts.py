"""Edits told from real faces: what is planted is found, and only where it is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from vlbias import audit, load_dataset
from vlbias.data import FaceDataset
from vlbias.errors import DatasetError, UnknownNameError
from vlbias.leak import why_no_figure


def pictures(folder, kind, blurred=()):
    """Grain with the skins light and dark; edits with ``blurred`` skin are blurred."""
    folder.mkdir()
    rows = []
    rng = np.random.default_rng(len(kind))
    for row in range(60):
        skin = ("light", "dark")[row % 2]
        coarse = Image.fromarray(rng.integers(60, 190, (8, 8, 3), dtype=np.uint8)).resize((48, 48))
        picture = Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 6, (48, 48, 3)), 0, 255).astype(np.uint8))
        if skin in blurred:
            picture = picture.filter(ImageFilter.GaussianBlur(0.8))
        picture.save(folder / f"{row}.png")
        rows.append({"file_name": f"{row}.png", "split": "train", "skin": skin, "smile": row // 2 % 2})
    table = pd.DataFrame(rows, index=pd.Index([f"{kind}-{row}" for row in range(60)], name="id"))
    return FaceDataset(kind, table, root=folder)


def test_what_gives_edits_away_is_found_in_the_group_that_has_it(tmp_path):
    real, edits = pictures(tmp_path / "real", "real"), pictures(tmp_path / "edits", "edits", blurred=("dark",))
    found = audit.artefacts(real, edits, protected="skin", sizes=())
    assert list(found) == ["dark", "light", "all"]
    assert found["dark"].worst.edits.value > 0.95 and found["light"].worst.edits.value < 0.75
    assert found["light"].worst.edits.value < found["all"].worst.edits.value
    cells = audit.artefacts(real, edits, protected="skin", target="smile", sizes=())["all"].cells
    assert [(cell.target, cell.group) for cell in cells] == [
        ("0", "dark"),
        ("0", "light"),
        ("1", "dark"),
        ("1", "light"),
    ]


def test_drawn_faces_are_looked_at_as_well():
    faces = load_dataset("synthfaces", n=60, image_size=32)
    dark = faces.select(faces.table["skin"] == "dark")
    edits = replace(dark.counterfactual(skin="light"))
    found = audit.artefacts(faces, edits, protected="skin", sizes=(), max_pictures=20)
    assert list(found) == ["light", "all"]
    assert found["all"].num_edits <= 20 and (found["all"].readings or why_no_figure(found["all"]))


def test_what_cannot_be_measured_is_refused(tmp_path):
    real = pictures(tmp_path / "real", "real")
    with pytest.raises(UnknownNameError, match="Unknown attribute 'tone'"):
        audit.artefacts(real, real, protected="tone")
    unlabelled = real.with_column("skin", [None] * 60)
    with pytest.raises(DatasetError, match="'real' has no edited face with all labels"):
        audit.artefacts(real, unlabelled, protected="skin")
