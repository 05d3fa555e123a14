"""Expressions as facial actions: how far each part of the face moves (after Ekman and Friesen's FACS, simplified)."""

from __future__ import annotations

import torch
from torch import Tensor

from vlbias.world.attributes import ATTRIBUTES, DIALECTS, EXPRESSIONS

__all__ = ["actions"]

_MOUTH = ("corner", "gap", "narrow", "press", "upper_lip")
_EYES = ("brow_raise", "furrow", "inner_brow", "lid_open", "squint", "nose_wrinkle")

# Full intensity. corner > 0: mouth corners up. A smile is "happy" and is scaled by smile_intensity.
_PROTOTYPES: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"corner": 1.0, "gap": 1.0, "squint": 0.8},
    "sad": {"corner": -0.9, "inner_brow": 1.0, "squint": 0.3},
    "surprise": {"gap": 2.2, "narrow": 0.9, "brow_raise": 1.0, "lid_open": 1.0},
    "anger": {"furrow": 1.0, "press": 1.0, "corner": -0.35, "squint": 0.35},
    "disgust": {"nose_wrinkle": 1.0, "upper_lip": 1.0, "corner": -0.5, "furrow": 0.45, "squint": 0.6},
}


def actions(expression: Tensor, dialect: Tensor, smile: Tensor, strength: Tensor) -> dict[str, Tensor]:
    """Expression codes, dialect codes, smile and other strengths, all (n,) => action amounts, (n,) each.

    A dialect says which part of the face shows the expression: ``whole``, ``mouth`` alone, or ``eyes`` (brows and
    lids) alone. Only the ``happy`` prototype uses ``smile``. A neutral face with a slight smile lifts its corners;
    above the intensity of a calm mouth the rest of the smile fades in, so that nothing jumps where the label changes.
    """
    happy = (expression == EXPRESSIONS.index("happy")).float()
    level = happy * smile + (1 - happy) * strength
    amounts = {}
    for name in (*_MOUTH, *_EYES):
        table = torch.tensor([_PROTOTYPES[e].get(name, 0.0) for e in EXPRESSIONS], device=level.device)
        hidden = "eyes" if name in _MOUTH else "mouth"
        amounts[name] = table[expression] * level * (dialect != DIALECTS.index(hidden)).float()
    neutral = (expression == EXPRESSIONS.index("neutral")).float()
    scale = ATTRIBUTES["smile_intensity"]
    calm = scale.draws[0][1]
    rest = ((smile - calm) / (scale.split - calm)).clamp(0, 1)
    for name, full in _PROTOTYPES["happy"].items():
        amounts[name] = amounts[name] + neutral * full * smile * (1 if name == "corner" else rest)
    return amounts
