"""Scorers: calibrated readings, the verdict, identity."""

from __future__ import annotations

import pytest
import torch

from vlbias.balance import Checks, Poles, Reason
from vlbias.balance.fitting import _measured, calibrate, fit_reading, uncalibrated, with_members
from vlbias.balance.identity import IdentityScale, LatentIdentity, identity_scorer, resolve_identity
from vlbias.balance.scoring import AttributeScorer, Reading, read
from vlbias.balance.verification import Scores, enough, verdict
from vlbias.errors import ConfigError

GOOD = {
    "protected_latent": 1.0,
    "protected_image": 0.9,
    "target_latent": 1.0,
    "target_image": 0.8,
    "others": 0.5,
    "identity": 0.9,
}


@pytest.mark.parametrize(
    ("change", "donor", "reason"),
    [
        ({}, (1.0, 1.0), None),
        ({"protected_latent": 0.3}, (1.0, 1.0), Reason.PROTECTED_NOT_REACHED),
        ({"protected_image": 0.3}, (1.0, 1.0), Reason.PROTECTED_NOT_REACHED),
        ({"protected_image": None}, (1.0, 1.0), None),  # a blind scorer says nothing
        ({"target_latent": 0.2}, (1.0, 1.0), Reason.TARGET_CHANGED),
        ({"target_latent": 0.2}, (0.3, 1.0), None),  # the donor read hardly better
        ({"target_image": -0.1}, (None, None), Reason.TARGET_CHANGED),
        ({"others": -0.1}, (1.0, 1.0), Reason.OTHER_CHANGED),
        ({"others": None}, (1.0, 1.0), None),
        ({"identity": 0.3}, (1.0, 1.0), Reason.IDENTITY_LOST),
        ({"identity": float("nan")}, (1.0, 1.0), Reason.NOT_FINITE),
    ],
)
def test_verdicts(change, donor, reason):
    assert verdict(Scores(**(GOOD | change)), donor, Checks()) is reason


def test_a_binary_margin_is_0_on_the_border_and_1_at_the_typical_member():
    reading = Reading("dipole", "age", ("young", "old"), (-3.0, 1.0))
    raw = torch.tensor([-3.0, -1.0, 1.0, 5.0])
    assert reading.margin(raw, ["young"] * 4).tolist() == [1, 0, -1, -3]
    assert reading.margin(raw, ["old"] * 4).tolist() == [-1, 0, 1, 3]


def test_a_middle_group_has_two_borders():
    reading = Reading("dipole", "age", ("young", "middle", "old"), (-2.0, 0.0, 4.0))
    raw = torch.tensor([-1.0, 0.0, 1.0, 2.0, -2.0])
    assert reading.margin(raw, ["middle"] * 5).tolist() == [0, 1, 0.5, 0, -1]


def test_fitted_reading_is_not_fooled_by_the_planted_association():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 6, generator=generator).double()
    target, skin = z[:, 0] > 0, z[:, 1] > 0
    keep = (target == skin) | (torch.rand(400, generator=generator) < 0.15)
    z, target, skin = z[keep], target[keep], skin[keep]
    labels = [str(int(value)) for value in target]
    cells = [f"{int(a)}{int(b)}" for a, b in zip(target, skin, strict=True)]
    reading = fit_reading("smile", z, labels, cells)
    assert reading is not None and reading.accuracy > 0.9
    weight = torch.tensor(reading.weight)[1] - torch.tensor(reading.weight)[0]
    assert abs(weight[1]) < 0.35 * abs(weight[0])
    assert Reading.from_dict(reading.to_dict()) == reading
    assert fit_reading("smile", z[:4], labels[:4], cells[:4]) is None


def test_a_blind_dipole_is_replaced_by_a_fit_and_said_so(tiny, faces):
    blind = tiny.TinyEditor(blind=True)
    ids = [item for item in faces.table.index if faces.table.loc[item, "split"] == "train"]
    x_0 = faces.tensor(ids, blind.image_size)
    z_sem = blind.encode(x_0)
    labels = faces.table.loc[ids, "skin"].tolist()
    poles = Poles("skin", "skin_tone", {"light": -1, "dark": 1})
    scorer = calibrate(blind, "skin", z_sem, x_0, labels, labels, poles=poles, min_skill=0.3)
    assert scorer.latent.kind == "fitted" and scorer.latent.accuracy == 1.0
    seeing = calibrate(tiny.TinyEditor(), "skin", z_sem, x_0, labels, labels, poles=poles, min_skill=0.3)
    assert seeing.latent.kind == seeing.image.kind == "dipole" and seeing.latent.accuracy == 1.0
    assert AttributeScorer.from_dict(seeing.to_dict()) == seeing
    nothing = calibrate(
        blind,
        "coin",
        z_sem,
        x_0,
        ["a", "b"] * (len(ids) // 2) + ["a"] * (len(ids) % 2),
        labels,
        poles=None,
        min_skill=0.95,
    )
    assert nothing.latent is None and nothing.summary()["latent"] is None


def test_uncalibrated_readings_use_the_dipoles_own_zero():
    scorer = uncalibrated("age_group", Poles("age_group", "age", {"young": -1, "old": 1}))
    assert scorer.latent.anchors == (-2.0, 2.0) and scorer.latent.skill() == 1.0


def test_identity_ignores_the_protected_direction_alone():
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(200, 8, generator=generator)
    z[:100, 0] += 6
    identity = LatentIdentity.fit(z, [["a"] * 100 + ["b"] * 100])
    along = torch.zeros(1, 8)
    along[0, 0] = 5.0
    across = torch.zeros(1, 8)
    across[0, 3] = 5.0
    assert float(identity(z[:1], z[:1])) == 1.0
    assert float(identity(z[:1], z[:1] + along)) > 0.8
    assert float(identity(z[:1], z[:1] + across)) < 0.0
    strangers = identity(z[:100], z[100:])
    assert -0.4 < float(strangers.median()) < 0.4


def test_identity_scorers(tiny):
    editor = tiny.TinyEditor()
    x, z = torch.rand(2, 3, 8, 8), torch.randn(2, 6)
    scale = IdentityScale(LatentIdentity((), 1.0), strangers=0.6)
    assert torch.allclose(identity_scorer(editor, "latent", scale)(z, x, z, x), torch.ones(2).double())
    assert torch.allclose(identity_scorer(editor, "clip", scale)(z, x, z, x), torch.ones(2).double())
    own = identity_scorer(editor, lambda *_: torch.zeros(2), scale)
    assert own(z, x, z, x).tolist() == [0, 0]
    with pytest.raises(ConfigError, match="`identity` must be 'latent', 'clip'.*got 'face', and there is no such file"):
        resolve_identity(editor, "face")


def test_checks_are_checked():
    with pytest.raises(ConfigError, match="`goal` of Checks must be a number > 0"):
        Checks(goal=0)
    with pytest.raises(ConfigError, match="`identity` of Checks must be a number; got nan"):
        Checks(identity=float("nan"))
    with pytest.raises(ConfigError, match="must not exceed `checks.goal`"):
        Checks(goal=0.5, reached=0.6)
    with pytest.raises(ConfigError, match="retries"):
        Checks(retries=-1)
    for wrong in ("x", True, None, [1.0], float("inf")):
        with pytest.raises(ConfigError, match="`target` of Checks must be a number"):
            Checks(target=wrong)


@pytest.mark.parametrize(("spread", "low", "high"), [(0.3, 0.25, 0.25), (0.8, 0.3, 0.6), (3.0, 0.8, 0.8)])
def test_how_far_is_enough_follows_from_how_well_the_originals_are_told_apart(spread, low, high):
    """Two groups one unit from the border: told apart clearly, a little way in says enough; else it takes more."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.cat([sign + spread * torch.randn(200, generator=generator) for sign in (-1.0, 1.0)]).double()
    labels = ["young"] * 200 + ["old"] * 200
    reading = _measured(Reading("dipole", "age", ("young", "old"), (-1.0, 1.0)), raw, labels)
    found = reading.sure_margin(0.8)
    assert low <= found <= high
    # of the originals that read so or further, at least the share that was asked for belongs to the group, unless
    # the groups are told apart so badly that no such place is in reach
    inside = reading.margin(raw, ["old"] * 400) >= found
    assert torch.tensor([label == "old" for label in labels])[inside].float().mean() >= (0.8 if spread < 2 else 0.65)
    assert reading.sure_margin(0.9) >= found and enough(reading, Checks(reached=0.3)) == 0.3
    assert enough(reading, Checks(sure=0.8)) == found and enough(None, Checks()) == 0.4
    assert Reading.from_dict(reading.to_dict()) == reading


def test_members_of_a_group_say_how_far_inside_faces_stand():
    raw = torch.cat([torch.linspace(-3, -1, 101), torch.linspace(0.5, 1.5, 101)]).double()
    labels = ["young"] * 101 + ["old"] * 101
    reading = _measured(Reading("dipole", "age", ("young", "old"), (-2.0, 1.0)), raw, labels)
    # the border is at -0.5: the young stand 0.33 to 1.67 inside, the old 0.67 to 1.33
    young = [reading.member_margin("young", share) for share in (0.05, 0.5, 0.95)]
    old = [reading.member_margin("old", share) for share in (0.0, 0.3, 1.0)]
    assert young == pytest.approx([0.4, 1, 1.6], abs=1e-3) and old == pytest.approx([0.7, 0.867, 1.3], abs=1e-3)
    few = with_members(reading, raw[-5:], labels[-5:])
    assert few.members == ((), ()) and few.member_margin("old", 0.1) == 1.0
    assert Reading("dipole", "age", ("young", "old"), (-2.0, 1.0)).member_margin("old", 0.9) == 1.0
    stored = reading.to_dict()
    assert Reading.from_dict(stored) == reading
    del stored["members"]  # written before they were noted
    assert Reading.from_dict(stored).members == ()
    for damaged in ([[1.0]], [[1.0] * 10], [["far"] * 10] * 2, 7):
        with pytest.raises((TypeError, ValueError)):  # named by the run folder
            Reading.from_dict(stored | {"members": damaged})


def test_a_group_between_two_others_is_entered_to_its_middle():
    raw = torch.linspace(-3, 3, 300).double()
    labels = ["young"] * 100 + ["middle"] * 100 + ["old"] * 100
    reading = _measured(Reading("dipole", "age", ("young", "middle", "old"), (-2.0, 0.0, 2.0)), raw, labels)
    assert [bool(margins) for margins in reading.members] == [True, False, True]
    assert reading.member_margin("middle", 0.9) == 1.0


def test_readings_far_inside_a_group_are_told_apart():
    class Sure:
        def probe(self, z_sem, name):
            return z_sem[:, 0].sigmoid()

    reading = Reading("dipole", "skin", ("light", "dark"), (-11.0, 9.0))
    logits = torch.tensor([-16.0, -15.0, -14.0, 14.0, 15.0, 16.0])
    found = read(Sure(), reading, "latent", logits[:, None])
    assert found.tolist() == pytest.approx(logits.tolist(), abs=0.2)


def test_what_the_attribute_does_to_a_code_is_no_change_of_person():
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    effect = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    labels = ["a"] * 25 + ["b"] * 25
    moved = z + 2 * effect
    assert float(LatentIdentity.fit(z, [labels], effects=effect)(z, moved).min()) == pytest.approx(1.0, abs=1e-5)
    assert float(LatentIdentity.fit(z, [labels])(z, moved).median()) < 0.9
