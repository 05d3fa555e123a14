"""Settings that cannot work are refused when the balancer is made, before any dataset is seen."""

from __future__ import annotations

import pytest

from vlbias import Dipole
from vlbias.attributes import ATTRIBUTES
from vlbias.balance import Balancer, Checks
from vlbias.errors import ConfigError, PlanError


def refused(text, editor, error=PlanError, **settings):
    with pytest.raises(error, match=text):
        Balancer(editor, **({"target": "smile", "protected": "skin"} | settings))


def test_unknown_words_are_refused(editor):
    refused("`mode` must be one of reduce, amplify; got 'balance'", editor, mode="balance")
    refused("`source` must be one of real, prior; got 'web'", editor, source="web")
    refused("`to` must be one of max, mean, all, a number of faces or a mapping.*got 'equal'", editor, to="equal")
    refused("for mode 'amplify'; got 200", editor, to=200, mode="amplify")
    refused("`to` of BalanceSettings must be .*; got True", editor, ConfigError, to=True)
    refused("got 0.5", editor, ConfigError, to=0.5)
    refused("`to` must be at least 1 face; got 0", editor, to=0)
    refused("not >= 0 with a positive sum", editor, to={"light": -1, "dark": 2})
    refused("a mapping in which each value is a number", editor, ConfigError, to={"light": "half", "dark": 1})
    refused("not >= 0 with a positive sum", editor, to={})
    refused("`chunk_size` of BalanceSettings must be a whole number >= 1; got 0", editor, ConfigError, chunk_size=0)
    refused("`splits` must name one split", editor, splits=[])
    refused(r"each once; got \['train', 'train'\]", editor, splits=["train", "train"])
    refused("`protected` names no attribute", editor, protected=[])
    refused("names an attribute twice", editor, protected=["skin", "skin"])


def test_an_editor_of_one_quality_says_so(editor):
    with pytest.raises(ConfigError, match="'tiny' renders at one quality. Use quality='standard'; got 'draft'"):
        Balancer(editor, target="smile", protected="skin", quality="draft")


def test_checks_are_checks(editor):
    refused(r"`checks` must be a Checks, such as Checks\(goal=0.8\); got {}", editor, ConfigError, checks={})
    assert Balancer(editor, target="smile", protected="skin").settings.checks == Checks(varied=0)


def test_poles_say_where_values_stand(editor):
    form = r"must be a path and the values in order from its negative pole, such as \('age', \['no', 'yes'\]\).*got "
    for bad in ("age", ("age",), ("age", "no"), ("age", None), (3, ["no", "yes"]), ("age", {"no": "left"})):
        refused(form, editor, protected="older", poles={"older": bad})
    refused("`poles` must be a mapping such as", editor, protected="older", poles=["no", "yes"])
    refused(
        "`poles` name 'odler', neither `target` .smile. nor `protected` .older.",
        editor,
        protected="older",
        poles={"odler": ("age", ["no", "yes"])},
    )
    refused(
        "name the path 'aeg', which the editor does not have. Available: age",
        editor,
        protected="older",
        poles={"older": ("aeg", ["no", "yes"])},
    )
    refused("name the value 'no' twice", editor, protected="older", poles={"older": ("age", ["no", "no"])})
    refused("name the value '1' twice", editor, protected="older", poles={"older": ("age", {1: -1, "1": 1})})
    refused("must lie in -1..1", editor, protected="older", poles={"older": ("age", {"no": -3, "yes": 1})})
    refused("`path` needs one protected column", editor, protected="older", path="age")


def test_the_same_places_in_three_forms(editor):
    forms = (
        {"poles": {"older": ("age", ["no", "yes"])}},
        {"poles": {"older": ("age", {"no": -1, "yes": 1})}},
        {"path": "age", "poles": ["no", "yes"]},
    )
    found = [Balancer(editor, target="smile", protected="older", **form).poles["older"] for form in forms]
    assert found[0] == found[1] == found[2] and found[0].positions == {"no": -1, "yes": 1}


def test_an_own_column_says_what_to_type(editor, faces):
    named = faces.with_column("region", [("north", "the south", "west, far")[i % 3] for i in range(len(faces))])
    with pytest.raises(PlanError) as caught:
        Balancer(editor, target="smile", protected="region").plan(named)
    text = str(caught.value)
    assert text.startswith("No path of editor 'tiny' is known to carry 'region' (north, the south, west, far).")
    assert "poles={'region': ('PATH', ['north', 'the south', 'west, far'])}" in text
    assert """--poles 'region:PATH=north,the south,"west, far"'""" in text
    assert "Paths: skin_tone ('no' to 'yes'), age ('no' to 'yes')" in text
    other = faces.with_column("skin", [("pale", "tan", "deep")[i % 3] for i in range(len(faces))])
    with pytest.raises(PlanError, match="--poles skin:skin_tone=deep,pale,tan"):
        Balancer(editor, target="smile", protected="skin").plan(other)


def test_values_with_a_colon_are_given_places(editor, faces):
    own = faces.with_column("hours", [("6:00", "18:00")[i % 2] for i in range(len(faces))])
    with pytest.raises(PlanError, match="--poles hours:PATH=18:00:-1,6:00:1"):
        Balancer(editor, target="smile", protected="hours").plan(own)
    names = faces.with_column("name", [f"person {i}" for i in range(len(faces))])
    with pytest.raises(PlanError, match="'name' has 51 values, too many for groups"):
        Balancer(editor, target="smile", protected="name").plan(names)


def test_what_it_says_to_type_works(editor, faces):
    own = faces.with_column("tone", ["T1" if skin == "light" else "T2" for skin in faces.table["skin"]])
    plan = Balancer(editor, target="smile", protected="tone", poles={"tone": ("skin_tone", ["T1", "T2"])}).plan(own)
    known = Balancer(editor, target="smile", protected="skin").plan(faces)
    assert len(plan) == len(known) == 29 and plan.notes == ()
    assert plan.table["strength"].tolist() == known.table["strength"].tolist()


def test_faces_without_a_place_are_counted(editor, faces, tmp_path):
    names = ["T3" if i % 3 == 2 else {"light": "T1", "dark": "T2"}[skin] for i, skin in enumerate(faces.table["skin"])]
    own = faces.with_column("tone", names)
    unplaced = int(((own.table["tone"] == "T3") & (own.table["split"] == "train")).sum())
    left_out = f"{unplaced} faces are left out: no place for 'tone' = T3"
    balancer = Balancer(editor, target="smile", protected="tone", poles={"tone": ("skin_tone", ["T1", "T2"])})
    plan = balancer.plan(own, limit=4)
    assert plan.notes == (left_out,) and f"note: {left_out}" in plan.describe()
    report = balancer.run(own, plan, tmp_path / "out", show_progress=False).report
    assert report["warnings"] == [left_out]
    assert report["poles"] == {"tone": {"path": "skin_tone", "places": {"T1": -1, "T2": 1}}}


def test_values_that_no_face_has_are_named(editor, faces):
    own = faces.with_column("tone", ["T1" if skin == "light" else "T2" for skin in faces.table["skin"]])
    poles = {"tone": ("skin_tone", ["T1", "t2", "T2"])}
    plan = Balancer(editor, target="smile", protected="tone", poles=poles).plan(own)
    assert plan.notes == ("no face has 'tone' = t2; that group is made of edits alone",)
    nowhere = Balancer(editor, target="smile", protected="tone", poles={"tone": ("skin_tone", ["a", "b"])})
    with pytest.raises(PlanError, match=r"None of the values .* \(a, b\) occurs in 'tone', which contains T1, T2"):
        nowhere.plan(own)


def test_values_the_wrong_way_round_are_found_before_the_first_edit(editor, faces, tmp_path):
    own = faces.with_column("tone", ["T1" if skin == "light" else "T2" for skin in faces.table["skin"]])
    balancer = Balancer(editor, target="smile", protected="tone", poles={"tone": ("skin_tone", ["T2", "T1"])})
    text = "stand the wrong way round on 'skin_tone': faces with 'T2' look more like 'yes' than faces with 'T1'. Turn"
    with pytest.raises(PlanError, match=f"{text}.*--poles tone:skin_tone=T1,T2"):
        balancer.run(own, balancer.plan(own), tmp_path / "out", show_progress=False)
    assert editor.diffae.evaluations == 0


@pytest.mark.parametrize("column", ["skin", "smile"])
def test_poles_that_words_show_to_be_turned_are_refused_where_no_label_could(editor, column):
    """Faces of the prior have no labels: the words of a dipole say which of its ends is dark, or smiles."""
    poles = {"skin": ("skin_tone", ["dark", "light"]), "smile": ("smile", [1, 0])}
    prompts = {
        "skin_tone": Dipole("a person with dark skin", "a person with pale skin"),
        "smile": Dipole("a smiling person", "no"),
    }
    editor.dipoles = dict(editor.dipoles) | prompts
    options = {"target": "smile", "protected": "skin", "source": "prior"}
    assert len(Balancer(editor, **options).plan(None, num_images=40))
    with pytest.raises(PlanError, match=rf"'{column}' stand the wrong way round on '.*': '.*' stands at '.*'. Turn"):
        Balancer(editor, poles={column: poles[column]}, **options).plan(None, num_images=40)


@pytest.mark.parametrize(
    ("positive", "negative", "sign"),
    [
        ("a photo of an elderly woman", "a photo of a youthful woman", 1),
        ("a child", "a senior", -1),
        ("a girl", "a boy", 0),
        ("a bowl", "a cup", 0),
    ],
)
def test_words_tell_how_two_poles_stand(positive, negative, sign):
    assert ATTRIBUTES["age"].sign_of([positive], [negative]) == sign
