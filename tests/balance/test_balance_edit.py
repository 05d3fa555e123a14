"""The closed loop: as far as needed, no further."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbias.balance import Balancer
from vlbias.balance.attempt import Attempt
from vlbias.balance.next_try import _further
from vlbias.balance.poles import Poles
from vlbias.balance.scoring import AttributeScorer, Reading
from vlbias.balance.strength import _goals, aim_at, find_strength, sequential_strengths
from vlbias.balance.verification import Checks, Scores


def line(slope, offset):
    return lambda strength, rows: torch.as_tensor(slope)[rows] * strength + torch.as_tensor(offset)[rows]


@settings(max_examples=50, deadline=None)
@given(st.floats(0.7, 5.0), st.floats(-2.0, 0.5), st.sampled_from([-1.0, 1.0]))
def test_the_strength_is_where_a_line_crosses_the_goal(slope, offset, sign):
    start = torch.tensor([sign])
    search = find_strength(line([sign * slope], [offset]), start, goal=1.0, max_strength=6.0)
    exact = (1.0 - offset) / slope
    # 0.25 of the start is the scan, halved five times
    assert exact - 1e-9 <= float(search.strength * sign) <= exact + 0.25 / 32 + 1e-9
    assert float(search.margin) >= 1.0 and float(search.margin_before) == pytest.approx(offset)


def test_each_face_of_a_batch_goes_its_own_way():
    slopes, offsets = torch.tensor([2.0, -1.0, 0.1]), torch.tensor([-1.0, -1.0, -1.0])
    together = find_strength(line(slopes, offsets), torch.tensor([1.0, -1.0, 1.0]), goal=0.5, max_strength=2.0)
    for index in range(3):
        alone = find_strength(
            line(slopes[index : index + 1], offsets[index : index + 1]),
            torch.tensor([1.0, -1.0, 1.0])[index : index + 1],
            goal=0.5,
            max_strength=2.0,
        )
        assert torch.equal(alone.strength[0], together.strength[index])
    assert float(together.strength[2]) == 2.0 and float(together.margin[2]) == pytest.approx(-0.8)


def test_who_is_there_already_does_not_walk():
    search = find_strength(line([1.0], [2.0]), torch.tensor([1.0]), goal=1.0, max_strength=2.0)
    assert float(search.strength) == 0 and float(search.margin_before) == 2.0


def test_out_of_reach_ends_at_the_best_place():
    # the reading rises to a peak below the goal and falls again
    search = find_strength(lambda s, _: 0.5 - (s - 1).square(), torch.tensor([1.0]), goal=1.0, max_strength=3.0)
    assert float(search.strength) == pytest.approx(1.0) and float(search.margin) == pytest.approx(0.5)


def test_several_paths_one_after_the_other():
    # path b also carries attribute a along: a is aimed first, b with a already walked
    def walk(strengths, places):
        a = strengths.get("a", torch.zeros(len(places)).double())
        b = strengths.get("b", torch.zeros(len(places)).double())
        return torch.stack([a, b + 0.5 * a], dim=1)

    found = sequential_strengths(
        walk,
        lambda name, codes, _: codes[:, "ab".index(name)],
        [("a", torch.tensor([1.0, 0.0]).double()), ("b", torch.tensor([1.0, 1.0]).double())],
        goals=dict.fromkeys("ab", torch.ones(2).double()),
        max_strength=3.0,
    )
    assert found["a"].strength.tolist() == pytest.approx([1.0, 0.0], abs=0.01)  # 0: this face stays on that path
    assert found["a"].margin.isnan().tolist() == [False, True]  # nor is it asked about there
    assert found["b"].strength.tolist() == pytest.approx([0.5, 1.0], abs=0.01)


def test_a_face_is_asked_about_until_it_is_settled():
    asked = []

    def margin_at(strength, rows):
        asked.append(rows.tolist())
        return line([4.0, 1.0, 0.0], [0.0, 0.0, 0.0])(strength, rows)

    search = find_strength(margin_at, torch.ones(3), goal=1.0, max_strength=2.0)
    assert search.strength.tolist() == pytest.approx([0.25, 1.0, 0.0], abs=0.01)
    # everybody where they stand; each until its scan crosses the goal (the last one's never does); those that did
    assert asked == [[0, 1, 2], [0, 1, 2], [1, 2], [1, 2], [1, 2], [2], [2], [2], [2], *[[0, 1]] * 5]


def test_faces_may_have_goals_of_their_own():
    start = torch.tensor([1.0, 1.0, -1.0])
    goals = torch.tensor([0.5, 1.5, 1.0]).double()
    search = find_strength(line([1.0, 1.0, -1.0], [0.0] * 3), start, goal=goals, max_strength=3.0)
    assert search.strength.tolist() == pytest.approx([0.5, 1.5, -1.0], abs=0.02)


def job_for(checks, members=()):
    """What aiming asks of a job, for one protected attribute of two groups."""
    latent = Reading("dipole", "skin_tone", ("light", "dark"), (-1.0, 1.0), slope=10.0, members=members)
    return SimpleNamespace(
        checks=checks,
        groups={"light": ("light",), "dark": ("dark",)},
        protected=[AttributeScorer("skin", latent, None)],
        poles=[Poles("skin", "skin_tone", {"dark": -1.0, "light": 1.0})],
    )


def attempts_to(group, count=400):
    return [Attempt({"to": group, "slot": seed}, "a", "dark", seed) for seed in range(count)]


def test_walks_stop_where_members_of_the_group_stand():
    members = (tuple(0.2 + 0.16 * step for step in range(10)), ())  # light faces stand 0.2 to 1.64 inside
    job = job_for(Checks(varied=1), members)
    goals = _goals(job, attempts_to("light"), 0, 1.0)
    assert float(goals.median()) == pytest.approx(0.92, abs=0.08)
    assert float(goals.max()) == pytest.approx(1.64, abs=0.01)
    assert float(goals.min()) == pytest.approx(0.25 + 0.2)  # what is enough, and a little more
    assert float(goals.std()) > 0.35
    assert torch.equal(goals, _goals(job, attempts_to("light"), 0, 1.0))  # by the seeds alone
    assert set(_goals(job, attempts_to("dark"), 0, 1.0).tolist()) == {1.0}  # nobody was measured there
    assert set(_goals(job_for(Checks(), members), attempts_to("light"), 0, 1.0).tolist()) == {1.0}
    half = _goals(job_for(Checks(varied=0.5), members), attempts_to("light"), 0, 1.0)
    assert float(half.std()) == pytest.approx(0.5 * float(goals.std()), rel=0.15)
    assert set(_goals(job, attempts_to("light"), 0, 0.0).tolist()) == {0.25}  # the nearest that is enough


def test_strengths_may_be_drawn_without_looking_at_faces():
    attempts = attempts_to("light")
    assert aim_at(job_for(Checks(random_strength=0.5)), attempts) == [None] * 400
    strengths = torch.tensor([attempt.strengths["skin_tone"] for attempt in attempts])
    assert 0.5 <= strengths.min() < 0.52 and 1.48 < strengths.max() <= 1.5
    assert float(strengths.mean()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("before", "seen", "expected"),
    [
        ((-1.0, -1.0), (0.0, 0.6), 1.6),  # the probe saw 1.0 of the 1.6 that it must see; CLIP is content
        ((-1.0, -1.0), (0.0, -0.2), 2.0),  # CLIP saw 0.8 of 1.6
        ((-1.0, -1.0), (-0.9, 0.6), 2.0),  # at most twice as far at once
        ((-1.0, None), (-1.2, None), 2.0),  # it went the wrong way
        ((None, None), (0.1, 0.1), 1.3),  # nothing is known of the donor
    ],
)
def test_a_walk_that_fell_short_goes_as_much_further_as_its_readings_ask(before, seen, expected):
    scores = Scores(*seen, None, None, None, 1.0)
    attempt = Attempt({}, "a", "light", 0, margins_before=before, floors=(0.4, 0.4), scores=scores)
    assert _further(attempt) == pytest.approx(expected)


@pytest.mark.parametrize("shown", [0.75, 1.3])
def test_varied_pictures_show_what_their_codes_said(tiny, faces, tmp_path, shown):
    class Unlike(tiny.TinyEditor):
        """Pictures show another share of each change than its code has."""

        def render(self, x_0, z_sem, z_edit, traced):
            return x_0 + shown * (super().render(x_0, z_sem, z_edit, traced) - x_0)

    def kept(editor, name, varied=1):
        balancer = Balancer(editor, target="smile", protected="skin", checks=Checks(varied=varied))
        result = balancer.run(faces, balancer.plan(faces), tmp_path / name, show_progress=False)
        edits = result.table[result.table["origin"] == "edited"]
        return result.unet_evaluations / len(edits), edits["score_protected_latent"]

    cost, unlike = kept(Unlike(method="difference"), "unlike")
    usual_cost, usual = kept(tiny.TinyEditor(method="difference"), "usual")
    assert len(unlike) >= 10
    assert float(unlike.median()) == pytest.approx(float(usual.median()), abs=0.05)
    assert float(unlike.std()) == pytest.approx(float(usual.std()), abs=0.05)
    assert cost == pytest.approx(usual_cost, rel=0.1)  # no evaluation is spent on it
    alike = kept(Unlike(method="difference"), "alike", varied=0)[1]
    assert abs(float(alike.median()) - 1) > 0.1  # without it the walk alone ends at the typical member
