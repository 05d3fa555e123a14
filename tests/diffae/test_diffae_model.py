"""The model against plain re-computation, and the laws it must obey."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from vlbias.checkpoints import load_tensors, save_tensors
from vlbias.diffae import DiffAE, seeded_noise
from vlbias.diffae.betas import betas
from vlbias.diffae.blocks import AttentionBlock, ResBlock, timestep_features
from vlbias.errors import CheckpointError, ConfigError, ShapeError, UnknownNameError
from vlbias.images import to_float


def test_residual_block_is_equation_9():
    torch.manual_seed(0)
    block = ResBlock(8, 12, num_groups=4, embed_channels=6)
    torch.nn.init.normal_(block.conv_out.weight)
    x, time, semantic = torch.randn(2, 8, 4, 4), torch.randn(2, 6), torch.randn(2, 6)
    h = block.conv_in(F.silu(block.norm_in(x)))
    t_s, t_b = (block.time.weight @ time.T).T.add(block.time.bias).chunk(2, dim=1)
    z_s = (block.semantic.weight @ semantic.T).T + block.semantic.bias
    h = (1 + z_s)[..., None, None] * ((1 + t_s)[..., None, None] * block.norm_out(h) + t_b[..., None, None])
    torch.testing.assert_close(block(x, time, semantic), block.skip(x) + block.conv_out(F.silu(h)))


def test_attention_is_softmax_of_scaled_products():
    torch.manual_seed(0)
    block = AttentionBlock(8, num_heads=2, num_groups=4)
    torch.nn.init.normal_(block.out.weight)
    x = torch.randn(1, 8, 3, 3)
    h = block.qkv(block.norm(x).flatten(2).transpose(1, 2))[0]  # (9, 24)
    heads = []
    for g in range(2):
        q, k, v = h[:, 12 * g : 12 * g + 12].split(4, dim=1)
        heads.append(torch.softmax(q @ k.T / math.sqrt(4), dim=1) @ v)
    expected = x + block.out(torch.cat(heads, dim=1)).T.reshape(1, 8, 3, 3)
    torch.testing.assert_close(block(x), expected)


def test_timestep_features():
    out = timestep_features(torch.tensor([0, 3]), 4)
    expected = [[1, 1, 0, 0], [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]]
    torch.testing.assert_close(out, torch.tensor(expected))


def test_betas():
    assert betas("linear", 1000)[[0, -1]].tolist() == pytest.approx([1e-4, 2e-2])
    assert betas("const0.008", 1000).unique().tolist() == pytest.approx([0.008])
    assert (betas("cosine", 100).diff() > 0).all()
    usual, larger = (torch.cumprod(1 - betas(name, 1000), 0) for name in ("linear", "linear/2"))
    torch.testing.assert_close(usual / (1 - usual), 4 * larger / (1 - larger))  # signal-to-noise in power
    with pytest.raises(ConfigError, match="must be linear, cosine or const"):
        betas("sigmoid", 10)
    with pytest.raises(ConfigError, match=r"outside \(0, 1\)"):
        betas("const0.5", 10)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_predictions_agree(tiny_config, make_model, prediction_type):
    """x_t = signal x_0 + noise eps holds between the two readings of one output."""
    model = make_model(dataclasses.replace(tiny_config, prediction_type=prediction_type))
    x_t, t, z_sem = torch.randn(2, 3, 16, 16), torch.tensor([100, 900]), torch.randn(2, 16)
    eps, x_0 = model.predict_noise(x_t, t, z_sem), model.predict_x0(x_t, t, z_sem)
    torch.testing.assert_close(model.add_noise(x_0, eps, t), x_t, atol=1e-4, rtol=1e-4)


VARIANTS = {
    "published": {},
    "patched": {"patch_size": 2, "enc_patch_size": 4, "enc_model_channels": 12, "enc_channel_mult": (1, 1)},
    "flat code and map": {"enc_pool": "flatten", "semantic_map": True, "prediction_type": "v_prediction"},
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS.keys())
def test_save_and_load_agree(tiny_config, tiny_prior, make_model, tmp_path, change):
    model = make_model(dataclasses.replace(tiny_config, prior=tiny_prior, **change))
    model.z_mean.normal_()
    model.save_pretrained(tmp_path, dtype=None)
    loaded = DiffAE.from_pretrained(tmp_path)
    assert loaded.config == model.config and not loaded.training
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "prior.safetensors",
    ]
    x, z = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 16)
    assert torch.equal(loaded.encode(x), model.encode(x))
    assert torch.equal(loaded.decode(z, x, 3), model.decode(z, x, 3))
    assert torch.equal(loaded.prior.sample(z, 3), model.prior.sample(z, 3))
    assert torch.equal(loaded.normalize(z), model.normalize(z))


def test_half_precision_folder(tiny_config, make_model, tmp_path):
    model = make_model(tiny_config)
    model.save_pretrained(tmp_path)
    loaded = DiffAE.from_pretrained(tmp_path)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(loaded.encode(x), model.encode(x), atol=1e-2, rtol=1e-2)


def test_batch_of_n_is_n_batches_of_one(tiny_config, make_model):
    # In float64, so that no rounding of a processor's kernels hides what one item does to another.
    model, exact = make_model(tiny_config).double(), {"atol": 1e-9, "rtol": 0}
    x_0, x_T = torch.rand(3, 3, 16, 16).double() * 2 - 1, seeded_noise([4, 5, 6], (3, 16, 16)).double()
    z_sem = model.encode(x_0)
    whole = model.decode(z_sem, model.invert(x_0, z_sem, 4), 4), model.decode(z_sem, x_T, 4)
    for i in range(3):
        z = model.encode(x_0[i : i + 1])
        torch.testing.assert_close(z, z_sem[i : i + 1], **exact)
        round_trip = model.decode(z, model.invert(x_0[i : i + 1], z, 4), 4)
        torch.testing.assert_close(round_trip, whole[0][i : i + 1], **exact)
        torch.testing.assert_close(model.decode(z, x_T[i : i + 1], 4), whole[1][i : i + 1], **exact)


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_evaluations_are_counted_and_output_is_limited(tiny_config, make_model, solver):
    model = make_model(tiny_config)
    x_0 = torch.rand(2, 3, 16, 16) * 2 - 1
    z_sem = model.encode(x_0)
    assert model.evaluations == 0
    x_T = model.invert(x_0, z_sem, 5, solver)
    out = model.decode(z_sem, x_T, 6, solver)
    assert model.evaluations == 2 * (5 + 6)
    assert out.abs().max() <= 1 and torch.isfinite(out).all()


@pytest.mark.parametrize(("solver", "steps"), [("ddim", 30), ("dpm++2m", 30)])
def test_invert_then_decode_returns_the_image(tiny_config, make_model, solver, steps):
    """With many steps both directions follow one ODE; the bound is loose for a network of random weights."""
    config = dataclasses.replace(tiny_config, prediction_type="v_prediction", clip_denoised=False)
    model = make_model(config)
    x_0 = torch.rand(1, 3, 16, 16) - 0.5
    z_sem = model.encode(x_0)

    def error(steps):
        return (model.decode(z_sem, model.invert(x_0, z_sem, steps, solver), steps, solver) - x_0).abs().mean().item()

    assert error(steps) < 0.1 < error(5)


def test_gradients_reach_the_code_through_the_last_steps(tiny_config, make_model):
    model = make_model(tiny_config)
    z_sem = torch.randn(1, 16, requires_grad=True)
    x_T = torch.randn(1, 3, 16, 16)
    assert not model.decode(z_sem, x_T, 3).requires_grad
    model.decode(z_sem, x_T, 3, grad_steps=1).sum().backward()
    assert z_sem.grad is not None and z_sem.grad.abs().sum() > 0


def test_normalization(tiny_config, tiny_images, make_model):
    model = make_model(tiny_config)
    model.fit_normalization(tiny_images, batch_size=5)
    z = model.normalize(model.encode(to_float(tiny_images)))
    torch.testing.assert_close(z.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.denormalize(z), model.encode(to_float(tiny_images)), atol=1e-4, rtol=1e-4)


def test_seeded_noise_depends_on_its_seed_alone():
    both = seeded_noise([7, 8], (3, 4, 4))
    assert torch.equal(both[1:], seeded_noise([8], (3, 4, 4)))
    assert not torch.equal(both[0], both[1])
    assert seeded_noise([], (3, 4, 4)).shape == (0, 3, 4, 4)


def test_wrong_input(tiny_config, make_model):
    model = make_model(tiny_config)
    x, z = torch.zeros(2, 3, 16, 16), torch.zeros(2, 16)
    with pytest.raises(ShapeError, match=r"`x_0` must be \(b, 3, 16, 16\); got \(2, 3, 8, 8\)"):
        model.encode(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ShapeError, match="must be floating point"):
        model.encode(x.to(torch.uint8))
    with pytest.raises(ShapeError, match=r"`z_sem` must be \(b, 16\); got \(2, 4\)"):
        model.decode(z[:, :4], x)
    with pytest.raises(ShapeError, match="1 rows for 2 images"):
        model.invert(x, z[:1])
    with pytest.raises(UnknownNameError, match=r"(?s)Unknown solver 'ddpm'.*dpm\+\+2m"):
        model.decode(z, x, solver="ddpm")
    with pytest.raises(ConfigError, match=r"`num_steps` must be in 1\.\.1000; got 0"):
        model.decode(z, x, num_steps=0)


def test_damaged_folders(tiny_config, make_model, tmp_path):
    with pytest.raises(CheckpointError, match="config.json is missing"):
        DiffAE.from_pretrained(tmp_path)
    model = make_model(tiny_config)
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    data = weights.read_bytes()
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        DiffAE.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "text", ["[]", "null", "3", '"x"', "{", '{"T": 1e9}', '{"T": null}', '{"prior": 3}', '{"channel_mult": {}}']
)
def test_a_config_of_other_kinds_is_a_sentence(tiny_config, make_model, tmp_path, text):
    make_model(tiny_config).save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        DiffAE.from_pretrained(tmp_path)


def test_weights_that_are_whole_numbers_or_nan_are_named(tiny_config, make_model, tmp_path):
    make_model(tiny_config).save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    tensors = load_tensors(tmp_path / "model.safetensors")
    save_tensors(tmp_path / "model.safetensors", tensors | {"unet.norm.bias": tensors["unet.norm.bias"].int()})
    with pytest.raises(CheckpointError, match="'unet.norm.bias' in .* is of torch.int32"):
        DiffAE.from_pretrained(tmp_path)
    save_tensors(tmp_path / "model.safetensors", tensors | {"unet.norm.bias": tensors["unet.norm.bias"] / 0})
    with pytest.raises(CheckpointError, match="'unet.norm.bias' in .*model.safetensors contains NaN"):
        DiffAE.from_pretrained(tmp_path)
    save_tensors(tmp_path / "model.safetensors", tensors, torch.float64)
    assert {value.dtype for value in DiffAE.from_pretrained(tmp_path).state_dict().values()} == {torch.float32}


def test_keys_that_do_not_fit_are_all_listed(tiny_config, make_model):
    state = dict(make_model(tiny_config).state_dict())
    state["extra"] = torch.zeros(2)
    del state["z_mean"]
    state["unet.out.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as caught:
        DiffAE.from_state(tiny_config, state, source="here")
    assert "here does not fit its architecture, 3 keys" in str(caught.value)
    for text in ("unexpected: extra (2,)", "missing: z_mean (1, 16)", "mis-shaped: unet.out.bias is (7,)"):
        assert text in str(caught.value)
