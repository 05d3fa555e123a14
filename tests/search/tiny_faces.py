"""A tiny dataset with people, groups and learnable pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch


class TinyFaces:
    """What the search needs of a dataset: ``table``, ``tensor`` and ``name``. Each person is a colour pattern."""

    name = "tiny"

    def __init__(self, table: pd.DataFrame, seed: int = 0, noise: float = 0.25):
        self.table, self.seed, self.noise = table, seed, noise

    def __len__(self) -> int:
        return len(self.table)

    def path(self, item):
        return None

    def tensor(self, ids, size):
        pictures = []
        for item in ids:
            row = self.table.loc[item]
            person = np.random.default_rng([self.seed, int(row["identity"])])
            pattern = person.uniform(-0.7, 0.7, (3, 4, 4))
            image = np.random.default_rng([self.seed, 1, int(item.split("_")[-1])])
            picture = np.kron(pattern, np.ones((1, size // 4, size // 4))) + self.noise * image.normal(
                size=(3, size, size)
            )
            if row.get("smile", 0) == 1:
                picture[:, size // 2 :, :] += 0.5
            pictures.append(picture)
        return torch.tensor(np.stack(pictures), dtype=torch.float32).clamp(-1, 1)


def tiny_table(num_people: int = 24, per_person: int = 4) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    identity = np.repeat(np.arange(num_people), per_person)
    return pd.DataFrame(
        {
            "split": np.select([identity % 5 < 3, identity % 5 == 3], ["train", "val"], "test"),
            "identity": identity,
            "gender": np.where(identity % 2, "female", "male"),
            "smile": generator.integers(0, 2, len(identity)),
        },
        index=[f"image_{i}" for i in range(len(identity))],
    )


def tiny_space():
    from vlbias.search.cell import Skeleton
    from vlbias.search.spaces import space

    return space(
        ["dpn-cell"],
        ["cosface"],
        ["adamw"],
        skeleton=Skeleton(num_init_features=8, k_r=8, groups=4, inc_sec=(4, 4, 4, 4), small=True),
        embedding_size=16,
    )
