"""Where the focal group's images come from: real ones, or verified edits of the other groups.

An edit takes the place of its donor: where the share of a group grows by edits, the images of the others that the
share displaces are the ones that are edited. So a training set filled with edits rests on the same people as the one
at the smallest share, and what it gains, it gains from editing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from vlbias.errors import ConfigError, PlanError
from vlbias.locks import FileLock
from vlbias.simulate.plans import SimulationPlan
from vlbias.simulate.quotas import Cell

__all__ = ["BalancerFill", "CounterfactualFill", "Fill", "as_fill", "donors_of"]


class Fill(Protocol):
    """Edits donors into a group."""

    def __call__(self, dataset: object, donors: Sequence[str], to: str, folder: Path | None) -> Any:
        """A dataset of the edits that passed verification: ``table`` with ``source_id``, and ``tensor(ids, size)``.

        ``folder`` is for this group's edits, None where results are kept in memory; donors may be missing from the
        answer (rejected).
        """
        ...


@dataclass(frozen=True)
class CounterfactualFill:
    """The embedded world's true counterfactuals: what a perfect editor would give.

    Args:
        attribute: name for ``Faces.replace``, the protected column.
        values: group -> value to set; the group's name itself if absent.
    """

    attribute: str
    values: Mapping[str, Any] | None = None

    def __call__(self, dataset: object, donors: Sequence[str], to: str, folder: Path | None) -> Any:
        """See :class:`Fill`; nothing is rejected."""
        if not hasattr(dataset, "counterfactual"):
            raise ConfigError("True counterfactuals exist only in the embedded world; give a Balancer for other data.")
        value = (self.values or {}).get(to, to)
        return dataset.counterfactual(list(donors), **{self.attribute: value})


class BalancerFill:
    """Verified edits by a :class:`vlbias.Balancer`, made once per group and kept in the simulation's folder.

    What scores the edits is calibrated on the training split, so on real images of the focal group as well; the
    classifiers never see those.
    """

    def __init__(self, balancer: Any):
        self.balancer = balancer

    def __call__(self, dataset: Any, donors: Sequence[str], to: str, folder: Path | None) -> Any:
        """See :class:`Fill`."""
        from vlbias.data import FaceDataset

        if folder is None:
            raise ConfigError("Edits are images on disk; give the simulation a `storage` file.")
        # originals are the simulation's own
        balancer = self.balancer.changed(
            mode="reduce", source="real", to="all", copies=0.0, splits=["train"], round_trip=False
        )
        faces = dataset.select(dataset.table["split"] == "train")
        with FileLock(folder.with_suffix(".lock")):
            plan = balancer.plan(faces)
            wanted = plan.table[
                (plan.table["to"].astype(str) == to) & plan.table["donor"].astype(str).isin(list(donors))
            ]
            if wanted.empty:
                raise PlanError(f"The balancer plans no edit towards '{to}'. Does its editor have a path for it?")
            chunks = pd.Series(range(len(wanted)), index=wanted.index) // balancer.settings.chunk_size
            # Each donor gives its own edit or none: the simulation brings its own reserves.
            table = wanted.assign(chunk=chunks, reserves="[]").reset_index(drop=True)
            result = balancer.run(faces, plan.pick(table), folder, originals="omit", show_progress=True)
        made = result.table[result.table["origin"] == "edited"]
        if made.empty:
            reasons = ", ".join(f"{reason} {n}" for reason, n in result.report["edits"]["by_reason"].items())
            raise PlanError(f"No edit towards '{to}' passed verification ({reasons}). Check the editor's path for it.")
        # The table as the pipeline gives it keeps ids as text ("0007"), which a CSV read anew may not.
        return FaceDataset("edits", made.set_index(made["file_name"].astype(str)), root=result.out_dir)


def as_fill(source: object) -> Fill:
    """A fill as it is, or a Balancer made one.

    Raises:
        ConfigError: neither.
    """
    if hasattr(source, "plan") and hasattr(source, "run"):
        return BalancerFill(source)
    if callable(source):
        return source
    raise ConfigError(f"A fill must be None (real images), a Balancer, or a callable; got {type(source).__name__}.")


def donors_of(plan: SimulationPlan, key: str) -> dict[Cell, list[str]]:
    """For each label, whose edits bring the focal group of a run from the smallest share to this one.

    Returns:
        (focal, label) -> donors in the order they are taken: first those of the others that the share displaced
        ("substitute") or that stand in the base ("add"), the last of them first, then reserves from further down.
    """
    baseline, focal = plan.baseline(key), str(plan.runs.loc[key, "focal"])
    now, before = plan.quotas[key], plan.quotas[baseline]
    order = plan._order(key)
    others = [group for group in plan.groups if group != focal]
    donors: dict[Cell, list[str]] = {}
    for cell in [cell for cell in now if cell[0] == focal and plan.gain(key, cell) > 0]:
        label = cell[1]
        first: list[str] = []
        reserve: list[str] = []
        for group in others:
            ids = order.get((group, label), [])
            kept, had = now.get((group, label), 0), before.get((group, label), 0)
            if plan.runs.loc[key, "mode"] == "substitute":
                first += ids[kept:had][::-1]
                reserve += ids[had:] + ids[:kept]
            else:
                first += ids[:kept]
                reserve += ids[kept:]
        donors[cell] = [*first, *reserve]
    return donors
