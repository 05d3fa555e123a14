"""A dipole: two texts that stand at the ends of one attribute."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from vlbias.attributes import name_in_words
from vlbias.clip import Clip
from vlbias.errors import ConfigError
from vlbias.files import is_text

__all__ = ["Dipole", "read_dipoles", "text_directions"]

#: Most numbers of a semantic code.
MAX_DIM = 65_536


@dataclass(frozen=True)
class Dipole:
    """Two poles of an attribute in words; ``+`` moves towards the positive one.

    Args:
        positive, negative: a prompt, or several whose embeddings are averaged; kept as tuples.

    Raises:
        ConfigError: a pole is empty, or both say the same.

    Example:
        >>> Dipole("a photo of an old person", "a photo of a young person").positive
        ('a photo of an old person',)
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...]

    def __init__(self, positive: str | Sequence[str], negative: str | Sequence[str]):
        for name, pole in (("positive", positive), ("negative", negative)):
            prompts = (pole,) if isinstance(pole, str) or not isinstance(pole, Iterable) else tuple(pole)
            if not prompts or any(not isinstance(prompt, str) or not prompt.strip() for prompt in prompts):
                raise ConfigError(f"The {name} pole of a dipole must be one or more texts; got {pole!r}.")
            if not all(map(is_text, prompts)):
                raise ConfigError(f"The {name} pole of a dipole has half a character; got {pole!r}. Type it in UTF-8.")
            object.__setattr__(self, name, prompts)
        if set(self.positive) == set(self.negative):
            raise ConfigError(f"The poles of a dipole must differ; both say {self.positive[0]!r}.")

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """The poles as classes for ``Clip.zero_shot``; column 0 is the positive one."""
        return {"positive": self.positive, "negative": self.negative}

    def to_list(self) -> list[list[str]]:
        """The two lists of prompts, positive first."""
        return [list(self.positive), list(self.negative)]

    @classmethod
    def from_list(cls, value: object) -> Dipole:
        """Read ``[positive, negative]``, each a text or a list of texts.

        Raises:
            ConfigError: anything else.
        """
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ConfigError(f"A dipole must be a pair [positive, negative]; got {value!r:.120}.")
        return cls(*value)

    def suggest_name(self) -> str:
        """A name made from the words in which the poles differ; an attribute we know keeps its usual name."""
        if known := name_in_words(self.positive, self.negative):
            return known
        positive, negative = (_words(" ".join(pole)) for pole in (self.positive, self.negative))
        differing = [word for word in positive if word not in negative] + [w for w in negative if w not in positive]
        kept = [word for word in differing[:3] if word not in _FILLERS] or ["path"]
        name = "_".join(kept)
        return name if name.isidentifier() else f"path_{name}"


#: A dipole, or its two poles: each a text or several.
DipoleLike = Dipole | Sequence[str | Sequence[str]]

_FILLERS = {"a", "an", "the", "of", "with", "photo", "picture", "and", "no", "not", "person", "face"}


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def read_dipoles(dipoles: Mapping[str, DipoleLike]) -> dict[str, Dipole]:
    """Dipoles by name from dipoles or pairs (positive, negative).

    Raises:
        ConfigError: a value is neither, or a name cannot be an argument name.
    """
    if not isinstance(dipoles, Mapping):
        raise ConfigError(f"Dipoles must be a mapping name -> (positive, negative); got {dipoles!r:.120}.")
    out = {}
    for name, value in dipoles.items():
        if not str(name).isidentifier():
            raise ConfigError(f"A dipole's name must be letters, digits and _ (it becomes an argument); got '{name}'.")
        out[name] = value if isinstance(value, Dipole) else Dipole.from_list(value)
    return out


def text_directions(clip: Clip, dipoles: Sequence[Dipole]) -> torch.Tensor:
    """Unit differences of the poles' text embeddings, positive minus negative: (number of dipoles, e)."""
    rows = [clip.text_embedding(d.positive) - clip.text_embedding(d.negative) for d in dipoles]
    return F.normalize(torch.stack(rows), dim=-1)
