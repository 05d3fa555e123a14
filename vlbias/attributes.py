"""What is known of attributes: the one place to add one.

An attribute has two poles. Its dipole, its path and its labels go by the registry: which columns speak of it, which of
their values stands at the positive pole (+), what its poles are called in words, and which other columns an edit makes
untrue. ``docs/attributes.md`` shows how to add one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vlbias.arguments import checked_call
from vlbias.errors import ConfigError

__all__ = [
    "ATTRIBUTES",
    "OLD_FROM",
    "SKIN_OF_RACE",
    "Attribute",
    "age_group",
    "followers",
    "name_in_words",
    "of_column",
    "register",
]

#: Years from which ``age_group`` says old.
OLD_FROM = 40

#: How the published augmentation code groups race labels as "skin colour". It is a race label, not a measurement of
#: skin (see ``vlbias.labelling.SkinTone`` for that); races that are not named here have no value.
SKIN_OF_RACE = {"white": "light", "east asian": "light", "southeast asian": "light", "asian": "light", "black": "dark"}


@dataclass(frozen=True)
class Attribute:
    """One attribute of faces with two poles.

    Attributes:
        name: of the attribute, its dipole and its path.
        columns: label column => (value at the negative pole, value at the positive pole), both as text: 0/1 columns
            have "0" and "1".
        positive, negative: prompts of the poles.
        words: single words of the (positive, negative) pole, by which prompts that somebody else wrote are recognised;
            empty where no word tells the poles apart ("without a beard" holds "beard").
        names: further words that say what the attribute is, of neither pole.
        context: a word that both poles of such a dipole have, where ``words`` alone do not tell the attribute ("skin":
            hair can be dark too).
        aliases: other names that a dipole of this attribute goes by.
        followers: further columns that an edit makes untrue; an edited row leaves them blank.

    Raises:
        ConfigError: no column, or a column whose poles have the same value.
    """

    name: str
    columns: Mapping[str, tuple[str, str]]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    words: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    names: frozenset[str] = frozenset()
    context: str = ""
    aliases: tuple[str, ...] = ()
    followers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns or any(low == high for low, high in self.columns.values()):
            raise ConfigError(f"the attribute '{self.name}' needs a column with two different values.")

    @property
    def dipole_names(self) -> tuple[str, ...]:
        """Names that its dipole goes by, the usual one first."""
        return (self.name, *self.aliases)

    def places(self, column: str) -> dict[str, float]:
        """Where the values of a column stand: -1 the negative pole, +1 the positive one."""
        low, high = self.columns[column]
        return {low: -1, high: 1}

    def is_turned(self, positive: Iterable[str]) -> bool:
        """Whether a dipole has the prompts of our negative pole at its positive one.

        Of prompts that are not ours nothing is guessed: a dipole says by its order which pole is positive.
        """
        return not set(self.negative).isdisjoint(positive)

    def sign_of(self, positive: Iterable[str], negative: Iterable[str]) -> int:
        """How two poles that somebody wrote stand to ours, by their words: 1 alike, -1 turned, 0 if no word tells."""
        positive, negative = list(positive), list(negative)
        for sign, high, low in ((1, positive, negative), (-1, negative, positive)):
            if not (set(self.positive).isdisjoint(high) and set(self.negative).isdisjoint(low)):
                return sign
        told = [{word for prompt in pole for word in _spoken(prompt)} for pole in (positive, negative)]
        score = [len(told[0] & own) - len(told[1] & own) for own in self.words]
        return (score[0] > score[1]) - (score[0] < score[1])


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Name => attribute. + is older, darker, more masculine, smiling, with glasses, bearded, wider, fuller.
ATTRIBUTES: dict[str, Attribute] = {}


def register(attribute: Attribute) -> None:
    """Make an attribute known to all rooms: balancing, labelling, paths, the command line.

    Raises:
        ConfigError: its name or one of its columns is another attribute's already.
    """
    taken = {name: known for known in ATTRIBUTES.values() for name in (known.name, *known.columns)}
    for name in (attribute.name, *attribute.columns):
        if name in taken:
            raise ConfigError(f"'{name}' belongs to the attribute '{taken[name].name}' already. Choose another name.")
    ATTRIBUTES[attribute.name] = attribute


for _attribute in (
    Attribute(
        "age",
        {"age_group": ("young", "old"), "Young": ("1", "0")},
        ("a photo of an old person", "an elderly person", "the face of an old person with wrinkles"),
        ("a photo of a young person", "a youthful person", "the face of a young person with smooth skin"),
        words=(_words("old older elderly aged senior"), _words("young younger youthful child baby")),
        names=_words("age aging"),
        followers=("age",),
    ),
    Attribute(
        "skin_tone",
        {"skin": ("light", "dark"), "Pale_Skin": ("1", "0")},
        ("a photo of a person with dark skin", "a dark-skinned person", "a face with brown skin"),
        ("a photo of a person with light skin", "a light-skinned person", "a face with fair skin"),
        words=(_words("dark darker black brown"), _words("light lighter fair pale white")),
        context="skin",
        aliases=("skin",),
        followers=("skin_tone", "race", "ita", "monk"),
    ),
    Attribute(
        "gender",
        {"gender": ("female", "male"), "Male": ("0", "1")},
        ("a photo of a man", "a portrait of a man", "the face of a man"),
        ("a photo of a woman", "a portrait of a woman", "the face of a woman"),
        words=(_words("man men male boy masculine"), _words("woman women female girl feminine")),
    ),
    Attribute(
        "smile",
        {"smile": ("0", "1"), "Smiling": ("0", "1")},
        ("a photo of a person who is smiling", "a smiling person", "a face with a big smile"),
        ("a photo of a person who is not smiling", "a person without a smile", "a face with a neutral expression"),
        names=_words("smile smiles smiling"),
        followers=("smile_intensity", "expression"),
    ),
    Attribute(
        "glasses",
        {"glasses": ("0", "1"), "Eyeglasses": ("0", "1")},
        ("a photo of a person with glasses", "a person wearing glasses", "a face with eyeglasses"),
        ("a photo of a person without glasses", "a person not wearing glasses", "a face without eyeglasses"),
        names=_words("glasses eyeglasses spectacles"),
        aliases=("eyeglasses",),
    ),
    Attribute(
        "beard",
        {"beard": ("0", "1"), "No_Beard": ("1", "0")},
        ("a photo of a person with a beard", "a bearded person", "a face with a beard"),
        ("a photo of a person without a beard", "a clean-shaven person", "a face without a beard"),
        names=_words("beard bearded shaved"),
    ),
    Attribute(
        "nose_width",
        {"nose": ("narrow", "wide"), "Big_Nose": ("0", "1")},
        ("a photo of a person with a wide nose", "a person with a broad nose", "a face with a wide nose"),
        ("a photo of a person with a narrow nose", "a person with a slim nose", "a face with a narrow nose"),
        aliases=("nose",),
        followers=("nose_width",),
    ),
    Attribute(
        "lip_fullness",
        {"lips": ("thin", "full"), "Big_Lips": ("0", "1")},
        ("a photo of a person with full lips", "a person with thick lips", "a face with full lips"),
        ("a photo of a person with thin lips", "a person with slender lips", "a face with thin lips"),
        aliases=("lips",),
        followers=("lip_fullness",),
    ),
):
    register(_attribute)


@checked_call
def of_column(column: str) -> Attribute | None:
    """The attribute that a label column speaks of; ``None`` if it is not a known one.

    Example:
        >>> of_column("No_Beard").places("No_Beard")
        {'1': -1, '0': 1}
    """
    return next((attribute for attribute in ATTRIBUTES.values() if column in attribute.columns), None)


@checked_call
def followers(paths: Iterable[str]) -> set[str]:
    """Columns that an edit along these paths makes untrue, those of the attribute itself among them.

    A photograph of a man of 30 that now shows an old man has no known age in years.
    """
    names = set(paths)
    edited = [attribute for attribute in ATTRIBUTES.values() if names & set(attribute.dipole_names)]
    return {column for attribute in edited for column in (*attribute.columns, *attribute.followers)}


@checked_call
def name_in_words(positive: Iterable[str], negative: Iterable[str]) -> str | None:
    """The known attribute that two poles speak of, by the words in which they differ; ``None`` if there is none.

    Example:
        >>> name_in_words(["a man with a beard"], ["a shaved man"])
        'beard'
    """
    poles = [{word for prompt in prompts for word in _spoken(prompt)} for prompts in (positive, negative)]
    differing, shared = poles[0] ^ poles[1], poles[0] & poles[1]
    for attribute in ATTRIBUTES.values():
        if not attribute.context and differing & frozenset().union(*attribute.words, attribute.names):
            return attribute.name
    return next((known.name for known in ATTRIBUTES.values() if known.context and known.context in shared), None)


def _spoken(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def age_group(years: float | None, old_from: float = OLD_FROM) -> str | None:
    """Years as "young" or "old"; missing => ``None``."""
    return None if years is None else ("old" if years >= old_from else "young")
