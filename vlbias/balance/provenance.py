"""What a made picture says of itself, in its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["provenance", "round_trip_provenance"]


def provenance(record: Mapping[str, Any], editor_name: str, *, donor: bool = False) -> dict[str, str]:
    """What a made picture is, as texts for its file.

    Args:
        record: of the kept edit.
        editor_name: the checkpoint's name.
        donor: for the sampled donor of an edit in prior mode.
    """
    made = {"synthetic": "true", "editor": editor_name, "source": record["donor"], "seed": str(record["seed"])}
    if donor:
        return made | {"made_by": "vlbias balance: a face sampled from the latent prior"}
    return made | {
        "made_by": "vlbias balance: a face edited along a learned path",
        "path": record["path"],
        "strength": record["strength"],
        "from": record["from"],
        "to": record["to"],
    }


def round_trip_provenance(record: Mapping[str, Any], editor_name: str) -> dict[str, str]:
    """What an original says of itself that passed through the editor.

    Args:
        record: of the face.
        editor_name: the checkpoint's name.
    """
    return {
        "synthetic": "true",
        "editor": editor_name,
        "source": record["donor"],
        "made_by": "vlbias balance: an original that passed through the editor",
        "path": record["path"],
        "strength": record["strength"],
    }
