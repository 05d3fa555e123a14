"""A run's chunks, done in this process, in others, or on other machines that share its folder.

What a worker is told is what was asked for, and where the editor lies; pictures are read from the dataset's folder, and
results stored in the run's, as by the process that started it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from vlbias.balance.attempt import Job
from vlbias.balance.calibration import Scorers
from vlbias.balance.chunk import run_chunk
from vlbias.balance.identity import IdentityScale, LatentIdentity, identity_scorer, resolve_identity
from vlbias.balance.own_scorers import resolve_scorers
from vlbias.balance.round_trip import run_trips
from vlbias.balance.run_folder import STATE, RunFolder
from vlbias.balance.task import Task
from vlbias.balance.verification import Reason
from vlbias.editor_folder import read_editor
from vlbias.errors import OutputError
from vlbias.rendering import Renderer, RenderSettings

__all__ = ["Chunk", "ChunkWork", "Counts", "do_chunk", "job_of", "turned_down"]

#: Faces kept and tries turned down.
Counts: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Chunk:
    """A part of a run that is stored whole.

    Attributes:
        number: its place in the run.
        unit: what its rows are: "edits" or "originals".
        rows: the faces in it, as rows of a plan.
    """

    number: int
    unit: str
    rows: Sequence[Mapping[str, Any]]


def job_of(task: Task, groups: Mapping[str, tuple[str, ...]], scorers: Scorers) -> Job:
    """What every chunk of a run shares, once the scorers are calibrated."""
    scale = scorers.identity or IdentityScale(LatentIdentity((), 1.0))
    return Job(
        backend=task.backend,
        faces=task.faces,
        groups=groups,
        poles=task.poles,
        target=scorers.attributes[0],
        protected=scorers.attributes[1:],
        identity=identity_scorer(task.backend, task.identity, scale),
        identity_scale=scale,
        identity_sees_pictures=task.identity != "latent",
        checks=task.settings.checks,
        seed=task.seed,
        prior_steps=task.settings.prior_steps,
        keep_pairs=task.settings.keep_pairs,
        size=task.settings.size,
        calibration_evaluations=scorers.unet_evaluations,
    )


def turned_down(records: Sequence[Mapping[str, Any]]) -> int:
    """Tries among what a chunk rejected; a place that no donor filled is no try, as in the report."""
    return sum(record["reason"] != Reason.NO_DONOR_LEFT for record in records)


def do_chunk(folder: RunFolder, job: Job, chunk: Chunk) -> Counts:
    """Do one chunk and store it."""
    result = (run_chunk if chunk.unit == "edits" else run_trips)(job, list(chunk.rows))
    folder.commit_chunk(chunk.number, result)
    return len(result.kept), turned_down(result.rejected)


@dataclass(frozen=True)
class ChunkWork:
    """The chunks of a run as work that can be sent.

    Attributes:
        task: what was asked for, without its networks.
        editor: what opens the editor; an editor that nothing opens is sent whole, in ``task``.
        groups: of the plan.
        scorers: calibrated, as plain values.
        facts: what the run is.
        out: its folder.
        folder: that relative paths begin in.
        links: whether originals are links.
    """

    task: Task
    editor: Mapping[str, Any] | None
    groups: Mapping[str, tuple[str, ...]]
    scorers: Mapping[str, Any]
    facts: Mapping[str, Any]
    out: Path
    folder: Path
    links: bool

    @classmethod
    def of(cls, task: Task, groups: Mapping[str, tuple[str, ...]], folder: RunFolder) -> ChunkWork:
        """Of a run whose scorers are calibrated."""
        backend = task.backend
        editor = None
        if isinstance(backend, Renderer) and backend.source is not None:
            editor = {"source": backend.source, "settings": backend.settings}
        left = backend if editor is None else None
        sent = replace(task, backend=left, identity="latent", scorers={})  # type: ignore[arg-type]  # until `open`
        out = folder.out.absolute()
        return cls(sent, editor, groups, folder.read("scorers.json"), folder.job, out, Path.cwd(), folder.links)

    def open(self) -> Callable[[Chunk], Counts]:
        """Open the editor, the scorers and the run's folder.

        Raises:
            OutputError: this host does not see the folders of the run, or has another editor of that name.
        """
        _go_to(self.folder)
        if not (self.out / STATE).is_dir():  # it would be made here, and what is stored there lost
            raise OutputError(_elsewhere(self.out))
        folder = RunFolder(self.out, self.facts, links=self.links)
        backend = self.task.backend if self.editor is None else _opened(**self.editor)
        if json.loads(json.dumps(backend.fingerprint())) != self.facts["backend"]:
            raise OutputError(f"Editor '{backend.name}' is not the same here as where the run was started.")
        settings, columns = self.task.settings, self.task.columns
        scorers = resolve_scorers(backend, settings.scorers, columns)
        identity = resolve_identity(backend, settings.identity)
        task = replace(self.task, backend=backend, identity=identity, scorers=scorers)
        job = job_of(task, self.groups, Scorers.from_dict(dict(self.scorers), scorers))
        return lambda chunk: do_chunk(folder, job, chunk)


def _opened(source: Mapping[str, Any], settings: RenderSettings) -> Renderer:
    return read_editor(**source).changed(settings=settings)


def _go_to(folder: Path) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise OutputError(_elsewhere(folder)) from error


def _elsewhere(folder: Path) -> str:
    return f"{folder} is not on {os.uname().nodename}. Workers need the folders of the run."
