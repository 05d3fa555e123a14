"""The loaded CLIP: features, text embeddings, zero-shot probabilities, folders."""

from __future__ import annotations

import json
import math

import open_clip
import pytest
import torch
import torch.nn.functional as F

from vlbias.clip import Clip, Preprocess, create, load
from vlbias.errors import CheckpointError, CheckpointNotFoundError, ConfigError, ShapeError, UnknownNameError


def as_float(images):
    return images.float() / 127.5 - 1


def test_features_are_unit_and_batches_agree(tiny_clip, coloured):
    x = as_float(coloured[0][:6])
    whole = tiny_clip.encode_image(x)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(6), atol=1e-5, rtol=0)
    single = torch.cat([tiny_clip.encode_image(row[None]) for row in x])
    torch.testing.assert_close(whole, single, atol=1e-5, rtol=0)


def test_weights_are_frozen_and_gradients_reach_images_of_any_size(tiny_clip):
    assert not tiny_clip.training
    assert not any(p.requires_grad for p in tiny_clip.parameters())
    x = torch.rand(2, 3, 50, 41).mul(2).sub(1).requires_grad_()
    tiny_clip.encode_image(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_zero_shot_knows_colours(tiny_clip, coloured):
    images, table = coloured
    classes = {c: f"a photo of a {c} square" for c in ("red", "green", "blue")}
    probabilities = tiny_clip.zero_shot(as_float(images), classes)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(60))
    predicted = [list(classes)[i] for i in probabilities.argmax(dim=1)]
    assert sum(p == c for p, c in zip(predicted, table["colour"], strict=True)) >= 57


def test_zero_shot_is_softmax_of_scaled_cosines(tiny_clip, coloured):
    x = as_float(coloured[0][:3])
    classes = {"a": "a red square", "b": ["a blue square", "a green square"]}
    got = tiny_clip.zero_shot(x, classes, temperature=0.5)
    for i, image in enumerate(tiny_clip.encode_image(x)):
        scores = []
        for prompts in classes.values():
            texts = [prompts] if isinstance(prompts, str) else prompts
            mean = torch.stack([tiny_clip.encode_text([t])[0] for t in texts]).mean(0)
            scores.append(math.exp(float(image @ (mean / mean.norm())) / 0.5))
        torch.testing.assert_close(got[i], torch.tensor(scores) / sum(scores), atol=1e-5, rtol=0)


def test_text_embedding_is_kept_and_templates_are_averaged(tiny_clip):
    one = tiny_clip.text_embedding("a red square")
    assert tiny_clip.text_embedding("a red square") is one
    filled = tiny_clip.text_embedding("red", templates=["a {} square", "a photo of a {} square"])
    mean = tiny_clip.encode_text(["a red square", "a photo of a red square"]).mean(dim=0)
    torch.testing.assert_close(filled, F.normalize(mean, dim=0))


def test_any_text_can_be_encoded(tiny_clip):
    features = tiny_clip.encode_text(["Zebra crossing, 東京!", "red " * 200])
    assert torch.isfinite(features).all()


def test_saved_folder_is_read_by_us_and_by_open_clip(tiny_clip, coloured, tmp_path):
    tiny_clip.save_pretrained(tmp_path, dtype=torch.float32)
    x, texts = as_float(coloured[0][:4]), ["a red square", "a zebra"]
    again = load(tmp_path)
    torch.testing.assert_close(again.encode_image(x), tiny_clip.encode_image(x))
    torch.testing.assert_close(again.encode_text(texts), tiny_clip.encode_text(texts))
    assert again.preprocess == tiny_clip.preprocess
    foreign = open_clip.create_model(f"local-dir:{tmp_path}", require_pretrained=True).eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}", bpe_path=str(tmp_path / "bpe_merges.txt.gz"))
    torch.testing.assert_close(F.normalize(foreign.encode_text(tokenizer(texts)), dim=-1), tiny_clip.encode_text(texts))
    again.save_pretrained(tmp_path / "twice", dtype=torch.float32)
    for name in ("open_clip_config.json", "open_clip_model.safetensors", "bpe_merges.txt.gz"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_half_precision_folder_changes_little(tiny_clip, coloured, tmp_path):
    tiny_clip.save_pretrained(tmp_path)
    x = as_float(coloured[0][:4])
    similarity = F.cosine_similarity(load(tmp_path).encode_image(x), tiny_clip.encode_image(x))
    assert similarity.min() > 0.999  # half precision keeps 11 bits


def test_architecture_of_open_clip_loads_from_a_local_file(tmp_path, tiny_architecture):
    torch.manual_seed(0)
    model = open_clip.create_model(tiny_architecture)
    file = tmp_path / "weights.pt"
    torch.save(model.state_dict(), file)
    clip = load(tiny_architecture, pretrained=file)
    assert clip.preprocess == Preprocess(size=(32, 32))
    assert clip.name == "RN-tiny/weights.pt"
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    want = F.normalize(model.eval().encode_image(clip.preprocess(x)), dim=-1)
    torch.testing.assert_close(clip.encode_image(x), want, atol=1e-5, rtol=1e-4)
    clip.save_pretrained(tmp_path / "folder", dtype=torch.float32)
    again = load(tmp_path / "folder")
    torch.testing.assert_close(again.encode_text(["a face"]), clip.encode_text(["a face"]))


def test_missing_weights_are_errors_that_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(CheckpointNotFoundError, match="ViT-B-32 needs weights: pass `pretrained=`.*laion2b_s34b_b79k"):
        load("ViT-B-32")
    with pytest.raises(CheckpointNotFoundError) as caught:
        load("ViT-B-32", pretrained="laion2b_s34b_b79k", cache_dir=tmp_path)
    for part in ("laion2b_s34b_b79k", str(tmp_path), "download=True", "local file"):
        assert part in str(caught.value)
    with pytest.raises(UnknownNameError, match="laion2b_s34b_b79"):
        load("ViT-B-32", pretrained="laion2b_s34b_b7")
    with pytest.raises(CheckpointNotFoundError, match="takes its tokenizer from the hub. Pass download=True"):
        load("roberta-ViT-B-32", pretrained=tmp_path / "weights.pt")
    with pytest.raises(CheckpointNotFoundError, match="No CLIP 'ViT-B-33'.*Near architectures.*ViT-B-32"):
        load("ViT-B-33")


def test_damaged_and_foreign_folders(tiny_clip, tmp_path):
    with pytest.raises(CheckpointError, match="open_clip_config.json does not exist"):
        load(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"other": 1}))
    with pytest.raises(CheckpointError, match="is not a CLIP folder"):
        load(tmp_path)
    folder = tmp_path / "clip"
    tiny_clip.save_pretrained(folder)
    (folder / "manifest.json").unlink()  # it would notice every change
    weights = folder / "open_clip_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        load(folder)
    weights.unlink()
    with pytest.raises(CheckpointNotFoundError, match="has a config but no weights"):
        load(folder)
    weights.write_bytes(content)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 8
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit its architecture"):
        load(folder)
    config["model_cfg"]["embed_dim"] = 16
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "bpe_merges.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(CheckpointError, match="not a gzip file of byte-pair merges"):
        load(folder)


def test_wrong_weights_file_is_named(tmp_path, tiny_architecture):
    file = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match=r"Cannot load .*other\.pt as RN-tiny"):
        load(tiny_architecture, pretrained=file)


def test_bad_arguments(tiny_clip):
    x = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ConfigError, match="two or more classes"):
        tiny_clip.zero_shot(x, {"one": "a"})
    with pytest.raises(ConfigError, match="`temperature` must be positive"):
        tiny_clip.zero_shot(x, {"one": "a", "two": "b"}, temperature=0)
    with pytest.raises(ConfigError, match="at least one word"):
        tiny_clip.encode_text(["  "])
    with pytest.raises(ShapeError, match=r"`features` must be \(b, 16\)"):
        tiny_clip.classify_features(torch.zeros(1, 4), {"one": "a", "two": "b"})
    with pytest.raises(ShapeError, match=r"`x` must be floating images"):
        tiny_clip.encode_image(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ConfigError, match="no architecture config"):
        Clip(tiny_clip.model, tiny_clip.tokenizer, tiny_clip.preprocess).save_pretrained("nowhere")


def test_create_refuses_a_config_that_open_clip_does_not_know():
    config = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}, "custom_text": True, "depth": 3}
    with pytest.raises(ConfigError, match="`model_config` does not fit open_clip"):
        create(config, Preprocess())
