"""How faces are cut and normalised for a network: known pixels, known places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from vlbias.alignment import LAYOUTS
from vlbias.errors import ConfigError, ShapeError, UnknownNameError
from vlbias.images import to_tensor
from vlbias.networks import FaceInput


def dotted(points, edge: int, radius: float = 4.0) -> torch.Tensor:
    """A black picture with a white dot at each landmark."""
    picture = Image.new("RGB", (edge, edge))
    draw = ImageDraw.Draw(picture)
    for x, y in np.array(points) * edge:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="white")
    return to_tensor(picture)


def centre(x: torch.Tensor, point, reach: float = 0.06) -> np.ndarray:
    """Where the white near a point stands, in shares of the edge."""
    light = (x[0].mean(0).double().numpy() + 1) / 2
    size = light.shape[0]
    rows, columns = np.mgrid[:size, :size]
    ys, xs = (rows + 0.5) / size, (columns + 0.5) / size
    near = np.hypot(xs - point[0], ys - point[1]) < reach
    weight = light * near
    return np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()


def test_pixels_channels_mean_and_std():
    red = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)  # 255, 128, 0
    plain = FaceInput(4, mean=0, std=1)(red, layout="ffhq")
    assert plain.dtype == torch.float32 and plain[0, :, 0, 0].tolist() == pytest.approx([255, 128, 0], abs=1e-4)
    assert FaceInput(4, mean=0, std=1, channels="BGR")(red, layout="ffhq")[0, :, 0, 0].tolist() == pytest.approx(
        [0, 128, 255], abs=1e-4
    )
    imagenet = FaceInput(4, range=1, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1))(red, layout="ffhq")
    assert imagenet[0, :, 0, 0].tolist() == pytest.approx([1, (128 / 255 - 0.4) / 0.2, -3], abs=1e-5)
    # mean and std are in the order of the channels: the first number belongs to blue
    blue_first = FaceInput(4, mean=(10, 0, 0), std=(2, 1, 1), channels="BGR")(red, layout="ffhq")
    assert blue_first[0, :, 0, 0].tolist() == pytest.approx([-5, 128, 255], abs=1e-4)


@pytest.mark.parametrize("source", ["utkface", "synthfaces", "ffhq"])
@pytest.mark.parametrize("wanted", ["arcface", "dlib"])
def test_landmarks_land_where_the_network_expects_them(source, wanted):
    """The five points of two templates cannot all meet under one similarity; their centre does."""
    cut = FaceInput(224, layout=wanted, mean=127.5, std=127.5)
    landed = np.array(
        [centre(cut(dotted([point], 400), layout=source), point=(0.5, 0.5), reach=1) for point in LAYOUTS[source]]
    )
    template = np.array(LAYOUTS[wanted])
    assert np.abs(landed.mean(axis=0) - template.mean(axis=0)).max() < 0.005
    assert np.abs(landed - template).max() < 0.09
    spread = np.linalg.norm(landed - landed.mean(0)) / np.linalg.norm(template - template.mean(0))
    assert 0.95 < spread < 1.05


def test_own_landmarks_do_what_a_layout_does():
    x = dotted(LAYOUTS["utkface"], 200)
    named = FaceInput(112, layout="arcface")
    spelled = FaceInput(112, landmarks=LAYOUTS["arcface"])
    assert torch.equal(named(x, layout="utkface"), spelled(x, layout="utkface"))


def test_padding_is_a_share_of_the_crop_on_each_side():
    x = dotted(LAYOUTS["dlib"], 300)
    padded = FaceInput(300, layout="dlib", padding=0.25)(x, layout="dlib")
    for point in LAYOUTS["dlib"]:
        expected = (np.array(point) + 0.25) / 1.5
        assert np.abs(centre(padded, expected) - expected).max() < 0.004


def test_a_picture_that_lies_right_is_taken_as_it_is():
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    assert FaceInput(64, layout="utkface").transform(64, "utkface") is None
    as_written = ((x + 1) * 127.5).round() / 127.5 - 1
    assert torch.allclose(FaceInput(64, layout="utkface")(x, layout="utkface"), as_written, atol=1e-6)
    assert torch.equal(FaceInput(64)(x, layout="ffhq"), FaceInput(64, layout="utkface")(x, layout="utkface"))


def test_each_face_is_cut_for_itself_and_size_changes_little():
    torch.manual_seed(0)
    small = torch.rand(3, 3, 8, 8) * 2 - 1
    x = torch.nn.functional.interpolate(small, 256, mode="bicubic").clamp(-1, 1)
    cut = FaceInput(56, layout="arcface")
    together = cut(x, layout="utkface")
    assert torch.equal(together, torch.cat([cut(one[None], layout="utkface") for one in x]))
    half = cut(torch.nn.functional.interpolate(x, 128, mode="area"), layout="utkface")
    assert float((half - together).abs().mean()) < 0.02
    assert cut(x[:0], layout="utkface").shape == (0, 3, 56, 56)


def test_pictures_that_are_not_square_give_their_middle():
    x = torch.full((1, 3, 40, 60), -1.0)
    x[..., 10:50] = 1.0
    assert float(FaceInput(20, mean=0, std=1)(x, layout="ffhq").min()) > 230  # the filter reaches over the border
    assert float(FaceInput(20, layout="utkface", padding=-0.2, mean=0, std=1)(x, layout="utkface").min()) == 255


def test_it_asks_for_pictures_that_lose_nothing():
    assert FaceInput(96).picture_size("ffhq") == 96
    # the crop of ArcFace is about as large as a picture of UTKFace, so twice its pixels are enough
    assert 200 < FaceInput(112, layout="arcface").picture_size("utkface") < 260
    # FFHQ crops show much more than the face
    assert FaceInput(112, layout="arcface").picture_size("ffhq") > 280


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "`size` must be a whole number of pixels in 1..4096; got 0"),
        ({"size": "112"}, "`size` must be a whole number"),
        ({"channels": "RBG"}, "`channels` must be one of RGB, BGR; got 'RBG'"),
        ({"range": 2}, "`range` must be 255 or 1"),
        ({"padding": -0.5}, "`padding` must be a number > -0.5"),
        ({"mean": [1, 2]}, "`mean` must be one number, or three"),
        ({"std": 0}, "`std` must be > 0"),
        ({"std": float("nan")}, "`std` must be one number"),
        ({"landmarks": [[0, 0]] * 4}, "`landmarks` must be five points"),
        ({"landmarks": [[0, 0]] * 5}, "`landmarks` must not lie in one line"),
        ({"landmarks": [[0, 0]] * 5, "layout": "ffhq"}, "both say how faces lie"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        FaceInput(**({"size": 8} | values))


def test_unknown_layouts_and_bad_pictures_are_refused():
    with pytest.raises(UnknownNameError, match="Unknown layout 'archface'. Did you mean 'arcface'"):
        FaceInput(8, layout="archface")
    with pytest.raises(UnknownNameError, match="Unknown layout 'mine'"):
        FaceInput(8)(torch.zeros(1, 3, 8, 8), layout="mine")
    with pytest.raises(ShapeError, match=r"must be \(b, 3, h, w\)"):
        FaceInput(8)(torch.zeros(1, 1, 8, 8), layout="ffhq")
    with pytest.raises(ShapeError, match="NaN"):
        FaceInput(8)(torch.full((1, 3, 8, 8), float("nan")), layout="ffhq")
