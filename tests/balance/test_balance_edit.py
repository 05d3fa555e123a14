"""The closed loop: as far as needed, no further."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbias.balance.attempt import Attempt
from vlbias.balance.chunk import _further
from vlbias.balance.strength import find_strength, sequential_strengths
from vlbias.balance.verification import Scores


def line(slope, offset):
    return lambda strength: torch.as_tensor(slope) * strength + torch.as_tensor(offset)


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
    search = find_strength(lambda s: 0.5 - (s - 1).square(), torch.tensor([1.0]), goal=1.0, max_strength=3.0)
    assert float(search.strength) == pytest.approx(1.0) and float(search.margin) == pytest.approx(0.5)


def test_several_paths_one_after_the_other():
    # path b also carries attribute a along: a is aimed first, b with a already walked
    def walk(strengths):
        a = strengths.get("a", torch.zeros(2).double())
        b = strengths.get("b", torch.zeros(2).double())
        return torch.stack([a, b + 0.5 * a], dim=1)

    found = sequential_strengths(
        walk,
        lambda name, codes: codes[:, "ab".index(name)],
        [("a", torch.tensor([1.0, 0.0]).double()), ("b", torch.tensor([1.0, 1.0]).double())],
        goal=1.0,
        max_strength=3.0,
    )
    assert found["a"].strength.tolist() == pytest.approx([1.0, 0.0], abs=0.01)  # 0: this face stays on that path
    assert found["b"].strength.tolist() == pytest.approx([0.5, 1.0], abs=0.01)


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
    attempt = Attempt({}, "a", "light", 0, margins_before=before, floors=(0.4, 0.4))
    scores = Scores(*seen, None, None, None, 1.0)
    assert _further(attempt, scores) == pytest.approx(expected)
