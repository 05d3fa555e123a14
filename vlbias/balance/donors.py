"""The next donor of an edit: a face of the dataset, or one drawn from the prior.

Pictures of the dataset are encoded; the stochastic code is found by inversion only for those that an edit can reach.
Drawn faces are read in the latent space *before* anything is decoded, so the UNet works for no face that is thrown
away, and a face is stored as its seed.
"""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from vlbias.balance.attempt import GAINS, Attempt, Job
from vlbias.balance.pictures import write_donors
from vlbias.balance.plan import RESERVES_PER_EDIT
from vlbias.balance.readings import read_classes, read_donors, read_drawn, read_reached
from vlbias.balance.scoring import AttributeScorer, read
from vlbias.balance.verification import Reason
from vlbias.errors import ImageError, PlanError
from vlbias.images import to_tensor
from vlbias.labels import group_name
from vlbias.originals import Encoded
from vlbias.seeds import item_seed
from vlbias.types import Traced

__all__ = ["Donors", "PriorDonors", "RealDonors", "open_donors"]

# Latent margin in its cell from which a sampled face is taken as a donor.
DONOR_MARGIN = 0.7
# Draws from the prior for one chunk: enough for a cell that holds one face in a hundred.
MIN_DRAWS, DRAWS_PER_EDIT = 4096, 256
DRAWN_TOGETHER = 256


class Donors(ABC):
    """Where the edits of one chunk take their donors from.

    Args:
        job: shared by all chunks.
    """

    def __init__(self, job: Job):
        self.job = job

    @abstractmethod
    def next_donor(self, row: Mapping[str, Any]) -> Attempt:
        """An attempt with the next donor for an edit, turned down at once where all were tried."""

    @abstractmethod
    def load(self, attempts: list[Attempt]) -> list[Attempt]:
        """Give donors their codes; those that cannot be read are turned down."""

    @abstractmethod
    def open(self, attempts: list[Attempt]) -> list[Attempt]:
        """Give donors that an edit can reach their stochastic codes."""

    @abstractmethod
    def render(self, attempts: list[Attempt], z_edit: torch.Tensor) -> torch.Tensor:
        """Edited codes (b, d) => pictures (b, 3, h, w) in [-1, 1]."""

    @abstractmethod
    def may_walk_again(self, reason: Reason) -> bool:
        """Whether another walk is tried before the next donor."""

    def next_donors(self, rows: Sequence[Mapping[str, Any]]) -> list[Attempt]:
        """The next attempts of some rows, with the donors' codes, and where these stand in their classes."""
        attempts = [self.next_donor(row) for row in rows]
        loaded = self.load([attempt for attempt in attempts if attempt.is_open])
        if loaded:
            read_classes(self.job, loaded)
        return attempts

    def prepare(self, attempts: list[Attempt]) -> list[Attempt]:
        """Ready donors that an edit can reach for their edits; those that can be edited."""
        ready = self.open(attempts) if attempts else []
        if ready:
            read_donors(self.job, ready)
        return ready

    def edited(self, attempts: list[Attempt]) -> torch.Tensor:
        """Edits (b, 3, h, w) of the donors, by their strengths and gains; only new walks cost an evaluation."""
        missing = [attempt for attempt in attempts if attempt.rendered is None]
        if missing:
            z_edit = _walked(self.job, missing)
            for attempt, code, x in zip(missing, z_edit, self.render(missing, z_edit), strict=True):
                attempt.z_edit, attempt.rendered = code, x
            self._reach([attempt for attempt in missing if attempt.scores is None and attempt.x_0 is not None])
        return torch.stack([_amplified(attempt) for attempt in attempts])

    def _reach(self, attempts: list[Attempt]) -> None:
        """Let pictures of first walks stand where members of the group do, which costs no evaluation."""
        varied = self.job.checks.varied
        if attempts and varied and self.job.backend.adds_difference:
            for attempt, factor in zip(attempts, read_reached(self.job, attempts), strict=True):
                gain = 1.0 if factor is None else 1 + varied * (factor - 1)
                attempt.gain = min(max(gain, GAINS[0]), GAINS[1])


def _walked(job: Job, attempts: list[Attempt]) -> torch.Tensor:
    """Codes (b, d) at the ends of the walks, corrected."""
    z_sem = torch.stack([attempt.z_sem for attempt in attempts])
    names = [pole.name for pole in job.poles if any(pole.name in attempt.strengths for attempt in attempts)]
    strengths = {
        name: torch.tensor([a.strengths.get(name, 0.0) * a.factor for a in attempts], device=z_sem.device)
        for name in names
    }
    changes = [torch.zeros_like(z_sem[0]) if a.correction is None else a.correction.to(z_sem.device) for a in attempts]
    return job.backend.walk(z_sem, strengths) + torch.stack(changes)


def _amplified(attempt: Attempt) -> torch.Tensor:
    """The rendered edit (3, h, w) with its change from the donor times the gain."""
    assert attempt.rendered is not None  # it was walked just now
    if attempt.gain == 1.0 or attempt.x_0 is None:
        return attempt.rendered
    return (attempt.x_0 + attempt.gain * (attempt.rendered - attempt.x_0)).clamp(-1, 1)


def open_donors(job: Job, attempts: list[Attempt]) -> list[Attempt]:
    """Open and encode faces of the dataset; a picture that cannot be read is turned down."""
    job.dataset.expect([attempt.donor for attempt in attempts])
    for attempt in attempts:
        # one by one: pictures of a dataset may have several sizes, and full-size ones are not kept
        attempt.look = functools.cache(partial(_opened, job, attempt.donor))
        try:
            attempt.x_0 = attempt.look(job.backend.image_size)[0].to(job.backend.device)
        except ImageError as error:
            attempt.reason, attempt.detail = Reason.UNREADABLE, job.dataset.reason(attempt.donor, error)
    sound = [attempt for attempt in attempts if attempt.is_open]
    if sound:
        codes = job.backend.encode(torch.stack([attempt.picture for attempt in sound]))
        for attempt, code in zip(sound, codes, strict=True):
            attempt.z_sem = code
    return sound


def _opened(job: Job, item: str, size: int) -> torch.Tensor:
    return to_tensor(job.dataset.image(item), size)


class RealDonors(Donors):
    """Faces of the dataset, in the order the plan gave them; reserves are shared by the edits that may use them.

    A face that is edited to several groups is opened, encoded and traced once. ``tried`` says which were used before,
    by their records.
    """

    def __init__(self, job: Job, rows: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]] = ()):
        super().__init__(job)
        self.fresh = {row["slot"] for row in rows} - {record["slot"] for record in tried}
        used = {(record["donor"], record["to"]) for record in tried}
        self.pool: dict[tuple[str, ...], deque[tuple[str, str]]] = defaultdict(deque)
        self.to_come = Counter(str(row["donor"]) for row in rows if row["slot"] in self.fresh)
        for row in rows:
            reserves = [(item, giver) for item, giver in json.loads(row["reserves"]) if (item, row["to"]) not in used]
            self.pool[self._key(row)].extend(reserves)
            self.to_come.update(item for item, _ in reserves)
        self.known: dict[str, dict[str, Any]] = {}

    @staticmethod
    def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
        giver = str(row["from"]) if row["replaces_donor"] else ""
        return row["split"], row["target"], row["to"], giver

    def next_donor(self, row: Mapping[str, Any]) -> Attempt:
        """The next attempt of a row: its own donor first, then its reserves."""
        reserve = self.pool[self._key(row)]
        if row["slot"] in self.fresh:
            self.fresh.discard(row["slot"])
            donor, giver = str(row["donor"]), str(row["from"])
        elif reserve:
            donor, giver = reserve.popleft()
        else:
            return _nobody(row)
        self.to_come[donor] -= 1
        return Attempt(row, donor, giver, int(row["seed"]))

    def load(self, attempts: list[Attempt]) -> list[Attempt]:
        """Open and encode."""
        here = {attempt.donor for attempt in attempts}
        self.known = {donor: made for donor, made in self.known.items() if donor in here or self.to_come[donor]}
        self._once(attempts, ("x_0", "look", "z_sem", "reason", "detail"), partial(open_donors, self.job))
        return [attempt for attempt in attempts if attempt.is_open]

    def open(self, attempts: list[Attempt]) -> list[Attempt]:
        """Trace the faces that an edit can reach, for all their walks."""
        self._once(attempts, ("x_T", "residuals", "on_drawn_way"), self._trace)
        return attempts

    def _trace(self, attempts: list[Attempt]) -> None:
        x_0, z_sem = torch.stack([a.picture for a in attempts]), torch.stack([a.z_sem for a in attempts])
        _traced(attempts, self.job.backend.trace(x_0, z_sem))

    def _once(self, attempts: list[Attempt], names: Sequence[str], make: Callable[[list[Attempt]], object]) -> None:
        """Give attempts what ``make`` notes of their donors under these names; it is asked once for each donor."""
        new: dict[str, Attempt] = {}
        for attempt in attempts:
            if names[0] not in self.known.get(attempt.donor, {}):
                new.setdefault(attempt.donor, attempt)
        if new:
            make(list(new.values()))
        for donor, attempt in new.items():
            made = {name: getattr(attempt, name) for name in names if hasattr(attempt, name)}
            self.known.setdefault(donor, {}).update(made)
        for attempt in attempts:
            for name in names:
                if name in self.known[attempt.donor]:
                    setattr(attempt, name, self.known[attempt.donor][name])

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
        attempt.on_drawn_way = traced.on_drawn_way


def _rendered(job: Job, attempts: Sequence[Attempt], z_edit: torch.Tensor) -> torch.Tensor:
    residuals = [attempt.residuals for attempt in attempts if attempt.residuals is not None]
    x_T = torch.stack([a.x_T for a in attempts])
    traced = Traced(x_T, torch.stack(residuals) if residuals else None, attempts[0].on_drawn_way)
    x_0, z_sem = torch.stack([a.picture for a in attempts]), torch.stack([a.z_sem for a in attempts])
    return job.backend.render(x_0, z_sem, z_edit, traced)


def _nobody(row: Mapping[str, Any]) -> Attempt:
    """The attempt of a row for which no donor is left."""
    return Attempt(row, "", str(row["from"]), int(row["seed"]), reason=Reason.NO_DONOR_LEFT)


class PriorDonors(Donors):
    """Faces drawn from the latent prior, and sorted into cells by the latent readings alone.

    Face i depends on the plan's seed, the chunk and i. It counts for a cell if every latent margin is at least
    ``DONOR_MARGIN``: faces between groups are left out, for a picture often reads a little nearer to the border than
    its code. ``tried`` says which were used before, by their records.

    Raises:
        PlanError: an attribute that no latent scorer reads.
    """

    def __init__(self, job: Job, rows: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]] = ()):
        super().__init__(job)
        for scorer in (job.target, *job.protected):
            if scorer.latent is None:
                raise PlanError(
                    f"No latent probe reads '{scorer.column}', so sampled faces cannot be sorted before decoding. "
                    "Use source='real'."
                )
        # a plan keeps the donors of all its edits, or of none
        self.sees_donors = job.identity_sees_pictures or job.keep_pairs or bool(rows[0]["keep_donor"])
        # as many tries as a real donor with its reserves: a path that fails must not drain the prior
        self.tries_left = (1 + RESERVES_PER_EDIT) * len(rows) - len(tried)
        self.used = {record["seed"] for record in tried}
        self.chunk = int(rows[0]["chunk"])
        self.max_drawn = max(MIN_DRAWS, DRAWS_PER_EDIT * len(rows))
        self.num_drawn = 0
        self.cells: dict[tuple[str, str], deque[tuple[int, torch.Tensor]]] = defaultdict(deque)

    def next_donor(self, row: Mapping[str, Any]) -> Attempt:
        """The next unused face of the cell, with its code; nobody where too many draws or tries found none."""
        cell = self.cells[str(row["target"]), str(row["from"])]
        while self.tries_left > 0 and not cell and self.num_drawn < self.max_drawn:
            self._draw()
        if self.tries_left <= 0 or not cell:
            return _nobody(row)
        self.tries_left -= 1
        seed, z_sem = cell.popleft()
        attempt = Attempt(row, f"sample-{seed}", str(row["from"]), seed)
        attempt.z_sem = z_sem
        return attempt

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
        """They were drawn with their codes; nothing is decoded."""
        return attempts

    def open(self, attempts: list[Attempt]) -> list[Attempt]:
        """Draw x_T, and decode the donors that are kept or looked at; their edits then go along the same way."""
        for attempt, code in zip(attempts, self.job.backend.noise([a.seed for a in attempts]), strict=True):
            attempt.x_T = code
        return self._decode_donors(attempts) if self.sees_donors else attempts

    def render(self, attempts: list[Attempt], z_edit: torch.Tensor) -> torch.Tensor:
        """Edited codes (b, d) => pictures (b, 3, h, w) in [-1, 1]."""
        if attempts[0].residuals is not None:
            return _rendered(self.job, attempts, z_edit)
        x_T = torch.stack([attempt.x_T for attempt in attempts])
        return self.job.backend.decode(z_edit, x_T, num_steps=self.job.prior_steps)

    def may_walk_again(self, reason: Reason) -> bool:
        """Another face that nobody sees costs as much as another walk, and passes sooner if its target moved."""
        return self.sees_donors or reason is Reason.PROTECTED_NOT_REACHED

    def _decode_donors(self, attempts: list[Attempt]) -> list[Attempt]:
        """Decode donors; those that look like the cell their code was sorted into."""
        z_sem, x_T = torch.stack([a.z_sem for a in attempts]), torch.stack([a.x_T for a in attempts])
        decoded, traced = self.job.backend.draw(z_sem, x_T, num_steps=self.job.prior_steps)
        _traced(attempts, traced)
        files, x_0, finite = write_donors(self.job, attempts, decoded)
        for attempt, file, x, sound in zip(attempts, files, x_0, finite, strict=True):
            attempt.donor_file, attempt.x_0 = file, x
            attempt.look = functools.cache(partial(_read_file, file))
            if not sound:
                attempt.reason, attempt.detail = Reason.NOT_FINITE, "the donor"
        whole = [attempt for attempt in attempts if attempt.is_open]
        return read_drawn(self.job, whole) if whole else []


def _read_file(file: Encoded, size: int) -> torch.Tensor:
    return to_tensor(file.open(), size)
