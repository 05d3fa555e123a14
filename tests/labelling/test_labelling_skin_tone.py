"""Measured skin tone: colours checked against published ones, then painted and drawn faces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlbias import world
from vlbias.data import drawn_dataset
from vlbias.errors import ConfigError, ShapeError, UnknownNameError
from vlbias.images import to_tensor
from vlbias.labelling import LAYOUTS, SkinToneLabeller, measure_skin_tone
from vlbias.labelling.skin_tone import ita_of, monk_of, rgb_to_lab
from vlbias.world.color import MONK


def rgb(code: str) -> tuple[int, int, int]:
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[return-value]


def plain(code: str, size: int = 96, noise: float = 0.0) -> Image.Image:
    """A "face" that is skin all over."""
    pixels = np.tile(np.array(rgb(code), float), (size, size, 1))
    pixels += np.random.default_rng(0).normal(0, noise, pixels.shape)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("srgb", "lab"),
    [
        # CIE L*a*b* (D65) of sRGB's corners and of a mid grey, as tabulated by B. Lindbloom, www.brucelindbloom.com
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((128, 128, 128), (53.59, 0.0, 0.0)),
    ],
)
def test_lab_of_known_colours(srgb, lab):
    assert rgb_to_lab(np.array(srgb) / 255) == pytest.approx(lab, abs=0.05)


def test_ita_by_hand():
    assert ita_of(np.array([60.0, 10.0, 10.0])) == pytest.approx(45)
    assert ita_of(np.array([50.0, 10.0, 10.0])) == pytest.approx(0)
    assert ita_of(np.array([40.0, 10.0, 10.0])) == pytest.approx(-45)


@settings(deadline=None)
@given(st.lists(st.integers(0, 255), min_size=3, max_size=3))
def test_brighter_skin_never_measures_darker(colour):
    lab = rgb_to_lab(np.array(colour) / 255)
    if lab[2] > 3:
        assert ita_of(lab + np.array((1, 0, 0))) > ita_of(lab)


def test_the_published_colours_are_their_own_steps():
    lab = rgb_to_lab(np.array([rgb(code) for code in MONK]) / 255)
    assert monk_of(lab).tolist() == list(range(1, 11))
    # the scale runs from light to dark, also by ITA, from the third step on (the first three differ in hue)
    assert (np.diff(ita_of(lab)[2:7]) < 0).all()


@pytest.mark.parametrize("step", range(3, 9))
def test_plain_skin_is_measured_exactly(step):
    tone = measure_skin_tone(plain(MONK[step - 1]))
    lab = rgb_to_lab(np.array(rgb(MONK[step - 1])) / 255)
    assert (tone.monk, tone.monk_low, tone.monk_high) == (step, step, step)
    assert tone.ita == pytest.approx(ita_of(lab), abs=0.01) and tone.share == 1 and tone.reason is None
    assert tone.ita_high - tone.ita_low == pytest.approx(0, abs=0.01) and tone.side_difference == pytest.approx(0)
    noisy = measure_skin_tone(plain(MONK[step - 1], noise=6))
    assert noisy.ita == pytest.approx(tone.ita, abs=3) and noisy.ita_high - noisy.ita_low > 1


def test_tensors_and_pictures_agree():
    picture = plain(MONK[4], noise=5)
    x = to_tensor(picture)
    assert measure_skin_tone(x) == measure_skin_tone(x[0]) == measure_skin_tone(picture)


def test_hair_and_glare_are_left_out():
    pixels = np.asarray(plain(MONK[4], noise=2)).copy()
    pixels[:40] = rgb("#231d1b")  # a fringe over the whole forehead
    pixels[57:60, 57:62] = 255  # glare on one cheek
    tone = measure_skin_tone(Image.fromarray(pixels))
    bare = measure_skin_tone(plain(MONK[4], noise=2))
    assert tone.ita == pytest.approx(bare.ita, abs=1) and tone.monk == 5
    assert tone.share < bare.share


def test_light_from_a_side_shows_in_the_spread():
    pixels = np.asarray(plain(MONK[5]), float).copy()
    pixels *= np.linspace(1.3, 0.7, pixels.shape[1])[None, :, None]
    tone = measure_skin_tone(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    assert tone.side_difference > 10 and tone.ita_high - tone.ita_low > 10
    assert tone.monk_low is not None and tone.monk_low <= tone.monk <= tone.monk_high


@pytest.mark.parametrize(
    ("colour", "reason"), [("#808080", "grey"), ("#ffffff", "few_skin_pixels"), ("#5060a0", "blue_cast")]
)
def test_what_cannot_be_measured_says_why(colour, reason):
    tone = measure_skin_tone(plain(colour))
    assert tone.reason == reason and tone.monk is None and np.isnan(tone.ita)


def test_landmarks_say_where_the_skin_is():
    pixels = np.full((200, 300, 3), (30, 60, 200), np.uint8)
    pixels[20:120, 150:250] = rgb(MONK[6])
    points = 100 * np.array(LAYOUTS["ffhq"]) + [150, 20]
    assert measure_skin_tone(Image.fromarray(pixels), landmarks=points).monk == 7
    with pytest.raises(ShapeError, match=r"`landmarks` must be five finite points, \(5, 2\)"):
        measure_skin_tone(Image.fromarray(pixels), landmarks=points[:3])
    with pytest.raises(UnknownNameError, match="Unknown layout 'ffqh'. Did you mean 'ffhq'"):
        measure_skin_tone(Image.fromarray(pixels), layout="ffqh")
    with pytest.raises(ShapeError, match="must be one picture"):
        measure_skin_tone(to_tensor([plain(MONK[0]), plain(MONK[1])]))


@pytest.fixture(scope="module")
def drawn():
    """The same four faces in the ten steps, so that nothing but skin tone (and no light) differs."""
    base = world.sample(4, seed=5).replace(beard=0, glasses=0)
    steps = [2.0, 4.0, 6.0, 8.0, 10.0]
    ids = [f"{face}-{step:g}" for step in steps for face in range(4)]
    return drawn_dataset(world.Faces.cat([base.replace(skin_tone=step) for step in steps]), ids)


def test_drawn_faces_are_ordered_as_they_were_drawn(drawn, capsys):
    labels = SkinToneLabeller(layout="synthfaces", size=64).label(drawn)
    assert "measuring skin: 20/20 images" in capsys.readouterr().err
    measured = labels.table["ita"].to_numpy().reshape(5, 4)
    assert (np.diff(measured[:4], axis=0) < 0).all()
    assert labels.coverage > 0.7 and set(labels.unlabelled()) <= {"grey", "few_skin_pixels", "blue_cast"}
    table = labels.table.dropna(subset="label")
    assert np.corrcoef(table["label"].astype(float), drawn.table.loc[table.index, "skin_tone"])[0, 1] > 0.85
    assert table["confidence"].between(0, 1).all()


def test_a_cut_gives_two_labels_and_says_what_they_are(drawn):
    labels = SkinToneLabeller(layout="synthfaces", split_ita=10, size=64).label(drawn)
    assert set(labels.table["label"].dropna()) == {"light", "dark"}
    measured = labels.table.dropna(subset="label")
    assert ((measured["ita"] >= 10) == (measured["label"] == "light")).all()
    with_labels = labels.apply(drawn, "measured_skin")
    assert "no race label" in with_labels.descriptions["measured_skin"]
    assert "ITA of 10 degrees" in with_labels.descriptions["measured_skin"]


def test_wrong_options():
    with pytest.raises(UnknownNameError, match="Unknown layout 'lfw'"):
        SkinToneLabeller(layout="lfw")
    with pytest.raises(ConfigError, match="`split_ita` is an angle in degrees between -90 and 90; got 90"):
        SkinToneLabeller(split_ita=90)
    with pytest.raises(ConfigError, match="`size` must be >= 32 pixels; got 8"):
        SkinToneLabeller(size=8)
