"""Is it still the same person? Scorers of identity, on one scale: 1 = the same face, 0 = two strangers.

The scale is fitted to the dataset's own originals: nobody is there twice, so two faces of one cell are two strangers,
and what the scorer makes of them is its 0. How many strangers it takes for one person, and how many faces for their own
mirror image, is measured too and reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vlbias.balance.fitting import Through
from vlbias.errors import ConfigError, PlanError
from vlbias.networks import FaceNetwork, load_network
from vlbias.types import Backend

__all__ = [
    "EmbeddingIdentity",
    "Identity",
    "IdentityScale",
    "LatentIdentity",
    "fit_scale",
    "identity_name",
    "identity_scorer",
    "resolve_identity",
]

#: (donor codes, donor pictures or None, edit codes, edit pictures) => similarity (b,), 1 = the same face.
#: With an attribute ``image_size`` it gets pictures of so many pixels, from the files that are written; else of the
#: editor's size.
Identity = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

#: A scorer to whom two strangers are more alike than this (cosine) cannot tell people apart here.
ALL_ALIKE = 0.98
#: Shares beyond which the report warns: strangers taken for one person, mirrored faces taken for two.
MANY_STRANGERS, FEW_MIRRORED = 0.25, 0.75


@dataclass(frozen=True)
class LatentIdentity:
    """Similarity of two faces in normalised semantic space, apart from what the protected attributes explain.

    Attributes:
        directions: (r, d) orthonormal: differences of group means.
        scale: distance of two random faces outside these directions.
    """

    directions: tuple[tuple[float, ...], ...]
    scale: float

    @classmethod
    def fit(
        cls, z: torch.Tensor, groupings: Sequence[Sequence[str]], *, effects: torch.Tensor | None = None
    ) -> LatentIdentity:
        """From faces of different people.

        Args:
            z: their normalised codes (n, d).
            groupings: for each protected attribute, their n labels.
            effects: further directions (k, d) that do not count, such as what the protected attributes do to a code
                with all others held; where classes and groups are tied, the groups' means show the classes as well.
        """
        z = z.double().cpu()
        rows = [] if effects is None else list(effects.double().cpu())
        for labels in groupings:
            names = sorted(set(labels))
            means = [z[[i for i, label in enumerate(labels) if label == name]].mean(0) for name in names]
            rows += [mean - means[0] for mean in means[1:]]
        basis = torch.linalg.qr(torch.stack(rows).T)[0].T if rows else z.new_zeros(0, z.shape[1])
        # each face against the one before it: n pairs of strangers
        distance = _outside(z - z.roll(1, dims=0), basis).norm(dim=1).median() if len(z) > 1 else torch.tensor(1.0)
        return cls(tuple(map(tuple, basis.tolist())), max(float(distance), 1e-6))

    def __call__(self, z_a: torch.Tensor, z_b: torch.Tensor) -> torch.Tensor:
        """Codes (b, d) of donors and edits => similarity (b,), 1 for the same face."""
        basis = torch.tensor(self.directions, dtype=torch.float64).reshape(-1, z_a.shape[1])
        return 1 - _outside((z_b - z_a).double().cpu(), basis).norm(dim=1) / self.scale


def _outside(z: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    return z - (z @ basis.T) @ basis


@dataclass(frozen=True)
class EmbeddingIdentity:
    """Cosine similarity of two faces' embeddings, brought to the scale.

    Attributes:
        embed: pictures (b, 3, h, w) in [-1, 1] => unit vectors (b, n).
        strangers: cosine that is 0 on the scale.
        image_size: edge in pixels of the pictures it wants; ``None`` for the editor's.
    """

    embed: Callable[[torch.Tensor], torch.Tensor]
    strangers: float = 0.0
    image_size: int | None = None

    def __call__(self, z_a: object, x_a: torch.Tensor, z_b: object, x_b: torch.Tensor) -> torch.Tensor:
        """Pictures (b, 3, h, w) of donors and edits => similarity (b,), 1 for the same face; codes are not read."""
        return self.of_cosines((self.embed(x_a) * self.embed(x_b)).sum(dim=1))

    def of_cosines(self, cosines: torch.Tensor) -> torch.Tensor:
        """Cosines (b,) on the scale on which two strangers have 0."""
        return (cosines.double().cpu() - self.strangers) / (1 - self.strangers)


@dataclass(frozen=True)
class IdentityScale:
    """What the identity scorer of a run makes of faces that nobody edited; the same for every shard.

    Attributes:
        latent: the fitted latent scorer.
        strangers: median cosine of two strangers to a scorer that compares embeddings: its 0.
        strangers_pass: share of pairs of strangers, of one cell each, that would pass as the same face.
        mirrored_pass: share of faces that would pass with their own mirror image.
        pairs: pairs of strangers looked at; 0 where the scorer was not measured.
    """

    latent: LatentIdentity
    strangers: float = 0.0
    strangers_pass: float | None = None
    mirrored_pass: float | None = None
    pairs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> IdentityScale:
        """What :meth:`to_dict` gave, again."""
        latent = values["latent"]
        directions = tuple(tuple(row) for row in latent["directions"])
        return cls(**values | {"latent": LatentIdentity(directions, latent["scale"])})

    def summary(self) -> dict[str, Any]:
        """For the report."""
        return {name: value for name, value in asdict(self).items() if name != "latent"}

    def warnings(self, kind: str | FaceNetwork | Identity) -> list[str]:
        """What the measured shares say against the scorer, one sentence each."""
        found, name = [], identity_name(kind)
        if self.strangers_pass is not None and self.strangers_pass > MANY_STRANGERS:
            found.append(
                f"the identity scorer {name} takes {self.strangers_pass:.0%} of strangers for one person. Raise "
                "Checks(identity=...) or use a face network."
            )
        # to a recogniser a mirrored face is the same face; the other scorers see that it looks the other way
        mirrored = self.mirrored_pass if isinstance(kind, FaceNetwork) else None
        if mirrored is not None and mirrored < FEW_MIRRORED:
            found.append(
                f"the identity scorer {name} takes only {mirrored:.0%} of faces and their own mirror images "
                "for one person: it is unsure here, or its pictures are cut or normalised in a wrong way."
            )
        return found


def resolve_identity(
    backend: Backend, kind: str | os.PathLike[str] | FaceNetwork | Identity
) -> str | FaceNetwork | Identity:
    """What the user named, read and checked: ``"latent"``, ``"clip"``, a face embedder, or a callable.

    Raises:
        ConfigError: neither a name nor a file, ``clip`` without a CLIP, or a network that is no embedder.
        CheckpointError, MissingDependencyError: as :func:`vlbias.networks.load_network`.
    """
    if isinstance(kind, FaceNetwork):
        if kind.output.kind != "embedding":
            raise ConfigError(f"`identity`: {kind.name} tells {kind.output.kind}; a face embedder is needed.")
        return kind
    if callable(kind):
        return kind
    if kind == "latent" or (kind == "clip" and backend.can_read_pictures):
        return kind
    if not isinstance(kind, (str, os.PathLike)) or not Path(kind).exists():
        raise ConfigError(
            "`identity` must be 'latent', 'clip' (an editor with a CLIP), the file or folder of a face embedder, or a "
            f"callable; got {str(kind)!r}" + ("." if kind == "clip" else ", and there is no such file.")
        )
    return load_network(kind, needs=("embedding",), device=backend.device)


def identity_name(kind: str | FaceNetwork | Identity) -> str:
    """The scorer's name, for reports and messages."""
    return kind if isinstance(kind, str) else str(getattr(kind, "name", getattr(kind, "__name__", "custom")))


def identity_scorer(backend: Backend, kind: str | FaceNetwork | Identity, scale: IdentityScale) -> Identity:
    """The identity scorer of a run.

    Args:
        backend: gives the spaces, and how faces lie in the pictures.
        kind: of :func:`resolve_identity`: ``latent`` (see :class:`LatentIdentity`), ``clip`` (CLIP's image features), a
            face embedder, or a callable of your own.
        scale: of :func:`fit_scale`; a callable of your own has its own.
    """
    if kind == "latent":
        normalize = backend.normalize
        return lambda z_a, x_a, z_b, x_b: scale.latent(normalize(z_a), normalize(z_b))
    by_embedding = _by_embedding(backend, kind)
    if by_embedding is not None:
        return replace(by_embedding, strangers=scale.strangers)
    assert callable(kind)
    return kind


def _by_embedding(backend: Backend, kind: str | FaceNetwork | Identity) -> EmbeddingIdentity | None:
    """A scorer that compares embeddings, not yet on the scale; ``None`` for any other kind."""
    if isinstance(kind, FaceNetwork):
        network, layout = kind, backend.layout
        return EmbeddingIdentity(
            lambda x: network.embeddings(x, layout=layout), image_size=network.input.picture_size(layout)
        )
    if kind == "clip" and backend.can_read_pictures:
        return EmbeddingIdentity(lambda x: backend.features(x).double().cpu())
    return None


def fit_scale(
    backend: Backend,
    kind: str | FaceNetwork | Identity,
    latent: LatentIdentity,
    through: Through,
    cells: Sequence[str],
    *,
    least: float,
) -> IdentityScale:
    """Measure the identity scorer on originals.

    Args:
        backend: gives the spaces.
        kind: of :func:`resolve_identity`.
        latent: fitted to the same originals.
        through: runs a function over their pictures.
        cells: n names of their cells, in their order; strangers are compared within a cell.
        least: similarity from which a pair passes as the same face.

    Raises:
        PlanError: an embedder that gives NaN, or to which all faces are alike.
    """
    scorer = _by_embedding(backend, kind)
    if scorer is None and kind != "latent":
        return IdentityScale(latent)  # a callable of the user's own, on a scale of its own
    places = [i for i in range(1, len(cells)) if cells[i] == cells[i - 1]] or list(range(1, len(cells)))
    before = [i - 1 for i in places]
    if scorer is None:
        normalize = backend.normalize
        z, z_mirrored = through(None, _both_ways(lambda x: normalize(backend.encode(x)))).unbind(1)
        return _measured(IdentityScale(latent), latent(z[before], z[places]), latent(z, z_mirrored), least)
    e, e_mirrored = through(scorer.image_size, _both_ways(scorer.embed)).unbind(1)
    if not bool(torch.isfinite(e).all()):
        unread = int((~torch.isfinite(e)).any(dim=1).sum())
        raise PlanError(
            f"`identity`: {identity_name(kind)} gives NaN or no vector for {unread} of {len(e)} originals. Check its "
            "mean, std, range and channels."
        )
    cosines = (e[before] * e[places]).sum(dim=1)
    strangers = float(cosines.median()) if len(cosines) else 0.0
    if strangers > ALL_ALIKE:
        raise PlanError(
            f"`identity`: to {identity_name(kind)} all originals are alike (median cosine of two strangers "
            f"{strangers:.3f}), so it cannot tell a changed person. Check its size, mean, std, range and channels."
        )
    scorer = replace(scorer, strangers=strangers)
    mirrored = scorer.of_cosines((e * e_mirrored).sum(dim=1))
    return _measured(IdentityScale(latent, strangers), scorer.of_cosines(cosines), mirrored, least)


def _both_ways(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of pictures and of their mirror images, side by side (b, 2, n)."""
    return lambda x: torch.stack([function(x), function(x.flip(-1))], dim=1).double().cpu()


def _measured(scale: IdentityScale, strangers: torch.Tensor, mirrored: torch.Tensor, least: float) -> IdentityScale:
    def share(values: torch.Tensor) -> float | None:
        return round(float((values >= least).double().mean()), 4) if len(values) else None

    return replace(scale, strangers_pass=share(strangers), mirrored_pass=share(mirrored), pairs=len(strangers))
