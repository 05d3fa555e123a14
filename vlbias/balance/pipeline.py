"""Balancer: plan -> source -> edit -> verify -> write, in one object.

The plan cuts the work into chunks. A chunk depends on nothing but the plan, is committed whole, and is skipped when it
is there already; so a run that was killed goes on where it stopped, several shards can share the work, and the bytes
of the result are the same in every case.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from vlbias.balance.attempt import ChunkResult, Job
from vlbias.balance.calibration import Scorers, calibrated_scorers, sampled_scorers
from vlbias.balance.chunk import run_chunk
from vlbias.balance.cost import estimate
from vlbias.balance.export import assemble, write_report
from vlbias.balance.fitting import check_labels
from vlbias.balance.identity import IdentityScale, LatentIdentity, identity_name, identity_scorer, resolve_identity
from vlbias.balance.originals import ORIGINALS, label_columns
from vlbias.balance.own_scorers import resolve_scorers
from vlbias.balance.pictures import check_size, resolution_note
from vlbias.balance.plan import Plan, check_settings, make_plan
from vlbias.balance.poles import Poles, column_labels, given_poles, resolve_poles, unplaced
from vlbias.balance.round_trip import check_round_trip, run_trips, trips_of
from vlbias.balance.run_folder import LostPictureError, RunFolder
from vlbias.balance.scoring import AttributeScorer
from vlbias.balance.settings import BalanceOptions, BalanceSettings
from vlbias.balance.traces import leak_settings, measured, needs_measuring, summary_lines
from vlbias.balance.verification import enough
from vlbias.data import FaceDataset
from vlbias.data.metadata import read_metadata
from vlbias.editor import Editor
from vlbias.errors import ConfigError, OutputError, PlanError
from vlbias.files import read_json, sha256_file, writing
from vlbias.networks import FaceNetwork
from vlbias.progress import track
from vlbias.settings import with_changes
from vlbias.types import Backend
from vlbias.version import __version__

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
        rows: the faces in it, as rows of a plan.
        unit: what they are: "edits" or "originals".
    """

    run: Callable[[], ChunkResult]
    rows: Sequence[Mapping[str, Any]]
    unit: str

    @property
    def size(self) -> int:
        """Faces in it."""
        return len(self.rows)


class Balancer:
    """Balance a labelled face dataset by verified edits.

    Args:
        editor: edits and reads faces: a :class:`vlbias.Editor`, or any :class:`vlbias.types.Backend`.
        target: label column whose classes must stay as they are.
        protected: label column whose groups are made equal inside each class, or several (their product).
        mode: ``reduce`` mitigates the association of target and protected, ``amplify`` strengthens it, for study.
        source: ``real`` edits the dataset's own faces, ``prior`` faces drawn from the latent prior.
        seed: draws donors, faces and noise.
        settings: everything else; ``None`` for the defaults.
        **options: fields of :class:`BalanceSettings` that replace those of ``settings``, such as ``to="mean"``.

    Raises:
        PlanError: ``target`` equals ``protected``, a setting is unknown or out of range, or ``poles`` name a path that
            the editor does not have.
        ConfigError: no such option, or a scorer is of no kind that is known.
        UnknownNameError: a scorer of a column that is neither target nor protected.
        CheckpointError, MissingDependencyError: a scorer's file cannot be read.
    """

    def __init__(
        self,
        editor: Editor | Backend,
        *,
        target: str,
        protected: str | Sequence[str],
        mode: str = "reduce",
        source: str = "real",
        seed: int = 0,
        settings: BalanceSettings | None = None,
        **options: Unpack[BalanceOptions],
    ):
        self.settings = settings = with_changes(settings or BalanceSettings(), options)
        self.backend = backend = editor.renderer if isinstance(editor, Editor) else editor
        self.target, self.mode, self.source, self.seed = target, mode, source, seed
        if not isinstance(protected, str | Sequence):
            raise PlanError(f"`protected` must name a column or several; got {protected!r}.")
        self.protected = [protected] if isinstance(protected, str) else list(protected)
        check_settings(
            target=target,
            protected=self.protected,
            mode=mode,
            to=settings.to,
            source=source,
            seed=seed,
            chunk_size=settings.chunk_size,
        )
        check_round_trip(settings.round_trip, source=source)
        self.poles = given_poles(
            settings.poles,
            path=settings.path,
            target=target,
            protected=self.protected,
            dipoles=backend.dipoles,
        )
        self.leak = leak_settings(settings.leak, seed)
        self.identity = resolve_identity(backend, settings.identity)
        self.scorers = resolve_scorers(backend, settings.scorers, [target, *self.protected])

    def changed(self, *, mode: str, source: str, **options: Unpack[BalanceOptions]) -> Balancer:
        """The same balancer with another mode, source or other :class:`BalanceSettings`."""
        return Balancer(
            self.backend,
            target=self.target,
            protected=self.protected,
            mode=mode,
            source=source,
            seed=self.seed,
            settings=replace(self.settings, **options),
        )

    # -- planning -----------------------------------------------------------------------------------------------------

    def plan(self, faces: FaceDataset | None, *, limit: int | None = None, num_images: int | None = None) -> Plan:
        """Plan the edits and price them; nothing is written.

        Args:
            faces: the dataset; ``None`` plans a new one from the prior (``source="prior"``).
            limit: at most so many edits.
            num_images: size of a new dataset.

        Raises:
            PlanError: says what is wrong with the attributes, the groups, or the editor.
        """
        if self.source == "prior" and not self.backend.can_sample:
            raise PlanError(
                f"Editor '{self.backend.name}' has no latent prior to draw faces from. Use source='real', or train one "
                "with vlbias train prior."
            )
        self._check_layout(faces)
        if faces is not None:
            label_columns(faces)
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
            to=self.settings.to,
            source=self.source,
            splits=self.settings.splits,
            seed=self.seed,
            chunk_size=self.settings.chunk_size,
            limit=limit,
            open_groups=any(column in self.poles for column in self.protected),
            target_values=target_poles.ordered if target_poles is not None else None,
            num_images=num_images,
        )
        cost = estimate(
            self.backend,
            plan,
            faces,
            prior_steps=self.settings.prior_steps,
            pairs=self.settings.keep_pairs,
            own_size=self.settings.size == "own",
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
        for column, network in self.scorers.items():
            check_labels(network, labels.get(column, []), column)

    def _notes(self, faces: FaceDataset | None) -> tuple[str, ...]:
        """What resolution will give away, where edits cannot be written at the originals' size."""
        if faces is None or (self.settings.size == "own" and self.source == "real"):
            return ()
        note = resolution_note(faces, self.backend.image_size, prior=self.source == "prior")
        return () if note is None else (note,)

    def _check_layout(self, faces: FaceDataset | None) -> None:
        """Refuse faces that were cut otherwise than the editor was trained on."""
        if faces is None or faces.alignment is None:
            return
        cut_as = faces.alignment.get("layout", self.backend.layout)
        if cut_as != self.backend.layout:
            raise PlanError(
                f"the faces of '{faces.name}' were cut as '{cut_as}', but editor '{self.backend.name}' was trained on "
                f"'{self.backend.layout}'. Align them with layout='{self.backend.layout}' (editor.layout)."
            )

    def _protected_poles(self, table: pd.DataFrame | None) -> list[Poles]:
        found = []
        for column in self.protected:
            values: list[str] = []
            if table is not None:
                labels = column_labels(table, column, role="protected")
                values = sorted({label for label in labels if label is not None})
            pole = self.poles.get(column) or resolve_poles(column, values, self.backend.dipoles)
            if pole is None:
                paths = {name: self.backend.dipoles[name] for name in self.backend.attributes}
                raise unplaced(column, values, editor=self.backend.name, paths=paths)
            if pole.name not in self.backend.attributes:
                raise PlanError(
                    f"Editor '{self.backend.name}' can read '{pole.name}' but has no path for it, so it cannot edit "
                    f"'{column}'. Paths: {', '.join(self.backend.attributes) or 'none'}. Learn it with Editor.learn, "
                    f"or vlbias learn {pole.name}."
                )
            found.append(pole)
        return found

    def _target_poles(self, table: pd.DataFrame | None) -> Poles | None:
        values: list[str] = []
        if table is not None:
            labels = column_labels(table, self.target, role="target")
            values = sorted({label for label in labels if label is not None})
        return self.poles.get(self.target) or resolve_poles(self.target, values, self.backend.dipoles)

    # -- running ------------------------------------------------------------------------------------------------------

    def run(
        self,
        faces: FaceDataset | None,
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
        check_size(self.settings.size, originals)
        check_round_trip(self.settings.round_trip, source=self.source, originals=originals)
        first, step = _shard(shard)
        out = Path(out_dir)
        root = None if faces is None or faces.root is None else Path(faces.root).resolve()
        if root is not None and root in (out.resolve(), *out.resolve().parents):
            raise OutputError(f"{out} lies in the dataset's own folder {root}. Give a folder outside it.")
        if faces is not None:
            label_columns(faces)  # refused before the first edit
        run = RunFolder(out, self._job(faces, plan, originals))
        if run.has("done.json"):
            run.check_finished()
            self._measure_again(run, faces, plan, progress)
            return self._finished(run)
        self._check_space(run, plan)
        job = self._prepare(run, faces, plan, self._protected_poles(None if faces is None else faces.table))
        work = dict(enumerate(self._work(job, plan)))
        mine = {number: item for number, item in work.items() if number % step == first}
        self._run_chunks(run, mine, progress)
        done = sum(run.has_chunk(number, item.rows) for number, item in work.items())
        if done < len(work):
            report = {"chunks": len(work), "chunks_done": done}
            return Result(out, False, pd.DataFrame(), pd.DataFrame(), report)
        while True:
            try:
                self._export(run, job, plan, originals, range(plan.num_chunks, len(work)), progress)
                break
            except LostPictureError as lost:
                run.drop_chunk(lost.chunk)
                self._run_chunks(run, {lost.chunk: work[lost.chunk]}, progress)
        run.finish()
        if shard is None:
            run.clean()
        return self._finished(run)

    def _export(
        self, run: RunFolder, job: Job, plan: Plan, originals: str, trips: range, progress: bool
    ) -> None:
        """Write the dataset from its finished chunks."""
        total = 0 if job.faces is None or originals == "omit" else len(job.faces.table)
        with track(total, "writing", "originals", show=progress and total > 0) as bar:
            assemble(
                run,
                job.faces,
                plan,
                job.poles,
                originals=originals,
                image_size=self.backend.image_size,
                details=self._details(job.faces, plan, job),
                bar=bar,
                trips=trips,
                measure=partial(self._measure, run, job.faces, plan, progress),
            )

    def _measure(
        self, run: RunFolder, faces: FaceDataset | None, plan: Plan, progress: bool, table: pd.DataFrame
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

    def _measure_again(self, run: RunFolder, faces: FaceDataset | None, plan: Plan, progress: bool) -> None:
        """Measure a finished run in another way than it was."""
        report = read_json(run.out / "report.json")
        if needs_measuring(report, self.leak):
            table = self._finished(run).table
            write_report(run, report | self._measure(run, faces, plan, progress, table), plan)

    def _finished(self, run: RunFolder) -> Result:
        """Read the result back from disk: what is returned is what was written."""
        text: dict[str, Any] = {"donor": str, "path": str, "strength": str, "seed": "Int64"}
        table = read_metadata(run.out / "metadata.csv")
        rejected = pd.read_csv(run.out / "rejected.csv", dtype=text)
        return Result(run.out, True, table, rejected, read_json(run.out / "report.json"))

    def _job(self, faces: FaceDataset | None, plan: Plan, originals: str) -> dict[str, Any]:
        """What must be equal for a folder to be resumed."""
        face = self.identity.fingerprint if isinstance(self.identity, FaceNetwork) else identity_name(self.identity)
        labels = "" if faces is None else faces.table.to_csv()
        return {
            "version": __version__,
            "dataset": "none" if faces is None else faces.name,
            "labels": hashlib.sha256(labels.encode()).hexdigest(),
            "pictures": _pictures_digest(faces),
            "license": None if faces is None else faces.license,
            "plan": plan.settings,
            "plan_digest": plan.digest(),
            "checks": asdict(self.settings.checks),
            "editor": self.backend.name,
            "backend": dict(self.backend.fingerprint()),
            "editor_license": self.backend.license,
            "identity": face,
            "judges": {column: network.fingerprint for column, network in self.scorers.items()},
            "prior_steps": self.settings.prior_steps,
            "keep_pairs": self.settings.keep_pairs,
            "originals": originals,
            "size": self.settings.size,
            "round_trip": self.settings.round_trip,
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

    def _prepare(self, run: RunFolder, faces: FaceDataset | None, plan: Plan, poles: list[Poles]) -> Job:
        """Calibrate the judges, once for all shards."""
        columns = [self.target, *self.protected]
        if not self.backend.can_read_pictures and not set(columns) <= set(self.scorers):
            raise PlanError(
                f"Editor '{self.backend.name}' has no CLIP to judge edits with. Load it with clip=..., or give "
                f"`scorers` for {', '.join(columns)}."
            )
        if not len(plan):
            judges = Scorers([AttributeScorer(name, None, None) for name in columns], None)
        else:
            if not run.has("judges.json"):
                run.first_wins("judges.json", self._calibrated(faces, poles).to_dict())
            judges = self._read_scorers(run)
        scale = judges.identity or IdentityScale(LatentIdentity((), 1.0))
        return Job(
            backend=self.backend,
            faces=faces,
            groups=plan.groups,
            poles=poles,
            target=judges.attributes[0],
            protected=judges.attributes[1:],
            identity=identity_scorer(self.backend, self.identity, scale),
            identity_scale=scale,
            identity_sees_pictures=self.identity != "latent",
            checks=self.settings.checks,
            seed=self.seed,
            prior_steps=self.settings.prior_steps,
            keep_pairs=self.settings.keep_pairs,
            size=self.settings.size,
            calibration_evaluations=judges.unet_evaluations,
        )

    def _calibrated(self, faces: FaceDataset | None, poles: Sequence[Poles]) -> Scorers:
        """Fit the scorers to labelled originals; without a dataset, to faces from the prior."""
        target = self._target_poles(None if faces is None else faces.table)
        who: dict[str, Any] = {"checks": self.settings.checks, "identity": self.identity, "networks": self.scorers}
        if faces is None:
            assert target is not None  # a plan without a dataset needs a known target
            return sampled_scorers(self.backend, target, poles, steps=self.settings.prior_steps, **who)
        return calibrated_scorers(
            self.backend,
            faces,
            target=(self.target, target),
            poles=poles,
            splits=self.settings.splits,
            seed=self.seed,
            **who,
        )

    def _read_scorers(self, run: RunFolder) -> Scorers:
        values = run.read("judges.json")
        try:
            scorers = Scorers.from_dict(values, self.scorers)
            if [scorer.column for scorer in scorers.attributes] != [self.target, *self.protected]:
                raise ValueError("other columns")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            path = run.state / "judges.json"
            raise OutputError(
                f"{path} is damaged ({error}). Remove {run.state} to begin anew, and run the same command again."
            ) from error
        return scorers

    # -- work ---------------------------------------------------------------------------------------------------------

    def _work(self, job: Job, plan: Plan) -> list[Work]:
        """All chunks: those of the plan, then those of the originals that pass through the editor."""
        chunks: list[list[dict[str, Any]]] = [[] for _ in range(plan.num_chunks)]
        for row in plan.table.to_dict("records"):
            chunks[int(row["chunk"])].append({str(name): value for name, value in row.items()})
        work = [Work(partial(run_chunk, job, rows), rows, "edits") for rows in chunks]
        trips = self._trips(None if job.faces is None else job.faces.table, plan, job.poles)
        return work + [Work(partial(run_trips, job, rows), rows, "originals") for rows in trips]

    def _trips(self, table: pd.DataFrame | None, plan: Plan, poles: Sequence[Poles]) -> list[list[dict[str, Any]]]:
        """Chunks of originals that pass through the editor; none where that was not asked for."""
        if table is None or not self.settings.round_trip:
            return []
        return trips_of(table, plan, poles, self.settings.chunk_size)

    def _run_chunks(self, run: RunFolder, work: Mapping[int, Work], progress: bool) -> None:
        for unit in ("edits", "originals"):
            part = {number: item for number, item in work.items() if item.unit == unit}
            if any(not run.has_chunk(number, item.rows) for number, item in part.items()):
                self._run_alike(run, part, unit, progress)

    def _run_alike(self, run: RunFolder, work: Mapping[int, Work], unit: str, progress: bool) -> None:
        """Do the chunks of one kind that are not done."""
        kept = rejected = resumed = 0
        for number, item in work.items():
            if run.has_chunk(number, item.rows):
                values = run.read_chunk(number)
                kept, rejected = kept + len(values["kept"]), rejected + len(values["rejected"])
                resumed += item.size
        total = sum(item.size for item in work.values())
        with track(total, "balancing", unit, show=progress) as bar:
            bar.resume_at(resumed)
            for number, item in work.items():
                if run.has_chunk(number, item.rows):
                    continue
                result = item.run()
                run.commit_chunk(number, result)
                kept, rejected = kept + len(result.kept), rejected + len(result.rejected)
                bar.update(item.size, kept=kept, rejected=rejected)

    def _details(self, faces: FaceDataset | None, plan: Plan, job: Job) -> dict[str, Any]:
        return {
            "dataset": "faces sampled from the prior" if faces is None else faces.name,
            "license": None if faces is None else faces.license,
            "left_out": [] if faces is None else [asdict(problem) for problem in faces.problems],
            "alignment": None if faces is None else faces.alignment,
            "editor": self.backend.name,
            "editor_license": self.backend.license,
            "checks": asdict(self.settings.checks),
            "calibration_evaluations": job.calibration_evaluations,
            "judges": {judge.column: judge.summary() for judge in (job.target, *job.protected)},
            "enough": {
                kind: max(enough(getattr(judge, kind), self.settings.checks) for judge in job.protected)
                for kind in ("latent", "image")
            },
            "identity_judge": self._identity_details(job),
            "size": self.settings.size,
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
        return said + (job.identity_scale.warnings(self.identity) if self.settings.checks.identity > 0 else [])


def _shard(shard: tuple[int, int] | None) -> tuple[int, int]:
    """(first chunk, step) of a shard."""
    try:
        first, step = (0, 1) if shard is None else shard
        if all(type(number) is int for number in (first, step)) and 0 <= first < step:
            return first, step
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"`shard` must be (i, n) with 0 <= i < n; got {shard!r}.")


def _pictures_digest(faces: FaceDataset | None) -> str | None:
    """A hash of the content of every picture file of a dataset; ``None`` where they are drawn."""
    if faces is None or faces.root is None:
        return None

    def one(item: str) -> str:
        path = faces.path(item)
        try:
            return "" if path is None else sha256_file(path)
        except OSError:
            return "unreadable"

    with ThreadPoolExecutor() as pool:
        return hashlib.sha256("\n".join(pool.map(one, faces.ids)).encode()).hexdigest()
