"""What a simulation found: the table of runs, the curves, one verdict per group."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from vlbias.errors import PlanError, unknown
from vlbias.fairness import permuted_groups, person_weights, tally
from vlbias.files import AnyPath, make_folder, write_file
from vlbias.settings import MAX_DRAWS, checked_number
from vlbias.shown import Glance, Shown, plural, printable
from vlbias.simulate.plans import SimulationPlan
from vlbias.simulate.plots import Curve, plot_curves
from vlbias.simulate.statistics import (
    PARITY,
    Contrast,
    contrast,
    curve_values,
    exchange_rate,
    gain_weights,
    holm,
    slope_weights,
)
from vlbias.simulate.unmixing import Unmixing, mixture

__all__ = ["SimulationResult"]

_RUNS_AT_ONCE = 64


class SimulationResult(Shown):
    """Finished runs of a plan.

    Attributes:
        plan: the plan.
        fills: names of the fills.
        records: job name -> stored record; a study that is still running has fewer than the plan.
    """

    def __init__(
        self,
        plan: SimulationPlan,
        records: Mapping[str, Mapping[str, Any]],
        fills: Sequence[str],
        *,
        level: float = 0.95,
        num_resamples: int = 400,
        num_permutations: int = 200,
    ):
        checked_number("num_resamples", num_resamples, low=1, high=MAX_DRAWS)
        checked_number("num_permutations", num_permutations, low=1, high=MAX_DRAWS)
        self.plan, self.records, self.fills = plan, dict(records), list(fills)
        self.level, self.num_resamples = level, num_resamples
        self.min_cell, self.num_permutations = plan.settings.min_cell, num_permutations

    def _glance(self) -> Glance:
        line = f"{self.plan.target} by {self.plan.protected}, {plural(len(self.records), 'run')} finished"
        if len(self.records) < len(self.plan) or not any(self.plan.runs["focal"]):
            return Glance(line)
        columns = ["fill", "focal", "own_slope", "own_slope_low", "own_slope_high", "own_p", "verdict"]
        return Glance(line, columns, self.summary()[columns].to_numpy().tolist())

    # -- values --------------------------------------------------------------------------------------------------------

    @cached_property
    def _test(self) -> _TestSet:
        plan = self.plan
        classes = {name: code for code, name in enumerate(plan.classes)}
        groups = {name: code for code, name in enumerate(plan.groups)}
        true = np.asarray([classes[plan.labels[item][1]] for item in plan.test])
        group = np.asarray([groups[plan.labels[item][0]] for item in plan.test])
        people = np.asarray(pd.factorize(pd.Series([plan.subjects[item] for item in plan.test]))[0])
        # Where groups are estimated, how many people have each label is chance as well.
        strata = np.zeros_like(group) if self._unmixing.of_test else group
        drawn = person_weights(people, strata, self.num_resamples, [plan.settings.seed, 2])
        dealt = permuted_groups(group, true, people, self.num_permutations, [plan.settings.seed, 3])
        return _TestSet(true, group, np.vstack([np.ones(len(true)), drawn]), dealt)

    @cached_property
    def _unmixing(self) -> Unmixing:
        return Unmixing(self.plan, self.num_resamples)

    @cached_property
    def _values(self) -> dict[str, dict[str, np.ndarray]]:
        """Job -> metric -> (1 + b,)."""
        test = self._test
        count = partial(tally, num_groups=len(self.plan.groups), num_classes=len(self.plan.classes))
        values: dict[str, dict[str, np.ndarray]] = {}
        names = list(self.records)
        # Together, for speed; in parts, for memory.
        for start in range(0, len(names), _RUNS_AT_ONCE):
            part = names[start : start + _RUNS_AT_ONCE]
            answers = [self.records[name]["predicted"] for name in part]
            counts = np.stack([count(test.group, test.true, one, weights=test.weights) for one in answers])
            permuted = np.stack([count(test.dealt, test.true, one) for one in answers])
            counts, permuted = self._unmixing.drawn_counts(counts), self._unmixing.counts(permuted)
            found = curve_values(counts, permuted, self.plan.groups, min_cell=self.min_cell)
            for i, name in enumerate(part):
                values[name] = {metric: of_runs[i] for metric, of_runs in found.items()}
        return values

    def _job(self, fill: str, key: str) -> str:
        """The job that gives a run its value: a fill's smallest share is the real one where that was fitted."""
        name = f"{fill}|{key}"
        if name not in self.records and self.plan.baseline(key) == key:
            for other in self.fills:
                if f"{other}|{key}" in self.records:
                    return f"{other}|{key}"
        return name

    @property
    def metrics(self) -> list[str]:
        """Names of what the table holds per run."""
        return list(next(iter(self._values.values()))) if self.records else []

    def table(self) -> pd.DataFrame:
        """One row per finished run: fill, focal, share, repeat, mode, n, own_share, and every metric.

        ``f1[group]`` is macro F1 within the group. Ratios are better high, differences, gaps and excesses low; an
        excess is a difference minus its mean when group labels are permuted within each class.
        """
        rows = []
        for name, record in self.records.items():
            fill, key = name.split("|", 1)
            row = self.plan.runs.loc[key]
            rows.append(
                {
                    "fill": fill,
                    "run": key,
                    **{str(name): value for name, value in row.items()},
                    **{metric: float(values[0]) for metric, values in self._values[name].items()},
                    "seconds": record.get("seconds", float("nan")),
                }
            )
        return pd.DataFrame(rows)

    def points(
        self, metric: str, focal: str, *, fill: str | None = None, mode: str | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A curve: shares (s,), values (r, s), the same for bootstrap draws of test people (b, r, s).

        Where group labels are estimated, shares are the true ones that are expected, and values those of true groups.

        Raises:
            PlanError: not all runs of the curve are finished. UnknownNameError: no such metric.
        """
        curve = self._curve(focal, metric, fill, mode)
        return curve.true_shares[0], curve.points, curve.resampled

    def _curve(self, focal: str, metric: str, fill: str | None = None, mode: str | None = None) -> _Curve:
        runs = self.plan.runs
        chosen = runs[(runs["focal"] == focal) & (runs["mode"] == (mode or self.plan.settings.modes[0]))]
        shares = sorted(chosen["share"].unique())
        if self.records and metric not in self.metrics:
            raise unknown("metric", metric, self.metrics)
        cells = []
        for repeat in range(self.plan.settings.repeats):
            keys = [str(chosen.index[(chosen["repeat"] == repeat) & (chosen["share"] == share)][0]) for share in shares]
            jobs = [self._job(fill or self.fills[0], key) for key in keys]
            if missing := [job for job in jobs if job not in self._values]:
                raise PlanError(f"Run '{missing[0]}' is not finished. Call simulate.run again to go on.")
            cells.append([self._values[job][metric] for job in jobs])
        values = np.asarray(cells)  # (r, s, 1 + b)
        labelled = np.stack([self._unmixing.nominal(key) for key in keys])
        edited = [not self._is_real(job.split("|", 1)[0]) for job in jobs]
        true = [self._unmixing.shares(key, is_edited=one) for key, one in zip(keys, edited, strict=True)]
        away = (np.stack(true, 1) - labelled)[..., self.plan.groups.index(focal)]
        return _Curve(
            np.asarray(shares),
            np.asarray(shares) + away,
            values[..., 0],
            np.moveaxis(values[..., 1:], 2, 0),
            labelled,
            np.stack(true, 1),
        )

    def contrast(
        self, metric: str, focal: str | Sequence[str], what: str, *, fill: str | None = None, mode: str | None = None
    ) -> Contrast:
        """The ``"slope"`` of a curve over the share, or its ``"gain"`` M(1/K) - M(smallest share).

        Of several focal groups it is the mean. "add" is taken against "control" where the plan has both, so that what
        more images alone do is taken off. Where group labels are estimated, a slope is that over the true share: true
        shares of several groups move along each curve, and the curves of all focal groups are weighted so that they
        move as the plan has it.
        """
        ways = {"slope": self._slope, "gain": self._gain}
        if what not in ways:
            raise unknown("contrast", what, ways)
        names = [focal] if isinstance(focal, str) else list(focal)
        parts = [part for name in names for part in ways[what](self._against_control, name, metric, fill, mode)]
        return _weighted(parts, len(names), self.level)

    def _against_control(self, focal: str, metric: str, fill: str | None, mode: str | None) -> _Curve:
        """A curve; of "add" what is more than in "control" where the plan has both."""
        modes = self.plan.settings.modes
        mode = mode or modes[0]
        curve = self._curve(focal, metric, fill, mode)
        if mode != "add" or "control" not in modes:
            return curve
        real = next((name for name in self.fills if f"{name}|{self.plan.runs.index[0]}" in self.records), self.fills[0])
        return curve.minus(self._curve(focal, metric, real, "control"))

    def _gain(self, curve_of: Callable[..., _Curve], focal: str, *how: str | None) -> list[_Part]:
        curve = curve_of(focal, *how)
        return [(curve, gain_weights(curve.true_shares, len(self.plan.groups)))]

    def _slope(self, curve_of: Callable[..., _Curve], focal: str, *how: str | None) -> list[_Part]:
        curve = curve_of(focal, *how)
        weights = slope_weights(curve.shares)
        if not self._unmixing.of_train:
            return [(curve, weights)]
        focals = [name for name in dict.fromkeys(self.plan.runs["focal"]) if name]
        curves = [curve if name == focal else curve_of(name, *how) for name in focals]
        moved = np.stack([weights @ one.true for one in curves], axis=1)  # (1 + b, curves, k)
        parts = mixture(weights @ curve.labelled, moved, focals.index(focal), self.plan.groups.index(focal))
        return [(one, part[:, None] * weights) for one, part in zip(curves, parts.T, strict=True)]

    # -- what it means -------------------------------------------------------------------------------------------------

    def summary(self, *, parity: str = "equalized_odds_excess") -> pd.DataFrame:
        """One row per fill and focal group.

        Columns: own_slope with low, high, p (two-sided, Holm over groups): change of the group's macro F1 per unit of
        its own share; parity_gain with low, high, p (one-sided, Holm): improvement of ``parity`` from the smallest
        share to 1/K (NaN if 1/K lies outside the shares); exchange_rate with low, high (edited fills beside a real
        one); verdict.

        Args:
            parity: a name of :data:`vlbias.simulate.statistics.PARITY`.
        """
        if parity not in PARITY:
            raise unknown("parity measure", parity, PARITY)
        rows = []
        for fill in self.fills:
            found = {name: self._one(fill, name, parity) for name in dict.fromkeys(self.plan.runs["focal"]) if name}
            own = holm({name: one.slope.p_either for name, one in found.items()})
            fair = holm({name: one.parity.p_greater for name, one in found.items() if one.parity is not None})
            rows += [one.row(own[name], fair.get(name, float("nan")), self) for name, one in found.items()]
        return pd.DataFrame(rows)

    def verdicts(self) -> list[str]:
        """One sentence per fill and focal group."""
        return [printable(sentence) for sentence in self.summary()["verdict"]]

    def _one(self, fill: str, focal: str, parity: str) -> _Finding:
        metric = f"f1[{focal}]"
        slope = self.contrast(metric, focal, "slope", fill=fill)
        shares = self.points(metric, focal, fill=fill)[0]
        gain = None
        if min(shares) < 1 / len(self.plan.groups) <= max(shares) + 1e-12:
            gain = self.contrast(parity, focal, "gain", fill=fill)
            gain = gain if PARITY[parity] else -gain
        rate = (float("nan"),) * 3
        real = next((name for name in self.fills if name != fill and self._is_real(name)), None)
        if real is not None and not self._is_real(fill):
            rate = self._exchange(fill, real, focal)
        return _Finding(fill, focal, slope, parity, gain, rate)

    def _is_real(self, fill: str) -> bool:
        keys = self.plan.runs.index
        return any(f"{fill}|{key}" in self.records and self.plan.baseline(key) == key for key in keys)

    def _exchange(self, fill: str, real: str, focal: str) -> tuple[float, float, float]:
        metric, runs = f"f1[{focal}]", self.plan.runs
        chosen = runs[(runs["focal"] == focal) & (runs["mode"] == self.plan.settings.modes[0]) & (runs["repeat"] == 0)]
        sizes = chosen.sort_values("share")["n"].to_numpy(float)
        of_real, of_edits = (self._curve(focal, metric, name) for name in (real, fill))
        added = [sizes * one.true_shares[0] for one in (of_real, of_edits)]
        of_points = of_real.points, of_edits.points
        (real_counts, edited_counts) = (counts - counts[0] for counts in added)
        return exchange_rate(real_counts, of_points[0], edited_counts, of_points[1], level=self.level)

    def write(self, out_dir: AnyPath) -> Path:
        """Write plan.json, runs.csv, summary.csv, verdicts.txt and (with curves to draw) curves.png into a folder.

        How long each run took stands in timing.csv, so that everything else is the same for the same job.

        Raises:
            OutputError: the folder cannot be made.
        """
        out = make_folder(out_dir)
        self.plan.save(out / "plan.json")
        table = self.table()
        write_file(out / "runs.csv", table.drop(columns="seconds").to_csv(index=False))
        write_file(out / "timing.csv", table[["fill", "run", "seconds"]].to_csv(index=False))
        if any(self.plan.runs["focal"]):
            write_file(out / "summary.csv", self.summary().to_csv(index=False))
            write_file(out / "verdicts.txt", "\n".join(self.verdicts()) + "\n")
            self.plot(out / "curves.png")
        return out

    def plot(self, path: AnyPath, metrics: Sequence[str] = ("own_f1", "equalized_odds_excess")) -> Path:
        """Draw the curves of every focal group, with slopes and paired bands; ``own_f1`` is the focal group's F1.

        A band is the interval of a point's distance from the mean of its curve: what all points of a repeat, or of a
        test set, have in common says nothing of how the curve moves. P-values are Holm's over the focal groups.

        Raises:
            PlanError: the plan is of whole compositions, or not all runs are finished.
        """
        focal = [name for name in dict.fromkeys(self.plan.runs["focal"]) if name]
        if not focal:
            raise PlanError("A plan of given compositions has no curve to draw; read its table.")
        panels = {(metric, name): curves for metric in metrics for name, curves in self._curves(metric, focal).items()}
        return plot_curves(panels, 1 / len(self.plan.groups), Path(path))

    def _curves(self, metric: str, focal: Sequence[str]) -> dict[str, list[Curve]]:
        """Focal group -> one curve per fill and mode; sizes alone ("control") are drawn once."""
        curves: dict[str, list[Curve]] = {name: [] for name in focal}
        for fill, mode in itertools.product(self.fills, self.plan.settings.modes):
            if mode == "control" and fill != self.fills[0]:
                continue
            label = fill if mode == "substitute" else f"{fill}, {mode}"
            names = {name: f"f1[{name}]" if metric == "own_f1" else metric for name in focal}
            points = {name: self.points(names[name], name, fill=fill, mode=mode) for name in focal}
            slopes = {
                name: _weighted(self._slope(self._curve, name, names[name], fill, mode), 1, self.level)
                for name in focal
            }
            p_values = holm({name: slope.p_either for name, slope in slopes.items()})
            for name, (shares, values, resampled) in points.items():
                away = np.eye(len(shares)) - 1 / len(shares)
                bands = [contrast(values, resampled, weights, level=self.level) for weights in away]
                mean = values.mean(0)
                low, high = (mean - [one.value - getattr(one, end) for one in bands] for end in ("low", "high"))
                note = f"{slopes[name].value / 10:+.3f} per 10 points"
                note += "" if np.isnan(p_values[name]) else f", p {p_values[name]:.3f}"
                curves[name].append(Curve(label, shares, mean, low, high, note))
        return curves


@dataclass(frozen=True)
class _Curve:
    """A metric along the shares of one focal group.

    Attributes:
        shares: of the focal group as planned (s,).
        true_shares: the true ones, as estimated and in each draw (1 + b, s); as planned where labels are what they say.
        points, resampled: values (r, s), and of each draw (b, r, s).
        labelled: shares of all groups as their labels have them (s, k).
        true: the true ones (1 + b, s, k).
    """

    shares: np.ndarray
    true_shares: np.ndarray
    points: np.ndarray
    resampled: np.ndarray
    labelled: np.ndarray
    true: np.ndarray

    def minus(self, other: _Curve) -> _Curve:
        """The difference of two curves over the shares of this one."""
        return replace(
            self,
            points=self.points - other.points,
            resampled=self.resampled - other.resampled,
            labelled=self.labelled - other.labelled,
            true=self.true - other.true,
        )


#: A curve and the weights of its points, (s,) or (1 + b, s).
_Part: TypeAlias = tuple[_Curve, np.ndarray]


def _weighted(parts: Sequence[_Part], num: int, level: float) -> Contrast:
    """The contrast of all parts together, divided by ``num``."""
    points, resampled = (
        np.concatenate([getattr(one, name) for one, _ in parts], -1) for name in ("points", "resampled")
    )
    each = [np.broadcast_to(weights, (1 + len(resampled), len(one.shares))) for one, weights in parts]
    return contrast(points, resampled, np.concatenate(each, axis=-1) / num, level=level)


@dataclass(frozen=True)
class _TestSet:
    """The test images as codes.

    Attributes:
        true, group: class and group codes (n,).
        weights: bootstrap weights (1 + b, n) of people, the first row ones.
        dealt: group codes (permutations, n) with people's groups dealt anew.
    """

    true: np.ndarray
    group: np.ndarray
    weights: np.ndarray
    dealt: np.ndarray


@dataclass(frozen=True)
class _Finding:
    """What one focal group's curve says."""

    fill: str
    focal: str
    slope: Contrast
    parity_name: str
    parity: Contrast | None
    rate: tuple[float, ...]

    def row(self, own: float, fair: float, result: SimulationResult) -> dict[str, Any]:
        parity = self.parity or Contrast(*[float("nan")] * 6)
        return {
            "fill": self.fill,
            "focal": self.focal,
            "own_slope": self.slope.value,
            "own_slope_low": self.slope.low,
            "own_slope_high": self.slope.high,
            "own_p": own,
            "parity": self.parity_name,
            "parity_gain": parity.value,
            "parity_gain_low": parity.low,
            "parity_gain_high": parity.high,
            "parity_p": fair,
            "exchange_rate": self.rate[0],
            "exchange_rate_low": self.rate[1],
            "exchange_rate_high": self.rate[2],
            "verdict": f"{self.focal}: {self._of_slope(own, result)}{self._of_parity(fair, result)}{self._of_edits()}.",
        }

    def _of_slope(self, p: float, result: SimulationResult) -> str:
        s, level = self.slope, result.level
        of_fill = "" if self.fill == "real" else f" ({self.fill})"
        numbers = f"{s.value / 10:+.3f} F1 per 10 points of share"
        if result.plan.settings.repeats == 1:
            return (
                f"one repeat cannot tell an effect of its own share{of_fill} on its F1 from the luck of the draw and "
                f"of the seed ({numbers}); ask for more repeats"
            )
        if not np.isfinite(p):
            return f"an effect of its own share{of_fill} on its F1 cannot be known, it has too few test images"
        numbers += f", {level:.0%} interval {s.low / 10:+.3f} to {s.high / 10:+.3f}"
        if p < 1 - level:
            verb = "raise" if s.value > 0 else "lower"
            return f"more of its own training images{of_fill} {verb} its F1 ({numbers})"
        return f"no effect of its own share{of_fill} on its F1 is shown ({numbers})"

    def _of_parity(self, p: float, result: SimulationResult) -> str:
        what = self.parity_name.replace("_", " ")
        if self.parity is None:
            return ""
        if not np.isfinite(self.parity.value):
            return f"; {what} is undefined, too few test images (a cell needs {result.min_cell})"
        change = "improves" if p < 1 - result.level else "is not shown to improve"
        return f"; at balance {what} {change} (by {self.parity.value:+.3f})"

    def _of_edits(self) -> str:
        rate, low, high = self.rate
        if not np.isfinite(rate):
            return ""
        between = f" ({low:.2f} to {high:.2f})" if np.isfinite(low) else ""
        return f"; one edited image is worth {rate:.2f} real ones{between}"
