"""Published checkpoints: recorded tensors, the four manifests, and files that must be refused."""

import json
import sys
import types

import pytest
import torch
from doubles import people, run_command
from safetensors.torch import load_file

from vlbias import Editor, checkpoints
from vlbias.diffae import DiffAE, DiffAEConfig
from vlbias.diffae.published import PublishedCheckpoint, config_from_hyper_parameters, published_name
from vlbias.errors import CheckpointError, CheckpointNotFoundError, UnsafeCheckpointError

MANIFESTS = {
    "celeba64d2c_autoenc_latent": (64, 64, (1, 2, 4, 8), (1, 2, 4, 8, 8), True),
    "ffhq128_autoenc_latent": (128, 128, (1, 1, 2, 3, 4), (1, 1, 2, 3, 4, 4), True),
    "ffhq256_autoenc": (256, 128, (1, 1, 2, 2, 4, 4), (1, 1, 2, 2, 4, 4, 4), False),
    "ffhq256_autoenc_latent": (256, 128, (1, 1, 2, 2, 4, 4), (1, 1, 2, 2, 4, 4, 4), True),
}


def model_from_published(content, path):
    return DiffAE.from_published(PublishedCheckpoint.from_content(content, path))


# -- recorded tensors -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def recorded(shared_dir):
    folder = shared_dir / "parity" / "diffae_random_32px"
    return folder, load_file(folder / "expected.safetensors")


def test_recorded_tensors(recorded):
    folder, expected = recorded
    model = DiffAE.from_published(folder / "last.ckpt")

    def difference(value, name, relative=False):
        scale = expected[name].abs().max() if relative else 1
        return float((value - expected[name]).abs().max() / scale)

    z_sem = expected["z_sem"]
    assert difference(model.encode(expected["image"]), "z_sem") < 1e-5
    assert difference(model.predict_noise(expected["x_t"], expected["t"], z_sem), "eps_pred") < 5e-5
    assert difference(model.decode(z_sem, expected["x_T"], 10), "ddim10") < 5e-4
    assert difference(model.decode(z_sem, expected["x_T"], 20), "ddim20") < 5e-4
    inverted = model.invert(expected["image"], z_sem, 20)
    assert difference(inverted, "inverted20") < 5e-4
    assert difference(model.decode(z_sem, inverted, 20), "roundtrip20") < 1e-3
    assert difference(model.prior.predict_noise(expected["latent_noise"], expected["latent_t"]), "latent_eps") < 1e-5
    latent = model.prior.sample(expected["latent_noise"], 20)
    assert difference(latent, "latent20", relative=True) < 1e-4
    assert difference(model.denormalize(latent), "z_sampled20", relative=True) < 1e-4


def test_architecture_without_hyper_parameters(recorded):
    """The shapes alone give the same network."""
    folder, expected = recorded
    content = checkpoints.read_foreign_pickle(folder / "last.ckpt")
    told = model_from_published(content, folder / "last.ckpt")
    found = model_from_published({"state_dict": content["state_dict"]}, folder / "last.ckpt")
    assert torch.equal(told.encode(expected["image"]), found.encode(expected["image"]))
    args = expected["x_t"], expected["t"], expected["z_sem"]
    assert torch.equal(told.predict_noise(*args), found.predict_noise(*args))


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_build(shared_dir, name):
    shapes = json.loads((shared_dir / "parity" / f"{name}.state_dict_shapes.json").read_text())
    state = {k: torch.empty(v, device="meta") for k, v in shapes.items()}
    if "conds_mean" in state:
        model = model_from_published({"state_dict": state}, "last.ckpt")
    else:
        with pytest.warns(UserWarning, match="has no statistics of z_sem"):
            model = model_from_published({"state_dict": state}, "last.ckpt")
    c = model.config
    found = c.image_size, c.model_channels, c.channel_mult, c.enc_channel_mult, c.prior is not None
    assert found == MANIFESTS[name]
    assert (c.num_res_blocks, c.enc_num_res_blocks, c.attention_resolutions) == (2, 2, (16,))
    assert DiffAEConfig.from_dict(json.loads(json.dumps(c.to_dict()))) == c


# -- small copies of the layout ---------------------------------------------------------------------------------------
@pytest.fixture
def published(tiny_config, tiny_prior, make_model):
    """(our model, content of a checkpoint in the published layout)."""
    values = {**tiny_config.to_dict(), "prior": tiny_prior, "num_groups": 32, "model_channels": 32, "num_heads": 1}
    config = DiffAEConfig.from_dict(values)
    model = make_model(config)
    model.z_mean.normal_()
    state = {"x_T": torch.zeros(1, 3, 16, 16), "conds_mean": model.z_mean.clone(), "conds_std": model.z_std.clone()}
    for key, value in model.state_dict().items():
        if key in ("z_mean", "z_std"):
            continue
        name = published_name(key, config.prior.num_layers)
        if name.endswith(("qkv.weight", "proj_out.weight")):
            value = value[..., None]
        if name == "encoder.out.3.weight":
            value = value[..., None, None]
        for prefix in ("model.", "ema_model."):
            # the raw copy holds other numbers: loading it instead would be seen
            state[prefix + name] = value.clone() if prefix == "ema_model." else value + 1
            if ".linear_emb." in name:
                state[(prefix + name).replace("linear_emb", "cond_layers.1")] = state[prefix + name]
    return model, {"state_dict": state, "pytorch-lightning_version": "1.4.5"}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_small_copy_loads(published, tmp_path, monkeypatch):
    model, content = published
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    for i in range(1, 4):  # only while writing: the reader must do without
        name = ".".join(module.__name__.split(".")[:i])
        monkeypatch.setitem(sys.modules, name, module if i == 3 else types.ModuleType(name))
    content["callbacks"] = {module.ModelCheckpoint: {"best_model_path": ""}}
    torch.save(content, tmp_path / "last.ckpt")
    monkeypatch.undo()
    loaded = DiffAE.from_published(tmp_path / "last.ckpt")
    assert loaded.config.prior.num_layers == 3
    assert_same(loaded.state_dict(), model.state_dict())
    loaded.save_pretrained(tmp_path / "folder", dtype=None)
    assert_same(DiffAE.from_pretrained(tmp_path / "folder").state_dict(), model.state_dict())


def test_a_student_of_published_weights(published, tmp_path):
    model, content = published
    torch.save(content, tmp_path / "last.ckpt")
    run_command("train", "distill", tmp_path / "last.ckpt", people(tmp_path / "faces"), tmp_path / "out", "--steps", 1)
    renderer = Editor.from_pretrained(f"{tmp_path / 'out'}/").renderer
    assert renderer.student.edit_evaluations == 1 and renderer.license is None  # nobody knows it
    taught, own = renderer.student.model.unet.state_dict(), model.unet.state_dict()
    assert any(not torch.equal(taught[name], value.half().float()) for name, value in own.items())
    assert "treat it as research only" in (tmp_path / "out" / "README.md").read_text()


def test_half_precision_file(published, tmp_path):
    model, content = published
    content["state_dict"] = {k: v.half() for k, v in content["state_dict"].items()}
    torch.save(content, tmp_path / "last.ckpt")
    loaded = DiffAE.from_published(tmp_path / "last.ckpt")
    assert {v.dtype for v in loaded.state_dict().values()} == {torch.float32}
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(loaded.encode(x), model.encode(x), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", ["latent.pkl", "latent.ckpt"])
def test_statistics_beside_the_file(published, tmp_path, name):
    model, content = published
    mean, std = (content["state_dict"].pop(k) for k in ("conds_mean", "conds_std"))
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="no conds_mean / conds_std. Put its latent.pkl"):
        DiffAE.from_published(tmp_path / "last.ckpt")
    torch.save({"conds_mean": mean[0], "conds_std": std[0], "conds": torch.zeros(4, 16)}, tmp_path / name)
    assert_same(DiffAE.from_published(tmp_path / "last.ckpt").state_dict(), model.state_dict())
    torch.save({"conds_mean": mean[0, :3], "conds_std": std[0]}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"conds_mean in .* must hold 16 numbers; got \(3,\)"):
        DiffAE.from_published(tmp_path / "last.ckpt")


def test_without_prior(published, tmp_path):
    model, content = published
    state = {k: v for k, v in content["state_dict"].items() if "latent_net" not in k}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    loaded = DiffAE.from_published(tmp_path / "last.ckpt")
    assert loaded.prior is None
    assert torch.equal(loaded.z_mean, model.z_mean)


def test_all_wrong_keys_are_listed(published):
    _, content = published
    state = content["state_dict"]
    for prefix in ("model.", "ema_model."):
        state[prefix + "out.2.bias"] = torch.zeros(5)
        state[prefix + "surplus"] = torch.zeros(1)
        del state[prefix + "middle_block.0.cond_emb_layers.1.bias"]
    with pytest.raises(CheckpointError) as caught:
        model_from_published(content, "last.ckpt")
    message = str(caught.value)
    assert "3 keys" in message
    for text in (
        "unexpected: surplus (1,)",
        "missing: middle_block.0.cond_emb_layers.1.bias (64,)",
        "mis-shaped: out.2.bias is (5,), the architecture needs (3,)",
    ):
        assert text in message


def test_odd_state_dicts(published):
    _, content = published
    state = content["state_dict"]
    with pytest.raises(CheckpointError, match="no `state_dict`"):
        model_from_published({"weights": {}}, "last.ckpt")
    with pytest.raises(CheckpointError, match=r"no averaged weights \(ema_model"):
        model_from_published({"state_dict": {"model.a": torch.zeros(1)}}, "last.ckpt")
    with pytest.raises(CheckpointError, match="1 unexpected keys: optimizer"):
        model_from_published({"state_dict": {**state, "optimizer": torch.zeros(1)}}, "last.ckpt")
    with pytest.raises(CheckpointError, match="contains another network: a published DiffAE has time_embed"):
        model_from_published({"state_dict": {"ema_model.fc.weight": torch.zeros(3, 2)}}, "resnet.ckpt")
    with pytest.raises(CheckpointError, match=r"says nowhere how large .* \(no img_size, no x_T\)"):
        model_from_published({"state_dict": {k: v for k, v in state.items() if k != "x_T"}}, "last.ckpt")
    broken = {k: v for k, v in state.items() if k != "ema_model.out.0.bias"}
    with pytest.raises(CheckpointError, match=r"model\.\* against ema_model\.\*.*unexpected: out\.0\.bias"):
        model_from_published({"state_dict": broken}, "last.ckpt")
    state["ema_model.out.0.bias"] = state["ema_model.out.0.bias"] * float("nan")
    with pytest.raises(CheckpointError, match="'unet.norm.bias' in last.ckpt contains NaN"):
        model_from_published(content, "last.ckpt")


@pytest.mark.parametrize(
    "hyper",
    [
        {"img_size": "large"},
        {"img_size": [16]},
        {"img_size": float("inf")},
        {"img_size": 10**9},
        {"T": [], "img_size": 16.5},
        {"dropout": "much"},
        {"T": 10**9},
        {"beta_scheduler": 3},
        {"net_beatgans_attn_head": -1},
    ],
)
def test_odd_hyper_parameters_are_a_sentence(published, hyper):
    _, content = published
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        model_from_published(content | {"hyper_parameters": hyper}, "last.ckpt")


@pytest.mark.parametrize("hyper", [None, [], 3, {"net_ch": torch.zeros(3)}, {1: 2}])
def test_hyper_parameters_that_say_nothing_are_passed_over(published, hyper):
    model, content = published
    loaded = model_from_published(content | {"hyper_parameters": hyper}, "last.ckpt")
    assert_same(loaded.state_dict(), model.state_dict())


def test_unsupported_options_are_named():
    hyper = {
        "img_size": 32,
        "net_ch": 32,
        "net_ch_mult": (1, 2),
        "net_num_res_blocks": 2,
        "net_attn": (16,),
        "net_enc_channel_mult": (1, 2),
        "net_enc_num_res_blocks": 2,
        "net_beatgans_embed_channels": 64,
    }
    config = config_from_hyper_parameters(hyper, has_prior=False)
    assert config.channel_mult == (1, 2) and config.prior is None
    assert config_from_hyper_parameters({**hyper, "net_ch": None}, has_prior=False) is None
    with pytest.raises(CheckpointError, match=r"net_resblock_updown=False \(only True\)"):
        config_from_hyper_parameters({**hyper, "net_resblock_updown": False}, has_prior=False)


def test_files_that_are_refused(published, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "was-run"), "w"))

    _, content = published
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"last\.ckpt is not a complete torch\.save file"):
        DiffAE.from_published(path)
    torch.save({**content, "callbacks": Hostile()}, path)
    with pytest.raises(UnsafeCheckpointError, match="was refused"):
        DiffAE.from_published(path)
    assert not (tmp_path / "was-run").exists()
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        DiffAE.from_published(tmp_path / "nothing.ckpt")
