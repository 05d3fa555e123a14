"""One run of a plan, from an empty folder to a finished dataset.

The plan cuts the work into chunks. A chunk depends on nothing but the plan, is committed whole, and is skipped when it
is there already; so a run that was killed goes on where it stopped, several shards can share the work, and the bytes
of the result are the same in every case.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from vlbias.balance.attempt import ChunkResult, Job
from vlbias.balance.calibration import Scorers, calibrated_scorers
from vlbias.balance.chunk import run_chunk
from vlbias.balance.chunk_work import Chunk, ChunkWork, Counts, do_chunk, job_of, turned_down
from vlbias.balance.export import assemble, write_report
from vlbias.balance.identity import identity_name
from vlbias.balance.originals import larger_than_read
from vlbias.balance.packing import Publish, is_packed, loosen, pack, unpack_done
from vlbias.balance.plan import Plan, counts_table
from vlbias.balance.pseudonyms import forget_key, pseudonymous
from vlbias.balance.refusals import AskedReview, FinishedChunk, FinishedChunks, Refusal, after_review, locate
from vlbias.balance.review import Review
from vlbias.balance.round_trip import trips_of
from vlbias.balance.rows import sha256_csv
from vlbias.balance.run_folder import LostPictureError, RunFolder
from vlbias.balance.scoring import AttributeScorer
from vlbias.balance.task import Task
from vlbias.balance.traces import measured, needs_measuring, summary_lines
from vlbias.balance.verification import enough
from vlbias.data import FaceDataset
from vlbias.data.metadata import csv_text, read_metadata, read_table
from vlbias.engine import Engine, gpus_here, run_pieces
from vlbias.errors import ConfigError, OutputError, PlanError
from vlbias.files import sha256_file, writing
from vlbias.networks import FaceNetwork
from vlbias.pages import write_run
from vlbias.progress import track
from vlbias.shown import Glance, Shown, plural, printable
from vlbias.version import __version__

__all__ = ["Result", "Run", "check_can_read"]


def check_can_read(task: Task) -> None:
    """Refuse a back end that reads no pictures where nothing else does."""
    if not task.backend.can_read_pictures and not set(task.columns) <= set(task.scorers):
        raise PlanError(
            f"Editor '{task.backend.name}' has no CLIP to read edits with. Load it with clip=..., or give "
            f"`scorers` for {', '.join(task.columns)}."
        )


#: Edits that pay for the start of a worker: they take twice as long, in pictures of 64 px.
WORKER_EDITS = 128

#: Pictures whose digests are asked for at a time.
HASHED_TOGETHER = 4096

#: Rows of a plan, or records of what was tried.
Rows: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, repr=False)
class Result(Shown):
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

    def _glance(self) -> Glance:
        if not self.complete:
            return Glance(f"{self.report['chunks_done']} of {self.report['chunks']} chunks done, in {self.out_dir}")
        edits, report = self.report["edits"], self.report
        copies = f", {plural(report['copies'], 'copy', 'copies')}" if "copies" in report else ""
        line = (
            f"{edits['kept']} of {edits['planned']} edits kept{copies}, {len(self.table):,} pictures in {self.out_dir}"
        )
        return Glance(line, *counts_table(report["target"], report["counts_before"], report["counts_after"]))

    def summary(self) -> str:
        """Two or three lines for people."""
        if not self.complete:
            done, chunks = self.report["chunks_done"], self.report["chunks"]
            return f"{done} of {chunks} chunks are done; the shard that finishes last writes {self.out_dir}."
        edits = self.report["edits"]
        lines = [
            f"{edits['kept']} of {edits['planned']} edits kept, {plural(edits['rejected'], 'try', 'tries')} turned down"
        ]
        if edits["by_reason"]:
            lines[0] += " (" + ", ".join(f"{reason} {n}" for reason, n in edits["by_reason"].items()) + ")"
        if "copies" in self.report:
            copies = plural(self.report["copies"], "copy", "copies")
            lines.append(f"{copies} of originals, {edits['copied']} of them in places of edits")
        if review := self.report.get("review"):
            lines.append(f"refused by a person: {review['refused']}, {review['replaced']} of them replaced")
        for target, after in self.report["counts_after"].items():
            before = self.report["counts_before"][target]
            cells = ", ".join(f"{group} {before[group]} -> {after[group]}" for group in before)
            lines.append(f"  {self.report['target']}={target}: {cells}")
        if unread := self.report["unreadable"]:
            damaged = plural(len(unread), "picture of the dataset is", "pictures of the dataset are")
            lines.append(f"{damaged} damaged and left out, such as {unread[0]}; rejected.csv lists each")
        lines += [f"warning: {text}" for text in self.report.get("warnings", [])]
        lines += summary_lines(self.report)
        return "\n".join(map(printable, lines))


class Run:
    """One plan carried out in one folder.

    Args:
        task: what was asked for, of the dataset that was planned for.
        plan: the edits.
        out_dir: the output folder: new, empty, or of this same job.
        originals: what happens to the pictures that are not edited.
        shard: (i, n) for the chunks i, i+n, ...; ``None`` for all.
        engine: who does them.
        show_progress: whether a line on stderr tells how far it is.
        review: which edits people refused; ``None`` leaves it at the last review.

    Raises:
        OutputError: the folder holds something else, or lies in the dataset, or cannot be written.
        ConfigError: ``shard`` is none, or a review needs names that are forgotten.
        DatasetError: ``review`` speaks of edits that are none.
    """

    def __init__(
        self,
        task: Task,
        plan: Plan,
        out_dir: str | Path,
        *,
        originals: str,
        shard: tuple[int, int] | None,
        engine: Engine,
        show_progress: bool,
        review: Review | None = None,
    ):
        out, self.part = Path(out_dir), _shard(shard)
        faces = task.faces
        root = None if faces is None or faces.root is None else Path(faces.root).resolve()
        if root is not None and root in (out.resolve(), *out.resolve().parents):
            raise OutputError(f"{out} lies in the dataset's own folder {root}. Give a folder outside it.")
        self.task, self.plan, self.originals, self.show_progress = task, plan, originals, show_progress
        self.engine = engine
        self.folder = RunFolder(out, self._job_facts(), links=originals == "link")
        is_new = review is not None and review.digest != self._asked().digest
        if faces is not None and task.settings.pseudonymise:
            self._rename(faces, anew=is_new)
        if review is not None and is_new:
            self._take_up(review)
        self.asked = self._asked()

    def go(self, publish: Publish = lambda name: None) -> Result:
        """Do what is not done; ``publish`` is told the name of each shard of the output when it is in place."""
        first, step = self.part
        if self.folder.has("done.json"):
            self.folder.check_finished()
            if self._measure_again() or not (self.folder.out / "report.html").exists():
                self._write_page()
            return self._finished()
        self._check_space()
        if too_large := larger_than_read(self.plan, self.task.faces, self.task.columns, originals=self.originals):
            raise PlanError(too_large)
        job = self._job()
        work = {chunk.number: chunk for chunk in self._chunks(job)}
        self._choose_workers(len(work))
        mine = {number: item for number, item in work.items() if number % step == first}
        self._run_chunks(job, list(mine.values()))
        self._review(job, mine, make=True)
        trips = {number: item for number, item in work.items() if number >= self.plan.num_chunks}
        done = self._review(job, work, make=False)
        done += sum(self.folder.has_chunk(number, item.rows) for number, item in trips.items())
        if done < len(work):
            report = {"chunks": len(work), "chunks_done": done}
            return Result(self.folder.out, False, pd.DataFrame(), pd.DataFrame(), report)
        wanted = self.task.settings.format
        while wanted == "imagefolder" or not is_packed(self.folder, self.asked.digest):
            try:
                edits = {number: item.rows for number, item in work.items() if number not in trips}
                self._export(job, FinishedChunks(self.folder, edits, self.asked.refusals), list(trips), publish)
                break
            except LostPictureError as lost:
                self.folder.drop_chunk(lost.chunk)
                number = int(str(lost.chunk).partition("-")[0])
                self._run_chunks(job, [work[number]])
                self._review(job, work, make=True)
        if wanted != "imagefolder":
            unpack_done(self.folder)
        self.folder.finish()
        forget_key(self.folder)
        if step == 1:
            self.folder.clean()
        self._write_page()
        return self._finished()

    def _rename(self, faces: FaceDataset, *, anew: bool) -> None:
        """From here on the donors have other names; of a finished run only a file of names knows them any more."""
        is_done = self.folder.has("done.json")
        if is_done:
            forget_key(self.folder)  # a run may have been killed between the two
        if is_done and not anew:
            self.task = replace(self.task, faces=None)
            return
        if is_done and self.task.settings.pseudonyms is None:
            raise ConfigError(
                f"{self.folder.out} has pseudonyms whose key is forgotten, so no donor can take the place of a refused "
                "edit. A run that people will review keeps them: pseudonyms=FILE (--pseudonyms FILE)."
            )
        renamed = pseudonymous(faces, self.folder, self.task.settings.pseudonyms)
        self.task = replace(self.task, faces=renamed)
        self.plan = self.plan.renamed({there: here for here, there in renamed.ids_there.items()})
        if is_done and csv_text(self.plan.table).encode() != (self.folder.out / "plan.csv").read_bytes():
            forget_key(self.folder)
            raise ConfigError(
                f"{self.task.settings.pseudonyms} has other names than {self.folder.out}. Give the file of that run."
            )

    # -- reviews ------------------------------------------------------------------------------------------------------

    def _asked(self) -> AskedReview:
        """What the last review asked for."""
        if not self.folder.has("review.json"):
            return AskedReview()
        try:
            values = self.folder.read("review.json")
            return AskedReview.from_dict(values | {"refusals": list(map(Refusal.from_dict, values["refusals"]))})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            path = self.folder.state / "review.json"
            raise OutputError(f"{path} is damaged ({error}). Remove it, and run the same command again.") from error

    def _take_up(self, review: Review) -> None:
        """Refuse edits that a finished run has, or that one in progress will have."""
        asked = locate(review, self.plan, self.task.settings.layout)
        if self.folder.has("done.json"):
            self.folder.check_finished()
            loosen(self.folder)
        self.folder.open_again(asked.to_dict())

    def _review(self, job: Job, work: Mapping[int, Chunk], *, make: bool) -> int:
        """How many chunks of the plan are finished, so that nothing is to be made for the review first."""
        total = len(self.asked.refusals) if make else 0
        done = 0
        with track(total, "replacing", "edits", show=self.show_progress and total > 0) as bar:

            def next_edit(rows: Rows, tried: Rows, slot: int) -> ChunkResult:
                bar.update(1)
                return run_chunk(job, list(rows), tried, slot)

            for number, item in work.items():
                if item.unit == "edits" and self.folder.has_chunk(number, item.rows):
                    make_next = partial(next_edit, item.rows) if make else None
                    done += after_review(self.folder, number, item.rows, self.asked.refusals, make_next) is not None
        return done

    # -- chunks -------------------------------------------------------------------------------------------------------

    def _chunks(self, job: Job) -> list[Chunk]:
        """All chunks: those of the plan, then those of the originals that pass through the editor."""
        edits, trips = self.plan.chunks(), []
        if self.task.settings.round_trip and self.task.faces is not None:
            trips = trips_of(self.task.faces.table, self.plan, job.poles, self.task.settings.chunk_size)
        units = ["edits"] * len(edits) + ["originals"] * len(trips)
        return [Chunk(number, unit, rows) for number, (unit, rows) in enumerate(zip(units, edits + trips, strict=True))]

    def _run_chunks(self, job: Job, chunks: Sequence[Chunk]) -> None:
        for unit in ("edits", "originals"):
            self._run_alike(job, [chunk for chunk in chunks if chunk.unit == unit], unit)

    def _run_alike(self, job: Job, chunks: Sequence[Chunk], unit: str) -> None:
        """Do the chunks of one kind that are not done."""
        kept = rejected = resumed = 0
        missing = []
        for chunk in chunks:
            if not self.folder.has_chunk(chunk.number, chunk.rows):
                missing.append(chunk)
                continue
            values = self.folder.read_chunk(chunk.number)
            kept, rejected = kept + len(values["kept"]), rejected + turned_down(values["rejected"])
            resumed += len(chunk.rows)
        if not missing:
            return
        with track(sum(len(chunk.rows) for chunk in chunks), "balancing", unit, show=self.show_progress) as bar:
            bar.resume_at(resumed)
            for chunk, (more_kept, more_rejected) in self._done(job, missing):
                kept, rejected = kept + more_kept, rejected + more_rejected
                bar.update(len(chunk.rows), kept=kept, rejected=rejected)

    def _choose_workers(self, num_chunks: int) -> None:
        """By all chunks of the run: shards, and who goes on with a run, work with as many threads as the whole."""
        least = math.ceil(WORKER_EDITS / self.task.settings.chunk_size)
        self.engine = self.engine.sized(num_chunks, gpus_here(self.task.backend.device.type), least=least)

    def _done(self, job: Job, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, Counts]]:
        """Chunks as they are done, here or by workers."""
        num_gpus = gpus_here(self.task.backend.device.type)
        if self.engine.is_this_process(num_gpus):
            for chunk in chunks:
                if not self.folder.has_chunk(chunk.number, chunk.rows):  # another shard may have done it meanwhile
                    yield chunk, do_chunk(self.folder, job, chunk)
            return
        work = ChunkWork.of(self.task, self.plan.groups, self.folder)
        for place, counts in run_pieces(self.engine, work, chunks, num_gpus=num_gpus):
            yield chunks[place], counts

    # -- scorers ------------------------------------------------------------------------------------------------------

    def _job(self) -> Job:
        """What all chunks share; the scorers are calibrated once for all shards."""
        check_can_read(self.task)
        if not len(self.plan):
            scorers = Scorers([AttributeScorer(name, None, None) for name in self.task.columns], None)
        else:
            if not self.folder.has("scorers.json"):
                self.folder.first_wins("scorers.json", calibrated_scorers(self.task).to_dict())
            scorers = self._read_scorers()
        return job_of(self.task, self.plan.groups, scorers)

    def _read_scorers(self) -> Scorers:
        values = self.folder.read("scorers.json")
        try:
            scorers = Scorers.from_dict(values, self.task.scorers)
            if [scorer.column for scorer in scorers.attributes] != self.task.columns:
                raise ValueError("other columns")
        except (OutputError, ValueError) as error:
            path = self.folder.state / "scorers.json"
            raise OutputError(
                f"{path} is damaged ({error}). Remove {path.parent} to begin anew, and run the same command again."
            ) from error
        return scorers

    # -- the result ---------------------------------------------------------------------------------------------------

    def _export(self, job: Job, chunks: Iterable[FinishedChunk], trips: Sequence[int], publish: Publish) -> None:
        """Write the dataset from its finished chunks."""
        total = 0 if self.task.faces is None or self.originals == "omit" else len(self.task.faces.table)
        with track(total, "writing", "originals", show=self.show_progress and total > 0) as bar:
            table, _, _ = assemble(
                self.folder,
                self.task,
                self.plan,
                chunks,
                details=self._details(job, chunks),
                bar=bar,
                trips=trips,
                measure=self._measure,
            )
        if self.asked.digest:
            self.folder.clear_after_review(table["file_name"])
        settings = self.task.settings
        if settings.format != "imagefolder":
            with track(None, "packing", "pictures", show=self.show_progress) as bar:
                review = self.asked.digest
                pack(self.folder, settings.format, settings.shard_size, bar, review=review, publish=publish)

    def _measure(self, table: pd.DataFrame) -> dict[str, Any]:
        """What gives edits away in the pictures as they were written."""
        return measured(
            table,
            self.folder.out,
            self.task.faces,
            target=self.task.target,
            protected=self.task.protected,
            splits=self.plan.settings["splits"],
            settings=self.task.leak,
            show_progress=self.show_progress,
        )

    def _measure_again(self) -> bool:
        """Measure a finished run in another way than it was, if that is asked for."""
        report = self.folder.read_report()
        if is_wanted := needs_measuring(report, self.task.leak):
            write_report(self.folder, report | self._measure(self._finished().table), self.plan)
        return is_wanted

    def _write_page(self) -> None:
        write_run(self.folder.out, follow_links=self.originals == "link")  # links of a run are its own

    def _finished(self) -> Result:
        """Read the result back from disk: what is returned is what was written."""
        run = self.folder
        text: dict[str, Any] = {"donor": str, "path": str, "strength": str, "seed": "Int64"}
        table = read_metadata(run.out / "metadata.csv")
        rejected = read_table(run.out / "rejected.csv", dtype=text)
        return Result(run.out, True, table, rejected, run.read_report())

    def _details(self, job: Job, chunks: Iterable[FinishedChunk]) -> dict[str, Any]:
        faces = self.task.faces
        return {
            "dataset": "faces sampled from the prior" if faces is None else faces.name,
            "license": None if faces is None else faces.license,
            "left_out": [] if faces is None else [asdict(problem) for problem in faces.problems],
            "alignment": None if faces is None else faces.alignment,
            "editor": self.task.backend.name,
            "editor_license": self.task.backend.license,
            "checks": asdict(self.task.settings.checks),
            "calibration_evaluations": job.calibration_evaluations,
            "scorers": {scorer.column: scorer.summary() for scorer in (job.target, *job.protected)},
            "enough": {
                kind: max(enough(getattr(scorer, kind), self.task.settings.checks) for scorer in job.protected)
                for kind in ("latent", "image")
            },
            "identity_scorer": self._identity_details(job),
            "size": self.task.settings.size,
            **self._unusual(),
            **({"pseudonymised": True} if self.task.settings.pseudonymise else {}),
            "warnings": [*self.plan.notes, *self._warnings(job, chunks)],
            **({"review": self.asked.summary(chunks)} if self.asked.digest else {}),
            "originals": self.originals,
        }

    def _unusual(self) -> dict[str, str | int]:
        """Settings that are told where they are not the usual ones."""
        settings = self.task.settings
        usual = {"layout": "flat", "quality": "standard", "format": "imagefolder"}
        told = {name: getattr(settings, name) for name, value in usual.items() if getattr(settings, name) != value}
        return told | ({"shard_size": settings.shard_size} if "format" in told else {})

    def _identity_details(self, job: Job) -> dict[str, Any]:
        kind = "custom"
        if isinstance(self.task.identity, str):
            kind = self.task.identity
        elif isinstance(self.task.identity, FaceNetwork):
            kind = "face network"
        digest = {"sha256": self.task.identity.digest} if isinstance(self.task.identity, FaceNetwork) else {}
        return {"kind": kind, "name": identity_name(self.task.identity), **digest, **job.identity_scale.summary()}

    def _warnings(self, job: Job, chunks: Iterable[FinishedChunk]) -> list[str]:
        said = [text for scorer in (job.target, *job.protected) for text in scorer.warnings()]
        # a limit that half of all strangers reach asks for no judgement
        if lost := self.asked.summary(chunks)["not_there"]:
            said.append(f"{lost} refused edits are not in this set (any more): nothing was done for them.")
        return said + (job.identity_scale.warnings(self.task.identity) if job.checks.identity > 0 else [])

    # -- what the run is ----------------------------------------------------------------------------------------------

    def _job_facts(self) -> dict[str, Any]:
        """What must be equal for a folder to be resumed."""
        faces, plan = self.task.faces, self.plan
        identity = self.task.identity
        face = identity.fingerprint if isinstance(identity, FaceNetwork) else identity_name(identity)
        return {
            "version": __version__,
            "dataset": "none" if faces is None else faces.name,
            "labels": (hashlib.sha256() if faces is None else sha256_csv(faces.table, index=True)).hexdigest(),
            "pictures": _pictures_digest(faces),
            "license": None if faces is None else faces.license,
            "plan": plan.settings,
            "plan_digest": plan.digest(),
            "checks": asdict(self.task.settings.checks),
            "editor": self.task.backend.name,
            "backend": dict(self.task.backend.fingerprint()),
            "editor_license": self.task.backend.license,
            "identity": face,
            "scorers": {column: network.fingerprint for column, network in self.task.scorers.items()},
            "prior_steps": self.task.settings.prior_steps,
            "keep_pairs": self.task.settings.keep_pairs,
            "originals": self.originals,
            "size": self.task.settings.size,
            "round_trip": self.task.settings.round_trip,
            "alignment": None if faces is None else faces.alignment,
            **self._unusual(),
            **({"pseudonymise": True} if self.task.settings.pseudonymise else {}),
        }

    def _check_space(self) -> None:
        run, plan = self.folder, self.plan
        if plan.cost is None:
            return
        with writing(run.out):
            free = shutil.disk_usage(run.out).free / 1e6
        if free < plan.cost.megabytes:
            raise OutputError(
                f"{run.out} has {free:.1f} MB free, the dataset needs about {plan.cost.megabytes:.1f} MB. Free some "
                "space or give a folder on another disk."
            )


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
            if path is None:
                packed = faces.file(item)
                return "" if packed is None else hashlib.sha256(packed.data).hexdigest()
            return sha256_file(path)
        except OSError:
            return "unreadable"

    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # some at a time: it holds whatever it is given
        for start in range(0, len(faces), HASHED_TOGETHER):
            found = "\n".join(pool.map(one, faces.ids[start : start + HASHED_TOGETHER]))
            digest.update(("\n" * (start > 0) + found).encode())
    return digest.hexdigest()
