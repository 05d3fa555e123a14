"""Training a diffusion autoencoder: one resumable loop for a laptop's CPU and for a GPU."""

from __future__ import annotations

import copy
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlbias import files
from vlbias.augment import STILL, Augmentation, augment
from vlbias.diffae.config import DiffAEConfig
from vlbias.diffae.evaluation import reconstruct, write_sheet
from vlbias.diffae.model import DiffAE
from vlbias.errors import ConfigError, TrainingError
from vlbias.images import to_float
from vlbias.optim import TrainingState, WeightAverage, flush_denormals, held_for, set_learning_rate
from vlbias.progress import track
from vlbias.settings import Settings, number

__all__ = ["AuxFeatures", "DiffAETrainingSettings", "TrainResult", "train_diffae"]

LONGEST_STEP_S = 60.0
LOG_FILE, TIMES_FILE = "log.jsonl", "times.jsonl"

AuxFeatures = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DiffAETrainingSettings(Settings):
    """How to train; the defaults suit a small model at 64 px on two cores.

    Attributes:
        max_images: images to train on in all (each epoch counts again), or None.
        max_minutes: minutes of training in all, resumed runs added up, or None. At least one of the two is given;
            the first to be reached ends the run, and the cosine runs over whichever is closer to its end. Only runs
            with ``max_images`` alone are repeatable bit by bit, for a clock is not.
        learning_rate, warmup_images, final_rate: AdamW's rate, its linear warmup, and what share of it is left at the
            end.
        ema_decay: of the averaged weights, ramped up as (1 + step) / (10 + step).
        flip, augmentation: how pictures are changed at random: mirrored, moved, brighter or darker.
        high_noise: density of the time steps is proportional to t ** high_noise; 0 is uniform. Higher values spend
            more of the training where z_sem alone must say what is in the picture.
        detail_weight, detail_from: weight of an L1 term on the predicted x_0 at t >= detail_from * T.
        train_encoder: ``False`` leaves the encoder, and so the codes and all that was learned of them, as they are.
        aux_weight: weight of the auxiliary term (see :func:`train_diffae`), used where features are given.
        device: where to train; None for CUDA if there is one.
        eval_every, save_every: images between evaluations (PSNR, sample sheet, probes) and between saved states.
    """

    max_images: int | None = number(None, 1)
    max_minutes: float | None = number(None, above=0)
    batch_size: int = number(32, 1, 65_536)
    learning_rate: float = number(2e-3, above=0)
    warmup_images: int = number(2_000, 0)
    final_rate: float = number(0.01, 0, 1)
    weight_decay: float = number(0.01, 0)
    grad_clip: float = number(1.0, above=0)
    ema_decay: float = number(0.9995, 0, 1)
    flip: bool = True
    augmentation: Augmentation = STILL
    high_noise: float = number(0.0, 0)
    detail_weight: float = number(0.0, 0)
    detail_from: float = number(0.5, 0, 1)
    train_encoder: bool = True
    aux_weight: float = number(0.1, 0)
    eval_every: int = number(20_000, 1)
    save_every: int = number(5_000, 1)
    log_every: int = number(1_000, 1)
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_images is None and self.max_minutes is None:
            raise ConfigError("training needs `max_images` or `max_minutes`, to know when to end.")


@dataclass(frozen=True)
class TrainResult:
    """How a call of :func:`train_diffae` ended: ``finished`` is False when it was asked to stop before its budget."""

    finished: bool
    images: int
    seconds: float
    last: dict[str, Any]


def train_diffae(
    model: DiffAE,
    images: Tensor,
    config: DiffAETrainingSettings,
    out_dir: str | Path,
    *,
    held_out: Tensor | None = None,
    aux_features: AuxFeatures | None = None,
    probe: Callable[[DiffAE], dict[str, float]] | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train ``model`` in place; at the end it holds the averaged (EMA) weights and the code statistics.

    ``out_dir`` receives ``state.pt`` (all that ``resume`` needs, replaced atomically), ``model/`` (the averaged
    weights, loadable at any time), ``log.jsonl`` (one JSON object a line; when
    each was written stands in ``times.jsonl``), ``samples/*.png`` and ``train.json``.
    A file called ``STOP`` in ``out_dir``, SIGTERM or SIGINT make the loop save its state and return. After SIGKILL
    ``resume=True`` continues from the last saved state; what a step does depends on the seed and its number alone,
    so the result is that of an uninterrupted run.

    Args:
        images: uint8 (n, c, h, w), in memory.
        held_out: uint8 (m, c, h, w), for PSNR and the sample sheet; None skips both.
        aux_features: frozen features that a linear head on z_sem must predict, so that z_sem holds them: (n, f), one
            row an image, or a callable from images in [-1, 1] to (b, f), differentiable or not. The loss is one
            minus the cosine between prediction and centred features; the head is not kept. With ``flip`` a row
            of features must fit the mirrored image too.
        probe: called with the averaged model at each evaluation; its numbers enter the log.

    Raises:
        ConfigError: ``out_dir`` holds another run's state and ``resume`` is False, or the settings differ.
        TrainingError: the loss is not finite.
    """
    return _Trainer(model, images, config, Path(out_dir), held_out, aux_features, probe).run(resume)


def check_pixels(config: DiffAEConfig, *, images: Tensor, held_out: Tensor | None = None) -> None:
    """Refuse pictures that a model of ``config`` cannot be trained on.

    Raises:
        ConfigError: they are not uint8 (n, c, h, w) of its size, or there are none.
    """
    shape = (config.in_channels, config.image_size, config.image_size)
    for name, x in (("images", images), ("held_out", held_out)):
        if x is not None and (x.dtype != torch.uint8 or x.ndim != 4 or tuple(x.shape[1:]) != shape):
            raise ConfigError(
                f"`{name}` must be uint8 (n, {', '.join(map(str, shape))}); got {x.dtype} {tuple(x.shape)}."
            )
    if len(images) < 1:
        raise ConfigError("`images` is empty: nothing to train on.")


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGINT only note their number in the yielded list while the block runs."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Trainer:
    """State of one run; see :func:`train_diffae`."""

    def __init__(
        self,
        model: DiffAE,
        images: Tensor,
        config: DiffAETrainingSettings,
        out_dir: Path,
        held_out: Tensor | None,
        aux_features: AuxFeatures | None,
        probe: Callable[[DiffAE], dict[str, float]] | None,
    ) -> None:
        from accelerate import Accelerator

        check_pixels(model.config, images=images, held_out=held_out)
        use_cuda = torch.cuda.is_available() and str(config.device or "cuda").startswith("cuda")
        self.accelerator = Accelerator(mixed_precision="bf16" if use_cuda else "no", cpu=not use_cuda)
        self.device = self.accelerator.device
        self.target, self.images, self.config, self.out_dir = model, held_for(images, self.device), config, out_dir
        self.held_out, self.aux_features, self.probe = held_out, aux_features, probe

        raw = copy.deepcopy(model).train().requires_grad_(True)
        raw.prior = None  # the prior has a training of its own
        raw.encoder.requires_grad_(config.train_encoder)
        self.head: nn.Linear | None = None
        self.aux_mean: Tensor | None = None
        if aux_features is not None:
            self._make_head()
        trained = nn.ModuleDict({"model": raw} | ({"head": self.head} if self.head is not None else {}))
        optimizer = torch.optim.AdamW(
            [weight for weight in trained.parameters() if weight.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.99),
            fused=True,
        )
        self.trained, self.optimizer = self.accelerator.prepare(trained, optimizer)
        self.raw: DiffAE = self.accelerator.unwrap_model(self.trained)["model"]
        if self.head is not None:
            self.head = self.accelerator.unwrap_model(self.trained)["head"]
        self.average = WeightAverage(self.raw, config.ema_decay)
        parts = {
            "trained": self.accelerator.unwrap_model(self.trained),
            "average": self.average,
            "optimizer": self.optimizer,
        }
        identity = {"model": model.config.to_dict(), "train": _fixed(config)}
        self.state = TrainingState(out_dir / "state.pt", identity, parts)
        self.step, self.seconds, self.logged = 0, 0.0, 0
        self.last: dict[str, Any] = {}

    # -- auxiliary features -----------------------------------------------------------------------------------------
    def _make_head(self) -> None:
        aux, n = self.aux_features, len(self.images)
        if isinstance(aux, Tensor) and (aux.ndim != 2 or len(aux) != n):
            raise ConfigError(f"`aux_features` must be ({n}, f), one row per image; got {tuple(aux.shape)}.")
        rows = torch.arange(n if isinstance(aux, Tensor) else min(n, 512))
        features = self._features(rows, to_float(self.images[rows[:512]]).to(self.device))
        self.aux_mean = features.mean(dim=0, keepdim=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.head = nn.Linear(self.target.config.embed_channels, features.shape[1])

    @torch.no_grad()
    def _features(self, rows: Tensor, x_0: Tensor) -> Tensor:
        """Auxiliary features (b, f) of images by their rows, or of the images themselves."""
        aux = self.aux_features
        assert aux is not None
        return (aux[rows.to(aux.device)].to(self.device) if isinstance(aux, Tensor) else aux(x_0)).float()

    def _aux_loss(self, z_sem: Tensor, x_0: Tensor, rows: Tensor) -> Tensor:
        assert self.head is not None and self.aux_mean is not None
        features = self._features(rows, x_0) - self.aux_mean
        return 1 - F.cosine_similarity(self.head(z_sem), features, dim=1).mean()

    # -- one step -----------------------------------------------------------------------------------------------------
    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows, x_0, t and eps of a step, drawn where it trains; a function of the seed and the step number alone."""
        c, n = self.config, len(self.images)
        generator = torch.Generator(self.device).manual_seed((c.seed * 1_000_003 + step) % 2**63)
        first, end = step * c.batch_size, (step + 1) * c.batch_size
        epochs = range(first // n, (end - 1) // n + 1)
        rows = torch.cat([self._shuffled(epoch)[max(first - epoch * n, 0) : end - epoch * n] for epoch in epochs])
        x_0 = to_float(self.images[rows].to(self.device))
        x_0 = augment(x_0, c.augmentation, generator, flip=c.flip)
        u = torch.rand(len(rows), generator=generator, device=self.device)
        T = self.target.config.T
        t = (T * u ** (1 / (1 + c.high_noise))).long().clamp_max(T - 1)
        return rows, x_0, t, torch.randn(x_0.shape, generator=generator, device=self.device)

    def _shuffled(self, epoch: int) -> Tensor:
        """All rows in the order of an epoch, where the pictures lie."""
        if getattr(self, "_order", (None,))[0] != epoch:
            generator = torch.Generator().manual_seed((self.config.seed * 7_919 + epoch + 1) % 2**63)
            self._order = (epoch, torch.randperm(len(self.images), generator=generator).to(self.images.device))
        return self._order[1]

    def _loss(self, rows: Tensor, x_0: Tensor, t: Tensor, eps: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        c, model = self.config, self.raw
        signal_level, noise_level = model._levels(t)
        x_t = signal_level * x_0 + noise_level * eps
        z_sem = model.encode(x_0)
        out = model(x_t, t, z_sem).float()
        if model.config.prediction_type == "epsilon":
            target, x_pred = eps, (x_t - noise_level * out) / signal_level
        else:
            # v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0 (Salimans & Ho 2022, appendix D)
            target, x_pred = signal_level * eps - noise_level * x_0, signal_level * x_t - noise_level * out
        error, bands = out - target, model.unet.bands
        parts = {"mse": (error if bands is None else bands.scaled(error, t)).square().mean()}
        loss = parts["mse"]
        if c.detail_weight:
            is_noisy = (t >= c.detail_from * model.config.T).float()
            error = (x_pred - x_0).abs().mean(dim=(1, 2, 3))
            parts["detail"] = (error * is_noisy).sum() / is_noisy.sum().clamp_min(1)
            loss = loss + c.detail_weight * parts["detail"]
        if self.head is not None and c.aux_weight:
            parts["aux"] = self._aux_loss(z_sem.float(), x_0, rows)
            loss = loss + c.aux_weight * parts["aux"]
        return loss, parts

    def _fraction(self) -> float:
        """Share of the budget that is used up."""
        c = self.config
        shares = [self.step * c.batch_size / c.max_images] if c.max_images else []
        shares += [self.seconds / 60 / c.max_minutes] if c.max_minutes else []
        return min(1.0, max(shares))

    def _train_step(self) -> dict[str, float]:
        c = self.config
        warmup = (self.step + 1) * c.batch_size / c.warmup_images if c.warmup_images else 1.0
        set_learning_rate(self.optimizer, c.learning_rate, self._fraction(), warmup=warmup, floor=c.final_rate)
        torch.manual_seed((c.seed * 15_485_863 + self.step) % 2**63)  # dropout, and whatever a callable draws
        batch = self._batch(self.step)
        with self.accelerator.autocast():
            loss, parts = self._loss(*batch)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.trained.parameters(), c.grad_clip)
        # the only wait for a card: what it then computes runs beside the next batch
        length, *values = torch.stack([norm, *parts.values()]).detach().tolist()
        if not math.isfinite(length):
            raise TrainingError(
                f"The gradient is not finite at step {self.step} (learning rate {c.learning_rate:g}). "
                "Resume from the last state with a lower rate."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update()
        self.step += 1
        return dict(zip(parts, values, strict=True))

    # -- the run ------------------------------------------------------------------------------------------------------
    def run(self, resume: bool) -> TrainResult:
        c = self.config
        files.refuse_links(self.out_dir)
        files.make_folder(self.out_dir / "samples")
        if (self.out_dir / "state.pt").exists() and not resume:
            raise ConfigError(f"{self.out_dir} has the state of a run. Resume it, or choose another folder.")
        sums: dict[str, float] = {}
        counted, done_at = 0, -1
        kinds = {"step": int, "seconds": float, "sums": dict, "counted": int, "logged": int, "done": bool}
        if counters := self.state.load(**kinds):
            self.step, self.seconds, sums, counted, self.logged, done = (counters[name] for name in kinds)
            done_at = self.step if done else -1
        for name in (LOG_FILE, TIMES_FILE):
            _cut_log(self.out_dir / name, self.logged)
        settings = {"model": self.target.config.to_dict(), "train": c.to_dict()}
        files.write_json(self.out_dir / "train.json", settings)
        mark = time.monotonic()
        stopped = self._stop_asked([])
        with flush_denormals(), stop_signals() as received, track(c.max_images, "train diffae", "images") as progress:
            progress.resume_at(self.step * c.batch_size)
            while self._fraction() < 1 and not stopped:
                parts = self._train_step()
                now = time.monotonic()
                # a paused process or a sleeping laptop does not use up the budget
                self.seconds, mark = self.seconds + min(now - mark, LONGEST_STEP_S), now
                for k, v in parts.items():
                    sums[k] = sums.get(k, 0.0) + v
                counted += 1
                progress.update(c.batch_size, loss=sums["mse"] / counted, done=f"{self._fraction():.1%}")
                if self._crossed(c.log_every):
                    self._log({k: v / counted for k, v in sums.items()})
                    sums, counted = {}, 0
                stopped = self._stop_asked(received)
                if self._crossed(c.eval_every) and self._fraction() < 1 and not stopped:
                    self._evaluate()
                    self.seconds, mark = self.seconds + time.monotonic() - mark, time.monotonic()
                if self._crossed(c.save_every) or stopped:
                    self._save(sums, counted)
        finished = self._fraction() >= 1
        if finished:
            if c.train_encoder:
                self.average.module.fit_normalization(self.images)
            self._evaluate(log=self.step != done_at)
            self._save(sums, counted, done=True)
        self.target.load_state_dict(self.average.module.state_dict(), strict=False)
        return TrainResult(finished, self.step * c.batch_size, self.seconds, self.last)

    def _crossed(self, every: int) -> bool:
        """Whether the last step carried the count of images over a multiple of ``every``."""
        n = self.config.batch_size
        return self.step * n // every > (self.step - 1) * n // every

    def _stop_asked(self, received: list[int]) -> bool:
        return bool(received) or (self.out_dir / "STOP").exists()

    def _log(self, values: dict[str, Any]) -> None:
        place = {"step": self.step, "images": self.step * self.config.batch_size}
        self.last |= values
        self.logged += 1
        # times differ from run to run; in a file of their own they leave the log the same
        for name, more in ((LOG_FILE, values), (TIMES_FILE, {"seconds": round(self.seconds, 1)})):
            with open(self.out_dir / name, "a", encoding="utf-8") as file:
                file.write(json.dumps(place | more) + "\n")

    def _evaluate(self, *, log: bool = True) -> None:
        values: dict[str, float] = {}
        if self.held_out is not None:
            result = reconstruct(self.average.module, self.held_out)
            values |= result.psnr
            name = f"{self.step * self.config.batch_size:08d}.png"
            write_sheet(result, self.out_dir / "samples" / name)
        if self.probe is not None:
            values |= self.probe(self.average.module)
        if log:
            self._log(values)
        else:
            self.last |= values

    def _save(self, sums: dict[str, float], counted: int, *, done: bool = False) -> None:
        told = {"sums": sums, "counted": counted, "logged": self.logged, "done": done}
        self.state.save(step=self.step, seconds=self.seconds, **told)
        self.average.module.save_pretrained(self.out_dir / "model")


def _fixed(config: DiffAETrainingSettings) -> dict[str, Any]:
    """Settings that a resumed run may not change; budgets and intervals may."""
    free = ("max_images", "max_minutes", "eval_every", "save_every", "log_every", "device")
    return {k: v for k, v in config.to_dict().items() if k not in free}


def _cut_log(path: Path, num_lines: int) -> None:
    """Keep the first lines of a log: what a killed run wrote after its last saved state is written again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        files.write_file(path, "".join(lines[:num_lines]))
