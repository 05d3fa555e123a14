"""The arms that the library has. Each says in a line what a fit gets; ``docs/arms.md`` has the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vlbias.audit.arms.registry import ARMS, Recipe, Trial, register_arm
from vlbias.audit.arms.task import ArmTask, LabelledFaces
from vlbias.classify import FitHooks, fit, item_losses
from vlbias.errors import ConfigError
from vlbias.images import load_pixels, to_float, to_uint8

__all__ = ["BUILT_IN"]

#: Share of the steps after which the first fit of just-train-twice is asked what it gets wrong.
FIRST_FIT = 0.25


@register_arm("erm", "the training faces as they are")
def _erm(task: ArmTask, trial: Trial) -> Recipe:
    return Recipe(task.faces)


@register_arm("undersample", "faces are left out until the groups of each class are as small as its smallest")
def _undersample(task: ArmTask, trial: Trial) -> Recipe:
    rows: list[int] = []
    for y, counts in enumerate(task.counts(task.faces)):
        least = counts[counts > 0].min(initial=len(task.faces))
        for g in range(len(counts)):
            mine = np.flatnonzero((task.faces.y == y) & (task.faces.g == g))
            rows += trial.rng.permutation(mine)[:least].tolist()
    return Recipe(task.faces.take(rows))


@register_arm("oversample", "faces of short cells are repeated")
def _oversample(task: ArmTask, trial: Trial) -> Recipe:
    return Recipe(task.faces.joined(task.drawn(task.faces, trial.rng, repeat=True)))


@register_arm("reweight", "faces of short cells weigh more in the loss")
def _reweight(task: ArmTask, trial: Trial) -> Recipe:
    have = task.counts(task.faces)
    factor = (have + task.ordered) / np.maximum(have, 1)
    weights = torch.from_numpy(factor[task.faces.y, task.faces.g]).float()
    return Recipe(task.faces, FitHooks(weights=weights))


@register_arm(
    "trivial-augment", "strong augmentation (TrivialAugment)", knob="share of pictures changed", values=(1.0, 0.5)
)
def _trivial_augment(task: ArmTask, trial: Trial) -> Recipe:
    return Recipe(task.faces, FitHooks(change_batch=_trivially_augmented(trial.value or 1.0)))


def _trivially_augmented(share: float) -> Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]:
    from torchvision.transforms.v2 import TrivialAugmentWide

    # Müller & Hutter (2021): one operation a picture, its strength drawn evenly.
    transform = TrivialAugmentWide()

    def change(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        changed = torch.rand(len(x), generator=generator) < share
        pixels = to_uint8(x)
        pictures = [transform(one) if flag else one for one, flag in zip(pixels, changed.tolist(), strict=True)]
        return to_float(torch.stack(pictures)), y

    return change


@register_arm("mixup", "mixtures of two faces, with labels mixed alike", knob="alpha", values=(0.2, 0.4, 1.0))
def _mixup(task: ArmTask, trial: Trial) -> Recipe:
    alpha, num_classes = trial.value or 0.2, len(task.classes)
    if trial.settings.loss == "focal":
        raise ConfigError("the arm 'mixup' mixes labels, which the focal loss does not take. Use cross_entropy.")

    def change(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        # Zhang et al. (2018), eq. 1; one share a batch, as in the authors' code.
        share = float(np.random.default_rng(int(torch.randint(2**31, (), generator=generator))).beta(alpha, alpha))
        other, labels = torch.randperm(len(x), generator=generator), F.one_hot(y, num_classes).float()
        return torch.lerp(x[other], x, share), torch.lerp(labels[other], labels, share)

    return Recipe(task.faces, FitHooks(change_batch=change))


def _worst_cells(task: ArmTask, faces: LabelledFaces, trial: Trial) -> FitHooks:
    """The loss of GroupDRO (Sagawa et al., 2020, algorithm 1) over the cells of class and group."""
    cells = torch.from_numpy(faces.y * len(task.groups) + faces.g)
    share = torch.full((len(task.classes) * len(task.groups),), 1.0 / task.counts(faces).size)

    def loss(logits: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        nonlocal share
        mine = cells[rows].to(logits.device)
        losses = item_losses(logits, targets, trial.settings)
        zeros = losses.new_zeros(len(share))
        count = zeros.scatter_add(0, mine, torch.ones_like(losses))
        mean = zeros.scatter_add(0, mine, losses) / count.clamp(min=1)
        grown = share.to(logits.device) * torch.exp((trial.value or 0.0) * mean.detach())
        share = grown / grown.sum()
        return (share * mean).sum()

    return FitHooks(loss=loss)


@register_arm(
    "group-dro",
    "the loss follows the worst cell; cells are drawn evenly",
    knob="eta",
    values=(0.01, 0.1, 0.001),
)
def _group_dro(task: ArmTask, trial: Trial) -> Recipe:
    faces = _oversample.build(task, trial).faces
    return Recipe(faces, _worst_cells(task, faces, trial))


@register_arm(
    "just-train-twice",
    "faces that a short first fit gets wrong weigh more",
    knob="weight",
    values=(5.0, 20.0, 50.0),
)
def _just_train_twice(task: ArmTask, trial: Trial) -> Recipe:
    # Liu et al. (2021), algorithm 1. The first fit comes on top of the steps that all arms have.
    short = replace(trial.settings, num_steps=max(1, round(FIRST_FIT * trial.settings.num_steps)))
    first = fit(task.faces.images, task.faces.y, classes=list(range(len(task.classes))), settings=short)
    is_wrong = first.predict_proba(task.faces.images).argmax(1).numpy() != task.faces.y
    weights = torch.from_numpy(np.where(is_wrong, trial.value or 1.0, 1.0)).float()
    return Recipe(task.faces, FitHooks(weights=weights))


# ---------------------------------------------------------------------------------------------------------------------
# Pictures that are added


def _with(task: ArmTask, added: LabelledFaces, *, made: bool = True) -> Recipe:
    return Recipe(task.faces.joined(added), num_made=len(added) if made else 0)


@register_arm("round-trip", "faces of short cells are repeated, as the editor rebuilds them", needs=["editor"])
def _round_trip(task: ArmTask, trial: Trial) -> Recipe:
    repeated = task.drawn(task.faces, trial.rng, repeat=True)
    return _with(task, _rebuilt(task, repeated))


@register_arm(
    "random-direction", "edits of the same donors and length, in random directions", needs=["balanced", "editor"]
)
def _random_direction(task: ArmTask, trial: Trial) -> Recipe:
    if trial.seed not in task.pushed:  # once for all rates that are tried
        task.pushed[trial.seed] = _pushed(task, trial.rng)
    return _with(task, task.pushed[trial.seed])


@register_arm("edits", "edits of faces of the larger groups fill the short cells", needs=["balanced"])
def _edits(task: ArmTask, trial: Trial) -> Recipe:
    return _with(task, task.added("balanced"))


@register_arm("edits-prior", "edits of faces from the prior fill the short cells", needs=["prior"])
def _edits_prior(task: ArmTask, trial: Trial) -> Recipe:
    return _with(task, task.drawn(task.added("prior"), trial.rng))


@register_arm(
    "edits+round-trip",
    "edits fill the short cells, and the other faces are rebuilt by the editor",
    needs=["balanced", "editor"],
)
def _edits_round_trip(task: ArmTask, trial: Trial) -> Recipe:
    faces = _rebuilt(task, task.faces).joined(task.added("balanced"))
    return Recipe(faces, num_made=len(faces))


@register_arm(
    "edits+group-dro",
    "edits fill the short cells, and the loss follows the worst cell",
    knob="eta",
    values=(0.01, 0.1, 0.001),
    needs=["balanced"],
)
def _edits_group_dro(task: ArmTask, trial: Trial) -> Recipe:
    recipe = _edits.build(task, trial)
    return replace(recipe, hooks=_worst_cells(task, recipe.faces, trial))


@register_arm(
    "edits+oversample",
    "short cells are filled by edits and by repeating their own faces",
    knob="share of edits",
    values=(0.5, 0.25, 0.75),
    needs=["balanced"],
)
def _edits_oversample(task: ArmTask, trial: Trial) -> Recipe:
    edits, copies = task.added("balanced"), task.drawn(task.faces, trial.rng, repeat=True)
    num_edits = np.rint((trial.value or 0.5) * task.ordered).astype(int)
    made = edits.take(_some_of_each_cell(edits, num_edits, trial.rng))
    repeated = copies.take(_some_of_each_cell(copies, task.ordered - num_edits, trial.rng))
    return Recipe(task.faces.joined(made, repeated), num_made=len(made))


def _some_of_each_cell(faces: LabelledFaces, counts: np.ndarray, rng: np.random.Generator) -> list[int]:
    rows: list[int] = []
    for (y, g), count in np.ndenumerate(counts):
        mine = np.flatnonzero((faces.y == y) & (faces.g == g))
        rows += rng.permutation(mine)[:count].tolist()
    return rows


@register_arm("amplify", "as many edits that make cells more unequal, for study", needs=["amplified"])
def _amplify(task: ArmTask, trial: Trial) -> Recipe:
    added = task.added("amplified")
    rows = trial.rng.permutation(len(added))[: len(task.orders)]
    return _with(task, added.take(rows))


@register_arm("oracle", "true counterfactuals in the place of edits", needs=["counterfactuals"])
def _oracle(task: ArmTask, trial: Trial) -> Recipe:
    return _with(task, _counterfactuals(task))


def _rebuilt(task: ArmTask, faces: LabelledFaces) -> LabelledFaces:
    """The same faces through the autoencoder: both codes, decoded. A face is rebuilt once for all fits of a task."""
    renderer, known = task.need_editor().renderer, task.rebuilt

    def rebuild(x_0: Tensor, rows: np.ndarray) -> Tensor:
        z_sem = renderer.encode(x_0)
        return renderer.decode(z_sem, renderer.invert(x_0, z_sem))

    missing = [item for item in dict.fromkeys(faces.ids) if item not in known]
    if missing:
        known.update(zip(missing, _edited(task, missing, rebuild), strict=True))
    return replace(faces, images=torch.stack([known[item] for item in faces.ids]) if len(faces) else faces.images)


def _pushed(task: ArmTask, rng: np.random.Generator) -> LabelledFaces:
    """Each edit anew: its donor moved as far in the latent space, in a random direction."""
    edits, orders = task.added("balanced"), task.orders
    has_donor = (orders["donor"] >= 0).to_numpy()
    edits, donors = edits.take(np.flatnonzero(has_donor)), task.faces.ids[orders["donor"][has_donor]]
    edit_set = task.need_set("balanced")
    renderer = task.need_editor().renderer
    dim = renderer.encode(task.train.tensor(list(donors[:1]), renderer.image_size).to(renderer.device)).shape[1]
    directions = F.normalize(torch.from_numpy(rng.standard_normal((len(edits), dim))).float(), dim=1)

    def push(x_0: Tensor, rows: np.ndarray) -> Tensor:
        z_sem = renderer.encode(x_0)
        there = renderer.encode(edit_set.tensor(list(edits.ids[rows]), renderer.image_size).to(x_0.device))
        length = (there - z_sem).norm(dim=1, keepdim=True)
        moved = z_sem + length * directions[torch.from_numpy(rows)].to(z_sem)
        return renderer.render(x_0, z_sem, moved, renderer.trace(x_0, z_sem))

    return replace(edits, images=_edited(task, list(donors), push))


def _edited(task: ArmTask, ids: list[str], change: Callable[[Tensor, np.ndarray], Tensor], batch: int = 32) -> Tensor:
    """Training faces changed by the editor, uint8 (n, 3, s, s) at the size of the classifiers.

    Args:
        task: its training set holds the faces.
        ids: which; one may come more than once.
        change: (faces (b, 3, h, w) at the editor's size, their places in ``ids`` (b,)) => changed faces.
        batch: faces that go through the editor together, the last ones with some of the first, so that a picture does
            not depend on how many were asked for.
    """
    renderer, size = task.need_editor().renderer, task.settings.fit.image_size
    parts = []
    for start in range(0, len(ids), batch):
        rows = np.arange(start, start + batch) % len(ids)
        x_0 = task.train.tensor([ids[row] for row in rows], renderer.image_size).to(renderer.device)
        changed = change(x_0, rows).cpu()
        if size != renderer.image_size:
            changed = F.interpolate(changed, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        parts.append(to_uint8(changed))
    return torch.cat(parts)[: len(ids)]


def _counterfactuals(task: ArmTask) -> LabelledFaces:
    """For each order the true counterfactual of its donor; an order without a donor is passed over."""
    parts = []
    cells, donor = task.orders[["y", "g"]].to_numpy(), task.orders["donor"].to_numpy()
    for y, g in np.unique(cells, axis=0):
        mine = (cells == (y, g)).all(1) & (donor >= 0)
        donors, place = np.unique(donor[mine], return_inverse=True)
        drawn = task.train.counterfactual(list(task.faces.ids[donors]), **task.values_of(g))  # type: ignore[attr-defined]
        images = load_pixels(drawn, drawn.ids, task.settings.fit.image_size)[torch.from_numpy(place)]
        count = len(place)
        ids = np.array(drawn.ids, dtype=object)[place]
        parts.append(LabelledFaces(images, np.full(count, y), np.full(count, g), ids))
    if not parts:
        return task.faces.take([])
    return parts[0].joined(*parts[1:])


@register_arm("more-real", "further real faces fill the short cells", needs=["more"])
def _more_real(task: ArmTask, trial: Trial) -> Recipe:
    return _with(task, task.drawn(task.added("more"), trial.rng), made=False)


#: Names of the arms above.
BUILT_IN = tuple(ARMS)
