"""The same photograph twice: found by its bytes, refused in two splits wherever classifiers are tested."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vlbias import search, simulate
from vlbias.data import load_dataset
from vlbias.data.twins import refuse_shared_pictures, same_bytes
from vlbias.errors import DatasetError


def test_files_of_equal_bytes(tmp_path):
    big = np.random.default_rng(0).bytes(10_000)
    other = big[:5000] + b"?" + big[5001:]
    contents = {"a": b"1", "b": b"1", "c": b"2", "d": big, "e": other, "f": big, "g": b"", "h": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert same_bytes(tmp_path, [*contents, "gone"]) == {"a": "a", "b": "a", "d": "d", "f": "d", "g": "g", "h": "g"}


@pytest.fixture
def twice(tmp_path):
    """The same pictures under other names in each split."""
    rng, rows = np.random.default_rng(0), []
    for i in range(32):
        image = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        for split in ("train", "val", "test"):
            (tmp_path / split).mkdir(exist_ok=True)
            image.save(tmp_path / split / f"{split[0]}{i}.png")
            skin = ("light", "dark")[i // 2 % 2]
            rows.append({"file_name": f"{split}/{split[0]}{i}.png", "smile": i % 2, "skin": skin})
    pd.DataFrame(rows).to_csv(tmp_path / "metadata.csv", index=False)
    return load_dataset("folder", tmp_path)


def test_pictures_in_two_splits_are_refused_by_every_judge(twice):
    with pytest.raises(DatasetError, match="32 pictures of the split '.*' are in another split as well: '.*' is '"):
        simulate.plan(twice, target="smile", protected="skin", shares=[0, 0.5])
    with pytest.raises(DatasetError, match="are in another split as well"):
        search.make_task(twice, protected="skin", task="classify", target="smile")


def test_a_few_are_let_pass(twice):
    splits = {"train": [f"train/t{i}.png" for i in range(32)], "val": [f"val/v{i}.png" for i in range(32)]}
    with pytest.raises(DatasetError):
        refuse_shared_pictures(twice, splits | {"val": splits["val"][:1]})
    refuse_shared_pictures(twice, {"train": splits["train"][:16], "val": splits["val"][16:]})
    refuse_shared_pictures(load_dataset("synthfaces", n=4), {"train": ["synth-0-000000"], "test": ["synth-0-000000"]})
