"""Balancer: plan -> source -> edit -> verify -> write, in one object.

The plan cuts the work into chunks. A chunk depends on nothing but the plan, is committed whole, and is skipped when it
is there already; so a run that was killed goes on where it stopped, several shards can share the work, and the bytes
of the result are the same in every case.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from vlbias.balance.attempts import ChunkResult, Job
from vlbias.balance.chunk import run_chunk
from vlbias.balance.cost import estimate
from vlbias.balance.identity import (
    Identity,
    IdentityScale,
    LatentIdentity,
    identity_judge,
    identity_name,
    resolve_identity,
)
from vlbias.balance.judges import Judges, calibrated_judges, sampled_judges
from vlbias.balance.originals import ORIGINALS
from vlbias.balance.own_judges import OwnJudge, resolve_judges
from vlbias.balance.plan import Plan, check_settings, make_plan
from vlbias.balance.poles import Poles, column_labels, given_poles, resolve_poles, unplaced
from vlbias.balance.readings import AttributeJudge, check_labels
from vlbias.balance.round_trip import check_round_trip, run_trips, trips_of
from vlbias.balance.state import RunFolder
from vlbias.balance.told import leak_settings, measured, needs_measuring, summary_lines
from vlbias.balance.verify import Checks, enough
from vlbias.balance.write import assemble, write_report
from vlbias.balance.written import check_size, resolution_note
from vlbias.errors import ConfigError, OutputError, PlanError
from vlbias.files import read_json, writing
from vlbias.leak import LeakSettings
from vlbias.networks import FaceNetwork
from vlbias.progress import track
from vlbias.version import __version__

if TYPE_CHECKING:
    from vlbias.editor import Editor

__all__ = ["Balancer", "Result"]


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        out_dir: the output folder.
        complete: whether all chunks are done and the dataset is in place; a shard that is not the last leaves it False.
        table: ``metadata.csv`` (empty until complete).
        rejected: ``rejected.csv`` (empty until complete).
        report: ``report.json``; until complete only ``chunks`` and ``chunks_done``.
    """

    out_dir: Path
    complete: bool
    table: pd.DataFrame
    rejected: pd.DataFrame
    report: dict[str, Any]

    @property
    def unet_evaluations(self) -> int:
        """Single-image evaluations of the UNet, of all chunks."""
        return int(self.report.get("unet_evaluations", 0))

    def summary(self) -> str:
        """Two or three lines for people."""
        if not self.complete:
            done, chunks = self.report["chunks_done"], self.report["chunks"]
            return f"{done} of {chunks} chunks are done; the shard that finishes last writes {self.out_dir}."
        edits = self.report["edits"]
        lines = [f"{edits['kept']} of {edits['planned']} edits kept, {edits['rejected']} tries turned down"]
        if edits["by_reason"]:
            lines[0] += " (" + ", ".join(f"{reason} {n}" for reason, n in edits["by_reason"].items()) + ")"
        for target, after in self.report["counts_after"].items():
            before = self.report["counts_before"][target]
            cells = ", ".join(f"{group} {before[group]} -> {after[group]}" for group in before)
            lines.append(f"  {self.report['target']}={target}: {cells}")
        lines += [f"warning: {text}" for text in self.report.get("warnings", [])]
        lines += summary_lines(self.report)
        return "\n".join(lines)


@dataclass(frozen=True)
class Work:
    """A chunk that is to be done.

    Attributes:
        run: does it.
        size: faces in it.
        unit: what they are: "edits" or "originals".
    """

    run: Callable[[], ChunkResult]
    size: int
    unit: str


class Balancer:
    """Balance a labelled face dataset by verified edits.

    Args:
        editor: does the edits and the judging.
        target: label column whose classes must stay as they are.
        protected: label column whose groups are made equal inside each class, or several (their product).
        mode: ``reduce`` mitigates the association of target and protected, ``amplify`` strengthens it, for study.
        source: ``real`` edits the dataset's own faces, ``prior`` faces drawn from the latent prior.
        to: how far, see :func:`vlbias.balance.wanted_counts`: ``"max"``, ``"mean"``, ``"all"``, a number, or shares.
        seed: draws donors, faces and noise.
        splits: splits to balance; the others are passed on as they are.
        poles: {column: (path, {value: place in -1..1})}, or values in order, for columns the library does not know.
            Naming them also plans for values that do not occur.
        path: with a single protected column, ``path="age", poles={"young": -1, "old": +1}`` (or values in order) says
            the same.
        checks: what an edit must pass.
        identity: ``"latent"``, ``"clip"``, a face embedder (a file or folder, see :func:`vlbias.networks.load_network`,
            or a ``FaceNetwork``), or a callable, see :data:`vlbias.balance.identity.Identity`.
        judges: column -> who reads it from pictures in CLIP's place: a classifier's file or folder, a ``Classifier``, a
            ``ClassifierLabeller``, or a ``FaceNetwork`` around any function.
        prior_steps: network evaluations of a decode in prior mode.
        keep_pairs: in prior mode, also decode the donors of edits into ``OUT/donors`` so that pairs can be seen.
        chunk_size: edits that are committed, and walked, together.
        size: ``own`` writes an edit at its donor's width and height, in the donor's file format and quality: the
            donor's pixels plus what the edit changed. ``editor`` writes a PNG of the editor's size.
        leak: how it is measured what gives edits away: ``"low-level"``, ``"network"`` for that and a small network,
            which takes minutes, or :class:`vlbias.leak.LeakSettings`. It changes the report alone.
        round_trip: whether the originals of the balanced splits pass through the editor as well, to another group and
            back, so that what editing leaves behind says nothing about the cell. It costs two edits for each original
            (one with ``method="decode"``), and changes the originals a little.

    Raises:
        PlanError: ``target`` equals ``protected``, a setting is unknown or out of range, or ``poles`` name a path that
            the editor does not have.
        ConfigError: ``checks`` are not a :class:`Checks`, or a judge is of no kind that is known.
        UnknownNameError: a judge of a column that is neither target nor protected.
        CheckpointError, MissingDependencyError: a judge's file cannot be read.
    """

    def __init__(
        self,
        editor: Editor,
        *,
        target: str,
        protected: str | Sequence[str],
        mode: str = "reduce",
        source: str = "real",
        to: str | int | Mapping[str, float] = "max",
        seed: int = 0,
        splits: Sequence[str] = ("train",),
        poles: Mapping[Any, Any] | Sequence[Any] | None = None,
        path: str | None = None,
        checks: Checks | None = None,
        identity: str | PathLike[str] | FaceNetwork | Identity = "latent",
        judges: Mapping[str, OwnJudge] | None = None,
        prior_steps: int = 10,
        keep_pairs: bool = True,
        chunk_size: int = 32,
        size: str = "own",
        leak: str | LeakSettings = "low-level",
        round_trip: bool = False,
    ):
        self.editor = editor
        self.target = target
        self.protected = [protected] if isinstance(protected, str) else list(protected)
        check_settings(
            target=target, protected=self.protected, mode=mode, to=to, source=source, chunk_size=chunk_size
        )
        if path is not None:
            if len(self.protected) != 1 or poles is None:
                raise PlanError("`path` needs one protected column and its `poles`, such as {'young': -1, 'old': 1}.")
            poles = {self.protected[0]: (path, poles)}
        if prior_steps < 1:
            raise PlanError(f"`prior_steps` must be >= 1; got {prior_steps}.")
        check_size(size)
        check_round_trip(round_trip, source=source)
        self.round_trip = round_trip
        self.mode, self.source, self.to, self.seed, self.size = mode, source, to, seed, size
        self.splits = [splits] if isinstance(splits, str) else list(splits)
        if not self.splits or len(set(self.splits)) != len(self.splits):
            raise PlanError(f"`splits` must name one split or several, each once; got {self.splits}.")
        self.poles = given_poles(poles, target=target, protected=self.protected, dipoles=editor.dipoles)
        if not isinstance(checks, Checks | None):
            raise ConfigError(f"`checks` must be a Checks, such as Checks(goal=0.8); got {checks!r}.")
        self.checks = Checks() if checks is None else checks
        self.leak = leak_settings(leak, seed)
        self.identity = resolve_identity(editor, identity)
        self.judges = resolve_judges(editor, judges, [target, *self.protected])
        self.prior_steps, self.keep_pairs, self.chunk_size = prior_steps, keep_pairs, chunk_size

    # -- planning -----------------------------------------------------------------------------------------------------

    def plan(self, faces: Any | None, *, limit: int | None = None, num_images: int | None = None) -> Plan:
        """Plan the edits and price them; nothing is written.

        Args:
            faces: the dataset; ``None`` plans a new one from the prior (``source="prior"``).
            limit: at most so many edits.
            num_images: size of a new dataset.

        Raises:
            PlanError: says what is wrong with the attributes, the groups, or the editor.
        """
        if self.source == "prior" and self.editor.diffae.prior is None:
            raise PlanError(
                f"Editor '{self.editor.name}' has no latent prior to draw faces from. Use source='real', or train one: "
                "vlbias train prior."
            )
        self._check_layout(faces)
        table = None if faces is None else faces.table
        poles = self._protected_poles(table)
        target_poles = self._target_poles(table)
        if target_poles is not None and target_poles.name in [pole.name for pole in poles]:
            raise PlanError(
                f"`target` '{self.target}' and the protected attribute are read from the same dipole "
                f"'{target_poles.name}', so an edit of one changes the other. Choose another target."
            )
        self._check_judges(table, target_poles, poles)
        plan = make_plan(
            table,
            target=self.target,
            poles=poles,
            mode=self.mode,
            to=self.to,
            source=self.source,
            splits=self.splits,
            seed=self.seed,
            chunk_size=self.chunk_size,
            limit=limit,
            open_groups=any(column in self.poles for column in self.protected),
            target_values=target_poles.ordered if target_poles is not None else None,
            num_images=num_images,
        )
        cost = estimate(
            self.editor,
            plan,
            faces,
            prior_steps=self.prior_steps,
            pairs=self.keep_pairs,
            own_size=self.size == "own",
            trips=sum(map(len, self._trips(table, plan, poles))),
        )
        return replace(plan, cost=cost, notes=(*plan.notes, *self._notes(faces)))

    def _check_judges(self, table: pd.DataFrame | None, target_poles: Poles | None, poles: Sequence[Poles]) -> None:
        """Refuse the user's classifiers that do not know the labels of their columns."""
        labels = {pole.column: pole.ordered for pole in poles}
        if table is not None:
            given = column_labels(table, self.target, role="target")
            labels[self.target] = sorted({label for label in given if label is not None})
        elif target_poles is not None:
            labels[self.target] = target_poles.ordered
        for column, network in self.judges.items():
            check_labels(network, labels.get(column, []), column)

    def _notes(self, faces: Any | None) -> tuple[str, ...]:
        """What resolution will give away, where edits cannot be written at the originals' size."""
        if faces is None or (self.size == "own" and self.source == "real"):
            return ()
        note = resolution_note(faces, self.editor.image_size, prior=self.source == "prior")
        return () if note is None else (note,)

    def _check_layout(self, faces: Any | None) -> None:
        """Refuse faces that were cut otherwise than the editor was trained on."""
        if faces is None or faces.alignment is None:
            return
        cut_as = faces.alignment.get("layout", self.editor.layout)
        if cut_as != self.editor.layout:
            raise PlanError(
                f"the faces of '{faces.name}' were cut as '{cut_as}', but editor '{self.editor.name}' was trained on "
                f"'{self.editor.layout}'. Align them with layout='{self.editor.layout}' (editor.layout)."
            )

    def _protected_poles(self, table: pd.DataFrame | None) -> list[Poles]:
        found = []
        for column in self.protected:
            values: list[str] = []
            if table is not None:
                labels = column_labels(table, column, role="protected")
                values = sorted({label for label in labels if label is not None})
            pole = self.poles.get(column) or resolve_poles(column, values, self.editor.dipoles)
            if pole is None:
                paths = {name: self.editor.dipoles[name] for name in self.editor.attributes}
                raise unplaced(column, values, editor=self.editor.name, paths=paths)
            if pole.name not in self.editor.attributes:
                raise PlanError(
                    f"Editor '{self.editor.name}' can read '{pole.name}' but has no path for it, so it cannot edit "
                    f"'{column}'. Paths: {', '.join(self.editor.attributes) or 'none'}. Learn it with Editor.learn, or "
                    f"vlbias learn {pole.name}."
                )
            found.append(pole)
        return found

    def _target_poles(self, table: pd.DataFrame | None) -> Poles | None:
        values: list[str] = []
        if table is not None:
            labels = column_labels(table, self.target, role="target")
            values = sorted({label for label in labels if label is not None})
        return self.poles.get(self.target) or resolve_poles(self.target, values, self.editor.dipoles)

    # -- running ------------------------------------------------------------------------------------------------------

    def run(
        self,
        faces: Any | None,
        plan: Plan,
        out_dir: str | Path,
        *,
        shard: tuple[int, int] | None = None,
        originals: str = "copy",
        progress: bool = True,
    ) -> Result:
        """Carry out a plan; go on where an earlier run of it stopped.

        Args:
            faces: the dataset that was planned for.
            plan: of :meth:`plan`.
            out_dir: the output folder: new, empty, or of this same job.
            shard: (i, n) does chunks i, i+n, i+2n, ... with 0 <= i < n; the shard that finishes last writes the
                dataset. The number of shards does not change a byte of it.
            originals: ``copy`` files as they are; ``link`` to them; ``omit``; ``resize`` to the editor's size, which
                goes with ``size="editor"``.
            progress: show a progress line on stderr.

        Raises:
            OutputError: the folder holds something else, or cannot be written; finished chunks are kept.
            PlanError: the judges cannot read the attributes in this dataset.
            ConfigError: ``shard`` or ``originals`` out of range.
        """
        if originals not in ORIGINALS:
            raise ConfigError(f"`originals` must be one of {', '.join(ORIGINALS)}; got {originals!r}.")
        check_size(self.size, originals)
        check_round_trip(self.round_trip, source=self.source, originals=originals)
        first, step = shard if shard is not None else (0, 1)
        if not 0 <= first < step:
            raise ConfigError(f"`shard` must be (i, n) with 0 <= i < n; got {shard}.")
        out = Path(out_dir)
        root = None if faces is None or faces.root is None else Path(faces.root).resolve()
        if root is not None and root in (out.resolve(), *out.resolve().parents):
            raise OutputError(f"{out} lies in the dataset's own folder {root}. Give a folder outside it.")
        run = RunFolder(out, self._job(faces, plan, originals))
        if (run.state / "done.json").is_file():
            self._measure_again(run, faces, plan, progress)
            return self._finished(run)
        self._check_space(run, plan)
        poles = self._protected_poles(None if faces is None else faces.table)
        job = self._prepare(run, faces, plan, poles)
        work = self._work(job, plan)
        self._run_chunks(run, {number: work[number] for number in range(first, len(work), step)}, progress)
        done = sum(run.has_chunk(number) for number in range(len(work)))
        if done < len(work):
            report = {"chunks": len(work), "chunks_done": done}
            return Result(out, False, pd.DataFrame(), pd.DataFrame(), report)
        total = 0 if faces is None or originals == "omit" else len(faces.table)
        with track(total, "writing", "originals") if progress and total else _silent() as bar:
            assemble(
                run,
                faces,
                plan,
                poles,
                originals=originals,
                image_size=self.editor.image_size,
                details=self._details(faces, plan, job),
                bar=bar,
                trips=range(plan.num_chunks, len(work)),
                measure=partial(self._measure, run, faces, plan, progress),
            )
        run.first_wins("done.json", {"complete": True})
        if shard is None:
            run.clean()
        return self._finished(run)

    def _measure(
        self, run: RunFolder, faces: Any | None, plan: Plan, progress: bool, table: pd.DataFrame
    ) -> dict[str, Any]:
        """What gives edits away in the pictures as they were written."""
        return measured(
            table,
            run.out,
            faces,
            target=self.target,
            protected=self.protected,
            splits=plan.settings["splits"],
            settings=self.leak,
            show_progress=progress,
        )

    def _measure_again(self, run: RunFolder, faces: Any | None, plan: Plan, progress: bool) -> None:
        """Measure a finished run in another way than it was."""
        report = read_json(run.out / "report.json")
        if needs_measuring(report, self.leak):
            table = self._finished(run).table
            write_report(run, report | self._measure(run, faces, plan, progress, table), plan)

    def _finished(self, run: RunFolder) -> Result:
        """Read the result back from disk: what is returned is what was written."""
        text: dict[str, Any] = {"source_id": str, "donor": str, "path": str, "strength": str, "seed": "Int64"}
        table = pd.read_csv(run.out / "metadata.csv", dtype=text)
        rejected = pd.read_csv(run.out / "rejected.csv", dtype=text)
        return Result(run.out, True, table, rejected, read_json(run.out / "report.json"))

    def _job(self, faces: Any | None, plan: Plan, originals: str) -> dict[str, Any]:
        """What must be equal for a folder to be resumed."""
        face = self.identity.fingerprint if isinstance(self.identity, FaceNetwork) else identity_name(self.identity)
        labels = "" if faces is None else faces.table.to_csv()
        return {
            "version": __version__,
            "dataset": "none" if faces is None else faces.name,
            "labels": hashlib.sha256(labels.encode()).hexdigest(),
            "plan": plan.settings,
            "plan_digest": plan.digest(),
            "checks": asdict(self.checks),
            "editor": self.editor.name,
            "weights": _weights_digest(self.editor),
            "render": asdict(self.editor.settings),
            "identity": face,
            "judges": {column: network.fingerprint for column, network in self.judges.items()},
            "prior_steps": self.prior_steps,
            "keep_pairs": self.keep_pairs,
            "originals": originals,
            "size": self.size,
            "round_trip": self.round_trip,
            "alignment": None if faces is None else faces.alignment,
        }

    def _check_space(self, run: RunFolder, plan: Plan) -> None:
        if plan.cost is None:
            return
        with writing(run.out):
            free = shutil.disk_usage(run.out).free / 1e6
        if free < plan.cost.megabytes:
            raise OutputError(
                f"{run.out} has {free:.1f} MB free, the dataset needs about {plan.cost.megabytes:.1f} MB. Free some "
                "space or give a folder on another disk."
            )

    # -- judges -------------------------------------------------------------------------------------------------------

    def _prepare(self, run: RunFolder, faces: Any | None, plan: Plan, poles: list[Poles]) -> Job:
        """Calibrate the judges, once for all shards."""
        columns = [self.target, *self.protected]
        if self.editor.clip is None and not set(columns) <= set(self.judges):
            raise PlanError(
                f"Editor '{self.editor.name}' has no CLIP to judge edits with. Load it with clip=..., or give `judges` "
                f"for {', '.join(columns)}."
            )
        if not len(plan):
            judges = Judges([AttributeJudge(name, None, None) for name in columns], None)
        elif (run.state / "judges.json").is_file():
            judges = Judges.from_json(run.first_wins("judges.json", None), self.judges)
        else:
            who: dict[str, Any] = {"checks": self.checks, "identity": self.identity, "networks": self.judges}
            target_poles = self._target_poles(None if faces is None else faces.table)
            if faces is None:
                assert target_poles is not None  # a plan without a dataset needs a known target
                judges = sampled_judges(self.editor, target_poles, poles, steps=self.prior_steps, **who)
            else:
                judges = calibrated_judges(
                    self.editor,
                    faces,
                    target=(self.target, target_poles),
                    poles=poles,
                    splits=self.splits,
                    seed=self.seed,
                    **who,
                )
            judges = Judges.from_json(run.first_wins("judges.json", judges.to_json()), self.judges)
        scale = judges.identity or IdentityScale(LatentIdentity((), 1.0))
        return Job(
            editor=self.editor,
            faces=faces,
            groups=plan.groups,
            poles=poles,
            target=judges.attributes[0],
            protected=judges.attributes[1:],
            identity=identity_judge(self.editor, self.identity, scale),
            identity_scale=scale,
            identity_sees_pictures=self.identity != "latent",
            checks=self.checks,
            seed=self.seed,
            prior_steps=self.prior_steps,
            keep_pairs=self.keep_pairs,
            size=self.size,
            calibration_evaluations=judges.unet_evaluations,
        )

    # -- work ---------------------------------------------------------------------------------------------------------

    def _work(self, job: Job, plan: Plan) -> list[Work]:
        """All chunks: those of the plan, then those of the originals that pass through the editor."""
        chunks: list[list[dict[str, Any]]] = [[] for _ in range(plan.num_chunks)]
        for row in plan.table.to_dict("records"):
            chunks[int(row["chunk"])].append({str(name): value for name, value in row.items()})
        work = [Work(partial(run_chunk, job, rows), len(rows), "edits") for rows in chunks]
        trips = self._trips(None if job.faces is None else job.faces.table, plan, job.poles)
        return work + [Work(partial(run_trips, job, rows), len(rows), "originals") for rows in trips]

    def _trips(self, table: pd.DataFrame | None, plan: Plan, poles: Sequence[Poles]) -> list[list[dict[str, Any]]]:
        """Chunks of originals that pass through the editor; none where that was not asked for."""
        return trips_of(table, plan, poles, self.chunk_size) if self.round_trip and table is not None else []

    def _run_chunks(self, run: RunFolder, work: Mapping[int, Work], progress: bool) -> None:
        for unit in ("edits", "originals"):
            part = {number: item for number, item in work.items() if item.unit == unit}
            if any(not run.has_chunk(number) for number in part):
                self._run_alike(run, part, unit, progress)

    def _run_alike(self, run: RunFolder, work: Mapping[int, Work], unit: str, progress: bool) -> None:
        """Do the chunks of one kind that are not done."""
        kept = rejected = resumed = 0
        for number, item in work.items():
            if run.has_chunk(number):
                values = run.read_chunk(number)
                kept, rejected = kept + len(values["kept"]), rejected + len(values["rejected"])
                resumed += item.size
        total = sum(item.size for item in work.values())
        with track(total, "balancing", unit) if progress else _silent() as bar:
            bar.resume_at(resumed)
            for number, item in work.items():
                if run.has_chunk(number):
                    continue
                result = item.run()
                run.commit_chunk(number, result)
                kept, rejected = kept + len(result.kept), rejected + len(result.rejected)
                bar.update(item.size, kept=kept, rejected=rejected)

    def _details(self, faces: Any | None, plan: Plan, job: Job) -> dict[str, Any]:
        return {
            "dataset": "faces sampled from the prior" if faces is None else faces.name,
            "license": None if faces is None else faces.license,
            "left_out": [] if faces is None else [asdict(problem) for problem in faces.problems],
            "alignment": None if faces is None else faces.alignment,
            "editor": self.editor.name,
            "editor_license": self.editor.info.get("license"),
            "checks": asdict(self.checks),
            "calibration_evaluations": job.calibration_evaluations,
            "judges": {judge.column: judge.summary() for judge in (job.target, *job.protected)},
            "enough": {
                kind: max(enough(getattr(judge, kind), self.checks) for judge in job.protected)
                for kind in ("latent", "image")
            },
            "identity_judge": self._identity_details(job),
            "size": self.size,
            "warnings": [*plan.notes, *self._judges_warnings(job)],
        }

    def _identity_details(self, job: Job) -> dict[str, Any]:
        kind = "custom"
        if isinstance(self.identity, str):
            kind = self.identity
        elif isinstance(self.identity, FaceNetwork):
            kind = "face network"
        digest = {"sha256": self.identity.digest} if isinstance(self.identity, FaceNetwork) else {}
        return {"kind": kind, "name": identity_name(self.identity), **digest, **job.identity_scale.summary()}

    def _judges_warnings(self, job: Job) -> list[str]:
        said = [text for judge in (job.target, *job.protected) for text in judge.warnings()]
        # a limit that half of all strangers reach asks for no judgement
        return said + (job.identity_scale.warnings(self.identity) if self.checks.identity > 0 else [])


def _weights_digest(editor: Editor) -> str:
    """A hash of what decides the pixels and the verdicts: the networks and paths of an editor, and its CLIP."""
    hashed = hashlib.sha256()
    for part in (editor.diffae, editor.paths, editor.probes, editor.clip):
        if isinstance(part, torch.nn.Module):
            for name, value in sorted(part.state_dict().items()):
                hashed.update(name.encode())
                hashed.update(value.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()


class _silent:
    """A progress bar that shows nothing."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: float = 1, **_: Any) -> None:
        pass

    def resume_at(self, done: float) -> None:
        pass
