"""A donor that is edited to several groups: opened and traced once, and edited as if it were alone."""

from __future__ import annotations

import pytest

from vlbias.balance import Balancer

#: Four groups; the larger ones give to all that lack faces, the same ones to each.
PROTECTED = ["skin", "era"]
POLES = {"skin": ("skin_tone", {"light": -1, "dark": 1}), "era": ("age", {"new": -1, "old": 1})}


@pytest.fixture
def faces_of_two(tiny, tmp_path):
    cells = {("train", smile, skin): n for smile in (0, 1) for skin, n in (("light", 30), ("dark", 8))}
    faces = tiny.make_faces(tmp_path / "faces", cells)
    age = tiny.TinyEditor().encode(faces.tensor(faces.ids, tiny.SIZE))[:, 2]
    return faces.with_column("era", ["old" if value > 0 else "new" for value in age.tolist()])


@pytest.fixture
def run(tiny, faces_of_two, tmp_path):
    """Balance by four groups with so many edits to a chunk: the plan, the result, and how many faces were traced."""

    def go(chunk_size):
        editor = tiny.TinyEditor()
        traced, trace = [], editor.trace
        editor.trace = lambda x_0, z_sem: traced.append(len(x_0)) or trace(x_0, z_sem)
        balancer = Balancer(editor, target="smile", protected=PROTECTED, poles=POLES, chunk_size=chunk_size)
        plan = balancer.plan(faces_of_two)
        out = tmp_path / f"out-{chunk_size}"
        return plan, balancer.run(faces_of_two, plan, out, show_progress=False), sum(traced)

    return go


def test_each_donor_is_traced_once_in_a_chunk_and_edited_as_if_it_were_alone(run):
    plan, together, traced = run(100)
    edits = together.table[together.table["origin"] == "edited"]
    used = {*edits["source_id"], *together.rejected["donor"].dropna()}
    assert plan.num_chunks == 1 and 1.3 * len(used) < len(edits)
    assert traced <= len(used)  # a donor that no edit can reach is not traced
    _, apart, traced_apart = run(1)
    assert traced_apart >= len(edits) and apart.unet_evaluations > together.unet_evaluations
    # reserves are shared in a chunk, so a few places have other donors
    both = edits.merge(apart.table, on=["file_name", "source_id"])
    assert len(both) > 0.9 * len(edits)
    for name in both["file_name"]:
        assert (together.out_dir / name).read_bytes() == (apart.out_dir / name).read_bytes()


def test_the_price_knows_that_donors_are_shared(run):
    plan, result, _ = run(100)
    assert plan.cost.unet_evaluations < run(1)[0].cost.unet_evaluations
    assert plan.cost.unet_evaluations == pytest.approx(result.unet_evaluations, rel=0.25)


def test_a_pilot_knows_it_too(tiny, faces_of_two, tmp_path):
    balancer = Balancer(tiny.TinyEditor(), target="smile", protected=PROTECTED, poles=POLES)
    priced = balancer.pilot(faces_of_two, balancer.plan(faces_of_two), num_edits=16, show_progress=False)
    result = balancer.run(faces_of_two, priced, tmp_path / "out", show_progress=False)
    low, high = priced.cost.evaluations_range
    assert 0.8 * low <= result.unet_evaluations <= 1.2 * high


def test_a_shared_donor_that_cannot_be_read_is_turned_down_for_every_group(tiny, faces_of_two, tmp_path):
    balancer = Balancer(tiny.TinyEditor(), target="smile", protected=PROTECTED, poles=POLES, chunk_size=100)
    plan = balancer.plan(faces_of_two)
    times = plan.table["donor"].value_counts()
    broken, times = times.index[0], int(times.iloc[0])
    assert times > 1
    faces_of_two.path(broken).write_bytes(b"no picture")
    result = balancer.run(faces_of_two, plan, tmp_path / "out", show_progress=False)
    lost = result.rejected[result.rejected["donor"] == broken]
    assert sorted(lost["reason"]) == ["unreadable"] * times and lost["detail"].str.contains("picture").all()
