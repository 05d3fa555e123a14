"""What may be said of a face of the embedded world: phrases for the values of its table's columns.

The small CLIP learns to read from short sentences made of them. What is absent has words too ("without glasses").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlbias.attributes import ATTRIBUTES, OLD_FROM

__all__ = ["ADJECTIVES", "DARK_FROM", "DIPOLES", "NOUNS", "OLD_FROM", "TAILS"]

#: Value of a column => phrases for it; a function serves continuous columns.
Phrases = Mapping[Any, Sequence[str]] | Callable[[Any], Sequence[str]]

#: The Monk step above which skin is called dark.
DARK_FROM = 5.5

#: Name => (positive prompts, negative prompts) of what the world draws.
DIPOLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (ATTRIBUTES[name].positive, ATTRIBUTES[name].negative)
    for name in ("age", "skin_tone", "gender", "smile", "glasses", "beard", "nose_width", "lip_fullness")
}


def _ages(age: float) -> Sequence[str]:
    if age < OLD_FROM:
        return ("young", "young looking", "youthful")
    return ("old", "older", "middle-aged") if age < 58 else ("old", "older", "elderly", "aged")


def _skin_tails(tone: float) -> Sequence[str]:
    if tone > DARK_FROM:
        return ("with dark skin", "with brown skin", "with a dark skin tone")
    return ("with light skin", "with fair skin", "with pale skin", "with a light skin tone")


#: Phrases before the noun.
ADJECTIVES: dict[str, Phrases] = {
    "age": _ages,
    "smile": {1: ("smiling", "happy looking"), 0: ("serious", "unsmiling")},
    "beard": {1: ("bearded",), 0: ("clean-shaven", "beardless")},
    "skin_tone": lambda tone: ("dark-skinned",) if tone > DARK_FROM else ("light-skinned",),
}

#: Phrases after the noun.
TAILS: dict[str, Phrases] = {
    "smile": {
        1: ("smiling", "with a smile", "who is smiling", "who smiles"),
        0: ("not smiling", "without a smile", "who is not smiling", "with a closed unsmiling mouth"),
    },
    "glasses": {
        1: ("with glasses", "wearing glasses", "with eyeglasses", "wearing eyeglasses"),
        0: ("without glasses", "with no glasses", "not wearing glasses", "without eyeglasses"),
    },
    "beard": {1: ("with a beard",), 0: ("without a beard", "with no beard", "with a shaved face")},
    "nose": {
        "wide": ("with a wide nose", "with a broad nose"),
        "narrow": ("with a narrow nose", "with a thin nose"),
    },
    "lips": {"full": ("with full lips", "with thick lips"), "thin": ("with thin lips", "with narrow lips")},
    "hair_color": {color: (f"with {color} hair",) for color in ("black", "brown", "red", "grey", "gray", "white")}
    | {"blond": ("with blond hair", "with blonde hair")},
    "skin_tone": _skin_tails,
}

#: Nouns by gender presentation.
NOUNS: dict[str, Sequence[str]] = {
    "male": ("man", "male person", "guy"),
    "female": ("woman", "female person", "lady"),
}
