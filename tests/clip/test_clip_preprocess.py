"""Preprocessing against open_clip's own transform on Pillow images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from vlbias.clip import Preprocess
from vlbias.errors import ConfigError


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize(("height", "width"), [(90, 60), (40, 50), (48, 48)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_same_as_open_clip(resize_mode, height, width, interpolation):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    picture = small.resize((width, height), Image.Resampling.BICUBIC)  # smooth, as photographs are
    cfg = PreprocessCfg(size=48, interpolation=interpolation, resize_mode=resize_mode)
    want = image_transform_v2(cfg, is_train=False)(picture)
    ours = Preprocess(size=(48, 48), interpolation=interpolation, resize_mode=resize_mode)
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    got = ours(x)[0]
    # Pillow rounds to 8 bits and clamps overshoot after each pass; one grey level is 0.015 here.
    difference = (got - want).abs()
    assert got.shape == want.shape
    assert difference.mean() < 0.01
    assert difference.quantile(0.99) < 0.06


def test_config_round_trip_and_open_clip_defaults():
    preprocess = Preprocess(size=(64, 32), mean=(0.5, 0.5, 0.5), std=(0.2, 0.3, 0.4), interpolation="bilinear")
    assert Preprocess.from_config(preprocess.to_config()) == preprocess
    assert Preprocess.from_config({"size": 224, "mode": "RGB"}) == Preprocess()
    assert Preprocess.from_config({"interpolation": "random"}).interpolation == "bicubic"


def test_bad_settings():
    with pytest.raises(ConfigError, match="`interpolation` of Preprocess must be one of bicubic, bilinear"):
        Preprocess(interpolation="nearest")
    with pytest.raises(ConfigError, match="`std` of Preprocess must be a list in which each entry is a number in"):
        Preprocess(std=(0.1, 0.0, 0.1))
    with pytest.raises(ConfigError, match="`size` of Preprocess must be a list in which each entry is a whole number"):
        Preprocess(size=(0, 1))
    with pytest.raises(ConfigError, match="`resize_mode` of Preprocess must be one of"):
        Preprocess(resize_mode="stretch")
