"""Labels of every form through a whole run: balanced, read back, counted and planned on, value by value."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vlbias import audit, search, simulate
from vlbias.balance import Balancer
from vlbias.data import join, load_dataset

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "balance")]
from test_data_metadata import FORMS, values_of  # noqa: E402
from tiny_editor import TinyEditor, make_faces  # noqa: E402

SPLITS = ("train", "val", "test")
CELLS = {(split, smile, skin): 9 for split in SPLITS for smile in (0, 1) for skin in ("light", "dark")}
CELLS |= {("train", 0, "dark"): 3}
#: The target in the forms that a two-valued column can have.
TARGETS = {"yes_no": [False, True], "float_codes": [0.0, 1.0], "text_numbers": ["0", "1"], "nothing": ["None", "NA"]}


def balanced(faces, out, target):
    balancer = Balancer(TinyEditor(leak=0.12), target=target, protected="skin", chunk_size=4)
    return balancer.run(faces, balancer.plan(faces, limit=4), out, show_progress=False)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    made = make_faces(tmp_path_factory.mktemp("faces"), CELLS)
    for name, values in FORMS.items():
        made = made.with_column(name, [values[row % 6] for row in range(len(made))])
    for name, (low, high) in TARGETS.items():
        made = made.with_column(f"target_{name}", [high if smile else low for smile in made.table["smile"]])
    return made


def test_a_balanced_set_is_balanced_again(faces, tmp_path):
    balanced(faces, tmp_path / "one", "smile")
    once = load_dataset("folder", tmp_path / "one")
    balanced(once, tmp_path / "two", "smile")
    twice = load_dataset("folder", tmp_path / "two")
    real = twice.table[twice.table["origin"] == "real"].set_index("source_id")
    for name in faces.attributes:
        assert values_of(real[name]) == values_of(once.table.loc[real.index, name]), name


@pytest.mark.parametrize("target", [f"target_{name}" for name in TARGETS])
def test_a_run_changes_no_label(faces, tmp_path, target):
    result = balanced(faces, tmp_path / "out", target)
    assert (result.table["origin"] == "edited").sum() >= 2
    back = load_dataset("folder", tmp_path / "out")
    columns = [name for name in faces.attributes if name not in ("skin", "skin_tone")]
    for table in (result.table, back.table):
        real = table[table["origin"] == "real"].set_index("source_id")
        given = faces.table.loc[real.index]
        for name in columns:
            got, wanted = values_of(real[name]), values_of(given[name])
            assert got == wanted and list(map(type, got)) == list(map(type, wanted)), name
    edited = back.table[back.table["origin"] == "edited"]
    donors = faces.table.loc[edited["source_id"]]
    assert values_of(edited[target]) == values_of(donors[target])

    both = join([faces, back.select(back.table["origin"] == "edited")])
    counts = audit.composition(both, target=target, protected="skin").counts
    assert counts.shape == (2, 2)
    options = {"target": target, "protected": "skin"}
    assert simulate.plan(back, shares=[0, 0.5], **options).classes == tuple(counts.index)
    assert len(search.make_task(back, task="classify", **options).classes) == 2
