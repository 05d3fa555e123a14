"""Balancer: plan -> source -> edit -> verify -> write, in one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Unpack

import pandas as pd

from vlbias.arguments import checked_call
from vlbias.balance.copies import check_copies
from vlbias.balance.cost import estimate
from vlbias.balance.fitting import check_labels
from vlbias.balance.identity import resolve_identity
from vlbias.balance.layout import check_classes
from vlbias.balance.originals import ORIGINALS, label_columns, larger_than_read
from vlbias.balance.own_scorers import resolve_scorers
from vlbias.balance.packing import check_format
from vlbias.balance.pictures import check_size, resolution_note
from vlbias.balance.pilot import priced_by_pilot
from vlbias.balance.plan import EditPlanSettings, Plan, make_plan
from vlbias.balance.poles import Poles, check_by_words, column_labels, given_poles, place_columns
from vlbias.balance.pseudonyms import check_pseudonyms
from vlbias.balance.review import Review
from vlbias.balance.round_trip import check_round_trip, trips_of
from vlbias.balance.run import Result, Run
from vlbias.balance.settings import BalanceOptions, BalanceSettings
from vlbias.balance.task import Task
from vlbias.balance.traces import leak_settings
from vlbias.data import FaceDataset
from vlbias.editor import Editor
from vlbias.engine import Engine
from vlbias.errors import ConfigError, PlanError
from vlbias.remote import is_url, send, send_folder, work_folder
from vlbias.settings import with_changes
from vlbias.shown import Glance, Shown
from vlbias.types import Backend

__all__ = ["Balancer"]


class Balancer(Shown):
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
        ConfigError: no such option, an editor that has no such ``quality``, or a scorer is of no kind that is known.
        UnknownNameError: a scorer of a column that is neither target nor protected.
        CheckpointError, MissingDependencyError: a scorer's file cannot be read.
    """

    @checked_call
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
        settings = with_changes(BalanceSettings, settings, options)
        self.editor = editor.renderer if isinstance(editor, Editor) else editor
        self.backend = backend = self.editor.at_quality(settings.quality)
        self.settings = settings = replace(settings, checks=settings.checks.of(backend))
        self.target, self.mode, self.source, self.seed = target, mode, source, int(seed)
        if not isinstance(protected, str | Sequence):
            raise PlanError(f"`protected` must name a column or several; got {protected!r}.")
        self.protected = [protected] if isinstance(protected, str) else list(protected)
        self._plan_settings()  # refused before any dataset is opened
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

    def _glance(self) -> Glance:
        roles = {self.target: "target, stays", **dict.fromkeys(self.protected, "protected, is edited")}
        places = {column: f"{poles.name} {dict(poles.positions)}" for column, poles in self.poles.items()}
        rows = [(column, role, places.get(column, "by the name of the column")) for column, role in roles.items()]
        protected = " x ".join(self.protected)
        line = f"{self.target} by {protected}, mode {self.mode}, source {self.source}, editor '{self.backend.name}'"
        return Glance(line, ("column", "role", "place on a path"), rows)

    def changed(self, *, mode: str, source: str, **options: Unpack[BalanceOptions]) -> Balancer:
        """The same balancer with another mode, source or other :class:`BalanceSettings`."""
        return Balancer(
            self.editor,
            target=self.target,
            protected=self.protected,
            mode=mode,
            source=source,
            seed=self.seed,
            settings=with_changes(BalanceSettings, self.settings, options),
        )

    # -- planning -----------------------------------------------------------------------------------------------------

    @checked_call
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
        target_poles, poles = self._placed(table)
        if target_poles is not None and target_poles.name in [pole.name for pole in poles]:
            raise PlanError(
                f"`target` '{self.target}' and the protected attribute are read from the same dipole "
                f"'{target_poles.name}', so an edit of one changes the other. Choose another target."
            )
        if faces is None:
            for pole in (target_poles, *poles):
                if pole is not None:
                    check_by_words(pole, self.backend.dipoles[pole.name])
        self._check_scorers(table, target_poles, poles)
        plan = make_plan(
            table,
            self._plan_settings(limit),
            poles,
            open_groups=any(column in self.poles for column in self.protected),
            target_values=target_poles.ordered if target_poles is not None else (),
            num_images=num_images,
        )
        trips = []
        if self.settings.round_trip and table is not None:
            trips = trips_of(table, plan, poles, self.settings.chunk_size)
        cost = estimate(
            self.backend,
            plan,
            faces,
            prior_steps=self.settings.prior_steps,
            pairs=self.settings.keep_pairs,
            own_size=self.settings.size == "own",
            trips=sum(map(len, trips)),
        )
        too_large = larger_than_read(plan, faces, [self.target, *self.protected], originals="copy")
        return replace(plan, cost=cost, notes=(*plan.notes, *self._notes(faces), *([too_large] if too_large else [])))

    def _plan_settings(self, limit: int | None = None) -> EditPlanSettings:
        return EditPlanSettings(
            self.target,
            tuple(self.protected),
            mode=self.mode,
            to=self.settings.to,
            source=self.source,
            splits=self.settings.splits,
            seed=self.seed,
            chunk_size=self.settings.chunk_size,
            limit=limit,
            copies=self.settings.copies,
        )

    def _check_scorers(self, table: pd.DataFrame | None, target_poles: Poles | None, poles: Sequence[Poles]) -> None:
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

    def _placed(self, table: pd.DataFrame | None) -> tuple[Poles | None, list[Poles]]:
        """Where the values of the target and of the protected columns stand."""
        return place_columns(
            table, target=self.target, protected=self.protected, given=self.poles, backend=self.backend
        )

    @checked_call
    def pilot(self, faces: FaceDataset | None, plan: Plan, *, num_edits: int = 16, show_progress: bool = True) -> Plan:
        """The same plan, its price measured on some of its edits, which are made and thrown away.

        Args:
            faces: the dataset that was planned for.
            plan: of :meth:`plan`.
            num_edits: edits that are tried, spread over the plan; 4 or more give a range.
            show_progress: show a progress line on stderr.

        Returns:
            A plan whose ``cost`` has other evaluations, minutes, and a range that holds nine pilots in ten.

        Raises:
            PlanError: the scorers cannot read the attributes in this dataset.
            ConfigError: ``num_edits`` < 1.
        """
        if num_edits < 1:
            raise ConfigError(f"`num_edits` must be >= 1; got {num_edits}.")
        if not len(plan):
            return plan
        return priced_by_pilot(self._task(faces), plan, num_edits, show_progress=show_progress)

    # -- running ------------------------------------------------------------------------------------------------------

    @checked_call
    def run(
        self,
        faces: FaceDataset | None,
        plan: Plan,
        out_dir: str | Path,
        *,
        shard: tuple[int, int] | None = None,
        originals: str = "copy",
        engine: Engine | None = None,
        show_progress: bool = True,
        review: Review | str | PathLike[str] | None = None,
    ) -> Result:
        """Carry out a plan; go on where an earlier run of it stopped. What came of it is shown by ``report.html``.

        Args:
            faces: the dataset that was planned for.
            plan: of :meth:`plan`.
            out_dir: the output folder: new, empty, or of this same job. Of a URL (extra ``remote``) the run is made in
                :func:`vlbias.remote.work_folder`; shards are sent as they are finished, everything else at the end.
            shard: (i, n) does chunks i, i+n, i+2n, ... with 0 <= i < n; the shard that finishes last writes the
                dataset. The number of shards does not change a byte of it.
            originals: ``copy`` them without private metadata, the pixels untouched; ``exact`` copies, metadata
                included; ``link`` to them; ``omit``; ``resize`` to the editor's size, which goes with
                ``size="editor"``.
            engine: who works, such as ``Engine(workers=4)`` or ``Engine(kind="ray")``; ``None`` for the GPUs of this
                machine, or this process; ``Engine(auto=True)`` chooses, as the command line does. Workers change no
                byte of the result where each has as many threads as a run in one process.
            show_progress: whether a line on stderr tells how far it is.
            review: a ``review.csv``, or a :class:`Review` with another rule: its refused edits leave, those of a
                finished run as well, and the next donors take their places. ``None`` leaves it at the last review.

        Raises:
            OutputError: the folder holds something else, or cannot be written; finished chunks are kept.
            PlanError: the scorers cannot read the attributes in this dataset.
            ConfigError: ``shard`` or ``originals`` out of range or at odds with a setting, or the job cannot be sent
                to workers.
            DatasetError: ``review`` is no review of this run.
            WorkerError: workers died one after another.
        """
        if originals not in ORIGINALS:
            raise ConfigError(f"`originals` must be one of {', '.join(ORIGINALS)}; got {originals!r}.")
        if faces is None and self.source == "real":
            raise PlanError("source='real' edits the faces of a dataset; give the one that was planned for.")
        check_size(self.settings.size, originals)
        check_copies(plan.settings.get("copies_share", 0.0), originals)
        check_format(self.settings.format, originals)
        check_round_trip(self.settings.round_trip, source=self.source, originals=originals)
        if self.settings.pseudonymise:
            check_pseudonyms(self.settings.pseudonyms, originals, out_dir)
        task = self._task(faces)
        if faces is not None:  # refused before the first edit
            label_columns(faces)
            check_classes(self.settings.layout, faces, self.target)
        if review is not None and not isinstance(review, Review):
            review = Review.read(review)
        url = str(out_dir) if is_url(out_dir) else None
        out = Path(out_dir) if url is None else work_folder(url)
        run = Run(
            task,
            plan,
            out,
            originals=originals,
            shard=shard,
            engine=engine or Engine(),
            show_progress=show_progress,
            review=review,
        )
        if url is None:
            return run.go()
        result = run.go(partial(send, out, url=url))
        if result.complete:
            send_folder(out, url)
        return result

    def _task(self, faces: FaceDataset | None) -> Task:
        target_poles, poles = self._placed(None if faces is None else faces.table)
        return Task(
            backend=self.backend,
            faces=faces,
            target=self.target,
            protected=self.protected,
            target_poles=target_poles,
            poles=poles,
            source=self.source,
            seed=self.seed,
            settings=self.settings,
            leak=self.leak,
            identity=self.identity,
            scorers=self.scorers,
        )
