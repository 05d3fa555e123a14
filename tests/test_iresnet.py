"""The residual networks of ArcFace: the published names and sizes, files of weights, errors."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from vlbias.classify import create_backbone
from vlbias.errors import CheckpointError, ConfigError
from vlbias.iresnet import iresnet
from vlbias.networks import load_network
from vlbias.search.spaces import Configuration, space
from vlbias.search.trainer import Embedder

#: Millions of parameters of the published networks at 112 px, buffers not counted.
SIZES = {"iresnet18": 24.03, "iresnet34": 34.14, "iresnet50": 43.59, "iresnet100": 65.16}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name):
    with torch.device("meta"):
        model = iresnet(name)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == SIZES[name]


def test_names_are_the_published_ones():
    with torch.device("meta"):
        names = set(iresnet("iresnet50").state_dict())
    # one of each kind, as in the files of InsightFace
    expected = [
        "conv1.weight",
        "bn1.running_mean",
        "prelu.weight",
        "layer1.0.bn1.weight",
        "layer1.0.downsample.0.weight",
    ]
    expected += ["layer3.13.bn3.bias", "layer4.2.prelu.weight", "bn2.weight", "fc.bias", "features.running_var"]
    assert set(expected) <= names and "layer3.14.conv1.weight" not in names
    assert not any(name.startswith("head") for name in names)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "r18.safetensors"
    torch.manual_seed(0)
    save_file(iresnet("iresnet18", 32).state_dict(), path)
    return path


def test_a_file_of_weights_as_backbone_and_as_embedder(file):
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    backbone = create_backbone("iresnet18", 0, image_size=32, pretrained_file=str(file)).eval()
    expected = iresnet("iresnet18", 32)
    expected.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(backbone(x), expected.eval()(x))
    assert create_backbone("iresnet18", 5, image_size=32, pretrained_file=str(file)).eval()(x).shape == (2, 5)
    chosen = space(["iresnet18"], ["cosface"], ["adamw"], embedding_size=16, pretrained={"iresnet18": str(file)})
    embedder = Embedder(Configuration("iresnet18", "cosface", "adamw", 1e-3), chosen, 32)
    torch.testing.assert_close(embedder.backbone.state_dict()["fc.weight"], backbone.state_dict()["fc.weight"])


def test_the_published_size_as_a_network_on_faces(tmp_path):
    path = tmp_path / "r18.safetensors"
    save_file(iresnet("iresnet18").state_dict(), path)
    path.with_suffix(".json").write_text(json.dumps({"architecture": "iresnet18", "size": 112}))
    network = load_network(path, needs=("embedding",))
    assert network.input.layout == "arcface"
    assert network.embeddings(torch.zeros(1, 3, 112, 112), layout="arcface").shape == (1, 512)


def test_what_does_not_fit(file):
    with pytest.raises(CheckpointError, match="iresnet34"):
        create_backbone("iresnet34", 0, image_size=32, pretrained_file=str(file))
    with pytest.raises(ConfigError, match="a multiple of 16 pixels; got 40"):
        create_backbone("iresnet18", 0, image_size=40)
    with pytest.raises(ConfigError, match="'iresnet18' has no options"):
        create_backbone("iresnet18", 0, options={"depth": 3})
