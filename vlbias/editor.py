"""Editor: the library in one object. Load it, give it faces, move their attributes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import torch
from PIL import Image

from vlbias import alignment
from vlbias.arguments import checked_call, completed_with
from vlbias.clip import Clip
from vlbias.diffae import DiffAE, Student
from vlbias.editor_folder import push_editor, read_editor, write_editor
from vlbias.errors import ConfigError
from vlbias.given import Answer, Code, Given, Images, Pictures, given_faces, given_photos
from vlbias.images import contact_sheet, to_pil
from vlbias.paths import Dipole, PathSet, Probes
from vlbias.rendering import Renderer, RenderSettings
from vlbias.settings import checked_number
from vlbias.shown import Glance, Shown
from vlbias.types import Quality

__all__ = ["Editor"]


class Editor(Shown):
    """A diffusion autoencoder, a CLIP and a set of paths, ready to edit faces.

    Args:
        diffae: the autoencoder.
        clip: reads pictures against texts; ``None`` for an editor that only edits.
        paths: paths in the autoencoder's semantic space; ``None`` for an editor that only encodes and decodes.
        probes: linear readings of attributes from z_sem.
        settings: steps and solver; ``None`` for the defaults.
        info: what the checkpoint's config says of itself (name, license, ...).
        student: makes the edits of as few evaluations as it was trained for; ``None`` for none.

    Attributes:
        renderer: does the work, on tensors; what a :class:`vlbias.Balancer` drives.

    Raises:
        CheckpointError: paths for codes of another size, or a student of another architecture.
    """

    @checked_call
    def __init__(
        self,
        diffae: DiffAE,
        *,
        clip: Clip | None = None,
        paths: PathSet | None = None,
        probes: Probes | None = None,
        settings: RenderSettings | None = None,
        info: Mapping[str, object] | None = None,
        student: Student | None = None,
    ):
        self.renderer = Renderer(
            diffae, clip=clip, paths=paths, probes=probes, settings=settings, info=info, student=student
        )

    # -- loading and saving -------------------------------------------------------------------------------------------

    @classmethod
    @checked_call
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        paths: str | Path | None = None,
        clip: str | Path | Clip | Literal[False] | None = None,
        device: str | torch.device | None = None,
    ) -> Editor:
        """Load an editor.

        Args:
            name_or_path: a shipped name (``"synthfaces-64"``), an editor folder, a published DiffAE ``.ckpt``, or a
                name ``"user/name"`` of the Hugging Face hub, which is asked for it if no folder is called so.
            paths: a path folder, ours or the published one, or a name of the hub, in place of the editor's own.
            clip: a CLIP in place of the editor's own: a folder, an open_clip name, or a loaded ``Clip``; ``False`` for
                none, which is quicker to load and enough to edit.
            device: where the networks live; ``None`` for CUDA if there is one, else the CPU.

        Raises:
            CheckpointNotFoundError: nothing of that name.
            CheckpointError: a part is missing, damaged, or does not fit the others.
        """
        return cls._with(read_editor(name_or_path, paths=paths, clip=clip, device=device))

    @checked_call
    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the editor as a folder that :meth:`from_pretrained` reads.

        Args:
            folder: made if it is not there; files of an older save are replaced.
            dtype: of the stored weights.

        Raises:
            OutputError: the folder cannot be written.
        """
        write_editor(self.renderer, folder, dtype=dtype)

    @checked_call
    def push_to_hub(self, name: str, *, private: bool = True, dtype: torch.dtype = torch.float16) -> str:
        """Send the editor to the Hugging Face hub, with a card; :meth:`from_pretrained` fetches it by its name.

        Args:
            name: ``"user/name"``; made if it is not there. Log in with ``hf auth login`` first, or set ``HF_TOKEN``.
            private: whether a repository that is made shows itself to its owner alone. Look at the licence of what the
                editor was trained on before you show it to others.
            dtype: of the stored weights.

        Returns:
            The address of the repository.

        Raises:
            ConfigError: ``name`` is not ``user/name``.
            CheckpointError: the hub cannot be reached, or refuses.
        """
        return push_editor(self.renderer, name, private=private, dtype=dtype)

    def with_settings(self, **changes: str | int) -> Editor:
        """The same networks with other :class:`RenderSettings`, say ``with_settings(decode_steps=10)``."""
        return self._with(self.renderer.changed(settings=replace(self.renderer.settings, **changes)))  # type: ignore[arg-type]

    @checked_call
    def at_quality(self, quality: Quality) -> Editor:
        """The same editor, of which ``standard`` is another quality: see ``quality`` of :meth:`edit`.

        Raises:
            ConfigError: no such quality.
        """
        return self._with(self.renderer.at_quality(quality))

    @classmethod
    def _with(cls, renderer: Renderer) -> Editor:
        editor = cls.__new__(cls)
        editor.renderer = renderer
        return editor

    # -- what it is ---------------------------------------------------------------------------------------------------

    def _glance(self) -> Glance:
        poles = {name: self.dipoles[name] for name in self.attributes}
        names = ", ".join(poles) or "no paths yet"
        rows = [(name, dipole.negative[0], dipole.positive[0]) for name, dipole in poles.items()]
        line = f"'{self.name}', {self.image_size} px, moves {names}"
        return Glance(line, ("attribute", "strength -1", "strength +1"), rows)

    @property
    def name(self) -> str:
        """The checkpoint's name, for provenance."""
        return self.renderer.name

    @property
    def image_size(self) -> int:
        """Edge in pixels of the faces that go in and come out."""
        return self.renderer.image_size

    @property
    def layout(self) -> str:
        """How faces lie in the pictures that it was trained on, a key of ``vlbias.alignment.LAYOUTS``."""
        return self.renderer.layout

    @property
    def attributes(self) -> list[str]:
        """Names that :meth:`edit` can move."""
        return list(self.renderer.attributes)

    @property
    def dipoles(self) -> dict[str, Dipole]:
        """Every dipole that can be read: those of the paths, and those that only guard."""
        return dict(self.renderer.dipoles)

    # -- codes --------------------------------------------------------------------------------------------------------

    @checked_call
    def encode(self, images: Images) -> Code:
        """Faces => both codes, the stochastic one by DDIM inversion.

        Args:
            images: a PIL image, a list of them, an array (b, h, w, 3) uint8 or a tensor (b, 3, h, w) in [-1, 1].

        Raises:
            ShapeError: something other than these.
        """
        given = given_faces(images, self.image_size)
        x_0 = self._tensor(given)
        z_sem = self.renderer.encode(x_0)
        return Code(z_sem, self.renderer.invert(x_0, z_sem), Given(given.kind))

    @checked_call
    def decode(self, code: Code) -> Answer:
        """Codes => faces, in the kind that :meth:`encode` was given."""
        return code.given.answer(self.renderer.decode(code.z_sem, code.x_T))

    @checked_call
    def sample(self, n: int, *, seed: int = 0) -> list[Image.Image]:
        """New faces from the latent prior; face i depends on ``seed + i`` alone.

        Raises:
            CheckpointError: the autoencoder has no prior.
            ConfigError: ``n`` < 1.
        """
        if n < 1:
            raise ConfigError(f"`n` must be >= 1; got {n}.")
        seeds = range(seed, seed + n)
        return to_pil(self.renderer.decode(self.renderer.sample_codes(seeds), self.renderer.noise(seeds)))

    # -- editing ------------------------------------------------------------------------------------------------------

    @completed_with(lambda editor: editor.attributes, kind=float)
    @checked_call
    def edit(
        self,
        images: Pictures,
        *,
        seed: int | None = None,
        align: bool = False,
        face: str | int = "only",
        detector: alignment.FaceDetector | None = None,
        check: bool = True,
        quality: Quality = "standard",
        **strengths: float,
    ) -> Pictures:
        """Move attributes of faces; several at once are composed.

        Args:
            images: a PIL image, a list of them, an array (b, h, w, 3) uint8 or a tensor (b, 3, h, w) in [-1, 1]; or
                ``vlbias.originals.Original.read(path)``, to write the result in the format and quality of the file.
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
            check: refuse pictures that are no faces as the editor knows them: far from square, or rebuilt much worse
                than faces of its own kind. ``False`` edits them all the same.
            quality: ``"draft"`` for a preview in few evaluations; ``"standard"``; ``"exact"`` in as many as leave
                hardly a pixel half a grey level from an edit of 60. See :class:`vlbias.rendering.Qualities`.
            **strengths: attribute=strength; 1.0 carries a median face of one pole to the other, the sign says which
                way (+ towards the positive prompt).

        Returns:
            Edited faces, in the kind that was given and, without ``seed``, in the size that was given: what the edit
            changed is enlarged and added to the picture's own pixels (of a picture that is not square, to its central
            square). Strengths of 0 and no seed return the faces unchanged, pixel by pixel. With ``seed`` nothing of
            the picture's own detail is left to keep, and faces come out at the editor's size.

        Raises:
            UnknownNameError: no path of that name.
            ConfigError: a strength that is not finite or beyond ``vlbias.rendering.MAX_STRENGTH``, or no such quality.
            ShapeError: ``images`` is something other than the above.
            ImageError: with ``check``, a picture of another kind than the editor was made for; with ``align``, a photo
                without a face, with several where one was asked for, or with a face that is too small; the message
                says which picture.
            MissingDependencyError: with ``align``, no detector was given and the default one is not installed.

        Warns:
            OutOfRangeWarning: a strength leads a face beyond those that the editor knows, say an old face that is
                aged further; the message names the strength that stays inside.
        """
        if quality != "standard":
            options = {"seed": seed, "align": align, "face": face, "detector": detector, "check": check}
            return self.at_quality(quality).edit(images, **options, **strengths)  # type: ignore[arg-type]
        self.renderer.check_strengths(strengths)
        if align:
            given = given_photos(images, detector=detector, face=face, layout=self.layout)
        else:
            given = given_faces(images, self.image_size)
        if check:
            given.check_square()
        x_0 = self._tensor(given)
        if check and (seed is not None or any(strengths.values())):
            self.renderer.check_known(x_0, "" if align else "find the face with align=True (--align), ")
        edited = self._edited(x_0, seed, strengths)
        return cast("Pictures", given.changed(x_0, edited) if seed is None or align else given.answer(edited))

    def _tensor(self, given: Given) -> torch.Tensor:
        """Faces (b, 3, h, w) at the editor's size, where its networks are."""
        return given.to_tensor(self.image_size).to(self.renderer.device)

    def _edited(self, x_0: torch.Tensor, seed: int | None, strengths: Mapping[str, float]) -> torch.Tensor:
        """Faces (b, 3, h, w) at the editor's size => their edits."""
        moving = {name: strength for name, strength in strengths.items() if strength != 0}
        if seed is None and not moving:
            return x_0
        z_sem = self.renderer.encode(x_0)
        self.renderer.warn_beyond(z_sem, moving)
        if seed is None:
            return self.renderer.edit(x_0, z_sem, moving)
        fresh = self.renderer.noise(range(seed, seed + len(x_0)))
        return self.renderer.decode(self.renderer.walk(z_sem, moving), fresh)

    @checked_call
    def strip(
        self, image: Image.Image, name: str, *, steps: int = 7, reach: float = 1.0, scale: int = 2, check: bool = True
    ) -> Image.Image:
        """One picture, the path walked: the face at ``steps`` strengths from -reach to +reach.

        Raises:
            UnknownNameError: no path of that name.
            ImageError: with ``check``, a picture of another kind than the editor was made for; see :meth:`edit`.
            ConfigError: fewer than 2 steps, or a reach out of range.
        """
        checked_number("steps", steps, low=2, high=100)
        checked_number("scale", scale, low=1, high=16)
        self.renderer.check_strengths({name: reach})
        given = given_faces(image, self.image_size)
        x_0 = self._tensor(given)
        if check:
            given.check_square()
            self.renderer.check_known(x_0)
        # the middle is 0 exactly, and shows the face itself
        strengths = torch.linspace(-reach, reach, steps, dtype=torch.float64).round(decimals=6).float() + 0.0
        captions = [f"{strength:+.2g}" for strength in strengths.tolist()]
        walked = self.renderer.strip(x_0, name, strengths)
        return contact_sheet(to_pil(walked), steps, captions=captions, scale=scale)

    @checked_call
    def learn(
        self,
        name: str,
        dipole: Dipole,
        images: Images,
        *,
        guards: Sequence[str] | None = None,
        seed: int = 0,
        **settings: str | float | bool | None,
    ) -> None:
        """Learn a new path from text alone; it is saved with the editor.

        Args:
            name: what :meth:`edit` will call it; must be new.
            dipole: its two poles; one that is named like a known attribute has that attribute's positive pole
                (`docs/attributes.md`) at its own.
            images: faces to learn on, some hundreds; labels are not needed.
            guards: dipoles that the path must leave alone; ``None`` for all that the editor knows.
            seed: of the training.
            **settings: fields of ``vlbias.paths.PathTrainingSettings``.

        Raises:
            ConfigError: the name is taken or is not an identifier.
            CheckpointError: the editor has no CLIP.
        """
        self.check_new_path(name)
        x_0 = self._tensor(given_faces(images, self.image_size))
        self.renderer = self.renderer.learned(name, dipole, x_0, guards=guards, settings={**settings, "seed": seed})

    @checked_call
    def check_new_path(self, name: str) -> None:
        """Refuse a name that :meth:`learn` cannot give to a new path, before faces are made for it.

        Raises:
            ConfigError: the name is taken, is not an identifier, or is that of an argument of :meth:`edit`.
        """
        self.renderer.check_new_path(name, reserved=inspect.signature(Editor.edit).parameters)
