"""Attributes: planted distributions counted, counterfactual tables, identities, and refused requests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbias import world
from vlbias.errors import ConfigError, ShapeError, UnknownNameError
from vlbias.world.attributes import label_position
from vlbias.world.joint import Joint

BINARY = sorted(world.LABELS)


def same(a: world.Faces, b: world.Faces) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def phi(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])


def test_face_i_depends_on_seed_and_index_alone() -> None:
    whole = world.sample(50, seed=7)
    assert same(whole[20:30], world.sample(10, seed=7, start=20))
    assert same(world.Faces.cat([whole[:3], whole[3:]]), whole)
    assert not torch.equal(whole.age, world.sample(50, seed=8).age)
    assert len(world.sample(0)) == 0 and world.sample(0).table().empty


def test_defaults_are_balanced_and_independent() -> None:
    faces = world.sample(6000, seed=0)
    labels = {name: faces.label(name) for name in BINARY}
    for name in BINARY:
        rate = 0.26 if name == "beard" else 0.5
        assert abs(labels[name].float().mean() - rate) < 0.03, name
    for k, a in enumerate(BINARY):
        for b in BINARY[k + 1 :]:
            if {a, b} != {"beard", "gender"}:
                assert abs(phi(labels[a], labels[b])) < 0.06, (a, b)
    assert abs(labels["beard"][labels["gender"] == 0].float().mean() - 0.02) < 0.01


def test_table_has_the_promised_columns_and_values() -> None:
    faces = world.sample(300, seed=1)
    table = faces.table()
    labels = {"age_group", "skin", "gender", "smile", "glasses", "beard", "nose", "lips", "expression", "identity"}
    looks = {"age", "skin_tone", "smile_intensity", "nose_width", "lip_fullness"}
    assert labels | looks | {"hair_color", "hair_length", "eye_color"} <= set(table.columns)
    assert ((table["age"] >= 40) == (table["age_group"] == "old")).all()
    assert ((table["skin_tone"] > 5.5) == (table["skin"] == "dark")).all()
    assert ((table["expression"] == "happy") == (table["smile"] == 1)).all()
    assert set(table["gender"]) == {"male", "female"} and set(table["glasses"]) == {0, 1}
    assert set(table["nose"]) == {"wide", "narrow"} and set(table["lips"]) == {"full", "thin"}
    assert "grey" in set(table["hair_color"]) and (table["hair_color"][table["age"] < 28] != "grey").all()


@pytest.mark.parametrize("strength", [0.9, 0.0, -0.6, 1.0])
def test_bias_is_the_correlation_and_keeps_rates(strength: float) -> None:
    faces = world.sample(4000, bias={("smile", "skin_tone"): strength}, seed=2)
    smile, skin = faces.label("smile"), faces.label("skin")
    assert abs(phi(smile, skin) - strength) < 0.04
    assert abs(smile.float().mean() - 0.5) < 0.03 and abs(skin.float().mean() - 0.5) < 0.03
    assert abs(phi(smile, faces.label("gender"))) < 0.05


def test_bias_with_uneven_rates_by_hand() -> None:
    # p = .2, q = .5, s = .5: both positive with .1 + .5 * (.2 - .1) = .15.
    faces = world.sample(8000, bias={("glasses", "age"): 0.5}, rates={"glasses": 0.2}, seed=0)
    glasses, old = faces.label("glasses").bool(), faces.label("age_group").bool()
    assert abs((glasses & old).float().mean() - 0.15) < 0.015
    assert abs(glasses.float().mean() - 0.2) < 0.015


def test_several_biases_at_once() -> None:
    bias = {("smile", "skin"): 0.8, ("glasses", "smile"): -0.7, ("beard", "age"): 0.5}
    faces = world.sample(4000, bias=bias, seed=5)
    assert abs(phi(faces.label("smile"), faces.label("skin")) - 0.8) < 0.05
    assert abs(phi(faces.label("glasses"), faces.label("smile")) + 0.7) < 0.05
    assert abs(faces.label("beard").float().mean() - 0.26) < 0.03
    assert abs(phi(faces.label("beard"), faces.label("gender"))) < 0.05  # the asked association replaces the usual one


def test_bias_changes_no_other_attribute() -> None:
    plain = world.sample(200, seed=3)
    planted = world.sample(200, bias={("smile", "skin"): 0.9}, seed=3)
    assert torch.equal(plain.skin_tone, planted.skin_tone) and torch.equal(plain.age, planted.age)
    assert torch.equal(plain.geometry, planted.geometry) and torch.equal(plain.nuisance, planted.nuisance)
    assert not torch.equal(plain.smile_intensity, planted.smile_intensity)


def test_exact_counts() -> None:
    counts = {(1, "dark"): 35, (1, "light"): 114, (0, "dark"): 80, (0, "light"): 7}
    faces = world.sample(cells={("smile", "skin_tone"): counts}, seed=4)
    table = faces.table()
    assert len(faces) == 236
    for (smile, skin), count in counts.items():
        assert ((table["smile"] == smile) & (table["skin"] == skin)).sum() == count
    assert table["smile"].iloc[:60].nunique() == 2, "cells are mixed, not stacked"
    assert same(faces, world.sample(236, cells={("smile", "skin"): counts}, seed=4))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=8, max_size=8).filter(sum), st.integers(0, 99))
def test_any_table_of_counts_is_met(counts: list[int], seed: int) -> None:
    keys = [(a, b, c) for a in ("old", "young") for b in ("male", "female") for c in ("long", "short")]
    faces = world.sample(cells={("age", "gender", "hair_length"): dict(zip(keys, counts, strict=True))}, seed=seed)
    table = faces.table()
    found = pd.Series(list(zip(table["age_group"], table["gender"], table["hair_length"], strict=True))).value_counts()
    assert [found.get(key, 0) for key in keys] == counts


def test_proportions_expressions_and_dialects() -> None:
    cells = {("skin", "dialect"): {("dark", "mouth"): 0.25, ("light", "eyes"): 0.75}}
    faces = world.sample(2000, cells=cells, expressions=world.EXPRESSIONS, setting="posed", seed=0)
    table = faces.table()
    assert abs((table["skin"] == "light").mean() - 0.75) < 0.03
    assert (table["dialect"] == np.where(table["skin"] == "light", "eyes", "mouth")).all()
    assert (table["expression"].value_counts() > 270).all() and table["expression"].nunique() == 6
    assert ((table["smile"] == 1) == (table["expression"] == "happy")).all()
    assert same(faces[:9], world.sample(9, cells=cells, expressions=world.EXPRESSIONS, setting="posed", seed=0))


def test_posed_pictures_are_calmer() -> None:
    varied, posed = (world.sample(500, setting=setting, seed=0) for setting in ("varied", "posed"))
    for name in ("yaw", "roll", "exposure", "noise"):
        assert posed.nuisance_of(name).std() < 0.6 * varied.nuisance_of(name).std()
    assert posed.nuisance_of("expression_strength").min() >= 0.89


def test_bias_on_cells_labels_starts_from_the_cells() -> None:
    cells = {("gender", "age"): {("male", "old"): 300, ("female", "old"): 500, ("female", "young"): 200}}
    faces = world.sample(cells=cells, bias={("glasses", "gender"): 1.0}, rates={"glasses": 0.3}, seed=0)
    assert torch.equal(faces.label("glasses"), faces.label("gender"))


# Counterfactuals


@pytest.mark.parametrize("name", sorted(world.DEPENDENT_COLUMNS))
def test_a_counterfactual_changes_its_columns_only(name: str) -> None:
    faces = world.sample(80, seed=6, expressions=world.EXPRESSIONS)
    if name in world.ATTRIBUTES:
        scale = world.ATTRIBUTES[name]
        value: object = scale.high
    else:
        value = world.CATEGORIES[name][-1]
    other = faces.replace(**{name: value})
    before, after = faces.table(), other.table()
    changed = {column for column in before if not before[column].equals(after[column])}
    assert changed and changed <= set(world.DEPENDENT_COLUMNS[name])
    for part in ("geometry", "nuisance", "key", "identity"):
        assert torch.equal(getattr(faces, part), getattr(other, part))


@settings(max_examples=30, deadline=None)
@given(label=st.sampled_from(BINARY), seed=st.integers(0, 50))
def test_setting_a_label_and_back_returns_the_face(label: str, seed: int) -> None:
    faces = world.sample(20, seed=seed)
    scale = world.ATTRIBUTES[world.LABELS[label]]
    assert same(faces.replace(**{label: faces.table()[label]}), faces)
    flipped = faces.replace(**{label: [scale.negative if c else scale.positive for c in faces.label(label).tolist()]})
    assert torch.equal(flipped.label(label), 1 - faces.label(label))
    assert same(flipped.replace(**{label: faces.table()[label]}), faces)


def test_replace_one_value_a_face_and_several_attributes() -> None:
    faces = world.sample(3, seed=0)
    other = faces.replace(age=[20.0, 50.0, 80.0], gender="male", smile=[True, False, True])
    assert other.age.tolist() == [20.0, 50.0, 80.0]
    assert other.table()["smile"].tolist() == [1, 0, 1] and set(other.table()["gender"]) == {"male"}
    assert other.replace(smile_intensity=0.9).table()["expression"].tolist() == ["happy"] * 3
    assert other.replace(expression="sad").table()["smile"].tolist() == [0, 0, 0]


def test_replace_refuses() -> None:
    faces = world.sample(3)
    with pytest.raises(UnknownNameError, match="Unknown attribute 'agee'.*Did you mean 'age'"):
        faces.replace(agee=3)
    with pytest.raises(ConfigError, match=r"`age` must lie in 18..85; got 12"):
        faces.replace(age=12)
    with pytest.raises(ConfigError, match=r"`skin_tone` must lie in 1..10; got nan"):
        faces.replace(skin_tone=float("nan"))
    with pytest.raises(ConfigError, match="`gender` must be one of 'female', 'male'; got 'man'"):
        faces.replace(gender="man")
    with pytest.raises(ConfigError, match="one value or 3 values"):
        faces.replace(age=[20, 30])
    with pytest.raises(ConfigError, match="sets what another argument sets"):
        faces.replace(age=70, age_group="old")
    with pytest.raises(ConfigError, match="sets what another argument sets"):
        faces.replace(smile=1, expression="sad")


# Identities


def test_identities_keep_the_person() -> None:
    faces = world.identities(5, 4, seed=2)
    assert faces.identity.tolist() == [i for i in range(5) for _ in range(4)]
    table = faces.table().groupby("identity")
    stays = ("age", "skin_tone", "gender", "nose_width", "lip_fullness", "beard_amount", "eye_color", "hair_color")
    for column in stays:
        assert (table[column].nunique() == 1).all(), column
    assert (faces.geometry.view(5, 4, -1).std(1) == 0).all()
    assert (faces.nuisance_of("yaw").view(5, 4).std(1) > 0).all()
    assert faces.key.unique().numel() == 20
    assert same(world.identities(5, 2, seed=2)[:2], faces[:2]), "picture j does not depend on how many there are"
    assert same(world.identities(2, 4, seed=2, start=3), faces[12:])


def test_identities_take_planted_persons() -> None:
    cells = {("gender", "skin"): {("male", "dark"): 2, ("female", "light"): 3}}
    faces = world.identities(5, 3, cells=cells, seed=0)
    assert (faces.label("gender") == faces.label("skin")).all()
    assert faces.label("gender").view(5, 3).float().std(1).max() == 0
    assert int(faces.label("gender").sum()) == 6
    smiling = world.identities(300, 4, bias={("smile", "skin"): 0.8}, seed=0)
    assert abs(phi(smiling.label("smile"), smiling.label("skin")) - 0.8) < 0.06
    with pytest.raises(ConfigError, match="cannot follow a label of the picture"):
        world.identities(5, 3, bias={("smile", "skin"): 0.5, ("smile", "nose"): 0.5})
    with pytest.raises(ConfigError, match="counts 5 persons"):
        world.identities(6, 3, cells=cells)
    with pytest.raises(ConfigError, match="`images_per_identity` must be a whole number in 1"):
        world.identities(6, 0)


# Refused distributions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, r"`n` must be a whole number in 0..1,000,000; got -1"),
        ({"n": 2.5}, "`n` must be a whole number in 0..1,000,000; got 2.5"),
        ({}, "`n` must be given"),
        ({"n": 3, "seed": "x"}, "`seed` must be a whole number"),
        ({"n": 3, "start": -2}, "`start` must be a whole number in 0"),
        ({"n": 3, "setting": "studio"}, "`setting` must be one of 'varied', 'posed'"),
        ({"n": 3, "bias": {("smile", "skin"): 1.5}}, r"must lie in -1..1; got 1.5"),
        ({"n": 3, "bias": {("smile", "smile"): 0.5}}, "two different labels"),
        ({"n": 3, "bias": {"smile": 0.5}}, "pairs of labels"),
        ({"n": 3, "bias": {("smile", "hair_color"): 0.5}}, "plant 'hair_color' with `cells`"),
        ({"n": 3, "bias": {("smile", "skin"): 0.1, ("skin", "age"): 0.1, ("age", "smile"): 0.1}}, "form a ring"),
        ({"n": 3, "rates": {"smile": 2}}, r"must lie in 0..1; got 2"),
        ({"n": 3, "rates": {"eye_color": 0.2}}, "proportions in `cells`"),
        ({"n": 3, "cells": {("smile",): {}}}, "is empty"),
        ({"n": 3, "cells": {("smile", "skin"): {(1,): 3}}}, "needs 2 values"),
        ({"n": 3, "cells": {("smile",): {(1,): -3}}}, "count or a proportion >= 0; got -3"),
        ({"n": 3, "cells": {("smile",): {(1,): 0}}}, "has no faces"),
        ({"n": 3, "cells": {("smile",): {(1,): 0.5, (0,): 0.4}}}, "must sum to 1; got 0.9"),
        ({"n": 3, "cells": {("smile",): {(1,): 5}}}, "counts 5 faces in all; got n=3"),
        ({"cells": {("smile",): {(1,): 5}, ("skin",): {("dark",): 4}}}, r"one total; got \[4, 5\]"),
        ({"n": 5, "cells": {("smile",): {(2,): 5}}}, "`smile` must be one of 0, 1; got 2"),
        ({"n": 5, "cells": {("smile",): {(1,): 5}, ("smile", "skin"): {(1, "dark"): 5}}}, "each label once"),
        ({"n": 5, "cells": {("smile", "expression"): {(1, "sad"): 5}}}, "not both"),
        ({"n": 5, "cells": {("smile",): {(1,): 5}}, "rates": {"smile": 0.5}}, "name it once"),
        ({"n": 5, "expressions": []}, "at least one expression"),
        ({"n": 5, "expressions": ["joy"]}, "`expression` must be one of"),
        ({"n": 5, "expressions": ["sad"], "rates": {"smile": 0.5}}, "decides who smiles"),
        ({"n": 5, "cells": {("expression",): {("sad",): 5}}, "bias": {("smile", "skin"): 0.5}}, "decides who smiles"),
        (
            {"n": 5, "cells": {("smile",): {(1,): 5}, ("skin",): {("dark",): 5}}, "bias": {("smile", "skin"): 0.5}},
            "`cells` already decides",
        ),
    ],
)
def test_sample_refuses(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        world.sample(**options)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="'smlie' for the embedded world. Did you mean 'smile'"):
        world.sample(3, bias={("smlie", "skin"): 0.5})
    with pytest.raises(UnknownNameError, match="Unknown trait 'chim'"):
        world.sample(1).trait("chim")
    with pytest.raises(UnknownNameError, match="Unknown nuisance 'yow'"):
        world.sample(1).nuisance_of("yow")
    with pytest.raises(ConfigError, match="`skin` must be one of 'light', 'dark'; got 'grey'"):
        label_position("skin", "grey")


def test_faces_refuse_ragged_fields() -> None:
    faces = world.sample(3)
    with pytest.raises(ShapeError, match="must have one length"):
        world.Faces(**{**vars(faces), "age": faces.age[:2]})
    with pytest.raises(ShapeError, match=r"`geometry` must be \(n, "):
        world.Faces(**{**vars(faces), "geometry": faces.geometry[:, :2]})
    with pytest.raises(ConfigError, match="at least one set"):
        world.Faces.cat([])
    with pytest.raises(IndexError, match="Row 3 of 3 faces"):
        faces[3]


def test_rows_by_mask_and_list() -> None:
    faces = world.sample(6, seed=0)
    mask = faces.table()["age"] > 40
    assert len(faces[mask]) == int(mask.sum())
    assert same(faces[[1, 4]], world.Faces.cat([faces[1], faces[4]])) and same(faces[-1], faces[5])
    assert Joint().num_exact is None
