"""One place for what is known of attributes: an entry there is enough for every room."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from vlbias import attributes
from vlbias.attributes import ATTRIBUTES, Attribute, followers, name_in_words, of_column, register
from vlbias.balance import Balancer, resolve_poles
from vlbias.errors import ConfigError, PlanError
from vlbias.labelling import label_column, labeller_of

sys.path.insert(0, str(Path(__file__).parent / "balance"))
from tiny_editor import CELLS, TinyEditor, make_faces

HAT = Attribute(
    "headgear",
    {"cap": ("bare", "capped")},
    ("a photo of a person with a hat",),
    ("a photo of a person without a hat",),
    aliases=("skin_tone",),  # the path of the tests' editor that carries it
    followers=("hair",),
)


class DarkIsCapped:
    """A CLIP that takes a dark picture for a hat."""

    name, preprocess = "toy", type("Preprocess", (), {"size": (16, 16)})()

    def zero_shot(self, x, prompts, *, temperature=None, templates=None):
        assert prompts == {"bare": HAT.negative, "capped": HAT.positive}
        capped = (x.mean(dim=(1, 2, 3)) < 0).float()
        return torch.stack([1 - capped, capped], dim=1)


@pytest.fixture
def hat(monkeypatch):
    monkeypatch.setattr(attributes, "ATTRIBUTES", dict(ATTRIBUTES))
    register(HAT)


@pytest.mark.usefixtures("hat")
def test_one_entry_is_enough_to_balance_and_to_label(tmp_path):
    faces = make_faces(tmp_path / "faces", CELLS)
    caps = faces.table["skin"].map({"light": "bare", "dark": "capped"})
    faces = faces.with_column("cap", caps).with_column("hair", ["long"] * len(faces))
    balancer = Balancer(TinyEditor(leak=0.12), target="smile", protected="cap", chunk_size=8)
    plan = balancer.plan(faces, limit=8)
    result = balancer.run(faces, plan, tmp_path / "out", show_progress=False)
    edited = result.table[result.table["origin"] == "edited"]
    assert len(edited) > 4 and set(edited["cap"]) == {"bare", "capped"}
    assert edited["hair"].isna().all() and edited["smile"].notna().all()

    labelled, report, _ = label_column(faces, "cap", labeller_of("clip", column="cap", clip=DarkIsCapped()))
    assert set(labelled.table["cap"]) == {"bare", "capped"} and sum(report.counts.values()) == len(faces)


def test_a_column_that_is_not_known_needs_its_prompts():
    with pytest.raises(ConfigError, match="no prompts are known for the column 'cap'. Give them: clip:LABEL=PROMPT"):
        labeller_of("clip", column="cap", clip=DarkIsCapped())


def test_names_and_columns_are_taken_once():
    with pytest.raises(ConfigError, match="'smile' belongs to the attribute 'smile' already"):
        register(Attribute("grin", {"smile": ("0", "1")}, ("a",), ("b",)))
    with pytest.raises(ConfigError, match="'age' belongs to the attribute 'age' already"):
        register(Attribute("age", {"years": ("0", "1")}, ("a",), ("b",)))
    with pytest.raises(ConfigError, match="'hat' needs a column with two different values"):
        Attribute("hat", {"hat": ("1", "1")}, ("a",), ("b",))


def test_the_registry_agrees_with_itself():
    columns = [column for attribute in ATTRIBUTES.values() for column in attribute.columns]
    assert len(columns) == len(set(columns))
    for name, attribute in ATTRIBUTES.items():
        assert attribute.name == name and of_column(next(iter(attribute.columns))) is attribute
        assert not attribute.is_turned(attribute.positive) and attribute.is_turned(attribute.negative)
        if any(attribute.words):
            assert name_in_words(attribute.positive, attribute.negative) == name


def test_followers_are_of_the_path_and_not_of_its_columns_alone():
    assert followers(["age"]) == {"age_group", "Young", "age"}
    assert followers(["nose"]) == followers(["nose_width"]) == {"nose", "Big_Nose", "nose_width"}
    assert followers(["made up"]) == set()


def test_what_the_documentation_says_of_attributes_is_true(repository):
    text = (repository / "docs" / "attributes.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, flags=re.M)
    assert len(rows) >= 8
    for name, columns in rows:
        assert columns == ", ".join(f"`{column}` ({high})" for column, (_, high) in ATTRIBUTES[name].columns.items())


def test_the_entry_that_the_documentation_shows_is_all_that_an_attribute_needs(repository, monkeypatch):
    others = {name: known for name, known in ATTRIBUTES.items() if name != "hat"}  # somebody may have added it
    monkeypatch.setattr(attributes, "ATTRIBUTES", others)
    shown = re.search(r"^Attribute\(\n.*?^\)", (repository / "docs" / "attributes.md").read_text(), re.M | re.S)
    register(eval(shown[0]))
    poles = resolve_poles("Wearing_Hat", ["0", "1"], ["age", "hat"])
    assert (poles.name, poles.positions) == ("hat", {"0": -1.0, "1": 1.0})
    assert followers(["hat"]) == {"hat", "Wearing_Hat", "hair_length"}
    assert labeller_of("clip", column="Wearing_Hat", clip=DarkIsCapped())


def test_a_known_attribute_without_a_path_is_one_to_learn(tmp_path):
    faces = make_faces(tmp_path / "faces", CELLS)
    faces = faces.with_column("glasses", ["0", "1"] * (len(faces) // 2) + ["0"] * (len(faces) % 2))
    with pytest.raises(PlanError, match=r"glasses:PATH=0,1\. Or learn it with vlbias learn glasses\. Paths: skin_tone"):
        Balancer(TinyEditor(), target="smile", protected="glasses").plan(faces)


def test_ages_are_grouped_in_one_way():
    ages = pd.Series([39.9, 40, None]).astype(object)
    assert [attributes.age_group(age) for age in ages.where(ages.notna(), None)] == ["young", "old", None]
