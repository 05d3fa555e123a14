"""Editor: the library in one object. Load it, give it faces, move their attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image

from vlbias import alignment
from vlbias.checkpoints import find_checkpoint, list_checkpoints, verify_folder, write_manifest
from vlbias.diffae import DiffAE, seeded_noise
from vlbias.errors import CheckpointError, ConfigError, ImageError, ShapeError, unknown
from vlbias.files import draft_folder, read_json, write_json
from vlbias.images import contact_sheet, to_pil, to_pixels, to_tensor
from vlbias.originals import Original
from vlbias.paths import Dipole, PathSet, Probes

if TYPE_CHECKING:
    from vlbias.clip import Clip

__all__ = ["Code", "Editor", "RenderSettings"]

Images = Image.Image | Sequence[Image.Image] | np.ndarray | torch.Tensor

#: Longest walk that is allowed, in calibrated strength: beyond it codes leave what the autoencoder has seen.
MAX_STRENGTH = 4.0


@dataclass(frozen=True)
class RenderSettings:
    """How codes become pictures.

    Attributes:
        invert_steps: network evaluations of the inversion x_0 -> x_T, >= 1.
        decode_steps: network evaluations of a decode, >= 1.
        solver: solver of both directions, see ``DiffAE.decode``.
        method: ``"decode"`` takes the decoded edit as it is; ``"difference"`` adds what the edit changed to the donor,
            ``x_0 + decode(z_edit, x_T) - decode(z_sem, x_T)``, which keeps detail that the autoencoder loses and costs
            one more decode.
        corrections: how often an edit is read back and mended, >= 0, see :meth:`Editor.move`; each costs one more
            decode and one encoding.
        batch_size: faces that go through the network together, >= 1; it changes speed and memory alone.
    """

    invert_steps: int = 12
    decode_steps: int = 12
    solver: str = "dpm++2m"
    method: str = "difference"
    corrections: int = 1
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("invert_steps", "decode_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be >= 1; got {getattr(self, name)}.")
        if self.corrections < 0:
            raise ConfigError(f"`corrections` must be >= 0; got {self.corrections}.")
        if self.method not in ("decode", "difference"):
            raise ConfigError(f"`method` must be 'decode' or 'difference'; got '{self.method}'.")

    @property
    def evaluations_per_edit(self) -> int:
        """Network evaluations for one edited face, the inversion included, corrections not."""
        return self.invert_steps + self.decode_steps * (2 if self.method == "difference" else 1)


@dataclass(frozen=True)
class Code:
    """Two codes of a batch of faces: together they decode to the faces.

    Attributes:
        z_sem: semantic codes, float32 (b, d): what the face is.
        x_T: stochastic codes, float32 (b, 3, h, w): the detail that z_sem leaves open.
        kind: what the faces were given as, so that ``Editor.decode`` can answer in kind.
    """

    z_sem: torch.Tensor
    x_T: torch.Tensor
    kind: str = field(default="list", compare=False)

    def __len__(self) -> int:
        return len(self.z_sem)


class Editor:
    """A diffusion autoencoder, a CLIP and a set of paths, ready to edit faces.

    Args:
        diffae: the autoencoder.
        clip: the judge that reads text; ``None`` if the editor must not judge (editing needs none).
        paths: paths in the autoencoder's semantic space; ``None`` for an editor that only encodes and decodes.
        probes: linear readings of attributes from z_sem.
        render: steps and solver; ``None`` for the defaults.
        info: what the checkpoint's config says of itself (name, license, ...).
    """

    def __init__(
        self,
        diffae: DiffAE,
        *,
        clip: Clip | None = None,
        paths: PathSet | None = None,
        probes: Probes | None = None,
        render: RenderSettings | None = None,
        info: Mapping[str, Any] | None = None,
    ):
        if paths is not None and paths.dim != diffae.config.embed_channels:
            raise CheckpointError(
                f"the paths are for codes of {paths.dim} numbers, the autoencoder makes "
                f"{diffae.config.embed_channels}; "
                "they belong to different checkpoints."
            )
        self.diffae = diffae.eval()
        self.clip = clip
        self.paths = paths
        self.probes = probes
        self.settings = render or RenderSettings()
        self.info = dict(info or {})

    # -- loading and saving -------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        paths: str | Path | None = None,
        clip: str | Path | Clip | None = None,
        device: str | torch.device | None = None,
    ) -> Editor:
        """Load an editor.

        Args:
            name_or_path: a shipped name (``"synthfaces-64"``), an editor folder, or a published DiffAE ``.ckpt``.
            paths: a path folder, ours or the published one, in place of the editor's own.
            clip: a CLIP in place of the editor's own: a folder, an open_clip name, or a loaded ``Clip``.
            device: where the networks live; ``None`` for CUDA if there is one, else the CPU.

        Raises:
            CheckpointNotFoundError: nothing of that name.
            CheckpointError: a part is missing, damaged, or does not fit the others.
        """
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        place = find_checkpoint(name_or_path)
        if place.is_file():
            diffae = DiffAE.from_published(place)
            info: dict[str, Any] = {"name": place.stem}
        else:
            if not (place / "config.json").is_file():
                raise CheckpointError(
                    f"{place} holds no editor (no config.json). Give an editor's folder or a name: "
                    f"{', '.join(list_checkpoints()) or 'none is installed'}."
                )
            info = read_json(place / "config.json")
            if info.get("kind") != "editor":
                raise CheckpointError(
                    f"{place} is not an editor folder (its config.json says kind={info.get('kind')!r}). "
                    "Give the folder that holds diffae/, clip/ and paths/."
                )
            verify_folder(place, str(info.get("name", "")))
            diffae = DiffAE.from_pretrained(place / "diffae")
            paths = paths or (place / "paths" if (place / "paths").is_dir() else None)
            clip = clip or (place / "clip" if (place / "clip").is_dir() else None)
        path_set, probes = _load_paths(paths)
        return cls(
            diffae.to(device),
            clip=_load_clip(clip, device),
            paths=path_set.to(device) if path_set is not None else None,
            probes=probes.to(device) if probes is not None else None,
            render=RenderSettings(**info.get("render", {})),
            info=info,
        )

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the editor as a folder that :meth:`from_pretrained` reads.

        Args:
            folder: made if it is not there; files of an older save are replaced.
            dtype: of the stored weights.

        Raises:
            OutputError: the folder cannot be written.
        """
        settings = {name: getattr(self.settings, name) for name in RenderSettings.__dataclass_fields__}
        self.info.pop("sha256", None)  # of an older format; the manifest holds the hashes now
        self.info |= {"kind": "editor", "image_size": self.image_size, "render": settings}
        with draft_folder(folder) as draft:
            self.diffae.save_pretrained(draft / "diffae", dtype=dtype)
            if self.clip is not None:
                self.clip.save_pretrained(draft / "clip", dtype=dtype)
            if self.paths is not None:
                self.paths.save_pretrained(draft / "paths")
            if self.probes is not None:
                self.probes.save(draft / "paths")
            write_json(draft / "config.json", self.info)
            write_manifest(draft)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The checkpoint's name, for provenance."""
        return str(self.info.get("name", "unnamed"))

    @property
    def image_size(self) -> int:
        """Edge in pixels of the faces that go in and come out."""
        return self.diffae.config.image_size

    @property
    def layout(self) -> str:
        """How faces lie in the pictures that it was trained on, a key of ``vlbias.alignment.LAYOUTS``.

        ``layout`` in the checkpoint's config; else what its ``trained_on`` names; else ``"ffhq"``, as in the published
        models.
        """
        stated = str(self.info.get("layout") or "")
        trained_on = str(self.info.get("trained_on", "")).lower()
        return stated or next((name for name in alignment.LAYOUTS if trained_on.startswith(name)), "ffhq")

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return next(self.diffae.parameters()).device

    @property
    def attributes(self) -> list[str]:
        """Names that :meth:`edit` can move."""
        return list(self.paths.names) if self.paths is not None else []

    @property
    def dipoles(self) -> dict[str, Dipole]:
        """Every dipole that the judges can read: those of the paths, and those that only guard."""
        known = dict(self.probes.dipoles) if self.probes is not None else {}
        return known | (dict(self.paths.dipoles) if self.paths is not None else {})

    # -- codes --------------------------------------------------------------------------------------------------------

    def encode(self, images: Images) -> Code:
        """Faces => both codes, the stochastic one by DDIM inversion.

        Args:
            images: a PIL image, a list of them, an array (b, h, w, 3) uint8 or a tensor (b, 3, h, w) in [-1, 1].

        Raises:
            ShapeError: something else than these.
        """
        x_0, kind = self._as_tensor(images)
        z_sem, x_T = self._encode(x_0)
        return Code(z_sem, x_T, kind)

    def decode(self, code: Code) -> Any:
        """Codes => faces, in the kind that :meth:`encode` was given."""
        x_0 = self._batched(self._decode, code.z_sem, code.x_T)
        return _as_kind(x_0, code.kind)

    def sample(self, n: int, *, seed: int = 0) -> list[Image.Image]:
        """New faces from the latent prior; face i depends on ``seed + i`` alone.

        Raises:
            CheckpointError: the autoencoder has no prior.
            ConfigError: ``n`` < 1.
        """
        if n < 1:
            raise ConfigError(f"`n` must be >= 1; got {n}.")
        seeds = range(seed, seed + n)
        z_sem = self.sample_codes(seeds)
        return to_pil(self._batched(self._decode, z_sem, self.noise(seeds)))

    def sample_codes(self, seeds: Sequence[int]) -> torch.Tensor:
        """Semantic codes (n, d) from the latent prior, one for each seed; nothing is decoded.

        Raises:
            CheckpointError: the autoencoder has no prior.
        """
        prior = self.diffae.prior
        if prior is None:
            raise CheckpointError(
                f"'{self.name}' has no latent prior, so it cannot sample. Train one: vlbias train prior."
            )
        noise = seeded_noise(seeds, (self.diffae.config.embed_channels,)).to(self.device)
        with torch.no_grad():
            return self.diffae.denormalize(prior.sample(noise))

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Fresh stochastic codes x_T (n, 3, h, w), one for each seed."""
        # Apart from the seeds' use for z_sem, or both codes would start with the same numbers.
        shifted = [seed + 2**40 for seed in seeds]
        return seeded_noise(shifted, (3, self.image_size, self.image_size)).to(self.device)

    # -- editing ------------------------------------------------------------------------------------------------------

    def edit(
        self,
        images: Images,
        *,
        seed: int | None = None,
        align: bool = False,
        face: str | int = "only",
        detector: alignment.FaceDetector | None = None,
        **strengths: float,
    ) -> Any:
        """Move attributes of faces; several at once are composed.

        Args:
            images: a PIL image, a list of them, an array (b, h, w, 3) uint8 or a tensor (b, 3, h, w) in [-1, 1].
                Faces are expected to fill the picture as in the training crops; for any other photo see ``align``.
            seed: ``None`` keeps each face's own stochastic code (by inversion). A number draws a fresh one from
                ``seed + i``: another photograph of the edited face.
            align: ``images`` are photographs, PIL images or arrays, in which the face may lie anywhere: it is found,
                cut out as the editor's ``layout`` asks, edited, and what the edit changed is put back into the
                photograph, which is returned whole and upright (EXIF rotation is applied). Outside of the crop not a
                pixel changes.
            face: with ``align``, which face: ``"only"`` if there must be one, ``"largest"``, or its number counted
                from the left, from 0. The others stay as they are.
            detector: with ``align``, what finds faces; ``None`` for ``vlbias.alignment.CenterFace``.
            **strengths: attribute=strength; 1.0 carries a median face of one pole to the other, the sign says which
                way (+ towards the positive prompt).

        Returns:
            Edited faces, in the kind that was given and, without ``seed``, in the size that was given: what the edit
            changed is enlarged and added to the picture's own pixels (of a picture that is not square, to its central
            square). Strengths of 0 and no seed return the faces unchanged, pixel by pixel. With ``seed`` nothing of
            the picture's own detail is left to keep, and faces come out at the editor's size.

        Raises:
            UnknownNameError: no path of that name.
            ConfigError: a strength that is not finite or beyond ``MAX_STRENGTH``.
            ShapeError: ``images`` is something else than the above.
            ImageError: with ``align``, a photo without a face, with several where one was asked for, or with a face
                that is too small; the message says which photo.
            MissingDependencyError: with ``align``, no detector was given and the default one is not installed.
        """
        self._check_strengths(strengths)
        if align:
            return self._edit_photos(images, face, detector, seed, strengths)
        x_0, kind = self._as_tensor(images)
        edited = self._edited(x_0, seed, strengths)
        return _at_own_size(images, x_0, edited, kind) if seed is None else _as_kind(edited, kind)

    def _edited(self, x_0: torch.Tensor, seed: int | None, strengths: Mapping[str, float]) -> torch.Tensor:
        """Faces (b, 3, h, w) at the editor's size => their edits."""
        moving = {name: strength for name, strength in strengths.items() if strength != 0}
        if seed is None:
            return self.move(x_0, *self._encode(x_0), moving) if moving else x_0
        z_sem = self._batched(self._encode_semantic, x_0)
        fresh = self.noise(range(seed, seed + len(x_0)))
        return self._batched(self._decode, self.walk(z_sem, moving), fresh)

    def _edit_photos(
        self,
        photos: Images,
        face: str | int,
        detector: alignment.FaceDetector | None,
        seed: int | None,
        strengths: Mapping[str, float],
    ) -> Any:
        batch, kind = _photos(photos)
        found = []
        for number, photo in enumerate(batch, start=1):
            try:
                found.append(alignment.align(photo, size=None, detector=detector, face=face, layout=self.layout))
            except ImageError as error:
                if len(batch) == 1 and kind != "list":
                    raise
                raise ImageError(f"photo {number} of {len(batch)}: {error}") from error
        x_0 = torch.cat([to_tensor(aligned.crop, self.image_size) for aligned in found]).to(self.device)
        whole = [
            Original(aligned.photo).changed(before, after, aligned.transform)
            for aligned, before, after in zip(
                found, to_pixels(x_0), to_pixels(self._edited(x_0, seed, strengths)), strict=True
            )
        ]
        return _in_kind(whole, kind)

    def strip(
        self, image: Image.Image, name: str, *, steps: int = 7, reach: float = 1.0, scale: int = 2
    ) -> Image.Image:
        """One picture, the path walked: the face at ``steps`` strengths from -reach to +reach.

        Raises:
            UnknownNameError: no path of that name.
            ConfigError: fewer than 2 steps, or a reach out of range.
        """
        if steps < 2:
            raise ConfigError(f"`steps` must be >= 2; got {steps}.")
        self._check_strengths({name: reach})
        x_0, _ = self._as_tensor(image)
        z_sem, x_T = self._encode(x_0)
        strengths = torch.linspace(-reach, reach, steps)
        # one face, decoded unedited once
        x_back = self.round_trip(z_sem, x_T) if self.settings.method == "difference" else x_0
        x_0, z_sem, x_T, x_back = (repeat(tensor, "1 ... -> n ...", n=steps) for tensor in (x_0, z_sem, x_T, x_back))
        walked = self.move(x_0, z_sem, x_T, {name: strengths}, x_back=x_back)
        captions = [f"{strength:+.2g}" for strength in strengths.tolist()]
        return contact_sheet(to_pil(walked), steps, captions=captions, scale=scale)

    def move(
        self,
        x_0: torch.Tensor,
        z_sem: torch.Tensor,
        x_T: torch.Tensor,
        strengths: Mapping[str, float | torch.Tensor],
        *,
        x_back: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Walk, render, and mend what the picture does not show as the walk meant it.

        A decoded face shows a walk only nearly: a little less of what was asked, a trace of a beard that was not. So
        the edit is encoded again and read by the probes; what the asked attributes lack of the walked code, and what
        all others moved by, is moved back along the probes' effects, and the face rendered again, ``corrections``
        times. An editor without probes renders once.

        Args:
            x_0, z_sem, x_T, x_back: see :meth:`render`.
            strengths: see :meth:`walk`.

        Returns:
            Edited faces (b, 3, h, w) in [-1, 1].
        """
        if self.settings.method == "difference" and x_back is None:
            x_back = self.round_trip(z_sem, x_T)
        z_edit = self.walk(z_sem, strengths)
        edited = self.render(x_0, z_sem, x_T, z_edit, x_back=x_back)
        if self.probes is None:
            return edited
        asked = [name in strengths for name in self.probes.names]
        with torch.no_grad():
            wanted = self.probes.logits(z_sem)
            wanted[:, asked] = self.probes.logits(z_edit)[:, asked]
            longest = (z_edit - z_sem).norm(dim=1)
            for _ in range(self.settings.corrections):
                seen = self.probes.logits(self._batched(self._encode_semantic, edited))
                z_edit = z_edit + self.mend(z_edit, wanted - seen, longest)
                edited = self.render(x_0, z_sem, x_T, z_edit, x_back=x_back)
        return edited

    def mend(self, z_edit: torch.Tensor, missing: torch.Tensor, longest: torch.Tensor) -> torch.Tensor:
        """What to add to walked codes so that the probes read what they should.

        Args:
            z_edit: walked codes (b, d).
            missing: log-odds that each probe should read more (b, number of probes), in the order of ``probes.names``.
            longest: lengths (b,) that a mend is cut to: one longer than the walk itself would be another edit.

        Returns:
            Changes of the codes (b, d); zeros for an editor without probes.
        """
        if self.probes is None:
            return torch.zeros_like(z_edit)
        mend = self.probes.shift(z_edit, missing) - z_edit
        length = mend.norm(dim=1).clamp_min(1e-12)
        return mend * (longest / length).clamp(max=1).unsqueeze(1)

    def walk(self, z_sem: torch.Tensor, strengths: Mapping[str, float | torch.Tensor]) -> torch.Tensor:
        """Move semantic codes (b, d) along paths, all of them at once; nothing is decoded.

        Args:
            z_sem: codes, raw (not normalised).
            strengths: for each path a number or (b,) numbers, calibrated.

        Raises:
            UnknownNameError: no path of that name.
        """
        for name in strengths:
            self._check_path(name)
        if self.paths is None or not strengths:
            return z_sem.clone()
        with torch.no_grad():
            return self.paths.walk(z_sem.to(self.device), strengths)

    def round_trip(self, z_sem: torch.Tensor, x_T: torch.Tensor) -> torch.Tensor:
        """What codes (b, d) and (b, 3, h, w) of donors decode to, unedited: pictures (b, 3, h, w) in [-1, 1]."""
        return self._batched(self._decode, z_sem, x_T)

    def render(
        self,
        x_0: torch.Tensor,
        z_sem: torch.Tensor,
        x_T: torch.Tensor,
        z_edit: torch.Tensor,
        *,
        x_back: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Put the change from ``z_sem`` to ``z_edit`` on the donors.

        Args:
            x_0: donors (b, 3, h, w) in [-1, 1].
            z_sem: their semantic codes (b, d).
            x_T: their stochastic codes (b, 3, h, w).
            z_edit: the walked codes (b, d).
            x_back: the :meth:`round_trip` of the donors, for who edits them more than once; ``None`` computes it
                where the method needs it.

        Returns:
            Edited faces (b, 3, h, w) in [-1, 1]; where a code did not move, the donor itself.
        """
        edited = self._batched(self._decode, z_edit, x_T).to(x_0.device)
        if self.settings.method == "difference":
            x_back = self.round_trip(z_sem, x_T) if x_back is None else x_back
            edited = (x_0 + edited - x_back.to(x_0.device)).clamp(-1, 1)
        still = (z_edit.to(z_sem.device) == z_sem).all(dim=1)
        return torch.where(rearrange(still, "b -> b 1 1 1").to(x_0.device), x_0, edited)

    def learn(
        self,
        name: str,
        dipole: Dipole,
        images: Images,
        *,
        guards: Sequence[str] | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        """Learn a new path from text alone; it is saved with the editor.

        Args:
            name: what :meth:`edit` will call it; must be new.
            dipole: its two poles.
            images: faces to learn on, some hundreds; labels are not needed.
            guards: dipoles that the path must leave alone; ``None`` for all that the editor knows.
            seed: of the training.
            **settings: fields of ``vlbias.paths.PathTraining``.

        Raises:
            ConfigError: the name is taken or is not an identifier.
            CheckpointError: the editor has no CLIP.
        """
        from vlbias.paths import learn_path

        if name in self.attributes:
            raise ConfigError(f"the editor has a path '{name}' already; choose another name.")
        if not name.isidentifier():
            raise ConfigError(f"a path name must be usable as an argument name (letters, digits, _); got '{name}'.")
        x_0, _ = self._as_tensor(images)
        others = {key: value for key, value in self.dipoles.items() if key != name}
        if guards is not None:
            for guard in guards:
                if guard not in others:
                    raise unknown("dipole", guard, others, where=self.name)
            others = {key: others[key] for key in guards}
        self.paths, self.probes = learn_path(
            self.diffae,
            self._judge(),
            name,
            dipole,
            x_0,
            paths=self.paths,
            probes=self.probes,
            guards=others,
            seed=seed,
            **settings,
        )

    # -- judging ------------------------------------------------------------------------------------------------------

    def score(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """CLIP's probability (b,) that each face of ``x`` (b, 3, h, w) is nearer the positive pole of a dipole.

        Raises:
            UnknownNameError: no dipole of that name.
            CheckpointError: the editor has no CLIP.
        """
        dipoles = self.dipoles
        if name not in dipoles:
            raise unknown("dipole", name, dipoles, where=self.name)
        judge, dipole = self._judge(), dipoles[name]
        classes = {"positive": list(dipole.positive), "negative": list(dipole.negative)}
        return self._batched(lambda batch: judge.zero_shot(batch, classes)[:, 0], x)

    def probe(self, z_sem: torch.Tensor, name: str) -> torch.Tensor:
        """The latent probe's probability (b,) of the positive pole for codes (b, d); nothing is decoded.

        Raises:
            UnknownNameError: no probe of that name.
        """
        if self.probes is None or name not in self.probes.names:
            raise unknown("probe", name, self.probes.names if self.probes else [], where=self.name)
        with torch.no_grad():
            return self.probes.score(z_sem.to(self.device), name)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _judge(self) -> Clip:
        if self.clip is None:
            raise CheckpointError(f"'{self.name}' has no CLIP to read texts with. Load it with clip=...")
        return self.clip

    def _check_path(self, name: str) -> None:
        if name not in self.attributes:
            raise unknown("attribute", name, self.attributes, where=self.name)

    def _check_strengths(self, strengths: Mapping[str, float]) -> None:
        for name, strength in strengths.items():
            self._check_path(name)
            if not math.isfinite(strength) or abs(strength) > MAX_STRENGTH:
                raise ConfigError(
                    f"strength of '{name}' must lie in [-{MAX_STRENGTH:g}, {MAX_STRENGTH:g}]; got {strength}."
                )

    def _as_tensor(self, images: Images) -> tuple[torch.Tensor, str]:
        if isinstance(images, Image.Image):
            return to_tensor(images, self.image_size).to(self.device), "pil"
        if isinstance(images, torch.Tensor):
            expected = (3, self.image_size, self.image_size)
            if images.ndim != 4 or tuple(images.shape[1:]) != expected or not images.is_floating_point():
                raise ShapeError(
                    f"a tensor of faces must be floating (b, {', '.join(map(str, expected))}) in [-1, 1]; got "
                    f"{images.dtype} {tuple(images.shape)}."
                )
            if images.numel() and (images.min() < -1.001 or images.max() > 1.001 or images.isnan().any()):
                raise ShapeError("a tensor of faces must hold values in [-1, 1] and no NaN.")
            return images.float().to(self.device), "tensor"
        if isinstance(images, np.ndarray):
            single = images.ndim == 3
            if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
                raise ShapeError(f"an array of faces must be uint8 (b, h, w, 3); got {images.dtype} {images.shape}.")
            pictures = [Image.fromarray(picture) for picture in (images[None] if single else images)]
            return to_tensor(pictures, self.image_size).to(self.device), "array1" if single else "array"
        if isinstance(images, Sequence) and images and all(isinstance(image, Image.Image) for image in images):
            return to_tensor(list(images), self.image_size).to(self.device), "list"
        raise ShapeError(
            f"faces must be a PIL image, a list of them, an array or a tensor; got {type(images).__name__}."
        )

    def _batched(self, function: Any, *tensors: torch.Tensor) -> torch.Tensor:
        size = self.settings.batch_size
        with torch.no_grad():
            parts = [
                function(*(tensor[start : start + size].to(self.device) for tensor in tensors))
                for start in range(0, len(tensors[0]), size)
            ]
        return torch.cat(parts)

    def _encode_semantic(self, x_0: torch.Tensor) -> torch.Tensor:
        return self.diffae.encode(x_0)

    def _encode(self, x_0: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_sem = self._batched(self._encode_semantic, x_0)
        settings = self.settings
        x_T = self._batched(
            lambda x, z: self.diffae.invert(x, z, num_steps=settings.invert_steps, solver=settings.solver), x_0, z_sem
        )
        return z_sem, x_T

    def _decode(self, z_sem: torch.Tensor, x_T: torch.Tensor) -> torch.Tensor:
        return self.diffae.decode(z_sem, x_T, num_steps=self.settings.decode_steps, solver=self.settings.solver)

    def with_settings(self, **changes: Any) -> Editor:
        """The same networks with other render settings, say ``with_settings(decode_steps=10)``."""
        return Editor(
            self.diffae,
            clip=self.clip,
            paths=self.paths,
            probes=self.probes,
            render=replace(self.settings, **changes),
            info=self.info,
        )


def _photos(photos: Any) -> tuple[Sequence[Image.Image | np.ndarray], str]:
    """Photographs of any sizes, one by one, and what they were given as."""
    if isinstance(photos, Image.Image):
        return [photos], "pil"
    if isinstance(photos, np.ndarray) and photos.ndim in (3, 4) and len(photos):
        return ([photos], "array1") if photos.ndim == 3 else (list(photos), "array")
    items = list(photos) if isinstance(photos, list | tuple) else []
    if items and all(isinstance(item, Image.Image | np.ndarray) for item in items):
        return items, "list"
    is_none = photos is None or any(item is None for item in items)
    hint = " Some readers give None for a file that they cannot read." if is_none else ""
    raise ShapeError(
        "`align` takes a PIL image or a list of them, or arrays uint8 (h, w, 3); got "
        f"{', '.join(type(item).__name__ for item in items) or type(photos).__name__}.{hint}"
    )


def _as_kind(x: torch.Tensor, kind: str) -> Any:
    if kind == "tensor":
        return x
    return _in_kind(to_pil(x), kind)


def _in_kind(pictures: list[Image.Image], kind: str) -> Any:
    """Pictures as what was given: one, a list, or an array."""
    if kind == "pil":
        return pictures[0]
    if kind == "array1":
        return np.asarray(pictures[0])
    return np.stack([np.asarray(picture) for picture in pictures]) if kind == "array" else pictures


def _at_own_size(images: Images, x_0: torch.Tensor, edited: torch.Tensor, kind: str) -> Any:
    """Edits of ``x_0`` in the kind, and pictures in the size, that was given."""
    if kind == "tensor":
        return edited
    given = [images] if isinstance(images, Image.Image) else list(images)
    if isinstance(images, np.ndarray):
        given = [Image.fromarray(picture) for picture in (images[None] if images.ndim == 3 else images)]
    pictures = []
    for picture, before, after in zip(given, to_pixels(x_0), to_pixels(edited), strict=True):
        original = Original.of_picture(picture)
        # a picture of another mode than RGB is answered in RGB, as the editor's own pictures are
        upright = Original(original.upright)
        pictures.append(upright.changed(before, after))
    return _in_kind(pictures, kind)


def _load_paths(paths: str | Path | None) -> tuple[PathSet | None, Probes | None]:
    if paths is None:
        return None, None
    folder = Path(paths)
    if (folder / "latent_paths_model.pt").is_file():
        return PathSet.from_published(folder), None
    probes = Probes.load(folder) if (folder / "probes.json").is_file() else None
    return PathSet.from_pretrained(folder), probes


def _load_clip(clip: Any, device: torch.device) -> Clip | None:
    if clip is None or not isinstance(clip, str | Path):
        return clip
    from vlbias.clip import load

    return load(clip, device=device)
