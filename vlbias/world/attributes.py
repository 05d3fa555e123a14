"""What a face has: attributes with their ranges and labels, the geometry that is its identity, the nuisances."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np

from vlbias.errors import ConfigError, unknown

__all__ = [
    "ATTRIBUTES",
    "BEARD_RATE",
    "CATEGORIES",
    "DEPENDENT_COLUMNS",
    "DIALECTS",
    "EXPRESSIONS",
    "LABELS",
    "NUISANCES",
    "PERSON_LABELS",
    "PICTURE_LABELS",
    "TRAITS",
    "Nuisance",
    "Scale",
    "label_of",
    "label_position",
]


@dataclass(frozen=True)
class Scale:
    """A continuous attribute that carries a two-valued label.

    Attributes:
        low, high: allowed values.
        split: the label is ``positive`` from this value on (``>=``).
        label: name of the label column. negative, positive: its two values.
        draws: ranges that values are drawn from, evenly, for the negative and the positive label.
        rate: default probability of the positive label.
        unclear: ranges between ``draws`` and ``split`` that ``UNCLEAR_SHARE`` of the values come from, or None.
    """

    low: float
    high: float
    split: float
    label: str
    negative: object
    positive: object
    draws: tuple[tuple[float, float], tuple[float, float]]
    rate: float = 0.5
    unclear: tuple[tuple[float, float], tuple[float, float]] | None = None

    def value(self, codes: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """The values, float64 (n,), at ranks in [0, 1) among the faces with label codes 0 or 1, both (n,)."""
        low, high = np.array(self.draws, dtype=np.float64)[codes].T
        if self.unclear is None:
            return low + (high - low) * rank
        clear = 1 - UNCLEAR_SHARE
        between, split = np.array(self.unclear, dtype=np.float64)[codes].T
        slight = between + (split - between) * (rank - clear) / UNCLEAR_SHARE
        return np.where(rank < clear, low + (high - low) * rank / clear, slight)


# A slight smile, a thin pale frame: with them no classifier is always right about smiles and glasses.
UNCLEAR_SHARE = 0.12

# Few faces stand near a split: the labels are then facts, not matters of taste.
ATTRIBUTES: dict[str, Scale] = {
    "age": Scale(18, 85, 40, "age_group", "young", "old", ((18, 38), (45, 85))),
    "skin_tone": Scale(1, 10, 5.5, "skin", "light", "dark", ((1, 5.4), (5.6, 10))),
    "masculinity": Scale(0, 1, 0.5, "gender", "female", "male", ((0, 0.2), (0.8, 1))),
    "smile_intensity": Scale(0, 1, 0.4, "smile", 0, 1, ((0, 0.08), (0.65, 1)), unclear=((0.08, 0.4), (0.4, 0.65))),
    "glasses_opacity": Scale(0, 1, 0.2, "glasses", 0, 1, ((0, 0), (1, 1)), unclear=((0, 0), (0.2, 1))),
    "beard_amount": Scale(0, 1, 0.2, "beard", 0, 1, ((0, 0), (0.4, 1)), rate=0.26),
    "nose_width": Scale(0, 1, 0.5, "nose", "narrow", "wide", ((0, 0.25), (0.75, 1))),
    "lip_fullness": Scale(0, 1, 0.5, "lips", "thin", "full", ((0, 0.25), (0.75, 1))),
}
LABELS: dict[str, str] = {scale.label: name for name, scale in ATTRIBUTES.items()}

# How often a beard is worn by gender when no association is asked for; the mean is ATTRIBUTES["beard_amount"].rate.
BEARD_RATE = {"female": 0.02, "male": 0.5}

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "anger", "disgust")
DIALECTS = ("whole", "mouth", "eyes")
CATEGORIES: dict[str, tuple[str, ...]] = {
    "hair_color": ("black", "brown", "blond", "red"),
    "hair_length": ("short", "medium", "long"),
    "eye_color": ("brown", "blue", "green"),
    "expression": EXPRESSIONS,
    "dialect": DIALECTS,
}

# Columns of the label table that follow a field; a counterfactual in that field changes these and no others.
DEPENDENT_COLUMNS: dict[str, tuple[str, ...]] = {
    name: tuple(dict.fromkeys((name, scale.label))) for name, scale in ATTRIBUTES.items()
}
DEPENDENT_COLUMNS |= {name: (name,) for name in CATEGORIES}
DEPENDENT_COLUMNS["age"] += ("hair_color",)  # hair turns grey
DEPENDENT_COLUMNS["glasses_opacity"] = ("glasses",)
DEPENDENT_COLUMNS["smile_intensity"] += ("expression",)
DEPENDENT_COLUMNS["expression"] += ("smile", "smile_intensity")

# Labels that stay with a person; the others may differ between two pictures of one person.
PERSON_LABELS = ("age_group", "skin", "gender", "nose", "lips", "beard")
PICTURE_LABELS = ("smile", "glasses")

# Geometry: the identity. Each trait lies in [-1, 1]. "forehead" is drawn and shows nowhere: without it, a seed would
# give other faces.
TRAITS = (
    "face_width", "jaw", "chin", "cheeks", "forehead", "ears", "eye_spacing", "eye_size", "eye_tilt", "eye_height",
    "brow_height", "brow_thickness", "brow_arch", "nose_length", "nose_bridge", "mouth_width", "mouth_height",
    "hairline", "parting", "fringe", "recession", "wrinkles", "greying",
    "spot_0", "spot_1", "spot_2", "spot_3", "spot_4", "spot_5", "spot_6", "spot_7",
)  # fmt: skip


@dataclass(frozen=True)
class Nuisance:
    """Range of a nuisance; ``calm`` scales it around its middle where the setting is ``"posed"``."""

    low: float
    high: float
    calm: float = 1.0


NUISANCES: dict[str, Nuisance] = {
    "yaw": Nuisance(-0.24, 0.24, 0.25),  # radians
    "pitch": Nuisance(-0.12, 0.12, 0.25),  # radians
    "roll": Nuisance(-0.10, 0.10, 0.25),  # radians
    "shift_x": Nuisance(-0.05, 0.05, 0.4),  # of half the frame
    "shift_y": Nuisance(-0.04, 0.04, 0.4),
    "zoom": Nuisance(0.95, 1.05, 0.4),
    "light_side": Nuisance(-0.8, 0.8, 0.3),  # -1 left .. 1 right
    "light_height": Nuisance(0.1, 0.7, 0.4),
    "exposure": Nuisance(0.86, 1.12, 0.4),
    "ambient": Nuisance(0.42, 0.62, 0.4),
    "warmth": Nuisance(-0.09, 0.09, 0.3),  # share added to red, taken from blue
    "back_hue": Nuisance(0, 1), "back_colour": Nuisance(0.0, 0.22), "back_value": Nuisance(0.15, 0.85),
    "back_slope_x": Nuisance(-0.22, 0.22), "back_slope_y": Nuisance(-0.22, 0.22),
    "blob_x": Nuisance(-1, 1), "blob_y": Nuisance(-1, 1), "blob_size": Nuisance(0.3, 0.8),
    "blob_value": Nuisance(-0.3, 0.3),
    "cloth_hue": Nuisance(0, 1), "cloth_value": Nuisance(0.1, 0.9),
    "gaze": Nuisance(-1, 1, 0.3), "brow_mood": Nuisance(-1, 1, 0.2), "lid_mood": Nuisance(-1, 1, 0.2),
    "mouth_mood": Nuisance(-1, 1, 0.2),
    "expression_strength": Nuisance(0.6, 1.0, 0.25),  # of expressions other than a smile
    "strands": Nuisance(0, 6.283),
    "frame_style": Nuisance(0, 1), "frame_colour": Nuisance(0, 1),
    "blur": Nuisance(0.0, 0.7, 0.5),  # of a pixel at 64 px
    "noise": Nuisance(0.004, 0.016, 0.5),  # of the grey range
    "jpeg_quality": Nuisance(75, 97),
}  # fmt: skip


def label_of(name: str) -> str:
    """The label of an attribute or label name: ``"skin_tone"`` and ``"skin"`` both give ``"skin"``."""
    if name in LABELS or name in CATEGORIES:
        return name
    if name in ATTRIBUTES:
        return ATTRIBUTES[name].label
    raise unknown("attribute", str(name), [*LABELS, *CATEGORIES, *ATTRIBUTES], where="the embedded world")


def label_position(label: str, value: object) -> int:
    """0 or 1 for a two-valued label (1 = positive), the code of a category."""
    if label in LABELS:
        scale = ATTRIBUTES[LABELS[label]]
        values: tuple[object, ...] = (scale.negative, scale.positive)
    else:
        values = CATEGORIES[label]
    for code, known in enumerate(values):
        kinds = str if isinstance(known, str) else (Real, np.bool_)
        if isinstance(value, kinds) and value == known:
            return code
    raise ConfigError(f"`{label}` must be one of {', '.join(map(repr, values))}; got {value!r}.")
