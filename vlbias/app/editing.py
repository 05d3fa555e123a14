"""What the first tab does, without a page: one face in hand, edited as often as a slider moves."""

from __future__ import annotations

import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from vlbias.alignment import FaceDetector, Similarity, align
from vlbias.checkpoints import list_checkpoints
from vlbias.editor import Editor
from vlbias.errors import (
    CheckpointError,
    ConfigError,
    FaceError,
    ImageError,
    MissingDependencyError,
    OutOfRangeWarning,
    unknown,
)
from vlbias.files import write_file
from vlbias.given import LEAST_RATIO, given_faces
from vlbias.images import to_pil, to_pixels, to_tensor
from vlbias.originals import Encoded, Original
from vlbias.paths import Dipole, EncoderConstraint
from vlbias.progress import Progress, listening
from vlbias.rendering import Renderer
from vlbias.shown import printable
from vlbias.types import Traced
from vlbias.world import render, sample

__all__ = ["Bench", "Edit", "Lookup", "Reading", "Shelf"]

#: Where faces are looked for: "face" takes the picture as a face crop, "photo" finds the face in it, "auto" decides.
Find = Literal["auto", "face", "photo"]

#: Longer edge of what is shown, in pixels; a file that is downloaded has the size of the photograph.
SHOWN_PX = 1024
#: Smaller pictures are shown enlarged to about this edge.
ENLARGED_PX = 512
#: Letters of an uploaded file's name that a download keeps.
_NAME_LENGTH = 50
#: Faces that a new path is learned on.
LEARNING_FACES = 400


class Shelf:
    """The editors that can be picked, loaded when they are first asked for.

    Args:
        folders: editor folders of the user, beside the shipped ones.
    """

    def __init__(self, folders: Sequence[Path] = ()):
        self._places: dict[str, str | Path] = {str(folder): folder for folder in folders}
        self._places |= {name: name for name in list_checkpoints()}
        self._loaded: dict[str, Editor] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """What can be picked, the user's own first."""
        return list(self._places)

    def editor(self, name: str) -> Editor:
        """An editor by its name.

        Raises:
            UnknownNameError: none of :attr:`names`; others are not looked for on the disk.
            CheckpointError: it is damaged.
        """
        if name not in self._places:
            raise unknown("editor", name, self._places)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = Editor.from_pretrained(self._places[name])
            return self._loaded[name]


@dataclass(frozen=True)
class Lookup:
    """How a picture is taken.

    Attributes:
        find: "face", "photo" or "auto": photographs are searched where the editor knows photographs.
        face: of a photograph with several: "only", "largest", or a number counted from the left, from 0.
        check: refuse pictures of another kind than the editor was made for.
    """

    find: Find = "auto"
    face: str | int = "only"
    check: bool = True


@dataclass(frozen=True)
class Reading:
    """What is read of one attribute, as probabilities of its positive pole; ``None`` where nothing reads it.

    Attributes:
        name: the attribute.
        poles: its negative and positive pole, in words.
        latent: by the probe on semantic codes, before and after.
        picture: by the CLIP that looks at pictures, before and after.
    """

    name: str
    poles: tuple[str, str]
    latent: tuple[float, float] | None
    picture: tuple[float, float] | None


@dataclass(frozen=True)
class Edit:
    """One edit of the face in hand.

    Attributes:
        strengths: of each path that was walked.
        before, after: what is shown, RGB, of one size.
        face: the edited face (1, 3, h, w) at the editor's size.
        remarks: what the library warned of.
    """

    strengths: Mapping[str, float]
    before: Image.Image
    after: Image.Image
    face: torch.Tensor
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Face:
    """A picture that was opened for an editor."""

    name: str
    original: Original
    placement: Similarity | None  # of the face in the photograph; None for the central square
    x_0: torch.Tensor
    z_sem: torch.Tensor
    shown: Original  # upright RGB, no larger than SHOWN_PX
    shown_placement: Similarity | None
    traces: dict[tuple[str, int], Traced] = field(default_factory=dict)  # by method and steps, filled when needed


class Bench:
    """An editor with one face in hand.

    Args:
        editor: it is shared and stays as it is; a path that is learned is the bench's own.
        detector: finds faces in photographs; ``None`` for the default one.
    """

    def __init__(self, editor: Editor, detector: FaceDetector | None = None):
        self.editor = editor
        self._detector = detector
        self._face: _Face | None = None

    @property
    def has_face(self) -> bool:
        """Whether a picture was opened."""
        return self._face is not None

    # -- opening ------------------------------------------------------------------------------------------------------

    def open(self, path: Path, lookup: Lookup | None = None, *, name: str = "") -> None:
        """Take a picture in hand; the one before is put away also where this one is refused.

        Args:
            path: the file.
            lookup: how it is taken; ``None`` for the defaults.
            name: what the file is called where ``path`` is a copy.

        Raises:
            ImageError: no picture, one of another kind than the editor's, or a photograph without the face that was
                asked for.
            MissingDependencyError: nothing that finds faces is installed.
        """
        self._face = None
        name, lookup = name or path.name, lookup or Lookup()
        try:
            original = Original.read(path)
        except ImageError as error:  # it names the copy, which is nobody's business
            raise ImageError(str(error).replace(str(path), name)) from error
        try:
            self._face = self._taken(name, original, lookup)
        except ImageError as error:
            raise _told_here(error) from error

    def _taken(self, name: str, original: Original, lookup: Lookup) -> _Face:
        placement = self._placement(original, lookup)
        x_0 = self._crop(original.upright, placement)
        renderer = self.editor.renderer
        if lookup.check:
            renderer.check_known(x_0)
        shown, shown_placement = _at_shown_size(original, placement)
        return _Face(name, original, placement, x_0, renderer.encode(x_0), shown, shown_placement)

    def _placement(self, original: Original, lookup: Lookup) -> Similarity | None:
        """Where the face lies; ``None`` where the picture is a face crop."""
        upright = original.upright
        if lookup.find == "face":
            if lookup.check:
                given_faces(upright, self.editor.image_size).check_square()
            return None
        # no detector for photographs finds drawn faces
        if lookup.find == "auto" and self.editor.layout == "synthfaces" and _is_crop(upright):
            return None
        try:
            found = align(upright, size=None, detector=self._detector, face=lookup.face, layout=self.editor.layout)
        except (FaceError, MissingDependencyError) as error:
            if lookup.find == "auto" and getattr(error, "code", "") != "several_faces" and _is_crop(upright):
                return None
            raise
        except ConfigError as error:
            fact = f"the picture has no face number {int(lookup.face) + 1} from the left"
            raise ImageError(fact, code="several_faces") from error
        return found.transform

    def _crop(self, upright: Image.Image, placement: Similarity | None) -> torch.Tensor:
        size = self.editor.image_size
        crop = upright if placement is None else Original(upright).cut(placement).upright
        return to_tensor(crop, size).to(self.editor.renderer.device)

    # -- editing ------------------------------------------------------------------------------------------------------

    def edit(self, strengths: Mapping[str, float], *, preview: bool = False) -> Edit:
        """Edit the face in hand.

        Args:
            strengths: path => strength; paths of strength 0 are not walked.
            preview: few network evaluations and no correction, for a slider that moves.

        Raises:
            ImageError: no picture was opened.
            UnknownNameError: no path of that name.
        """
        face, renderer = self._need_face(), self._renderer(preview)
        moving = {name: strength for name, strength in strengths.items() if strength}
        edited = face.x_0
        with _remarks() as remarks:
            if moving:
                renderer.warn_beyond(face.z_sem, moving)
                edited = renderer.edit(face.x_0, face.z_sem, moving, traced=_traced(face, renderer))
        after = self._changed(face.shown, edited, face.shown_placement)
        return Edit(moving, _enlarged(face.shown.upright), _enlarged(after), edited, tuple(remarks))

    def _renderer(self, preview: bool) -> Renderer:
        return self.editor.renderer.at_quality("draft" if preview else "standard")

    def _changed(self, original: Original, edited: torch.Tensor, placement: Similarity | None) -> Image.Image:
        face = self._need_face()
        return original.changed(to_pixels(face.x_0)[0], to_pixels(edited)[0], placement)

    def readings(self, edit: Edit) -> list[Reading]:
        """What every scorer of the editor reads before and after an edit."""
        face, renderer = self._need_face(), self.editor.renderer
        codes, faces = (face.z_sem, renderer.encode(edit.face)), (face.x_0, edit.face)
        probed = [] if renderer.probes is None else list(renderer.probes.names)
        readings = []
        for name, dipole in renderer.dipoles.items():
            latent = [float(renderer.probe(z, name)) for z in codes] if name in probed else None
            seen = [float(renderer.score(x, name)) for x in faces] if renderer.can_read_pictures else None
            readings.append(Reading(name, (dipole.negative[0], dipole.positive[0]), _pair(latent), _pair(seen)))
        return readings

    def identity(self, edit: Edit) -> float:
        """Cosine of the two faces' semantic codes, normalised: 1 for the same code, near 0 for strangers."""
        constraint = EncoderConstraint(self.editor.renderer.diffae)
        return float(constraint.similarity(self._need_face().x_0, edit.face.to(self.editor.renderer.device)))

    def strip(self, path: str, *, steps: int = 7, reach: float = 1.0) -> tuple[Image.Image, tuple[str, ...]]:
        """The face in hand at ``steps`` strengths along one path, and what the library warned of.

        Raises:
            ImageError: no picture was opened.
            UnknownNameError: no path of that name.
        """
        crop = to_pil(self._need_face().x_0)[0]
        with _remarks() as remarks:
            sheet = self.editor.strip(crop, path, steps=steps, reach=reach, check=False)
        return sheet, tuple(remarks)

    def save(self, edit: Edit, folder: Path) -> Path:
        """Write an edit at the full size of the picture it was made from, with its provenance in it.

        Returns:
            The file: in the format of the picture, or PNG where that has no room for provenance.
        """
        face = self._need_face()
        original = face.original
        if original.format == "BMP":
            original = Original.of_picture(original.upright)
        raster = self._changed(original, edit.face, face.placement)
        said = {"editor": self.editor.name, "source": face.name, "edits": str(dict(edit.strengths))}
        said = {"synthetic": "true", **said} if edit.strengths else {}
        encoded: Encoded = original.encode(raster, said)
        stem = printable(Path(face.name).stem)[:_NAME_LENGTH] or "face"
        target = folder / f"{stem}-edited{encoded.suffix}"
        write_file(target, encoded.data)
        return target

    # -- learning -----------------------------------------------------------------------------------------------------

    def learn(
        self,
        name: str,
        texts: tuple[str, str],
        faces: torch.Tensor | None = None,
        *,
        steps: int = 150,
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Learn a new path from two texts; the bench's editor has it afterwards, the shared one has not.

        Args:
            name: of the path.
            texts: positive and negative pole.
            faces: to learn on, (n, 3, h, w) in [-1, 1]; ``None`` for faces that the editor makes up itself.
            steps: of the training.
            progress: called as the training goes on.

        Raises:
            ConfigError: the name is taken or is none, or a text is empty.
            CheckpointError: the editor has no CLIP, or nothing to make faces up with.
        """
        own = self.editor.with_settings()  # the same networks, another object
        own.check_new_path(name)  # before faces are made
        dipole = Dipole(*texts)
        with listening(progress):
            own.learn(name, dipole, self._own_faces() if faces is None else faces, steps=steps)
        self.editor = own

    def _own_faces(self) -> torch.Tensor:
        """Faces of the kind that the editor knows: drawn ones, or from its prior."""
        renderer = self.editor.renderer
        if self.editor.layout == "synthfaces":
            return render(sample(LEARNING_FACES, seed=0), size=self.editor.image_size)
        if not renderer.can_sample:
            raise CheckpointError(
                f"'{self.editor.name}' cannot make faces up to learn on. Start the page with a folder of faces: "
                "vlbias app FOLDER."
            )
        seeds = range(LEARNING_FACES // 2)
        return renderer.decode(renderer.sample_codes(seeds), renderer.noise(seeds), num_steps=4)

    def save_editor(self, folder: Path) -> Path:
        """Write the editor, with the paths that were learned here, as a zip of its folder."""
        name = f"{self.editor.name}-learned"
        with tempfile.TemporaryDirectory(dir=folder) as place:
            self.editor.save_pretrained(Path(place) / name)
            return Path(shutil.make_archive(str(folder / name), "zip", place))

    def _need_face(self) -> _Face:
        if self._face is None:
            raise ImageError("no picture is open yet. Drop one first.")
        return self._face


def _traced(face: _Face, renderer: Renderer) -> Traced:
    """The face's inversion, made once for all edits that take it."""
    key = (renderer.settings.method, renderer.settings.edit_steps)
    if key not in face.traces:
        face.traces[key] = renderer.trace(face.x_0, face.z_sem)
    return face.traces[key]


# -- pictures ---------------------------------------------------------------------------------------------------------


def _is_crop(upright: Image.Image) -> bool:
    return min(upright.size) >= LEAST_RATIO * max(upright.size)


def _at_shown_size(original: Original, placement: Similarity | None) -> tuple[Original, Similarity | None]:
    """What is shown of a picture: edits of it are quick, however large the file."""
    upright = original.upright
    scale = min(1.0, SHOWN_PX / max(upright.size))
    if scale == 1:
        return Original(upright), placement
    width, height = (max(1, round(edge * scale)) for edge in upright.size)
    small = Original(upright.resize((width, height), Image.Resampling.LANCZOS))
    return small, None if placement is None else Similarity(placement.matrix * scale, placement.size)


def _enlarged(picture: Image.Image) -> Image.Image:
    scale = ENLARGED_PX // max(picture.size)
    if scale < 2:
        return picture
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)


#: What the page has for a picture that is refused, by the code of the error.
_REMEDIES = {
    "several_faces": "Choose one under 'Which face'.",
    "no_face": "Use a frontal picture, or say that the face fills it.",
    "not_square": "Choose 'a photograph: find the face', or cut the face out.",
    "other_kind": "Pick another editor, or tick 'Take it even if the editor does not know its kind' under 'How the "
    "picture is taken'.",
}


def _told_here(error: ImageError) -> ImageError:
    """The same sentence with a remedy that the page has."""
    remedy = _REMEDIES.get(error.code)
    return error if remedy is None else ImageError(error.fact, code=error.code, remedy=remedy)


def _pair(values: Sequence[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


@contextmanager
def _remarks() -> Iterator[list[str]]:
    """What is warned of in the block, as sentences."""
    sentences: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OutOfRangeWarning)
        yield sentences
    sentences += [str(one.message) for one in caught if issubclass(one.category, OutOfRangeWarning)]
