"""The balanced sets that arms learn from: made once for a task and kept beside the results."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from vlbias.balance import Balancer
from vlbias.balance.verification import Checks
from vlbias.bench.tasks import Task
from vlbias.data import FaceDataset, join
from vlbias.data.folder import load_folder
from vlbias.data.metadata import read_metadata
from vlbias.editor import Editor
from vlbias.errors import DatasetError, PlanError
from vlbias.files import AnyPath, sha256_json
from vlbias.locks import FileLock
from vlbias.settings import Settings, number

__all__ = ["Variant", "balanced_set", "editor_digest", "mislabelled", "open_editor"]

Faces = TypeVar("Faces", bound=FaceDataset)

#: Checks that every edit passes: what scorers say of it decides nothing.
UNCHECKED = Checks(reached=-1e9, donor=1e9, sampled=-1e9, target=-1e9, target_slack=1e9, identity=-1e9, retries=0)


#: Strengths that are drawn lie so far about the calibrated one, as a share of it.
RANDOM = 0.5


@dataclass(frozen=True)
class Variant(Settings):
    """How a task's balanced set is made, where that is not as usual: one question of a user each.

    Attributes:
        share: of the edits that level the cells, above 0 and up to 2; 0.5 mends half of the imbalance, 2 adds as many
            edits again.
        source: ``real`` edits the training faces, ``prior`` faces drawn from the editor's prior.
        mode: ``reduce`` or ``amplify``.
        verified: whether edits that do not pass are walked again or turned down.
        wrong_labels: share of the training faces whose protected label is another one than the truth.
        edit_steps: network evaluations of an edit, there and as many back; ``None`` for the editor's own.
        strength: ``closed-loop`` walks each face as far as its scorers ask for; ``random`` draws the strength, as the
            published code does, and turns down what does not pass.
        varied: how much edits differ in how far they go, see ``vlbias.balance.Checks``; ``None`` for what the editor
            asks for.
        seed: of the edits.
    """

    share: float = number(1.0, above=0, high=2)
    source: Literal["real", "prior"] = "real"
    mode: Literal["reduce", "amplify"] = "reduce"
    verified: bool = True
    wrong_labels: float = number(0.0, 0, 0.5)
    edit_steps: int | None = number(None, 1, 1000)
    strength: Literal["closed-loop", "random"] = "closed-loop"
    varied: float | None = number(None, 0, 1)
    seed: int = number(0, 0)

    def changes(self) -> dict[str, Any]:
        """What is not as usual."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, usual) in values.items() if value != usual}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.changes().items())


def mislabelled(faces: Faces, column: str, share: float, seed: int) -> Faces:
    """The same faces with a share of the labels of a two-valued column turned round."""
    labels = faces.table[column]
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(faces))[: round(share * len(faces))]
    values = labels.unique().tolist()
    if len(values) != 2:
        raise DatasetError(f"labels are turned round where there are two; '{column}' has {len(values)}.")
    turned = labels.copy()
    turned.iloc[wrong] = [values[1] if value == values[0] else values[0] for value in labels.iloc[wrong]]
    return replace(faces, table=faces.table.assign(**{column: turned}))


@lru_cache(maxsize=2)
def open_editor(name: str) -> Editor:
    """The editor of a name or folder, opened once."""
    return Editor.from_pretrained(name)


@lru_cache
def editor_digest(name: str) -> str:
    """A hash of an editor's weights and settings."""
    return sha256_json(open_editor(name).renderer.fingerprint())


def balanced_set(
    task: Task, training: FaceDataset, variant: Variant, folder: AnyPath, *, show_progress: bool = True
) -> FaceDataset:
    """The made faces of a task's balanced set, in split "train"; a finished set is read, not made again.

    Args:
        task: whose set.
        training: its training faces, with the labels that the balancer is to see.
        variant: how it is made.
        folder: of all sets.
        show_progress: whether a line on stderr tells how far it is.

    Raises:
        PlanError: the editor cannot edit the protected attribute, or no edit was kept.
    """
    parts = []
    for part in range(math.ceil(variant.share)):
        recipe = replace(variant, share=1.0, seed=variant.seed + part)
        out = Path(folder) / f"{task.name}-{_digest(task, training, recipe)[:16]}"
        with FileLock(out.with_name(f"{out.name}.lock")):
            made = _made(task, training, recipe, out, show_progress)
        rest = variant.share - part
        parts.append(made if rest >= 1 else _some(made, task, rest, variant.seed))
    return parts[0] if len(parts) == 1 else join([_numbered(faces, place) for place, faces in enumerate(parts)])


def _digest(task: Task, training: FaceDataset, recipe: Variant) -> str:
    checks = asdict(_checks(recipe).of(open_editor(task.editor).renderer))
    parts = [training.table.to_csv(), editor_digest(task.editor), task.target, task.protected, recipe.changes(), checks]
    return sha256_json(parts)


def _checks(recipe: Variant) -> Checks:
    checks = Checks() if recipe.verified else UNCHECKED
    checks = replace(checks, varied=recipe.varied)
    return replace(checks, random_strength=RANDOM, retries=0) if recipe.strength == "random" else checks


def _made(task: Task, training: FaceDataset, recipe: Variant, out: Path, show_progress: bool) -> FaceDataset:
    if not (out / "metadata.csv").is_file() or not (out / ".state" / "done.json").is_file():
        renderer = open_editor(task.editor).renderer
        if recipe.edit_steps is not None:
            levels = recipe.edit_steps + 2  # both ends need no evaluation
            renderer = renderer.changed(settings=replace(renderer.settings, edit_steps=levels))
        balancer = Balancer(
            renderer,
            target=task.target,
            protected=task.protected,
            mode=recipe.mode,
            source=recipe.source,
            seed=recipe.seed,
            keep_pairs=False,
            checks=_checks(recipe),
        )
        balancer.run(training, balancer.plan(training), out, originals="omit", show_progress=show_progress)
    if read_metadata(out / "metadata.csv").empty:
        raise PlanError(f"None of the edits planned for '{task.name}' was kept; rejected.csv of that set says why.")
    return load_folder(out)


def _some(made: FaceDataset, task: Task, share: float, seed: int) -> FaceDataset:
    """A share of each cell, drawn by the seed."""
    cells = made.table.groupby([task.target, task.protected])
    kept = [part.sample(round(share * len(part)), random_state=seed) for _, part in cells]
    return made.select([item for part in kept for item in part.index])


def _numbered(faces: FaceDataset, place: int) -> FaceDataset:
    """The same faces under other ids: two sets call their edits alike."""
    return faces if not place else replace(faces, table=faces.table.set_axis(faces.table.index + f" ({place + 1})"))
