"""Training learns, stops when asked, and a killed run continues as if nothing had happened."""

import dataclasses
import json
import math
import multiprocessing
import os
import signal
import time

import pytest
import torch

from vlbias.augment import Augmentation
from vlbias.diffae import DiffAE, DiffAETrainingSettings, LatentPrior, PriorTrainingSettings, train_diffae, train_prior
from vlbias.diffae.evaluation import psnr, reconstruct
from vlbias.diffae.training import _Trainer
from vlbias.errors import ConfigError, ShapeError, TrainingError
from vlbias.images import to_float

SHORT = DiffAETrainingSettings(
    max_images=32, batch_size=4, warmup_images=8, eval_every=1000, save_every=16, log_every=16
)
LIGHT = Augmentation(turn=5.0, zoom=0.1, brightness=0.2, contrast=0.2)


def fresh(config, seed=0):
    torch.manual_seed(seed)
    return DiffAE(config)


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_learns(tiny_config, tiny_images, tmp_path):
    model = fresh(tiny_config)
    config = DiffAETrainingSettings(
        max_images=400, batch_size=8, warmup_images=40, learning_rate=5e-3, ema_decay=0.9, log_every=80
    )
    result = train_diffae(
        model, tiny_images, config, tmp_path, held_out=tiny_images[:2], probe=lambda m: {"probe": 1.0}
    )
    assert result.finished and result.images == 400
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["mse"] for line in lines if "mse" in line]
    assert losses[-1] < 0.7 * losses[0]
    assert lines[-1]["probe"] == 1.0 and math.isfinite(lines[-1]["psnr_roundtrip"])
    assert (tmp_path / "samples" / "00000400.png").stat().st_size > 0
    assert model.z_std.min() > 0 and not torch.equal(model.z_std, torch.ones(1, 16))
    saved = DiffAE.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(saved.z_mean, model.z_mean)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_loss_is_what_the_papers_say(tiny_config, tiny_images, tmp_path, prediction_type):
    model_config = dataclasses.replace(tiny_config, prediction_type=prediction_type)
    config = dataclasses.replace(SHORT, flip=False, detail_weight=0.5, detail_from=0.3, aux_weight=0.2)
    features = torch.randn(12, 5)
    trainer = _Trainer(fresh(model_config), tiny_images, config, tmp_path, None, features, None)
    rows, x_0, t, eps = trainer._batch(3)
    loss, parts = trainer._loss(rows, x_0, t, eps)
    model = trainer.raw
    expected_mse = expected_aux = 0.0
    details = []
    centre = features.mean(0)
    for i in range(4):
        a = float(model.alphas_cumprod[t[i]])
        x = math.sqrt(a) * x_0[i] + math.sqrt(1 - a) * eps[i]
        z = model.encode(x_0[i : i + 1])
        out = model.unet(x[None], t[i : i + 1], z)[0]
        v = math.sqrt(a) * eps[i] - math.sqrt(1 - a) * x_0[i]
        target = eps[i] if prediction_type == "epsilon" else v
        expected_mse += ((out - target) ** 2).mean().item() / 4
        predicted = model.predict_x0(x[None], t[i : i + 1], z)[0]
        if t[i] >= 0.3 * 1000:
            details.append((predicted - x_0[i]).abs().mean().item())
        p, f = trainer.head(z)[0], features[rows[i]] - centre
        expected_aux += (1 - (p @ f) / (p.norm() * f.norm())).item() / 4
    assert float(parts["mse"]) == pytest.approx(expected_mse, rel=1e-4)
    assert float(parts["aux"]) == pytest.approx(expected_aux, rel=1e-4)
    detail = sum(details) / max(len(details), 1)
    assert float(loss) == pytest.approx(expected_mse + 0.5 * detail + 0.2 * expected_aux, rel=1e-4)


def test_auxiliary_features_enter_the_code(tiny_config, tiny_images, tmp_path):
    """The callable form gives the same loss as the table of its values."""

    def bright(x):
        return x.mean(dim=(2, 3)) * torch.tensor([1.0, 2.0, 3.0])

    config = DiffAETrainingSettings(max_images=4, batch_size=4, flip=False)
    images, model = tiny_images, fresh(tiny_config)
    losses = []
    for features in (bright, bright(to_float(images))):
        trainer = _Trainer(model, images, config, tmp_path, None, features, None)
        losses.append(float(trainer._loss(*trainer._batch(0))[1]["aux"]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    with pytest.raises(ConfigError, match=r"`aux_features` must be \(12, f\)"):
        train_diffae(model, images, config, tmp_path, aux_features=torch.zeros(3, 2))


def test_high_noise_shifts_the_time_steps(tiny_config, tiny_images, tmp_path):
    means = []
    for power in (0.0, 2.0):
        config = DiffAETrainingSettings(max_images=4, batch_size=4, high_noise=power)
        trainer = _Trainer(fresh(tiny_config), tiny_images, config, tmp_path, None, None, None)
        means.append(torch.cat([trainer._batch(i)[2] for i in range(200)]).float().mean() / 1000)
    # the density (p + 1) t^p has mean (p + 1) / (p + 2)
    assert means[0] == pytest.approx(0.5, abs=0.03) and means[1] == pytest.approx(0.75, abs=0.03)


def test_a_batch_is_drawn_from_seed_and_step_alone(tiny_config, tiny_images, tmp_path):
    """In this order: places, mirrors, whatever else changes pictures, time steps, noise."""
    trainer = _Trainer(fresh(tiny_config), tiny_images, SHORT, tmp_path, None, None, None)
    rows, x_0, t, eps = trainer._batch(2)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(rows, order[8:12])
    generator = torch.Generator().manual_seed(2)
    mirrored = torch.rand(4, generator=generator) < 0.5
    pictures = to_float(tiny_images[rows])
    assert torch.equal(x_0, torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures))
    assert torch.equal(t, (1000 * torch.rand(4, generator=generator)).long())
    assert torch.equal(eps, torch.randn(4, 3, 16, 16, generator=generator))
    changed = dataclasses.replace(SHORT, augmentation=LIGHT)
    again = [_Trainer(fresh(tiny_config), tiny_images, changed, tmp_path, None, None, None)._batch(2) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))
    assert torch.equal(again[0][0], rows) and not torch.allclose(again[0][1], x_0, atol=0.05)


def test_stop_and_resume_equals_one_run(tiny_config, tiny_images, tmp_path, monkeypatch):
    tiny_config = dataclasses.replace(tiny_config, dropout=0.2)
    short = dataclasses.replace(SHORT, augmentation=LIGHT)
    whole = fresh(tiny_config)
    train_diffae(whole, tiny_images, short, tmp_path / "whole")
    parts = fresh(tiny_config)
    original = _Trainer._train_step

    def step(self):
        if self.step == 4:
            (tmp_path / "parts" / "STOP").touch()
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(_Trainer, "_train_step", step)
        result = train_diffae(parts, tiny_images, short, tmp_path / "parts")
    assert not result.finished and result.images == 20
    with pytest.raises(ConfigError, match="has the state of a run. Resume it"):
        train_diffae(parts, tiny_images, short, tmp_path / "parts")
    changed = dataclasses.replace(short, learning_rate=1.0)
    with pytest.raises(TrainingError, match=r"state of another run: train\.learning_rate differ"):
        train_diffae(parts, tiny_images, changed, tmp_path / "parts", resume=True)
    (tmp_path / "parts" / "STOP").unlink()
    resumed = fresh(tiny_config, seed=9)
    for _ in range(2):  # the second time as after a kill right behind the last saved state
        assert train_diffae(resumed, tiny_images, short, tmp_path / "parts", resume=True).finished
        assert same_weights(whole, resumed)
        assert (tmp_path / "parts" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


def train_slowly(model, images, config, out):
    """Trains, and once a state is saved takes a second a step: much is left to kill, however busy the machine."""
    step = _Trainer._train_step

    def slow(trainer):
        time.sleep(float((out / "state.pt").exists()))
        return step(trainer)

    _Trainer._train_step = slow  # in a forked process, which ends here
    train_diffae(model, images, config, out)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_process_continues(tiny_config, tiny_images, tmp_path, number):
    """A forked process trains, is killed after its first saved state, and another takes over."""
    config = dataclasses.replace(SHORT, max_images=60, save_every=4)
    whole, resumed = fresh(tiny_config), fresh(tiny_config, seed=9)
    train_diffae(whole, tiny_images, config, tmp_path / "whole")
    out = tmp_path / "killed"
    args = (fresh(tiny_config), tiny_images, config, out)
    process = multiprocessing.get_context("fork").Process(target=train_slowly, args=args)
    process.start()
    while not (out / "state.pt").exists():
        assert process.is_alive()
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join(600)
    assert process.exitcode == (0 if number == signal.SIGTERM else -number)
    train_diffae(resumed, tiny_images, config, out, resume=True)
    assert same_weights(whole, resumed)


def test_time_budget(tiny_config, tiny_images, tmp_path):
    config = DiffAETrainingSettings(max_minutes=0.01, batch_size=2)
    result = train_diffae(fresh(tiny_config), tiny_images, config, tmp_path)
    assert result.finished and result.seconds >= 0.6
    assert 0 < result.images < 10**6  # without the budget it would not end


def test_wrong_images_and_diverging_loss(tiny_config, tiny_images, tmp_path):
    with pytest.raises(ConfigError, match=r"`images` must be uint8 \(n, 3, 16, 16\); got torch.float32"):
        train_diffae(fresh(tiny_config), to_float(tiny_images), SHORT, tmp_path)
    with pytest.raises(ConfigError, match="`images` is empty"):
        train_diffae(fresh(tiny_config), tiny_images[:0], SHORT, tmp_path)
    model = fresh(tiny_config)
    model.unet.out.bias.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="gradient is not finite at step 0"):
        train_diffae(model, tiny_images, SHORT, tmp_path)


def test_psnr_on_paper():
    x = torch.zeros(2, 3, 4, 4)
    x[1] = 0.2  # a tenth of the range: 20 dB
    assert psnr(x, torch.zeros_like(x)).tolist() == pytest.approx([100.0, 20.0], abs=1e-3)


def test_reconstruct_does_not_depend_on_batches(tiny_config, tiny_images, make_model):
    # In float64: two steps of a network of random weights blow rounding up by some hundreds, and kernels round by the
    # processor and the batch. What is left at 1e-9 is no rounding.
    model = make_model(tiny_config).double()
    kwargs = {"fresh_steps": 2, "invert_steps": 2, "decode_steps": 2}
    a = reconstruct(model, tiny_images[:5], batch_size=5, **kwargs)
    b = reconstruct(model, tiny_images[:5], batch_size=2, **kwargs)
    assert a.fresh.dtype == torch.float64
    torch.testing.assert_close(a.fresh, b.fresh, atol=1e-9, rtol=0)
    torch.testing.assert_close(a.roundtrip, b.roundtrip, atol=1e-9, rtol=0)
    assert model.evaluations == 0


def test_prior_learns_the_distribution(tiny_config, tiny_prior, tmp_path, make_model):
    """Codes in two clusters: the noise in them is recognised; the prior is saved with the model."""
    model = make_model(tiny_config)
    torch.manual_seed(0)
    centres = torch.where(torch.arange(200)[:, None] % 2 == 0, 3.0, -1.0)
    z_sem = centres + 0.05 * torch.randn(200, 16)
    model.z_mean.copy_(z_sem.mean(0, keepdim=True))
    model.z_std.copy_(z_sem.std(0, keepdim=True))
    out = train_prior(
        model,
        z_sem * torch.ones(1, requires_grad=True),  # as the encoder gives them, with a graph behind
        PriorTrainingSettings(num_steps=150, batch_size=64, learning_rate=1e-2, ema_decay=0.95),
        tiny_prior,
    )
    assert model.prior is None and isinstance(out.prior, LatentPrior)
    z, eps, t = out.normalize(z_sem), torch.randn(200, 16), torch.full((200,), 300)
    alpha = 0.992**301  # constant betas of 0.008
    predicted = out.prior.predict_noise(math.sqrt(alpha) * z + math.sqrt(1 - alpha) * eps, t)
    # who knows the two clusters can tell the noise from the code; guessing zero would be wrong by 0.8
    assert (predicted - eps).abs().mean() < 0.35
    noise = eps[:4]
    out.save_pretrained(tmp_path, dtype=None)
    assert torch.equal(DiffAE.from_pretrained(tmp_path).prior.sample(noise, 4), out.prior.sample(noise, 4))
    with pytest.raises(ShapeError, match=r"`z_sem` must be \(n, 16\)"):
        train_prior(model, z_sem[:, :3])
    with pytest.raises(ShapeError, match=r"`z_t` must be \(b, 16\)"):
        out.prior.predict_noise(noise[:, :3], torch.zeros(32))
