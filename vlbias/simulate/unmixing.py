"""What stands behind estimated group labels: true shares of a training set, true counts of a test set."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from vlbias.simulate.noise import LabelNoise
from vlbias.simulate.plans import SimulationPlan

__all__ = ["Unmixing", "mixture", "true_given_label"]


class Unmixing:
    """Shares and counts by true group, as estimated and in each of ``num_draws`` draws of what is not known.

    Args:
        plan: with its ``label_noise``; without, labels are what they say.
        num_draws: b.
    """

    def __init__(self, plan: SimulationPlan, num_draws: int):
        self.plan = plan
        noise = plan.settings.label_noise
        self.of_train, self.of_test = (noise is not None and noise.splits in ("both", one) for one in ("train", "test"))
        exact = LabelNoise(plan.groups, np.eye(len(plan.groups)).tolist())
        self._rates = (noise or exact).draws(num_draws, [plan.settings.seed, 4])
        self._groups = {name: code for code, name in enumerate(plan.groups)}

    def counts(self, n: np.ndarray) -> np.ndarray:
        """Counts (..., g, y, p) by label => by true group, with rates as measured; chance may bring some below 0."""
        return self._unmixed(n, self._rates[0]) if self.of_test else n

    def drawn_counts(self, n: np.ndarray) -> np.ndarray:
        """The same for (..., 1 + b, g, y, p), each draw with rates of its own."""
        return self._unmixed(n, self._rates) if self.of_test else n

    @staticmethod
    def _unmixed(n: np.ndarray, rates: np.ndarray) -> np.ndarray:
        return np.einsum("...ga,...gyp->...ayp", np.linalg.inv(rates), n)

    def nominal(self, key: str) -> np.ndarray:
        """Shares (k,) of a run's training set as its labels have them."""
        shares = np.zeros(len(self._groups))
        for (group, _), count in self.plan.quotas[key].items():
            shares[self._groups[group]] += count
        return shares / shares.sum()

    def shares(self, key: str, *, is_edited: bool) -> np.ndarray:
        """True shares (1 + b, k) of a run's training set; images edited into the focal group belong there."""
        if not self.of_train:
            return np.broadcast_to(self.nominal(key), (len(self._rates), len(self._groups)))
        focal = self.plan.runs.loc[key, "focal"]
        shares = np.zeros((len(self._rates), len(self._groups)))
        for (group, label), count in self.plan.quotas[key].items():
            code = self._groups[group]
            edited = self.plan.gain(key, (group, label)) if is_edited and group == focal else 0
            shares += (count - edited) * self._behind[label][:, code]
            shares[:, code] += edited
        return np.asarray(shares / shares[0].sum())

    @cached_property
    def _behind(self) -> dict[str, np.ndarray]:
        """Class => P(true a | labelled g) among its training images (1 + b, g, a); the class "" is all."""
        order = self.plan.orders[0]
        found = {}
        for number, label in enumerate(("", *self.plan.classes)):
            ids = [order.get((group, label), []) for group in self.plan.groups]
            people = np.array([len({self.plan.subjects[item] for item in of_group}) for of_group in ids])
            rng = np.random.default_rng([self.plan.settings.seed, 5, number])
            found[label] = true_given_label(self._rates, np.array(list(map(len, ids))), people, rng)
        return found


def true_given_label(rates: np.ndarray, sizes: np.ndarray, people: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Who is behind a label, P(true a | labelled g) (1 + b, g, a): expected, then as it may have come about.

    Args:
        rates: P(labelled g | truly a), (1 + b, a, g).
        sizes, people: how many images, of how many people, have each label (g,).
        rng: of the drawing.
    """
    b, total = len(rates) - 1, max(int(people.sum()), 1)
    drawn = rng.multinomial(total, sizes / max(sizes.sum(), 1), size=b) / total
    labelled = np.concatenate([sizes[None] / max(sizes.sum(), 1), drawn])
    true = np.clip(np.einsum("bga,bg->ba", np.linalg.inv(rates), labelled), 0, None)
    joint = np.swapaxes(rates * true[..., None], 1, 2)  # (1 + b, g, a)
    size = joint.sum(-1, keepdims=True)
    behind = np.where(size > 0, joint / np.where(size > 0, size, 1), np.eye(rates.shape[-1]))
    behind[1:] = rng.multinomial(np.maximum(people, 1), behind[1:]) / np.maximum(people, 1)[:, None]
    return behind


def mixture(asked: np.ndarray, moved: np.ndarray, curve: int, group: int) -> np.ndarray:
    """How much of each curve's slope makes the slope that was asked for (1 + b, c).

    Along a curve several true shares move. Where all curves together allow it, they are weighted so that the shares
    move exactly as asked; otherwise the own curve is scaled so that the group's own share does.

    Args:
        asked: how the shares (k,) are to move.
        moved: how they move along each curve (1 + b, c, k), as estimated and in each draw.
        curve, group: which of each is the group's own.
    """
    start = np.zeros(moved.shape[:-1])
    start[:, curve] = asked[group] / moved[:, curve, group]
    left = asked - np.einsum("bc,bck->bk", start, moved)
    whole = start + np.einsum("bkc,bk->bc", np.linalg.pinv(moved.swapaxes(1, 2), rcond=1e-9).swapaxes(1, 2), left)
    rest = asked - np.einsum("bc,bck->bk", whole, moved)
    return whole if np.abs(rest[0]).max() < 1e-6 * np.abs(asked).max() else start
