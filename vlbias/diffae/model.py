"""The diffusion autoencoder in one object: encode, invert, decode, save, load."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vlbias import checkpoints
from vlbias.arguments import checked_call
from vlbias.diffae.betas import Process, alphas_cumprod
from vlbias.diffae.config import DiffAEConfig
from vlbias.diffae.encoder import SemanticEncoder
from vlbias.diffae.graphs import evaluated
from vlbias.diffae.multistep import draw, retrace, trace
from vlbias.diffae.prior import LatentPrior
from vlbias.diffae.published import PublishedCheckpoint
from vlbias.diffae.sampling import noise_to_sample, sample_to_noise
from vlbias.diffae.unet import UNet
from vlbias.errors import CheckpointError, ConfigError, ShapeError
from vlbias.files import AnyPath, draft_folder, read_object, write_json
from vlbias.images import to_float

__all__ = ["DiffAE"]


class DiffAE(nn.Module):
    """Semantic encoder, conditional UNet and (optionally) latent prior.

    Attributes:
        config: the architecture.
        evaluations: UNet evaluations so far, counted in images; set it to 0 to start a count.
        z_mean, z_std: buffers (1, d), statistics of z_sem over the training images.
        prior: None or a :class:`LatentPrior` of normalised codes.

    Source: Preechakul et al. 2022, Diffusion Autoencoders: Toward a Meaningful and Decodable Representation.
    """

    z_mean: Tensor
    z_std: Tensor
    alphas_cumprod: Tensor

    def __init__(self, config: DiffAEConfig) -> None:
        super().__init__()
        self.config = config
        self.process = Process(config.T, config.beta_schedule, config.prediction_type)
        self.encoder = SemanticEncoder(config)
        self.unet = UNet(config)
        self.prior = LatentPrior(config.prior, config.embed_channels) if config.prior else None
        self.register_buffer("z_mean", torch.zeros(1, config.embed_channels))
        self.register_buffer("z_std", torch.ones(1, config.embed_channels))
        with torch.device("cpu"):  # true numbers also when the model itself is built on the meta device
            schedule = alphas_cumprod(config.beta_schedule, config.T)
        self.register_buffer("alphas_cumprod", schedule, persistent=False)
        self.evaluations = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.z_mean.device

    # -- checks ---------------------------------------------------------------------------------------------------
    def _check_image(self, name: str, x: Tensor) -> None:
        c, side = self.config.in_channels, self.config.image_size
        if x.ndim != 4 or tuple(x.shape[1:]) != (c, side, side):
            raise ShapeError(f"`{name}` must be (b, {c}, {side}, {side}); got {tuple(x.shape)}.")
        if not x.is_floating_point():
            raise ShapeError(f"`{name}` must be floating point in [-1, 1]; got {x.dtype}. See vlbias.images.to_tensor.")

    def _check_code(self, z_sem: Tensor, batch: int | None = None) -> None:
        d = self.config.embed_channels
        if z_sem.ndim != 2 or z_sem.shape[1] != d:
            raise ShapeError(f"`z_sem` must be (b, {d}); got {tuple(z_sem.shape)}.")
        if batch is not None and z_sem.shape[0] != batch:
            raise ShapeError(f"`z_sem` has {z_sem.shape[0]} rows for {batch} images.")

    # -- networks -------------------------------------------------------------------------------------------------
    def encode(self, x_0: Tensor) -> Tensor:
        """Image (b, c, h, w) in [-1, 1] => z_sem (b, d), not normalised. Differentiable."""
        self._check_image("x_0", x_0)
        return self.encoder(x_0)

    def forward(self, x_t: Tensor, t: Tensor, z_sem: Tensor) -> Tensor:
        """What the UNet predicts, in the config's ``prediction_type``; t is integer (b,) in 0..T-1."""
        self.evaluations += x_t.shape[0]
        return evaluated(self.unet, x_t, t, z_sem)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise level at t: sqrt(alpha_bar) and sqrt(1 - alpha_bar), each (b, 1, 1, 1)."""
        a = self.alphas_cumprod[t][:, None, None, None]
        return a.sqrt(), (1 - a).sqrt()

    def predict_noise(self, x_t: Tensor, t: Tensor, z_sem: Tensor) -> Tensor:
        """Predicted noise eps (b, c, h, w) in x_t at integer time steps t (b,)."""
        self._check_image("x_t", x_t)
        self._check_code(z_sem, x_t.shape[0])
        out = self(x_t, t, z_sem)
        if self.config.prediction_type == "epsilon":
            return out
        signal, noise = self._levels(t)
        return signal * out + noise * x_t

    def predict_x0(self, x_t: Tensor, t: Tensor, z_sem: Tensor) -> Tensor:
        """Predicted image in one evaluation, not clamped; differentiable in x_t and z_sem."""
        self._check_image("x_t", x_t)
        self._check_code(z_sem, x_t.shape[0])
        out = self(x_t, t, z_sem)
        signal, noise = self._levels(t)
        if self.config.prediction_type == "epsilon":
            return (x_t - noise * out) / signal
        return signal * x_t - noise * out

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, eq. 4)."""
        signal, noise = self._levels(t)
        return signal * x_0 + noise * eps

    # -- sampling -------------------------------------------------------------------------------------------------
    def decode(
        self, z_sem: Tensor, x_T: Tensor, num_steps: int = 20, solver: str = "ddim", grad_steps: int = 0
    ) -> Tensor:
        """Codes => image (b, c, h, w) in [-1, 1], deterministic.

        Args:
            z_sem: semantic codes (b, d), not normalised.
            x_T: stochastic codes (b, c, h, w): standard normal noise, or what :meth:`invert` gave.
            num_steps: UNet evaluations an image.
            solver: "ddim" (the published one) or "dpm++2m" (second order). Use one solver for both directions.
            grad_steps: gradients flow through so many of the last steps; 0 for none.
        """
        self._check_image("x_T", x_T)
        self._check_code(z_sem, x_T.shape[0])
        clip = self.config.clip_denoised
        network = partial(self, z_sem=z_sem)
        x_0 = noise_to_sample(network, self.process, x_T, num_steps, solver=solver, clip=clip, grad_steps=grad_steps)
        return x_0.clamp(-1, 1)

    @torch.no_grad()
    def invert(self, x_0: Tensor, z_sem: Tensor, num_steps: int = 20, solver: str = "ddim") -> Tensor:
        """Image and its semantic code => stochastic code x_T (b, c, h, w), from which ``decode`` finds the image."""
        self._check_image("x_0", x_0)
        self._check_code(z_sem, x_0.shape[0])
        c = self.config
        clip = c.clip_denoised if c.clip_inversion is None else c.clip_inversion
        return sample_to_noise(partial(self, z_sem=z_sem), self.process, x_0, num_steps, solver=solver, clip=clip)

    @torch.no_grad()
    def trace(self, x_0: Tensor, z_sem: Tensor, num_steps: int = 5, *, order: int = 2) -> tuple[Tensor, Tensor]:
        """Invert images and note what brings them back exactly; see :func:`vlbias.diffae.multistep.trace`.

        Returns:
            x_T (b, c, h, w), and the residuals (b, num_steps, c, h, w) of :meth:`retrace`.
        """
        self._check_image("x_0", x_0)
        self._check_code(z_sem, x_0.shape[0])
        return trace(partial(self, z_sem=z_sem), self.process, x_0, num_steps, order=order)

    @torch.no_grad()
    def draw(
        self, z_sem: Tensor, x_T: Tensor, num_steps: int = 4, *, order: int = 2
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """:meth:`decode` and, at no further cost, :meth:`trace`; see :func:`vlbias.diffae.multistep.draw`."""
        self._check_image("x_T", x_T)
        self._check_code(z_sem, x_T.shape[0])
        return draw(partial(self, z_sem=z_sem), self.process, x_T, num_steps, order=order)

    @torch.no_grad()
    def retrace(self, z_sem: Tensor, x_T: Tensor, residuals: Tensor, *, order: int = 2) -> Tensor:
        """The way back of :meth:`trace` with other semantic codes: the traced images, edited, in [-1, 1]."""
        self._check_image("x_T", x_T)
        self._check_code(z_sem, x_T.shape[0])
        network = partial(self, z_sem=z_sem)
        return retrace(network, self.process, x_T, residuals, order=order).clamp(-1, 1)

    # -- normalised codes -----------------------------------------------------------------------------------------
    def normalize(self, z_sem: Tensor) -> Tensor:
        """z_sem => code of mean 0 and deviation 1 in each dimension."""
        return (z_sem - self.z_mean) / self.z_std

    def denormalize(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        return z * self.z_std + self.z_mean

    @torch.no_grad()
    def fit_normalization(self, images: Tensor, batch_size: int = 64) -> None:
        """Set ``z_mean`` and ``z_std`` from images, uint8 (n, c, h, w)."""
        codes = torch.cat([self.encode(to_float(x).to(self.device)).double() for x in images.split(batch_size)])
        std, mean = torch.std_mean(codes, dim=0, keepdim=True, correction=0)
        self.z_mean.copy_(mean)
        self.z_std.copy_(std.clamp_min(1e-6))

    # -- files ----------------------------------------------------------------------------------------------------
    @checked_call
    def save_pretrained(self, folder: AnyPath, dtype: torch.dtype | None = torch.float16) -> None:
        """Write ``config.json``, ``model.safetensors`` and, with a prior, ``prior.safetensors`` into ``folder``.

        ``dtype=None`` keeps the weights as they are. The normalisation statistics always stay float32.
        """
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "prior": {}}
        for name, value in state.items():
            keep = dtype is None or name in ("z_mean", "z_std")
            part, _, rest = name.partition(".")
            where, key = ("prior", rest) if part == "prior" else ("model", name)
            parts[where][key] = value if keep else value.to(dtype)
        with draft_folder(folder) as draft:
            checkpoints.save_tensors(draft / "model.safetensors", parts["model"])
            if self.prior is not None:
                checkpoints.save_tensors(draft / "prior.safetensors", parts["prior"])
            write_json(draft / "config.json", self.config.to_dict())
            checkpoints.write_manifest(draft)

    @classmethod
    @checked_call
    def from_pretrained(cls, folder: AnyPath, device: torch.device | str | None = None) -> DiffAE:
        """Load a folder written by :meth:`save_pretrained`; the model is in eval mode with frozen weights.

        Raises:
            CheckpointError: a file is missing or changed, or keys or shapes do not fit the config.
        """
        folder = checkpoints.whole_folder(folder)
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder} is not the folder of a diffusion autoencoder: config.json is missing.")
        try:
            config = DiffAEConfig.from_dict(read_object(folder / "config.json"))
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
        state = dict(checkpoints.load_tensors(folder / "model.safetensors"))
        if config.prior is not None:
            prior = checkpoints.load_tensors(folder / "prior.safetensors")
            state.update({f"prior.{k}": v for k, v in prior.items()})
        return cls.from_state(config, state, source=str(folder), device=device)

    @classmethod
    def from_state(
        cls, config: DiffAEConfig, state: dict[str, Any], *, source: str, device: torch.device | str | None = None
    ) -> DiffAE:
        """Build the model of ``config`` around the tensors of ``state`` (this class's own names).

        Only those are copied that are not float32 or begin at an odd place, see :func:`vlbias.checkpoints.aligned`.

        Raises:
            CheckpointError: lists every unexpected, missing and mis-shaped key; ``source`` names the file.
        """
        with torch.device("meta"):
            model = cls(config)
        checkpoints.check_tensors(model.state_dict(), state, source)
        model.load_state_dict({k: checkpoints.aligned(v.float()) for k, v in state.items()}, assign=True)
        model.eval().requires_grad_(False)
        if device is not None:
            return model.to(device)
        for network in (model.encoder, model.unet):
            network.lay_out()
        return model

    @classmethod
    @checked_call
    def from_published(cls, path: AnyPath | PublishedCheckpoint, device: torch.device | str | None = None) -> DiffAE:
        """Load a ``last.ckpt`` that the authors of DiffAE distribute; see :mod:`vlbias.diffae.published`.

        The model has the averaged weights, in float32, frozen and in eval mode.

        Raises:
            CheckpointError: see :meth:`PublishedCheckpoint.read`; or keys do not fit (all are listed).
        """
        published = path if isinstance(path, PublishedCheckpoint) else PublishedCheckpoint.read(path)
        with torch.device("meta"):
            wanted = {name: tuple(value.shape) for name, value in cls(published.config).state_dict().items()}
        return cls.from_state(published.config, published.tensors(wanted), source=published.source, device=device)


def with_prior(model: DiffAE, prior: LatentPrior) -> DiffAE:
    """A model that shares the modules and statistics of ``model`` and has ``prior``."""
    return _sharing(model, dataclasses.replace(model.config, prior=prior.config), model.unet, prior)


def with_unet(model: DiffAE, unet: UNet) -> DiffAE:
    """A model that shares the modules and statistics of ``model`` and has ``unet``."""
    return _sharing(model, model.config, unet, model.prior)


def _sharing(model: DiffAE, config: DiffAEConfig, unet: UNet, prior: LatentPrior | None) -> DiffAE:
    with torch.device("meta"):
        out = DiffAE(config)
    out.encoder, out.unet, out.prior = model.encoder, unet, prior
    for name, buffer in model.named_buffers(recurse=False):
        setattr(out, name, buffer)
    return out.train(model.training)
