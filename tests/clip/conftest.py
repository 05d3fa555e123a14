"""A tiny CLIP and tiny captioned pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from vlbias.clip import Augmentation, CaptionTemplates, ClipConfig, ClipTrainingSettings, TableCaptions, train_clip

# Plain re-computations that several test folders share.
sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


@pytest.fixture(scope="session")
def tiny_config() -> ClipConfig:
    return ClipConfig(
        embed_dim=16, image_size=32, vision_width=4, text_layers=1, text_width=16, text_heads=2, context_length=16
    )


@pytest.fixture(scope="session")
def coloured() -> tuple[torch.Tensor, pd.DataFrame]:
    """60 noisy pictures of one colour each, a third of them with a white bar, and their table."""
    generator = torch.Generator().manual_seed(0)
    pictures, rows = [], []
    for i in range(60):
        colour, bar = list(COLOURS)[i % 3], (i // 3) % 2
        picture = torch.tensor(COLOURS[colour]).view(3, 1, 1) + torch.randint(-25, 25, (3, 32, 32), generator=generator)
        if bar:
            picture[:, 12:20] = 230
        pictures.append(picture.clamp(0, 255).to(torch.uint8))
        rows.append({"colour": colour, "bar": bar})
    return torch.stack(pictures), pd.DataFrame(rows)


@pytest.fixture(scope="session")
def templates() -> CaptionTemplates:
    return CaptionTemplates(
        adjectives={"colour": {name: (name,) for name in COLOURS}},
        tails={"bar": {1: ("with a bar",), 0: ("without a bar",)}},
        mention=0.7,
        openings=("a photo of", ""),
        default_nouns=("square",),
    )


@pytest.fixture(scope="session")
def tiny_clip(coloured, templates, tiny_config):
    """Trained for a few seconds: it knows colours."""
    images, table = coloured
    still = Augmentation(shift=0.0)
    training = ClipTrainingSettings(
        num_images=1200, batch_size=15, learning_rate=3e-3, augmentation=still, text_steps=100, seed=1
    )
    return train_clip(images, TableCaptions(templates, table), tiny_config, training)


@pytest.fixture(scope="session")
def tiny_architecture(tmp_path_factory) -> str:
    """A small architecture in open_clip's list, with open_clip's own tokenizer."""
    import json

    import open_clip

    folder = tmp_path_factory.mktemp("architectures")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    (folder / "RN-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "RN-tiny.json")
    return "RN-tiny"
