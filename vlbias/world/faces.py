"""Faces: the true attributes of n drawn faces, as tensors; counterfactuals and the label table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vlbias.errors import ConfigError, ShapeError, unknown
from vlbias.world.attributes import (
    ATTRIBUTES,
    CATEGORIES,
    EXPRESSIONS,
    LABELS,
    NUISANCES,
    TRAITS,
    label_of,
    label_position,
)
from vlbias.world.chance import uniform
from vlbias.world.color import greyness

__all__ = ["Faces"]

_NEUTRAL, _HAPPY = EXPRESSIONS.index("neutral"), EXPRESSIONS.index("happy")


@dataclass(frozen=True)
class Faces:
    """The truth about n faces. Make them with :func:`sample` or :func:`identities`, draw them with :func:`render`.

    Attributes (all of length n):
        age: years, 18..85. skin_tone: Monk step, 1..10. masculinity: gender presentation, 0 feminine .. 1 masculine.
        smile_intensity, nose_width, lip_fullness, beard_amount, glasses_opacity: 0..1.
        hair_color, hair_length, eye_color, expression, dialect: codes into :data:`attributes.CATEGORIES`, int64.
        hair_color is the pigment; age turns it grey. identity: which person, int64.
        geometry: the person's traits in [-1, 1], (n, len(TRAITS)). nuisance: (n, len(NUISANCES)), see NUISANCES.
        key: int64, the face's own random stream (values inside a label, sensor noise).
    """

    age: Tensor
    skin_tone: Tensor
    masculinity: Tensor
    smile_intensity: Tensor
    nose_width: Tensor
    lip_fullness: Tensor
    beard_amount: Tensor
    glasses_opacity: Tensor
    hair_color: Tensor
    hair_length: Tensor
    eye_color: Tensor
    expression: Tensor
    dialect: Tensor
    identity: Tensor
    geometry: Tensor
    nuisance: Tensor
    key: Tensor

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in dataclasses.fields(self)}
        if len(set(lengths.values())) > 1:
            raise ShapeError(f"Fields of Faces must have one length; got {lengths}.")
        for name, width in (("geometry", len(TRAITS)), ("nuisance", len(NUISANCES))):
            if getattr(self, name).shape[1:] != (width,):
                raise ShapeError(f"`{name}` must be (n, {width}); got {tuple(getattr(self, name).shape)}.")

    def __len__(self) -> int:
        return len(self.key)

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray | Tensor) -> Faces:
        """Some of the faces: a slice, a list of rows, a boolean mask, or one row (still of length 1)."""
        if isinstance(rows, (int, np.integer)):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"Row {rows} of {len(self)} faces.")
            rows = [int(rows)]
        if isinstance(rows, (list, tuple, np.ndarray, pd.Series)):
            array = np.asarray(rows)
            rows = torch.tensor(array, dtype=torch.bool if array.dtype == bool else torch.int64)
        return Faces(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})

    @staticmethod
    def cat(parts: Sequence[Faces]) -> Faces:
        """Several sets of faces as one, in order."""
        if not parts:
            raise ConfigError("Faces.cat needs at least one set of faces.")
        return Faces(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Faces)})

    def replace(self, **attributes: object) -> Faces:
        """The true counterfactual: the same faces with some attributes changed and all else equal, noise included.

        Args:
            attributes: by field (``age=70.``, ``skin_tone=9.``, ``nose_width=0.9``, ``hair_length="long"``) or by
                label (``gender="male"``, ``smile=1``, ``age_group="old"``, ``glasses=0``); one value for all faces or
                n of them. A label leaves faces that have it as they are, and gives the others the value that this face
                would have been drawn with, so setting a label and setting it back returns the first faces.

        Raises:
            UnknownNameError: no such attribute. ConfigError: value out of range, or one attribute named twice.
        """
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        named: set[str] = set()
        for name, value in attributes.items():
            known = [*ATTRIBUTES, *LABELS, *CATEGORIES]
            if name not in known:
                raise unknown("attribute", name, known, where="Faces.replace")
            label = label_of(name)
            if label in named or (label in ("smile", "expression") and named & {"smile", "expression"}):
                raise ConfigError(f"'{name}' sets what another argument sets already; name one of them.")
            named.add(label)
            values = self._for_each_face(name, value)
            if name in CATEGORIES:
                codes = torch.tensor([label_position(name, v) for v in values], dtype=torch.int64)
                changed[name] = codes.to(self.age.device)
                if name == "expression":
                    smiles = (changed[name] == _HAPPY).long()
                    changed["smile_intensity"] = self._relabel("smile_intensity", smiles)
            elif name in LABELS:
                codes = torch.tensor([label_position(name, v) for v in values], dtype=torch.int64)
                changed[LABELS[name]] = self._relabel(LABELS[name], codes.to(self.age.device))
            else:
                changed[name] = self._checked(name, values).to(self.age)
            if label == "smile":
                changed["expression"] = self._expression_for(changed["smile_intensity"])
        return Faces(**changed)

    def _for_each_face(self, name: str, value: object) -> list[Any]:
        """One value for all faces, or one each, as a list of n."""
        if isinstance(value, (Tensor, np.ndarray, pd.Series)):
            value = value.tolist() if getattr(value, "ndim", 1) else value.item()
        if isinstance(value, (list, tuple)):
            if len(value) != len(self):
                raise ConfigError(f"`{name}` must be one value or {len(self)} values, one per face; got {len(value)}.")
            return list(value)
        return [value] * len(self)

    def _checked(self, name: str, values: list[object]) -> Tensor:
        scale = ATTRIBUTES[name]
        for value in values:
            if not isinstance(value, Real) or isinstance(value, bool) or not scale.low <= float(value) <= scale.high:
                raise ConfigError(f"`{name}` must lie in {scale.low:g}..{scale.high:g}; got {value!r}.")
        return torch.tensor(values, dtype=torch.float32)

    def _relabel(self, name: str, codes: Tensor) -> Tensor:
        """Values of attribute ``name`` under new label codes (n,)."""
        scale, now = ATTRIBUTES[name], getattr(self, name)
        rank = uniform(self.key.cpu().numpy().view(np.uint64), "value:" + name)
        drawn = torch.from_numpy(scale.value(codes.cpu().numpy(), rank)).to(now)
        return torch.where((now >= scale.split).long() == codes, now, drawn)

    def _expression_for(self, smile: Tensor) -> Tensor:
        """Happy where the mouth smiles; neutral where a happy face stops; other expressions stay."""
        smiles = smile >= ATTRIBUTES["smile_intensity"].split
        calm = torch.where(self.expression == _HAPPY, torch.full_like(self.expression, _NEUTRAL), self.expression)
        return torch.where(smiles, torch.full_like(calm, _HAPPY), calm)

    def label(self, name: str) -> Tensor:
        """Codes of a label, int64 (n,): 1 is the positive value (dark, old, male, wide, full, smiling, worn)."""
        label = label_of(name)
        if label in CATEGORIES:
            return getattr(self, label)
        return (getattr(self, LABELS[label]) >= ATTRIBUTES[LABELS[label]].split).long()

    def table(self) -> pd.DataFrame:
        """One row per face: each attribute's value and its label, by name; ``hair_color`` is what one sees, so "grey"
        once half of the pigment is gone.
        """
        columns: dict[str, object] = {}
        for name, scale in ATTRIBUTES.items():
            if name != "glasses_opacity":
                columns[name] = getattr(self, name).double().cpu().numpy()
            columns[scale.label] = np.array([scale.negative, scale.positive])[self.label(scale.label).cpu().numpy()]
        for name, values in CATEGORIES.items():
            columns[name] = np.array(values, dtype=object)[getattr(self, name).cpu().numpy()]
        grey = greyness(self.age, self.trait("greying")).cpu().numpy() > 0.5
        columns["hair_color"] = np.where(grey, "grey", columns["hair_color"])  # type: ignore[call-overload]
        columns["identity"] = self.identity.cpu().numpy()
        return pd.DataFrame(columns)

    def to(self, device: torch.device | str) -> Faces:
        """The same faces on another device."""
        return Faces(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})

    def trait(self, name: str) -> Tensor:
        """One geometry trait, (n,) in [-1, 1]."""
        return self.geometry[:, _position(name, TRAITS, "trait")]

    def nuisance_of(self, name: str) -> Tensor:
        """One nuisance, (n,), in the units of :data:`attributes.NUISANCES`."""
        return self.nuisance[:, _position(name, tuple(NUISANCES), "nuisance")]


def _position(name: str, names: tuple[str, ...], kind: str) -> int:
    if name not in names:
        raise unknown(kind, name, names, where="Faces")
    return names.index(name)
