"""Which pictures of a dataset are photographs and which a machine made, by the column ``origin``."""

from __future__ import annotations

import pandas as pd

from vlbias.data.table import ORIGINS
from vlbias.errors import DatasetError

__all__ = ["COPIED", "MADE", "are_copies", "are_originals", "donors_of", "origins"]

#: What the pipeline writes into ``origin`` besides "real".
MADE = tuple(word for word in ORIGINS if word != "real")
#: What ``origin`` says of an original that stands in a set once more; ``source_id`` says which.
COPIED = "copied"


def origins(table: pd.DataFrame) -> pd.Series:
    """Where each picture comes from: "real", or a word of :data:`MADE`.

    A table without the column is real throughout, and so is one whose ``origin`` is somebody's own ("flickr").

    Raises:
        DatasetError: the column mixes words of the pipeline with others, so that neither reading is safe.

    Example:
        >>> origins(pd.DataFrame({"origin": ["real", "edited"]})).tolist()
        ['real', 'edited']
        >>> origins(pd.DataFrame({"origin": ["flickr", "vogue"]})).tolist()
        ['real', 'real']
    """
    real = pd.Series("real", index=table.index, dtype=object)
    if "origin" not in table.columns:
        return real
    values = table["origin"].astype(str)
    if not values.isin(MADE).any():
        return real
    if others := sorted(set(values) - {"real", *MADE}):
        raise DatasetError(
            f"Column `origin` contains {others[0]!r} beside {next(word for word in MADE if word in set(values))!r}. It "
            f"says which pictures were made by a machine ({', '.join(MADE)}; else real): rename a column of your own."
        )
    return values


def are_copies(table: pd.DataFrame) -> pd.Series:
    """Which pictures are copies of others of the set, whose ids stand in ``source_id``.

    Example:
        >>> are_copies(pd.DataFrame({"origin": ["real", "copied"], "source_id": ["7.jpg", "7.jpg"]})).tolist()
        [False, True]
    """
    if not {"origin", "source_id"} <= set(table.columns):
        return pd.Series(False, index=table.index)
    return table["origin"] == COPIED


def are_originals(table: pd.DataFrame) -> pd.Series:
    """Which pictures are the dataset's own: neither edited nor drawn, nor copies; a round trip leaves them its own.

    Example:
        >>> are_originals(pd.DataFrame({"origin": ["real", "edited", "copied", "round-trip"]})).tolist()
        [True, False, False, True]
    """
    if "origin" not in table.columns:
        return pd.Series(True, index=table.index)
    return ~table["origin"].isin(set(MADE) - {"round-trip"})


def donors_of(edits: pd.DataFrame, faces: pd.DataFrame) -> pd.Series:
    """Whose edit each picture is: the id among ``faces`` where there is one, else the ``source_id`` as it stands.

    In a folder that a balance wrote, originals have new names, and as their ``source_id`` those that edits know.

    Example:
        >>> faces = pd.DataFrame({"origin": ["real"], "source_id": ["7.jpg"]}, index=["train/7.jpg"])
        >>> donors_of(pd.DataFrame({"source_id": ["7.jpg", "8.jpg"]}), faces).tolist()
        ['train/7.jpg', '8.jpg']
    """
    source = edits["source_id"].astype(object)
    if not {"origin", "source_id"} <= set(faces.columns):
        return source
    real = faces[origins(faces) == "real"]
    own, names = set(faces.index), dict(zip(real["source_id"].astype(object), real.index, strict=True))
    return source.map(lambda item: item if item in own else names.get(item, item))
