"""The next donor of an edit: a face of the dataset, or one drawn from the prior.

Pictures of the dataset are encoded; the stochastic code is found by inversion only for those that an edit can reach.
Drawn faces are read in the latent space *before* anything is decoded, so the UNet works for no face that is thrown
away, and a face is stored as its seed.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from vlbias.balance.attempt import Attempt, ChunkResult, Job, stack
from vlbias.balance.pictures import see_donors, write_donors
from vlbias.balance.plan import RESERVES_PER_EDIT, item_seed
from vlbias.balance.scoring import AttributeScorer, Seen, read
from vlbias.balance.verification import Reason
from vlbias.errors import ImageError, PlanError
from vlbias.images import to_tensor
from vlbias.labels import group_name
from vlbias.types import Traced

__all__ = ["Donors", "PriorDonors", "RealDonors", "open_donors"]

# Latent margin in its cell from which a sampled face is taken as a donor.
DONOR_MARGIN = 0.7
# Draws from the prior for one chunk: enough for a cell that holds one face in a hundred.
MIN_DRAWS, DRAWS_PER_EDIT = 4096, 256
DRAWN_TOGETHER = 256


class Donors(Protocol):
    """Where the edits of one chunk take their donors from."""

    def next_donor(self, row: Mapping[str, object]) -> Attempt | None:
        """The next donor for an edit; ``None`` where all were tried."""
        ...

    def load(self, attempts: list[Attempt]) -> list[Attempt]:
        """Give donors their codes; those that have none are turned down."""
        ...

    def prepare(self, attempts: list[Attempt]) -> list[Attempt]:
        """Give donors that an edit can reach their stochastic codes."""
        ...

    def render(self, attempts: list[Attempt], z_edit: torch.Tensor) -> torch.Tensor:
        """Edited faces (b, 3, h, w) of walked codes (b, d)."""
        ...

    def may_walk_again(self, reason: Reason) -> bool:
        """Whether another walk is tried before the next donor."""
        ...


def open_donors(job: Job, attempts: list[Attempt], result: ChunkResult) -> list[Attempt]:
    """Open and encode faces of the dataset; a picture that cannot be read is turned down."""
    sound = []
    for attempt in attempts:
        try:
            # one by one: pictures of a dataset may have several sizes, and full-size ones are not kept
            attempt.x_0 = to_tensor(job.dataset.image(attempt.donor), job.backend.image_size)[0].to(job.backend.device)
            sound.append(attempt)
        except ImageError as error:
            result.reject(attempt, Reason.UNREADABLE, detail=job.dataset.reason(attempt.donor, error))
    if sound:
        for attempt, code in zip(sound, job.backend.encode(stack(sound, "x_0")), strict=True):
            attempt.z_sem = code
    return sound


class RealDonors:
    """Faces of the dataset, in the order the plan gave them; reserves are shared by the edits that may use them.

    ``tried`` says which were used before, by their records.
    """

    def __init__(
        self,
        job: Job,
        rows: Sequence[Mapping[str, Any]],
        result: ChunkResult,
        tried: Sequence[Mapping[str, Any]] = (),
    ):
        self.job, self.result = job, result
        self.fresh = {row["slot"] for row in rows} - {record["slot"] for record in tried}
        used = {(record["donor"], record["to"]) for record in tried}
        self.pool: dict[tuple[str, ...], deque[tuple[str, str]]] = defaultdict(deque)
        for row in rows:
            reserves = [(item, giver) for item, giver in json.loads(row["reserves"]) if (item, row["to"]) not in used]
            self.pool[self._key(row)].extend(reserves)

    @staticmethod
    def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
        giver = str(row["from"]) if row["replaces_donor"] else ""
        return row["split"], row["target"], row["to"], giver

    def next_donor(self, row: Mapping[str, Any]) -> Attempt | None:
        """The next attempt of a row: its own donor first, then its reserves; None when there is none left."""
        if row["slot"] in self.fresh:
            self.fresh.discard(row["slot"])
            return Attempt(row, str(row["donor"]), str(row["from"]), int(row["seed"]))
        reserve = self.pool[self._key(row)]
        return Attempt(row, *reserve.popleft(), int(row["seed"])) if reserve else None

    def load(self, attempts: list[Attempt]) -> list[Attempt]:
        """Open and encode, and read the class."""
        attempts = open_donors(self.job, attempts, self.result)
        if attempts:
            target = self.job.target_margins(attempts, see_donors(self.job, attempts))
            for index, attempt in enumerate(attempts):
                attempt.target_before = target.at(index)
        return attempts

    def prepare(self, attempts: list[Attempt]) -> list[Attempt]:
        """Trace the faces that an edit can reach, for all their walks."""
        _traced(attempts, self.job.backend.trace(stack(attempts, "x_0"), stack(attempts, "z_sem")))
        return attempts

    def render(self, attempts: list[Attempt], z_edit: torch.Tensor) -> torch.Tensor:
        """Edited codes (b, d) => pictures (b, 3, h, w) in [-1, 1], from the stochastic codes of their donors."""
        return _rendered(self.job, attempts, z_edit)

    def may_walk_again(self, reason: Reason) -> bool:
        """The trace is paid for: another walk costs less than another donor."""
        return True


def _traced(attempts: Sequence[Attempt], traced: Traced) -> None:
    """Note what faces are edited along."""
    for index, attempt in enumerate(attempts):
        attempt.x_T = traced.x_T[index]
        attempt.residuals = None if traced.residuals is None else traced.residuals[index]


def _rendered(job: Job, attempts: Sequence[Attempt], z_edit: torch.Tensor) -> torch.Tensor:
    residuals = None if attempts[0].residuals is None else stack(attempts, "residuals")
    traced = Traced(stack(attempts, "x_T"), residuals)
    return job.backend.render(stack(attempts, "x_0"), stack(attempts, "z_sem"), z_edit, traced)


class PriorDonors:
    """Faces drawn from the latent prior, and sorted into cells by the latent readings alone.

    Face i depends on the plan's seed, the chunk and i. It counts for a cell if every latent margin is at least
    ``DONOR_MARGIN``: faces between groups are left out, for a picture often reads a little nearer to the border than
    its code. ``tried`` says which were used before, by their records.

    Raises:
        PlanError: an attribute that no latent scorer reads.
    """

    def __init__(
        self,
        job: Job,
        rows: Sequence[Mapping[str, Any]],
        result: ChunkResult,
        tried: Sequence[Mapping[str, Any]] = (),
    ):
        for scorer in (job.target, *job.protected):
            if scorer.latent is None:
                raise PlanError(
                    f"No latent probe reads '{scorer.column}', so sampled faces cannot be sorted before decoding. "
                    "Use source='real'."
                )
        self.job, self.result = job, result
        # a plan keeps the donors of all its edits, or of none
        self.sees_donors = job.identity_sees_pictures or job.keep_pairs or bool(rows[0]["keep_donor"])
        # as many tries as a real donor with its reserves: a path that fails must not drain the prior
        self.tries_left = (1 + RESERVES_PER_EDIT) * len(rows) - len(tried)
        self.used = {record["seed"] for record in tried}
        self.chunk = int(rows[0]["chunk"])
        self.max_drawn = max(MIN_DRAWS, DRAWS_PER_EDIT * len(rows))
        self.num_drawn = 0
        self.cells: dict[tuple[str, str], deque[tuple[int, torch.Tensor]]] = defaultdict(deque)

    def next_donor(self, row: Mapping[str, object]) -> Attempt | None:
        """The next unused face of the cell, with its code; ``None`` where too many draws or tries found none."""
        cell = self.cells[str(row["target"]), str(row["from"])]
        while self.tries_left > 0 and not cell and self.num_drawn < self.max_drawn:
            self._draw()
        if self.tries_left <= 0 or not cell:
            return None
        self.tries_left -= 1
        seed, z_sem = cell.popleft()
        return Attempt(row, f"sample-{seed}", str(row["from"]), seed, z_sem=z_sem)

    def _draw(self) -> None:
        numbers = range(self.num_drawn, self.num_drawn + DRAWN_TOGETHER)
        seeds = [item_seed(self.job.seed, "prior", self.chunk, number) for number in numbers]
        z_sem = self.job.backend.sample_codes(seeds)
        self.num_drawn += len(seeds)
        columns = [self._labels(scorer, z_sem) for scorer in (self.job.target, *self.job.protected)]
        for index, (target, *values) in enumerate(zip(*columns, strict=True)):
            if seeds[index] in self.used:
                continue
            if target is not None and all(value is not None for value in values):
                self.cells[target, group_name(values)].append((seeds[index], z_sem[index]))

    def _labels(self, scorer: AttributeScorer, z_sem: torch.Tensor) -> list[str | None]:
        """The label whose group each code is well inside of, else ``None``."""
        reading = scorer.latent
        assert reading is not None  # checked on construction
        raw = read(self.job.backend, reading, "latent", z_sem)
        margins = torch.stack([reading.margin(raw, [label] * len(z_sem)) for label in reading.labels])
        best, index = margins.max(dim=0)
        pairs = zip(best.tolist(), index.tolist(), strict=True)
        return [reading.labels[i] if value >= DONOR_MARGIN else None for value, i in pairs]

    def load(self, attempts: list[Attempt]) -> list[Attempt]:
        """Read the class in the codes; nothing is decoded."""
        if attempts:
            target = self.job.target_margins(attempts, Seen(self.job.backend, stack(attempts, "z_sem")))
            for index, attempt in enumerate(attempts):
                attempt.target_before = target.at(index)
        return attempts

    def prepare(self, attempts: list[Attempt]) -> list[Attempt]:
        """Draw x_T, and decode the donors that are kept or looked at; their edits then go along the same way."""
        for attempt, code in zip(attempts, self.job.backend.noise([a.seed for a in attempts]), strict=True):
            attempt.x_T = code
        return self._decode_donors(attempts) if self.sees_donors else attempts

    def render(self, attempts: list[Attempt], z_edit: torch.Tensor) -> torch.Tensor:
        """Edited codes (b, d) => pictures (b, 3, h, w) in [-1, 1]."""
        if attempts[0].residuals is not None:
            return _rendered(self.job, attempts, z_edit)
        return self.job.backend.decode(z_edit, stack(attempts, "x_T"), num_steps=self.job.prior_steps)

    def may_walk_again(self, reason: Reason) -> bool:
        """Another face that nobody sees costs as much as another walk, and passes sooner if its target moved."""
        return self.sees_donors or reason is Reason.PROTECTED_NOT_REACHED

    def _decode_donors(self, attempts: list[Attempt]) -> list[Attempt]:
        """Decode donors; those that look like the cell their code was sorted into."""
        z_sem, x_T = stack(attempts, "z_sem"), stack(attempts, "x_T")
        decoded, traced = self.job.backend.draw(z_sem, x_T, num_steps=self.job.prior_steps)
        _traced(attempts, traced)
        files, x_0, finite = write_donors(self.job, attempts, decoded)
        whole = []
        for attempt, file, x, sound in zip(attempts, files, x_0, finite, strict=True):
            attempt.donor_file, attempt.x_0 = file, x
            if sound:
                whole.append(attempt)
            else:
                self.result.reject(attempt, Reason.NOT_FINITE, detail="the donor")
        return self._clear(whole) if whole else []

    def _clear(self, attempts: list[Attempt]) -> list[Attempt]:
        seen = replace(see_donors(self.job, attempts), z_sem=self.job.backend.encode(stack(attempts, "x_0")))
        target = self.job.target_margins(attempts, seen)
        all_margins = [target, *self.job.group_margins([attempt.giver for attempt in attempts], seen)]
        clear = []
        for index, attempt in enumerate(attempts):
            read_here = [value for margins in all_margins for value in margins.at(index) if value is not None]
            if min(read_here) > self.job.checks.sampled:
                attempt.target_before = target.at(index)
                clear.append(attempt)
            else:
                self.result.reject(attempt, Reason.DONOR_UNCLEAR)
        return clear
