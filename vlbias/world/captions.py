"""Captions in varied wording, which also say what is absent, and the dipoles in the same language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vlbias.attributes import ATTRIBUTES
from vlbias.errors import ConfigError
from vlbias.world.chance import uniform
from vlbias.world.faces import Faces
from vlbias.world.phrases import DARK_FROM, TAILS

__all__ = ["DIPOLES", "captions"]

#: Name => (positive prompts, negative prompts) of what the world draws.
DIPOLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (ATTRIBUTES[name].positive, ATTRIBUTES[name].negative)
    for name in ("age", "skin_tone", "gender", "smile", "glasses", "beard", "nose_width", "lip_fullness")
}

_DECADES = ("teens", "twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties")
_MOODS = {
    "sad": ("sad", "with a sad look"),
    "surprise": ("surprised", "with an open mouth and raised brows"),
    "anger": ("angry", "with a frown of anger"),
    "disgust": ("disgusted", "with a wrinkled nose of disgust"),
}
_NOUNS = {"male": ("man", "man", "gentleman", "male person"), "female": ("woman", "woman", "lady", "female person")}
_PRONOUNS = {"male": "he", "female": "she", "": "this person"}
_OPENINGS = (
    "a photo of {}", "a photo of {}", "a portrait of {}", "a picture of {}", "the face of {}", "{}", "{}",
    "a close-up of {}", "a headshot of {}", "an image of {}", "this is {}", "here is {}",
)  # fmt: skip
# Chance that a caption speaks of each thing; small details are named often, since they are the hard ones to learn.
_MENTION = {
    "age": 0.6, "skin": 0.6, "gender": 0.7, "smile": 0.65, "glasses": 0.6, "beard": 0.5, "nose": 0.45, "lips": 0.45,
    "hair": 0.3, "eyes": 0.2,
}  # fmt: skip


class _Dice:
    """Choices of one caption, drawn one after another from its own row of uniforms."""

    def __init__(self, draws: np.ndarray) -> None:
        self._draws = iter(draws.tolist())

    def below(self, chance: float) -> bool:
        return next(self._draws) < chance

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(next(self._draws) * len(options))]

    def shuffle(self, items: list[str]) -> list[str]:
        return [item for _, item in sorted((next(self._draws), item) for item in items)]


def captions(faces: Faces, seed: int = 0) -> list[str]:
    """One true caption a face, about a random part of its attributes, in random words.

    Args:
        faces: what to describe. seed: another seed gives other words and another part (say, one for each epoch).

    Returns:
        n lower-case captions; caption i depends on the face's own key, attributes and ``seed``, not on the batch.

    Raises:
        ConfigError: ``seed`` is not a whole number >= 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(f"`seed` must be a whole number >= 0; got {seed!r}.")
    keys = faces.key.cpu().numpy().view(np.uint64)
    draws = uniform(keys, f"caption:{seed}", 64)
    return [_caption(row, _Dice(d)) for row, d in zip(faces.table().to_dict("records"), draws, strict=True)]


def _caption(row: Mapping[Any, Any], dice: _Dice) -> str:
    told = {name for name, chance in _MENTION.items() if dice.below(chance)}
    if not told & {"age", "skin", "gender", "smile", "glasses", "beard", "nose", "lips"}:
        told.add(dice.pick(("age", "skin", "gender", "smile", "glasses", "beard", "nose", "lips")))
    gender = row["gender"] if "gender" in told else ""
    noun = dice.pick(_NOUNS[gender]) if gender else dice.pick(("person", "person", "someone", "human face"))
    clauses = [_CLAUSES[name](row, dice) for name in _CLAUSES if name in told]
    age = _age(row, dice) if "age" in told else ""
    style = dice.pick(("phrase", "phrase", "phrase", "list", "sentence"))
    clauses = dice.shuffle(clauses)
    if style == "list":
        return ", ".join(dice.shuffle([item for item in (noun, age, *clauses) if item]))
    subject = _subject(noun, age)
    opening = dice.pick(_OPENINGS).format(subject)
    if not clauses:
        return opening
    if style == "sentence":
        who = _PRONOUNS[gender]
        return f"{opening}. {who} is seen {_join(clauses)}."
    return f"{opening} {_join(clauses)}"


def _join(clauses: list[str]) -> str:
    return clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + " and " + clauses[-1]


def _subject(noun: str, age: str) -> str:
    if noun == "someone":
        return f"someone {age}" if age else "someone"
    words = f"{age} {noun}" if age else noun
    # "of 30 years" and "in the forties" follow the noun; single words stand before it.
    if age.startswith(("in ", "of ")):
        words = f"{noun} {age}"
    return ("an " if words[0] in "aeiou" else "a ") + words


def _age(row: Mapping[Any, Any], dice: _Dice) -> str:
    years = int(row["age"])
    decade = f"in the {_DECADES[years // 10 - 1]}"
    if row["age_group"] == "young":
        options: tuple[str, ...] = ("young", "young", "young", "youthful", decade, f"of {years} years")
    elif years < 60:
        options = ("old", "older", "middle-aged", decade, f"of {years} years", "old")
    else:
        options = ("old", "old", "elderly", "aged", "wrinkled old", decade, f"of {years} years")
    return dice.pick(options)


def _skin(row: Mapping[Any, Any], dice: _Dice) -> str:
    tone = row["skin_tone"]
    if tone < 3:
        words = ("with light skin", "with very light skin", "with pale skin", "with fair skin", "with light skin")
        return dice.pick(words)
    if tone <= DARK_FROM:
        return dice.pick(("with light skin", "with fair skin", "with beige skin", "with light skin"))
    if tone < 7.5:
        return dice.pick(("with dark skin", "with brown skin", "with brown skin", "with dark skin"))
    return dice.pick(("with dark skin", "with very dark skin", "with deep dark skin", "with dark brown skin"))


def _tails(row: Mapping[Any, Any], column: str) -> tuple[str, ...]:
    """The common phrases that follow a noun; without those that need it next to them ("who is smiling")."""
    phrases = TAILS[column]
    assert not callable(phrases)  # these columns have a few values each
    return tuple(phrase for phrase in phrases[row[column]] if not phrase.startswith("who "))


def _smile(row: Mapping[Any, Any], dice: _Dice) -> str:
    plain = _tails(row, "smile")
    if row["smile"]:
        return dice.pick((*plain, "with a big smile", "with a happy smile", "with teeth shown in a smile"))
    mood = _MOODS.get(row["expression"])
    if mood is None:
        return dice.pick((*plain, "with no smile", "with a neutral expression", "with a closed mouth and no smile"))
    return dice.pick((*plain[:2], "with no smile", f"looking {mood[0]}", f"looking {mood[0]}", mood[1], mood[1]))


def _glasses(row: Mapping[Any, Any], dice: _Dice) -> str:
    return dice.pick((*_tails(row, "glasses"), *(("with spectacles",) if row["glasses"] else ())))


def _beard(row: Mapping[Any, Any], dice: _Dice) -> str:
    plain = _tails(row, "beard")
    if row["beard"]:
        size = "with a short beard" if row["beard_amount"] < 0.65 else "with a full beard"
        return dice.pick((*plain, *plain, "bearded", size))
    return dice.pick((*plain, "clean-shaven", "without facial hair"))


def _nose(row: Mapping[Any, Any], dice: _Dice) -> str:
    return dice.pick(_tails(row, "nose"))


def _lips(row: Mapping[Any, Any], dice: _Dice) -> str:
    return dice.pick(_tails(row, "lips"))


def _hair(row: Mapping[Any, Any], dice: _Dice) -> str:
    length, colour = row["hair_length"], row["hair_color"]
    return dice.pick((f"with {length} {colour} hair", f"with {colour} hair", f"with {length} hair"))


def _eyes(row: Mapping[Any, Any], dice: _Dice) -> str:
    return f"with {row['eye_color']} eyes"


_CLAUSES: dict[str, Callable[[Mapping[Any, Any], _Dice], str]] = {
    "skin": _skin, "smile": _smile, "glasses": _glasses, "beard": _beard, "nose": _nose, "lips": _lips, "hair": _hair,
    "eyes": _eyes,
}  # fmt: skip
