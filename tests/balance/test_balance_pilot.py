"""A pilot's price is near what the run then costs, and a pilot leaves nothing behind."""

from __future__ import annotations

import pytest

from vlbias.balance import Balancer
from vlbias.errors import ConfigError


@pytest.mark.parametrize("settings", [{}, {"source": "prior"}, {"round_trip": True}])
def test_the_price_of_a_pilot_is_near_what_the_run_costs(editor, faces, tmp_path, settings):
    balancer = Balancer(editor, target="smile", protected="skin", seed=0, **settings)
    plan = balancer.plan(faces)
    assert plan.cost.evaluations_range is None and plan.cost.pilot == 0
    priced = balancer.pilot(faces, plan, num_edits=12, show_progress=False)
    low, high = priced.cost.evaluations_range
    assert priced.cost.pilot == 12 and low <= priced.cost.unet_evaluations <= high
    assert priced.table.equals(plan.table) and priced.digest() == plan.digest()
    assert priced.cost.megabytes == plan.cost.megabytes and priced.cost.minutes is not None
    result = balancer.run(faces, priced, tmp_path / "out", show_progress=False)
    # a range of nine in ten, of twelve edits among 29
    assert 0.8 * low <= result.unet_evaluations <= 1.2 * high
    shown = f"{low:,} to {high:,}, " if low < high else ""
    assert f"({shown}after 12 edits on trial)" in priced.describe()


def test_a_pilot_says_the_same_twice(editor, faces):
    balancer = Balancer(editor, target="smile", protected="skin", seed=0)
    plan = balancer.plan(faces)
    once, twice = (balancer.pilot(faces, plan, num_edits=8, show_progress=False).cost for _ in range(2))
    assert (once.unet_evaluations, once.evaluations_range) == (twice.unet_evaluations, twice.evaluations_range)


def test_a_pilot_tries_no_more_edits_than_there_are_and_at_least_one(editor, faces):
    balancer = Balancer(editor, target="smile", protected="skin", seed=0)
    plan = balancer.plan(faces, limit=3)
    assert balancer.pilot(faces, plan, num_edits=50, show_progress=False).cost.pilot == 3
    with pytest.raises(ConfigError, match="`num_edits` must be >= 1"):
        balancer.pilot(faces, plan, num_edits=0)
