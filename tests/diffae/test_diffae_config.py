"""Settings are checked once, completely, and survive JSON."""

import json

import pytest

from vlbias.diffae import DiffAEConfig, DiffAETrainingSettings, PriorConfig, PriorTrainingSettings
from vlbias.errors import ConfigError


def test_json_round_trip(tiny_config, tiny_prior):
    config = DiffAEConfig.from_dict({**tiny_config.to_dict(), "prior": tiny_prior.to_dict()})
    assert config.prior == tiny_prior
    assert DiffAEConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 20, "channel_mult": (1, 2, 2, 2)}, "must be a multiple of 8"),
        ({"enc_patch_size": 3}, "as the encoder asks"),
        ({"num_groups": 3}, "not multiples of `num_groups` 3"),
        ({"enc_model_channels": 10}, "of the encoder are not multiples"),
        ({"prediction_type": "sample"}, "must be one of epsilon, v_prediction; got 'sample'"),
        ({"enc_pool": "max"}, "must be one of average, flatten"),
        ({"num_res_blocks": 0}, r"`num_res_blocks` of DiffAEConfig must be a whole number in 1\.\.16; got 0"),
        ({"num_res_blocks": 10**6}, "in 1..16"),
        ({"image_size": 16.5}, "a whole number"),
        ({"image_size": True}, "a whole number"),
        ({"image_size": [16]}, "a whole number"),
        ({"image_size": None}, "a whole number"),
        ({"T": 10**9}, "`T` of DiffAEConfig"),
        ({"embed_channels": 10**9}, "`embed_channels`"),
        ({"dropout": 1.0}, r"must be a number in \[0, 1\)"),
        ({"dropout": float("nan")}, r"must be a number in \[0, 1\)"),
        ({"semantic_map": 1}, "true or false"),
        ({"channel_mult": ()}, "must have 1..16 levels"),
        ({"channel_mult": 3}, "must be a list"),
        ({"channel_mult": [1, "2"]}, "a list in which each entry is a whole number"),
        ({"beta_schedule": "const"}, "`beta_schedule` must be linear"),
        ({"beta_schedule": "linear/0"}, "`beta_schedule` must be linear"),
        ({"haar_stds": [1.0]}, "`haar_stds` must be two numbers, of means and of differences; got 1"),
        ({"haar_stds": [2.0, 0.0]}, "`haar_stds`"),
        ({"haar_stds": [2.0, 0.1]}, "wants v_prediction and an even `patch_size`; got epsilon and 1"),
        (
            {"haar_stds": [2.0, 0.1], "prediction_type": "v_prediction", "image_size": 64, "patch_size": 32},
            "patches of 1,024 numbers at most; 3 channels of 32 x 32 pixels are more",
        ),
        ({"width": 3}, "Unknown setting 'width' for DiffAEConfig"),
        ({"prior": {"layers": 3}}, "Unknown setting 'layers' for PriorConfig"),
        ({"prior": [1]}, "PriorConfig must be an object"),
        ({"prior": {"num_layers": 10**6}}, "`num_layers` of PriorConfig"),
    ],
)
def test_wrong_settings(tiny_config, change, message):
    with pytest.raises(ConfigError, match=message):
        DiffAEConfig.from_dict({**tiny_config.to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skip_layers": (0,)}, "must be in 1..9"),
        ({"time_channels": 5}, "must be even"),
        ({"dropout": -1}, "must be a number in"),
    ],
)
def test_wrong_prior_settings(change, message):
    with pytest.raises(ConfigError, match=message):
        PriorConfig(**change)


def test_wrong_training_settings():
    with pytest.raises(ConfigError, match="to know when to end"):
        DiffAETrainingSettings()
    with pytest.raises(ConfigError, match="`learning_rate` of DiffAETrainingSettings must be a number > 0; got 0"):
        DiffAETrainingSettings(max_images=10, learning_rate=0)
    with pytest.raises(ConfigError, match="`aux_weight` of DiffAETrainingSettings must be a number >= 0"):
        DiffAETrainingSettings(max_images=10, aux_weight=-1)
    with pytest.raises(ConfigError, match=r"`ema_decay` of DiffAETrainingSettings must be a number in 0\.\.1"):
        DiffAETrainingSettings(max_images=10, ema_decay=2)
    with pytest.raises(ConfigError, match="`num_steps` of PriorTrainingSettings must be a whole number >= 1"):
        PriorTrainingSettings(num_steps=0)
