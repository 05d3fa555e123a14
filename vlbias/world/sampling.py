"""Draw faces from any joint distribution of their labels."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import torch

from vlbias.errors import ConfigError
from vlbias.settings import checked_number
from vlbias.world.attributes import ATTRIBUTES, CATEGORIES, NUISANCES, PICTURE_LABELS, TRAITS
from vlbias.world.chance import picture_keys, row_keys, uniform
from vlbias.world.faces import Faces
from vlbias.world.joint import Joint, JointOptions

__all__ = ["MAX_FACES", "identities", "sample"]

_SETTINGS = ("varied", "posed")
#: Of one call: more would fill the memory with labels alone; another `start` gives other faces.
MAX_FACES = 1_000_000


def sample(
    n: int | None = None,
    *,
    setting: str = "varied",
    seed: int = 0,
    start: int = 0,
    **labels: Unpack[JointOptions],
) -> Faces:
    """Draw the attributes of n faces; by default every two-valued label is a fair coin, independent of the others
    (but beards go with men, and hair length leans on gender).

    Face i depends on ``(seed, start + i)`` alone, whatever n is; only exact counts in ``cells`` tie the faces of one
    call together, and then only in the labels named there.

    Args:
        n: number of faces, >= 0; None takes the total of the counts in ``cells``.
        setting: ``"varied"``, or ``"posed"`` with calm pose, light and expression at full strength.
        seed: which population, of 64 bits. start: index of the first face.
        **labels: how labels are distributed: fields of :class:`~vlbias.world.joint.Joint`, which has their exact
            meaning. ``bias={("smile", "skin"): 0.9}``: smiling goes with dark skin, rates unchanged.
            ``cells={("smile", "skin"): {(1, "dark"): 35, (1, "light"): 414, ...}}``: exact counts, or proportions.
            ``rates={"glasses": 0.1}``: probability of a label's positive value. ``expressions``: those to draw evenly,
            e.g. :data:`EXPRESSIONS`; without them smiling or neutral faces.

    Raises:
        ConfigError: a number, setting or distribution out of range or contradictory.
        UnknownNameError: an attribute that does not exist.

    Example:
        >>> sample(4, seed=0).age.shape
        torch.Size([4])
        >>> faces = sample(cells={("smile", "skin"): {(1, "dark"): 1, (1, "light"): 3, (0, "light"): 2}})
        >>> int((faces.table()["smile"] == 1).sum())
        4
    """
    joint = _joint(labels)
    total = joint.num_exact
    n = total if n is None else n
    if n is None:
        raise ConfigError("`n` must be given, unless `cells` contains counts.")
    checked_number("n", n, low=0, high=MAX_FACES)
    _check_place(seed, start)
    if total is not None and (n != total or start != 0):
        raise ConfigError(f"`cells` counts {total} faces in all; got n={n}, start={start}. Leave both out.")
    keys = row_keys(seed, start, n)
    return _faces(joint, keys, keys, np.arange(start, start + n), setting)


def identities(
    num_identities: int,
    images_per_identity: int,
    *,
    setting: str = "varied",
    seed: int = 0,
    start: int = 0,
    **labels: Unpack[JointOptions],
) -> Faces:
    """Several pictures of each person: geometry, age, skin, gender, hair, eyes, nose, lips and beard stay, while
    expression, glasses and every nuisance change. Faces come person by person; ``identity`` says who.

    Arguments as in :func:`sample`; counts in ``cells`` count persons, and hold labels of persons alone. Picture j of
    person i depends on ``(seed, start + i, j)`` alone.

    Raises:
        ConfigError: as :func:`sample`; or a person's label is planted to follow smile or glasses.
    """
    joint = _joint(labels)
    checked_number("num_identities", num_identities, low=0, high=MAX_FACES)
    checked_number("images_per_identity", images_per_identity, low=1, high=MAX_FACES // max(num_identities, 1))
    _check_place(seed, start)
    if late := joint.picture_parents():
        raise ConfigError(f"A person's label cannot follow a label of the picture; got {late}.")
    total = joint.num_exact
    if total is not None and (num_identities != total or start != 0):
        raise ConfigError(f"`cells` counts {total} persons in all; got {num_identities}, start={start}.")
    persons = row_keys(seed, start, num_identities)
    pictures = picture_keys(persons, images_per_identity)
    who = np.arange(start, start + num_identities)
    return _faces(joint, persons, pictures, who, setting)


def _joint(labels: JointOptions) -> Joint:
    known = sorted(JointOptions.__annotations__)
    if wrong := sorted(set(labels) - set(known)):
        raise ConfigError(f"`{wrong[0]}` says nothing about labels; there are {', '.join(known)}.")
    return Joint(
        labels.get("bias") or {}, labels.get("cells") or {}, labels.get("rates") or {}, labels.get("expressions")
    )


def _check_place(seed: object, start: object) -> None:
    checked_number("seed", seed)
    checked_number("start", start, low=0, high=2**62)


def _faces(joint: Joint, persons: np.ndarray, pictures: np.ndarray, who: np.ndarray, setting: str) -> Faces:
    if setting not in _SETTINGS:
        raise ConfigError(f"`setting` must be one of {', '.join(map(repr, _SETTINGS))}; got {setting!r}.")
    repeat = 1 if len(persons) == 0 else len(pictures) // len(persons)
    of_picture = {*PICTURE_LABELS, "expression", "smile_intensity", "glasses_opacity"}

    def draw(name: str) -> np.ndarray:
        """Draws of a person's values are shared by all pictures of that person."""
        if name.split(":")[-1] in of_picture:
            return uniform(pictures, name)
        return np.repeat(uniform(persons, name), repeat)

    codes = joint.draw(draw)
    values: dict[str, torch.Tensor] = {}
    for name, scale in ATTRIBUTES.items():
        values[name] = torch.from_numpy(scale.value(codes[scale.label], draw("value:" + name))).float()
    for name in CATEGORIES:
        values[name] = torch.from_numpy(codes[name])
    halves = uniform(persons, "geometry", 2 * len(TRAITS))  # two draws a trait: most people are near the middle
    geometry = np.repeat(halves[:, ::2] + halves[:, 1::2] - 1, repeat, axis=0)
    return Faces(
        **values,
        identity=torch.from_numpy(np.repeat(who, repeat).astype(np.int64)),
        geometry=torch.from_numpy(geometry).float(),
        nuisance=torch.from_numpy(_nuisances(pictures, setting)).float(),
        key=torch.from_numpy(pictures.view(np.int64).copy()),
    )


def _nuisances(keys: np.ndarray, setting: str) -> np.ndarray:
    """Nuisances in their ranges, float64 (n, len(NUISANCES)); posed pictures keep near the middle."""
    draws = uniform(keys, "nuisance", len(NUISANCES))
    low = np.array([item.low for item in NUISANCES.values()])
    high = np.array([item.high for item in NUISANCES.values()])
    if setting == "posed":
        calm = np.array([item.calm for item in NUISANCES.values()])
        draws = 0.5 + (draws - 0.5) * calm
        strong = list(NUISANCES).index("expression_strength")
        draws[:, strong] = 1 - (1 - draws[:, strong]) * calm[strong]
    return low + (high - low) * draws
