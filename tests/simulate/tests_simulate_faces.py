"""A labelled table without pictures worth the name, and stub classifiers that need none."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd
import torch


class TableFaces:
    """What a simulation needs of a dataset. An image's colour is its label, its brightness its group."""

    name = "table"

    def __init__(self, table):
        self.table = table

    def path(self, item):
        return None  # nothing to look at twice

    def select(self, mask):
        return TableFaces(self.table[mask])

    def tensor(self, ids, size):
        rows = self.table.loc[list(ids)]
        x = torch.zeros(len(rows), 3, size, size)
        for i, (label, group) in enumerate(zip(rows["emotion"], rows["race"], strict=True)):
            x[i, "abc".index(label)] = 0.9
            x[i, :, : size // 2] -= 0.1 * "xyz".index(group)
        return x

    def counterfactual(self, donors, **values):
        edited = self.table.loc[list(donors)].assign(source_id=list(donors), **values)
        edited.index = [f"{donor}~" for donor in donors]
        return TableFaces(edited)


def face_table(n_train=900, n_test=600, seed=0, group_weights=(0.5, 0.3, 0.2)):
    generator = np.random.default_rng(seed)
    n = n_train + n_test
    return pd.DataFrame(
        {
            "split": ["train"] * n_train + ["test"] * n_test,
            "race": generator.choice(list("xyz"), n, p=group_weights),
            "emotion": generator.choice(list("abc"), n, p=(0.5, 0.3, 0.2)),
            "person": [f"p{i // 3}" for i in range(n)],
        },
        index=[f"f{i:04d}" for i in range(n)],
    )


def stub(plan, accuracy):
    """A model whose accuracy on group g is ``accuracy(g, training set)``; the rest is guessed."""

    def model(training):
        generator = np.random.default_rng([zlib.crc32(training.key.encode()), training.seed])
        return [
            label if generator.random() < accuracy(group, training) else str(generator.choice(training.classes))
            for group, label in (plan.labels[item] for item in plan.test)
        ]

    return model
