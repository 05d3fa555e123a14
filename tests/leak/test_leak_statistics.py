"""Each statistic on pictures for which it can be worked out."""

import math

import numpy as np
import pytest
from PIL import Image
from planted import jpeg, picture, png, reopened

from vlbias.errors import ImageError
from vlbias.leak import describe, low_level_statistics
from vlbias.leak.statistics import (
    MAX_EDGE_PX,
    grid_statistics,
    is_of_file,
    residual_statistics,
    spectrum_statistics,
    statistics_at,
)
from vlbias.originals import Encoded


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(picture(np.random.default_rng(0))))
    return path


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=2).astype(np.uint8)


def test_a_wave_lies_in_its_own_band():
    # 20 waves over 64 pixels are 0.3125 cycles per pixel: the end of band 10 of 16, whose width is 1/32
    wave = 128 + 60 * np.sin(2 * np.pi * 19.5 * np.arange(64) / 64)
    found = spectrum_statistics(grey(np.tile(wave, (64, 1))))
    luma = {name: value for name, value in found.items() if name.startswith("spectrum")}
    assert max(luma, key=luma.get) == "spectrum_10"
    assert describe("spectrum_10").endswith("(0.28 to 0.31 cycles per pixel)")
    assert "spectrum_1" not in found and "colour_spectrum_1" not in found  # the face's own light and shade


def test_a_flat_picture_has_no_energy_and_a_tiny_one_no_band():
    flat = spectrum_statistics(np.full((32, 32, 3), 90, np.uint8))
    assert all(value == pytest.approx(math.log(0.01)) for value in flat.values())
    tiny = spectrum_statistics(np.random.default_rng(0).integers(0, 255, (6, 6, 3)).astype(np.uint8))
    assert any(math.isnan(value) for value in tiny.values()) and tiny.keys() == flat.keys()


def test_the_residual_of_white_noise_is_known():
    noise = np.random.default_rng(0).normal(128, 20, (256, 256, 3)).round().astype(np.uint8)
    found = residual_statistics(noise)
    # second differences both ways, over 4: the variance grows by (1 + 4 + 1)^2 / 16, and a Gaussian stays one
    assert math.exp(found["residual_variance_red"]) == pytest.approx(400 * 36 / 16, rel=0.03)
    assert math.exp(found["residual_kurtosis_blue"]) == pytest.approx(3, rel=0.06)
    assert abs(found["residual_correlation_red_green"]) < 0.03
    same = residual_statistics(grey(noise[..., 0]))
    assert same["residual_correlation_red_green"] == pytest.approx(1, abs=1e-3)
    assert all(math.isnan(value) for value in residual_statistics(noise[:2]).values())


def test_steps_of_a_compression_are_found():
    rng = np.random.default_rng(0)
    from scipy import fft

    coefficients = (rng.normal(0, 12, (64, 8, 8)) / 6).round() * 6
    coefficients[:, 0, 0] = 1024
    blocks = fft.idctn(coefficients, axes=(1, 2), norm="ortho")
    pixels = blocks.reshape(8, 8, 8, 8).swapaxes(1, 2).reshape(64, 64)
    found = grid_statistics(pixels)
    assert found["quantisation_low_6"] == pytest.approx(1) and found["quantisation_low_3"] == pytest.approx(1)
    assert found["quantisation_low_8"] < 0.5 and found["quantisation_low_5"] < 0.5


def test_edges_of_blocks_are_found_where_they_are():
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.normal(128, 30, (9, 9)), np.ones((8, 8))) + rng.normal(0, 1, (72, 72))
    on, off = grid_statistics(blocks[:64, :64]), grid_statistics(blocks[3:67, 3:67])
    assert on["block_edges"] > 2 > 0 > on["block_edges_shifted"]
    assert off["block_edges_shifted"] > 2 > 0 > off["block_edges"]


def test_the_file_speaks_of_format_size_and_quality(file, tmp_path):
    found = low_level_statistics(file)
    assert (found["format_jpeg"], found["format_png"], found["mode_rgb"]) == (1, 0, 1)
    assert math.exp(found["width"]) == pytest.approx(64) and found["colour_subsampling"] == 2
    finer = tmp_path / "b.jpg"
    finer.write_bytes(jpeg(reopened(file.read_bytes()), 95))
    assert low_level_statistics(finer)["quantisation_luma"] < found["quantisation_luma"]
    other = tmp_path / "c.png"
    other.write_bytes(png(reopened(file.read_bytes()).convert("L")))
    lossless = low_level_statistics(other)
    assert (lossless["format_png"], lossless["mode_grey"], lossless["quantisation_luma"]) == (1, 1, 0)


def test_metadata_is_not_read(file, tmp_path):
    data, text = file.read_bytes(), b"synthetic: true"
    comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
    (tmp_path / "b.jpg").write_bytes(data[:2] + comment + data[2:])
    assert Image.open(tmp_path / "b.jpg").info["comment"] == text
    assert low_level_statistics(tmp_path / "b.jpg") == low_level_statistics(file)


def test_at_a_size_only_pixels_speak(file):
    found = low_level_statistics(file, 32)
    assert not any(is_of_file(name) or name.startswith(("block", "quantisation")) for name in found)
    assert statistics_at(file, [None, 32])[32] == found
    assert {describe(name) for name in low_level_statistics(file)}.isdisjoint({""})
    assert len({describe(name) for name in low_level_statistics(file)}) == len(low_level_statistics(file))


def test_a_drawn_picture_counts_as_png():
    found = low_level_statistics(picture(np.random.default_rng(1)))
    assert found["format_png"] == 1 and found["mode_rgb"] == 1


def test_a_turned_photograph_keeps_its_grid(tmp_path):
    """60 pixels are no whole number of blocks: seen upright the grid would lie elsewhere."""
    image = reopened(jpeg(picture(np.random.default_rng(2), size=96).crop((0, 0, 92, 60)), 20))
    image.save(tmp_path / "a.jpg", quality=20)
    exif = Image.Exif()
    exif[274] = 3
    image.save(tmp_path / "b.jpg", quality=20, exif=exif)
    plain, turned = (low_level_statistics(tmp_path / name) for name in ("a.jpg", "b.jpg"))
    assert plain["block_edges"] == turned["block_edges"] > plain["block_edges_shifted"]


def test_of_a_large_picture_the_middle_is_read():
    large = picture(np.random.default_rng(3), size=MAX_EDGE_PX + 88)
    middle = large.crop((40, 40, MAX_EDGE_PX + 40, MAX_EDGE_PX + 40))
    whole, part = low_level_statistics(large), low_level_statistics(middle)
    assert {k: v for k, v in whole.items() if k not in ("width", "height")} == {
        k: v for k, v in part.items() if k not in ("width", "height")
    }


def test_in_a_photograph_the_face_is_looked_at(tmp_path):
    face = picture(np.random.default_rng(4))
    photo = Image.new("RGB", (200, 160), "red")
    photo.paste(face, (48, 24))
    photo.save(tmp_path / "whole.png")
    face.save(tmp_path / "face.png")
    box = (48, 24, 112, 88)
    found = statistics_at(tmp_path / "whole.png", [None, 32], box)
    alone = statistics_at(tmp_path / "face.png", [None, 32])
    assert found[32] == alone[32]
    assert found[None] == alone[None] | {name: found[None][name] for name in ("width", "height")}
    assert math.exp(found[None]["width"]) == pytest.approx(200)
    # a box that reaches beyond the picture ends at its edge, one that misses it is no box
    assert statistics_at(tmp_path / "face.png", [32], (-9, -9, 80, 80)) == statistics_at(tmp_path / "face.png", [32])
    assert statistics_at(tmp_path / "face.png", [32], (70, 0, 90, 20)) == statistics_at(tmp_path / "face.png", [32])


def test_a_file_that_is_not_written_yet_is_read_like_one(file):
    assert low_level_statistics(Encoded(file.read_bytes(), ".jpg")) == low_level_statistics(file)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ImageError, match=r"a\.jpg is not a picture"):
        low_level_statistics(tmp_path / "a.jpg")
