"""Networks of timm and classifiers of the library from local files."""

from __future__ import annotations

import json
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from vlbias.classify import Classifier, FitSettings, create_backbone
from vlbias.errors import CheckpointError, ConfigError, UnsafeCheckpointError
from vlbias.networks import load_network, of_classifier
from vlbias.paths.preservation import BackboneConstraint

NAME = "test_vit"  # timm's own network for tests


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=6, img_size=32, patch_size=8).eval()


@pytest.fixture
def pictures():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def expected(vit, x):
    with torch.no_grad():
        return vit(((x + 1) * 127.5).round().div(127.5).sub(1)).double()


def config(**changes):
    """As timm writes it."""
    return {
        "architecture": NAME,
        "num_classes": 6,
        "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "classifier": "head"},
        "model_args": {"img_size": 32, "patch_size": 8},
    } | changes


def test_a_config_of_half_a_network_is_a_sentence(tmp_path, pictures):
    """timm builds a ResNet of three stages, which it cannot run."""
    options = {"channels": [8, 8, 8], "stem_width": 8}
    state = timm.create_model("resnet10t", num_classes=2, **options).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    made = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": "resnet10t", "num_classes": 2, "model_args": options, "pretrained_cfg": made}
    (tmp_path / "config.json").write_text(json.dumps(config | {"label_names": ["a", "b"]}))
    with pytest.raises(CheckpointError, match="config does not describe a whole ResNet: .*layer4"):
        load_network(tmp_path).outputs(pictures, layout="ffhq")


def test_a_folder_of_timm(tmp_path, vit, pictures):
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config()))
    (tmp_path / "vlbias.json").write_text(json.dumps({"layout": None}))
    network = load_network(tmp_path, needs=("embedding",))
    assert torch.allclose(network.outputs(pictures, layout="ffhq"), expected(vit, pictures), atol=1e-5)
    (tmp_path / "vlbias.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config(label_names=list("abcdef"))))
    assert load_network(tmp_path).output.labels == tuple("abcdef")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_bare_weights_with_a_sidecar(tmp_path, vit, pictures, suffix):
    path = tmp_path / f"face{suffix}"
    if suffix == ".safetensors":
        save_file(vit.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in vit.state_dict().items()}}, path)
    about = {"architecture": NAME, "num_classes": 6, "model_args": {"img_size": 32, "patch_size": 8}, "size": 32}
    (tmp_path / "face.json").write_text(json.dumps(about | {"layout": None}))
    network = load_network(path)
    assert torch.allclose(network.outputs(pictures, layout="ffhq"), expected(vit, pictures), atol=1e-5)


def test_features_before_the_head(tmp_path, vit, pictures):
    save_file(vit.state_dict(), tmp_path / "face.safetensors")
    about = {"architecture": NAME, "model_args": {"img_size": 32, "patch_size": 8}, "size": 32, "layout": None}
    (tmp_path / "face.json").write_text(json.dumps(about))
    assert load_network(tmp_path / "face.safetensors").outputs(pictures, layout="ffhq").shape == (3, vit.num_features)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_pickles_do_not_run(tmp_path):
    torch.save({"head.weight": torch.zeros(2, 2), "bomb": Bomb()}, tmp_path / "face.pt")
    (tmp_path / "face.json").write_text(json.dumps({"architecture": NAME, "size": 32, "layout": None}))
    with pytest.raises(UnsafeCheckpointError, match="face.pt"):
        load_network(tmp_path / "face.pt")
    (tmp_path / "face.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="face.pt"):
        load_network(tmp_path / "face.pt")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, 'has only weights; say what they are in timm: "architecture"'),
        ({"architecture": NAME}, "say the edge of its pictures"),
        ({"architecture": "test_vut", "size": 32}, "Unknown backbone 'test_vut'. Near names in timm: .*test_vit"),
        ({"architecture": "hf_hub:some/where", "size": 32}, "Unknown backbone 'hf_hub:some/where'"),
        ({"architecture": NAME, "size": 32, "num_classes": "six"}, "`num_classes` must be a whole number"),
        (
            {"architecture": NAME, "size": 32, "model_args": {"checkpoint_path": "x.pt"}},
            "`checkpoint_path` of a network must be a number",
        ),
        ({"architecture": NAME, "size": 32, "model_args": {"pretrained": True}}, "`pretrained` of a network must be"),
        ({"architecture": NAME, "size": 32, "model_args": {"wings": 2}}, "cannot be built"),
    ],
)
def test_sidecars_that_say_too_little_or_too_much(tmp_path, vit, about, message):
    save_file(vit.state_dict(), tmp_path / "face.safetensors")
    (tmp_path / "face.json").write_text(json.dumps(about | {"layout": None}))
    with pytest.raises(ConfigError, match=message):
        load_network(tmp_path / "face.safetensors")


def test_weights_of_another_network(tmp_path):
    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "face.safetensors")
    (tmp_path / "face.json").write_text(json.dumps({"architecture": NAME, "size": 32, "layout": None}))
    with pytest.raises(CheckpointError, match=r"as test_vit does not fit its architecture, \d+ keys: missing"):
        load_network(tmp_path / "face.safetensors")
    with pytest.raises(CheckpointError, match="as timm:test_vit does not fit"):
        BackboneConstraint(f"timm:{NAME}", tmp_path / "face.safetensors")


def test_a_classifier_of_the_library(tmp_path, pictures):
    torch.manual_seed(3)
    settings = FitSettings(image_size=32)
    module = create_backbone(settings.backbone, 2, options=settings.resolved_options())
    classifier = Classifier(module, [0, 1.0], settings)
    classifier.save_pretrained(tmp_path / "smile")
    in_8_bits = ((pictures + 1) * 127.5).round().div(127.5).sub(1)
    wanted = classifier.predict_proba(in_8_bits).double()
    for network in (of_classifier(classifier, "smile"), load_network(tmp_path / "smile", needs=("classes",))):
        assert network.output.labels == ("0", "1") and network.name == "smile"
        assert torch.allclose(network.probabilities(pictures, layout="utkface"), wanted, atol=1e-5)
    assert of_classifier(classifier).digest == load_network(tmp_path / "smile").digest
    assert all(parameter.requires_grad for parameter in module.parameters())  # the user's own is left as it was
