"""Learn paths from text: walk codes, decode cheaply, and let CLIP say whether the face moved as the dipole asks.

The decode is one x_0 prediction from a noised face at a high noise level, where the semantic code decides most of the
picture; gradients pass through that one network evaluation and the walk. See docs/paths.md for the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

from vlbias.arguments import checked_call
from vlbias.clip import Clip
from vlbias.diffae import DiffAE
from vlbias.errors import ConfigError, ShapeError, TrainingError
from vlbias.images import to_float
from vlbias.optim import flush_denormals, set_learning_rate
from vlbias.paths.calibration import Sight, calibrate
from vlbias.paths.dipole import Dipole, DipoleLike, read_dipoles, text_directions
from vlbias.paths.fields import AffineField, RbfField
from vlbias.paths.losses import guard_loss, overlap_loss, text_dipole_loss
from vlbias.paths.pathset import PathSet
from vlbias.paths.preservation import Preservation
from vlbias.paths.probes import Probes, effect_directions
from vlbias.paths.readings import clip_log_odds, pseudo_labels
from vlbias.paths.transport import pole_flow
from vlbias.progress import track
from vlbias.settings import Settings, number

__all__ = ["PathTrainingSettings", "extend_paths", "fit_probes", "train_paths"]


@dataclass(frozen=True)
class PathTrainingSettings(Settings):
    """How paths are trained.

    Args:
        network: "affine", a flow that carries the faces of one pole onto those of the other as a cloud of codes, so
            that each moves in its own way (of it training moves the constant part alone); "rbf" (the paper's), or
            "linear".
        space: "normalized", or "raw" as published, see ``PathSet``.
        steps, batch_size: optimiser steps and faces in each; two decodes for each face and step.
        decode_steps: network evaluations of a decode: 1 predicts the face from a noised one, 2..1000 decode fresh
            noise, as published (20).
        grad_steps: with more than one, gradients pass through so many of the last of them: truncated back-propagation.
        learning_rate: of Adam, cosine decay to zero.
        t_min, t_max: time steps (of T = 1000, scaled to other T) at which the face is noised for the one-step decode.
        shortest, longest: arc lengths drawn uniformly between these, in units of the distance between the two poles.
        walk_steps: Euler steps of a training walk.
        contrast, identity, perceptual, guard, overlap: weights of the loss terms. Published: 1, 10, 3, 0, 0, with
            ArcFace and LPIPS for identity and look.
        temperature: of the contrast.
        project: take out of every direction what the probes of the other dipoles read, so that those linear readings
            do not move at all.
        start: "regression" begins along what a linear regression of the codes on all readings gives for the attribute
            with the others held, an affine field as :func:`vlbias.paths.transport.pole_flow`; "extremes" begins as
            published (support vectors at the extremes of each dimension).
        micro_batch: faces that go through the network together; ``None`` for the whole batch. The result is the same;
            memory is bounded.
        checkpointing: recompute the network's activations in the backward pass (slower, far less memory).
        bf16: run networks in bfloat16 where the device has it.
        calibration_faces: decoded faces of each pole that calibration looks at.
        seed: of faces, noise and lengths drawn; the same seed gives the same paths on one machine.

    Raises:
        ConfigError: a value is out of range.
    """

    network: Literal["rbf", "linear", "affine"] = "affine"
    space: Literal["normalized", "raw"] = "normalized"
    decode_steps: int = number(1, 1, 1000)
    grad_steps: int = number(1, 1, 1000)
    steps: int = number(300, 0)
    batch_size: int = number(20, 1, 65_536)
    learning_rate: float = number(0.002, above=0)
    t_min: int = number(650, 0, 999)
    t_max: int = number(850, 0, 999)
    shortest: float = number(0.3, above=0)
    longest: float = number(1.2, above=0)
    walk_steps: int = number(6, 1, 1000)
    contrast: float = number(1.0, 0)
    identity: float = number(10.0, 0)
    perceptual: float = number(3.0, 0)
    guard: float = number(1.0, 0)
    overlap: float = number(1.0, 0)
    temperature: float = number(0.07, above=0)
    project: bool = True
    start: Literal["regression", "extremes"] = "regression"
    micro_batch: int | None = number(None, 1)
    checkpointing: bool = False
    bf16: bool = False
    calibration_faces: int = number(24, 1)
    seed: int = number(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t_min > self.t_max:
            raise ConfigError(f"`t_min` <= `t_max` must hold; got {self.t_min} and {self.t_max}.")
        if self.shortest > self.longest:
            raise ConfigError(f"`shortest` <= `longest` must hold; got {self.shortest} and {self.longest}.")
        if self.grad_steps > self.decode_steps:
            found = f"got {self.grad_steps} and {self.decode_steps}"
            raise ConfigError(f"`grad_steps` <= `decode_steps` must hold; {found}.")

    @property
    def evaluations(self) -> int:
        """Network evaluations of the whole training, gradients' own passes not counted."""
        return 2 * self.steps * self.batch_size * self.decode_steps

    @classmethod
    def as_published(cls, **changes: object) -> PathTrainingSettings:
        """What the published code does: its network, raw codes, 20 steps with gradients in the last, its weights."""
        values = {
            "network": "rbf",
            "space": "raw",
            "start": "extremes",
            "decode_steps": 20,
            "grad_steps": 5,
            "project": False,
        }
        return cls.from_dict({**values, "guard": 0.0, "overlap": 0.0, **changes})


@checked_call
def fit_probes(
    clip: Clip | None,
    diffae: DiffAE,
    images: torch.Tensor,
    dipoles: Mapping[str, Dipole],
    *,
    labels: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> Probes:
    """Probes of all dipoles from CLIP's readings of ``images``, or from given labels where there are any.

    Args:
        clip: reads the faces; ``None`` if every dipole has labels.
        diffae: autoencoder.
        images: (n, 3, h, w) in [-1, 1], or uint8.
        dipoles: what to read.
        labels: name => (n,) in [0, 1] or NaN; they take the place of CLIP's for these names.
        seed: of the held-out split.
    """
    faces = _Faces.read(diffae, clip, images, dipoles)
    return _probes(faces, dipoles, labels or {}, seed)


@checked_call
def train_paths(
    diffae: DiffAE,
    clip: Clip,
    dipoles: Mapping[str, DipoleLike],
    images: torch.Tensor,
    *,
    guards: Mapping[str, DipoleLike] | None = None,
    probes: Probes | None = None,
    settings: PathTrainingSettings | None = None,
    preserve: Preservation | None = None,
) -> PathSet:
    """Learn one path for each dipole, and calibrate it.

    Args:
        diffae: a :class:`vlbias.diffae.DiffAE`; its weights are not changed.
        clip: reads pictures against texts.
        dipoles: name => dipole, those to learn.
        images: faces to learn on, some hundreds or more: (n, 3, h, w) in [-1, 1], or uint8.
        guards: name => dipole, readings that the paths must leave alone; they are negatives of the contrast, their
            readings are held, and (``project``) their probes' directions are taken out of every path.
        probes: readings of dipoles and guards from codes, see :func:`fit_probes`; those that are missing are fitted to
            CLIP's readings.
        settings: ``None`` for the defaults.
        preserve: what must stay; ``None`` for the defaults.

    Returns:
        A calibrated set, frozen.

    Raises:
        ShapeError: fewer than 16 images, or images of another kind.
        ConfigError: a name is both dipole and guard, or there is no dipole.
        TrainingError: the loss became NaN.
    """
    settings = settings or PathTrainingSettings()
    learned, held = read_dipoles(dipoles), read_dipoles(guards or {})
    if not learned:
        raise ConfigError("`dipoles` names nothing to learn.")
    if both := sorted(set(learned) & set(held)):
        raise ConfigError(f"{', '.join(both)} cannot be both learned and guarded.")
    everything = {**learned, **held}
    faces = _Faces.read(diffae, clip, images, everything)
    probes = _complete(probes, faces, everything, settings.seed)
    paths = _new_paths(diffae, learned, settings)
    if settings.space == "raw":
        faces = replace(faces, z=faces.z_sem)
    distances = _start(paths, faces, probes, list(everything), settings)
    if settings.project:
        paths.guard_basis = _guard_basis(paths, probes, list(everything))
    paths.to(faces.z.device)
    if settings.steps:
        trainer = _Trainer(diffae, clip, paths, faces, everything, distances, settings, preserve)
        trainer.fit()
    paths.requires_grad_(False)
    paths.lengths[:] = distances.unsqueeze(1)
    sight = Sight(diffae, clip, faces.images, num_faces=settings.calibration_faces, seed=settings.seed)
    return calibrate(paths, faces.z_sem, probes=probes, sight=sight, seed=settings.seed)


def extend_paths(
    diffae: DiffAE,
    clip: Clip,
    dipoles: Mapping[str, DipoleLike],
    images: torch.Tensor,
    *,
    paths: PathSet | None = None,
    probes: Probes | None = None,
    guards: Mapping[str, DipoleLike] | None = None,
    settings: PathTrainingSettings | None = None,
) -> tuple[PathSet, Probes]:
    """Learn further paths and join them to those that are there; see :func:`train_paths`.

    Args:
        paths: those that are there, which stay as they are; ``None`` for no others.
        settings: ``None`` for the defaults, with the network that ``paths`` have.

    Returns:
        All paths and all probes, the new ones included.

    Raises:
        ConfigError: a set of another network, or in another space (a published one cannot be extended).
    """
    if paths is not None and paths.space != "normalized":
        raise ConfigError(
            "Published paths live in raw space and cannot be joined with new ones; save the new set separately."
        )
    if settings is None:
        settings = PathTrainingSettings.from_dict({} if paths is None else {"network": paths.network})
    learned, held = read_dipoles(dipoles), read_dipoles(guards or {})
    everything = {**learned, **held}
    probes = _complete(probes, _Faces.read(diffae, clip, images, everything), everything, settings.seed)
    new = train_paths(diffae, clip, learned, images, guards=held, probes=probes, settings=settings)
    return (paths.join(new) if paths is not None else new), probes


# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class _Faces:
    """What training needs of the faces, computed once."""

    images: torch.Tensor  # as given, (n, 3, h, w)
    z_sem: torch.Tensor
    z: torch.Tensor  # normalised, or raw for paths in raw space
    features: torch.Tensor | None
    log_odds: torch.Tensor | None

    @classmethod
    @torch.no_grad()
    def read(cls, diffae: DiffAE, clip: Clip | None, images: torch.Tensor, dipoles: Mapping[str, Dipole]) -> _Faces:
        if images.ndim != 4 or images.shape[1] != 3 or not (images.is_floating_point() or images.dtype == torch.uint8):
            raise ShapeError(
                f"`images` must be faces (n, 3, h, w) in [-1, 1], or uint8; got {images.dtype} {tuple(images.shape)}."
            )
        if len(images) < 16:
            raise ShapeError(f"`images` must hold at least 16 faces, better some hundreds; got {len(images)}.")
        device = diffae.device
        codes, features = [], []
        for chunk in images.split(64):
            x = to_float(chunk).to(device)
            codes.append(diffae.encode(x))
            if clip is not None:
                features.append(clip.encode_image(x))
        z_sem = torch.cat(codes)
        feature = torch.cat(features) if features else None
        log_odds = clip_log_odds(clip, feature, dipoles) if clip is not None and feature is not None else None
        return cls(images, z_sem, diffae.normalize(z_sem), feature, log_odds)


def _probes(faces: _Faces, dipoles: Mapping[str, Dipole], labels: Mapping[str, torch.Tensor], seed: int) -> Probes:
    given = dict(labels)
    missing = [name for name in dipoles if name not in given]
    if missing:
        if faces.log_odds is None:
            raise ConfigError(f"Without a CLIP every dipole needs labels; {', '.join(missing)} has none.")
        columns = pseudo_labels(faces.log_odds[:, [list(dipoles).index(name) for name in missing]])
        given |= {name: columns[:, j] for j, name in enumerate(missing)}
    return Probes.fit(faces.z_sem, {name: given[name] for name in dipoles}, dipoles=dipoles, seed=seed)


def _complete(probes: Probes | None, faces: _Faces, dipoles: Mapping[str, Dipole], seed: int) -> Probes:
    """``probes``, and new ones for the dipoles that they cannot read."""
    missing = {name: d for name, d in dipoles.items() if probes is None or name not in probes.names}
    if not missing:
        assert probes is not None
        return probes
    if faces.log_odds is not None:
        columns = [list(dipoles).index(name) for name in missing]
        faces = replace(faces, log_odds=faces.log_odds[:, columns])
    fitted = _probes(faces, missing, {}, seed)
    return fitted if probes is None else probes.join(fitted)


def _new_paths(diffae: DiffAE, dipoles: Mapping[str, Dipole], settings: PathTrainingSettings) -> PathSet:
    dim = diffae.z_mean.shape[-1]
    space = settings.space
    return PathSet(dipoles, dim, network=settings.network, space=space, mean=diffae.z_mean, std=diffae.z_std)


def _start(
    paths: PathSet, faces: _Faces, probes: Probes, names: list[str], settings: PathTrainingSettings
) -> torch.Tensor:
    """Point the fields along the regression, and return the distance between the poles of each path (k,)."""
    readings = torch.stack([probes.logits(faces.z_sem)[:, probes.index(name)] for name in names], dim=1).sigmoid()
    effects = effect_directions(faces.z, readings)[: len(paths.names)]
    if settings.start == "regression" and isinstance(paths.field, AffineField):
        flows = [pole_flow(faces.z, readings, column) for column in range(len(paths.names))]
        paths.field.start_flows(*(torch.stack(parts).cpu() for parts in zip(*flows, strict=True)))
    elif settings.start == "regression":
        paths.field.start_along(effects.cpu())
    elif isinstance(paths.field, RbfField):
        paths.field.start_at_extremes(faces.z.amin(dim=0).cpu(), faces.z.amax(dim=0).cpu())
    return effects.norm(dim=1)


def _guard_basis(paths: PathSet, probes: Probes, names: list[str]) -> torch.Tensor:
    """Orthonormal directions (k, g, d) that the probes of all other dipoles read."""
    normals = probes.normals(paths.mean, paths.std).cpu()
    rows = []
    for own in paths.names:
        others = torch.stack([normals[probes.index(name)] for name in names if name != own]) if len(names) > 1 else None
        if others is None:
            rows.append(torch.zeros(0, paths.dim))
            continue
        # Rows of the orthogonal factor span the readings; a QR keeps their number small and their order stable.
        basis, _ = torch.linalg.qr(others.double().T)
        rows.append(basis.T.float())
    return torch.stack(rows)


class _Trainer:
    def __init__(
        self,
        diffae: DiffAE,
        clip: Clip,
        paths: PathSet,
        faces: _Faces,
        dipoles: Mapping[str, Dipole],
        distances: torch.Tensor,
        settings: PathTrainingSettings,
        preserve: Preservation | None,
    ):
        self.diffae, self.clip, self.paths, self.faces, self.settings = diffae, clip, paths, faces, settings
        self.distances = distances.to(faces.z.device)
        self.directions = text_directions(clip, list(dipoles.values()))
        self.num_learned = len(paths.names)
        assert faces.features is not None
        self.scale = (faces.features @ self.directions.T).std(dim=0, correction=0).clamp_min(1e-4)
        preserve = preserve or Preservation()
        self.identity, self.perceptual = preserve.resolved(diffae, clip, look=settings.perceptual > 0)
        self.T = len(diffae.alphas_cumprod)

    def fit(self) -> None:
        settings = self.settings
        self.paths.requires_grad_(True)
        optimizer = torch.optim.Adam(self.paths.field.parameters(), lr=settings.learning_rate)
        generator = torch.Generator().manual_seed(settings.seed)
        title = f"learning {', '.join(self.paths.names)}"
        with flush_denormals(), track(settings.steps, title, "steps") as progress:
            for step in range(settings.steps):
                set_learning_rate(optimizer, settings.learning_rate, step / settings.steps)
                optimizer.zero_grad(set_to_none=True)
                terms = self.accumulate(self.draw(generator))
                if not all(value == value for value in terms.values()):
                    raise TrainingError(f"The loss became NaN ({terms}); lower `learning_rate`.")
                torch.nn.utils.clip_grad_norm_(self.paths.field.parameters(), 1.0)
                optimizer.step()
                progress.update(1, **terms)

    def draw(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """A batch: faces, paths, signed arc lengths, time steps, noise."""
        settings, n = self.settings, len(self.faces.z)
        b = settings.batch_size
        index = torch.randint(n, (b,), generator=generator)
        k = torch.arange(b) % self.num_learned
        # Each path is walked both ways equally often.
        sign = torch.where((torch.arange(b) // self.num_learned) % 2 == 0, 1.0, -1.0)
        share = settings.shortest + (settings.longest - settings.shortest) * torch.rand(b, generator=generator)
        low, high = settings.t_min * self.T // 1000, settings.t_max * self.T // 1000
        t = torch.randint(low, high + 1, (b,), generator=generator)
        eps = torch.randn(b, *self.faces.images.shape[1:], generator=generator)
        device = self.faces.z.device
        batch = {"index": index, "k": k, "sign": sign, "share": share, "t": t, "eps": eps}
        return {name: value.to(device) for name, value in batch.items()}

    def accumulate(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """Gradients of one batch, in micro-batches; returns the mean of each term."""
        b = len(batch["index"])
        totals: dict[str, float] = {}
        for chunk in torch.arange(b, device=batch["index"].device).split(self.settings.micro_batch or b):
            terms = self.terms({name: value[chunk] for name, value in batch.items()})
            share = len(chunk) / b
            loss = sum(getattr(self.settings, name) * value for name, value in terms.items())
            (loss * share).backward()
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) * share
        return totals

    def terms(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The loss terms of a batch, not weighted."""
        settings, index, k, sign = self.settings, batch["index"], batch["k"], batch["sign"]
        z = self.faces.z[index]
        arc = sign * batch["share"] * self.distances[k]
        walked = z
        for _ in range(settings.walk_steps):
            walked = walked + (arc / settings.walk_steps).unsqueeze(1) * self.paths.direction(walked, k)
        x_0 = to_float(self.faces.images[index.to(self.faces.images.device)]).to(z.device)
        with torch.no_grad():
            x_t = self.diffae.add_noise(x_0, batch["eps"], batch["t"]) if settings.decode_steps == 1 else batch["eps"]
            before = self.decode(x_t, batch["t"], self.paths.from_own_space(z))
            feature_before = self.clip.encode_image(before)
        after = self.decode(x_t, batch["t"], self.paths.from_own_space(walked))
        feature_after = self.clip.encode_image(after)
        terms = {
            "contrast": text_dipole_loss(feature_before, feature_after, self.directions, k, sign, settings.temperature)
        }
        if settings.identity:
            terms["identity"] = self.identity.distance(before, after)
        if settings.perceptual and self.perceptual is not None:
            terms["perceptual"] = self.perceptual.distance(before, after)
        if settings.guard:
            # Every dipole that was not walked must keep its reading, whether it has a path or not.
            terms["guard"] = self.held(feature_before, feature_after, k)
        if settings.overlap and self.num_learned > 1:
            each = [self.paths.direction(z, j) for j in range(self.num_learned)]
            terms["overlap"] = overlap_loss(torch.stack(each, dim=1))
        return terms

    def held(self, before: torch.Tensor, after: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        losses = []
        for j in range(self.num_learned):
            rows = torch.nonzero(k == j).flatten()
            others = [i for i in range(len(self.directions)) if i != j]
            if len(rows):
                losses.append(
                    len(rows) * guard_loss(before[rows], after[rows], self.directions[others], self.scale[others])
                )
        return torch.stack(losses).sum() / len(k)

    def decode(self, x_t: torch.Tensor, t: torch.Tensor, z_sem: torch.Tensor) -> torch.Tensor:
        """One-step x_0 prediction from a noised face, or several steps from noise; float32."""
        device, settings = x_t.device.type, self.settings
        with torch.autocast(device, torch.bfloat16, enabled=settings.bf16 and _has_bf16(device)):
            if settings.decode_steps > 1:
                steps, last = settings.decode_steps, settings.grad_steps
                return self.diffae.decode(z_sem, x_t, num_steps=steps, grad_steps=last).float()
            if settings.checkpointing and torch.is_grad_enabled():
                return checkpoint(self.diffae.predict_x0, x_t, t, z_sem, use_reentrant=False).float()
            return self.diffae.predict_x0(x_t, t, z_sem).float()


def _has_bf16(device: str) -> bool:
    return device == "cuda" and torch.cuda.is_bf16_supported()
