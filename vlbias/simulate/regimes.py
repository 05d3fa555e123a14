"""The emotion-recognition study in the embedded world: two kinds of data, and what balance does to each.

"posed": a small set of calm faces at full expression in which the groups show an expression in different parts of the
face, so what is learned from one group says nothing about the other; more of a group's own images must help it.
"varied": a large set of varied faces that all show expressions alike; the composition must not matter.
"""

from __future__ import annotations

from vlbias.data import SynthFaces, drawn_dataset
from vlbias.errors import unknown
from vlbias.world.attributes import EXPRESSIONS

__all__ = ["REGIMES", "expression_faces"]

#: Name -> default number of images.
REGIMES = {"posed": 2000, "varied": 6000}


def expression_faces(regime: str, n: int | None = None, *, seed: int = 0, image_size: int = 48) -> SynthFaces:
    """Faces with six expressions in two skin groups, as a dataset split 70 / 30 into train and test.

    Args:
        regime: "posed" or "varied", see above.
        n: images; the regime's own number by default.
        seed: of the world.
        image_size: pixels.

    Raises:
        UnknownNameError: no such regime.
    """
    from dataclasses import replace

    from vlbias.world import sample

    if regime not in REGIMES:
        raise unknown("regime", regime, REGIMES)
    total = REGIMES[regime] if n is None else n
    posed = regime == "posed"
    of_dark, of_light = ("mouth", "eyes") if posed else ("whole", "whole")
    cues: dict[tuple[object, ...], float] = {(of_dark, "dark"): 0.5, (of_light, "light"): 0.5}
    faces = sample(
        total,
        cells={("dialect", "skin"): cues},
        expressions=EXPRESSIONS,
        setting="posed" if posed else "varied",
        seed=seed,
    )
    ids = [f"{regime}-{seed}-{row:06d}" for row in range(total)]
    made = drawn_dataset(faces, ids, image_size=image_size, name=f"synthfaces, {regime} expressions")
    # A larger test share than the datasets' usual tenth: rates per group and class are what is asked for.
    split = ["test" if row % 10 < 3 else "train" for row in range(total)]
    return replace(made, table=made.table.assign(split=split))
