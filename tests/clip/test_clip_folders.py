"""A CLIP folder from a stranger: it runs no code, asks no network, and takes no more memory than its weights."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from vlbias.checkpoints import load_tensors, save_tensors
from vlbias.clip import load
from vlbias.errors import CheckpointError, CheckpointNotFoundError

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


@pytest.fixture
def folder(tiny_clip, tmp_path):
    tiny_clip.save_pretrained(tmp_path / "clip", dtype=torch.float32)
    (tmp_path / "clip" / "manifest.json").unlink()  # it would notice every change
    return tmp_path / "clip"


def change(folder, part, **values):
    config = json.loads((folder / CONFIG).read_text())
    (config["model_cfg"] if part is None else config["model_cfg"][part]).update(values)
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        (
            "text_cfg",
            {"hf_tokenizer_name": "./x", "tokenizer_kwargs": {"trust_remote_code": True}},
            "hf_tokenizer_name",
        ),
        ("text_cfg", {"tokenizer_kwargs": {}}, "`tokenizer_kwargs` asks for more than weights"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "`hf_model_name` asks for more"),
        (None, {"multimodal_cfg": {}}, "`multimodal_cfg` asks for more"),
        ("vision_cfg", {"timm_model_name": "hf-hub:somebody/model"}, "must be an architecture of timm"),
        ("vision_cfg", {"timm_model_name": "local-dir:/tmp"}, "must be an architecture of timm"),
        ("vision_cfg", {"timm_model_name": "nothing_of_this_name"}, "Unknown model"),
        ("text_cfg", {"layers": 10_000}, r"`layers` of .*TextConfig must be a whole number in 1\.\.256"),
        ("text_cfg", {"layers": None}, "`layers` of"),
        ("text_cfg", {"width": 16_384, "heads": 4}, "does not fit its architecture"),
        ("text_cfg", {"vocab_size": 1_000_000}, "does not fit its architecture"),
        ("text_cfg", {"context_length": [3]}, "`context_length` of"),
        ("vision_cfg", {"image_size": 10**9}, "`image_size` of"),
        ("vision_cfg", {"layers": [1, 1]}, "`layers` of"),
        ("vision_cfg", {"head_width": 1024}, "`head_width` must fit into the width of the tower"),
        (None, {"embed_dim": None}, "`embed_dim` of"),
        (None, {"vision_cfg": None}, "must be an object"),
        (None, {"text_cfg": [1]}, "must be an object"),
        (None, {"depth": 3}, "Unknown setting 'depth'"),
    ],
)
def test_a_config_that_asks_for_more_than_numbers_is_refused(folder, part, values, said):
    change(folder, part, **values)
    with pytest.raises(CheckpointError, match=said) as failure:
        load(folder)
    assert str(folder) in str(failure.value)


@pytest.mark.parametrize(
    "value", [None, [], 3, "x", {"size": "a"}, {"size": [0, 1]}, {"std": [0, 0, 0]}, {"mean": [1]}]
)
def test_a_damaged_preprocessing_is_named_or_passed_over(folder, value):
    config = json.loads((folder / CONFIG).read_text())
    config["preprocess_cfg"] = value
    (folder / CONFIG).write_text(json.dumps(config))
    try:
        assert load(folder).preprocess.size == (32, 32)  # the tower knows its size best
    except CheckpointError as error:
        assert "`preprocess_cfg` is not understood" in str(error)


def test_a_key_missing_in_the_weights_is_named(folder):
    tensors = load_tensors(folder / WEIGHTS)
    for name in ("logit_scale", "text.ln_final.weight"):
        save_tensors(folder / WEIGHTS, {key: value for key, value in tensors.items() if key != name})
        with pytest.raises(CheckpointError, match=f"missing: {name}"):
            load(folder)


def test_weights_of_other_number_types(folder, tiny_clip):
    tensors = load_tensors(folder / WEIGHTS)
    save_tensors(folder / WEIGHTS, tensors, torch.float64)
    x = torch.zeros(1, 3, 32, 32)
    assert torch.equal(load(folder).encode_image(x), tiny_clip.encode_image(x))
    save_tensors(folder / WEIGHTS, tensors | {"text.ln_final.weight": torch.ones(16, dtype=torch.int64)})
    with pytest.raises(
        CheckpointError, match="'text.ln_final.weight' in .* is of torch.int64; torch.float32 is expected"
    ):
        load(folder)
    save_tensors(folder / WEIGHTS, tensors | {"logit_scale": torch.tensor(float("nan"))})
    with pytest.raises(CheckpointError, match="'logit_scale' in .* contains NaN or infinite values"):
        load(folder)


def test_weights_in_a_pickle_are_not_read(folder):
    (folder / WEIGHTS).rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointNotFoundError, match="has a config but no weights"):
        load(folder)


def test_merges_that_inflate_or_are_no_pairs_are_refused(folder):
    for content in (b"a b\n" * 4 * 2**20, b"#version\na b c\n"):
        (folder / "bpe_merges.txt.gz").write_bytes(gzip.compress(content))
        with pytest.raises(CheckpointError, match="does not have one pair of pieces on each line"):
            load(folder)
    (folder / "bpe_merges.txt.gz").unlink()
    with pytest.raises(CheckpointError, match="its tokenizer makes 49408"):
        load(folder)
