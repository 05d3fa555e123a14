"""The next donor of an edit: a face of the dataset, or one drawn from the prior."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from vlbias.balance.attempts import Attempt, ChunkResult, Job, Passed, reject, stack, target_margins
from vlbias.balance.plan import RESERVES_PER_EDIT
from vlbias.balance.source import PriorFaces, encode_faces, open_faces
from vlbias.balance.verify import Reason, read_margins
from vlbias.balance.written import look_at_donors, write_donors

__all__ = ["PriorDonors", "RealDonors"]

# Latent margin in its cell from which a sampled face is taken as a donor.
DONOR_MARGIN = 0.7
# Draws from the prior for one chunk: enough for a cell that holds one face in a hundred.
MIN_DRAWS, DRAWS_PER_EDIT = 4096, 256


class RealDonors:
    """Faces of the dataset, in the order the plan gave them; reserves are shared by the edits that may use them."""

    def __init__(self, job: Job, rows: Sequence[Mapping[str, Any]], result: ChunkResult):
        self.job, self.result = job, result
        self.fresh = {row["slot"] for row in rows}
        self.pool: dict[tuple[str, ...], deque[tuple[str, str]]] = defaultdict(deque)
        for row in rows:
            self.pool[self._key(row)].extend((item, giver) for item, giver in json.loads(row["reserves"]))

    @staticmethod
    def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
        giver = str(row["from"]) if row["replaces_donor"] else ""
        return row["split"], row["target"], row["to"], giver

    def next_donor(self, row: Mapping[str, Any]) -> Attempt | None:
        if row["slot"] in self.fresh:
            self.fresh.discard(row["slot"])
            return Attempt(row, str(row["donor"]), str(row["from"]), int(row["seed"]))
        reserve = self.pool[self._key(row)]
        return Attempt(row, *reserve.popleft(), int(row["seed"])) if reserve else None

    def load(self, attempts: list[Attempt]) -> list[Attempt]:
        """Open and encode; a picture that cannot be read is turned down."""
        x_faces, failures = open_faces(self.job.dataset, [a.donor for a in attempts], self.job.backend)
        for attempt in attempts:
            if attempt.donor in failures:
                reject(self.result, attempt, Reason.UNREADABLE, detail=failures[attempt.donor])
        attempts = [attempt for attempt in attempts if attempt.donor in x_faces]
        if not attempts:
            return []
        x_0, z_sem = encode_faces(self.job.backend, [x_faces[attempt.donor] for attempt in attempts])
        target = target_margins(self.job, attempts, z_sem, x_0, look_at_donors(self.job, attempts))
        for index, attempt in enumerate(attempts):
            attempt.x_0, attempt.z_sem, attempt.target_margins = x_0[index], z_sem[index], target.at(index)
        return attempts

    def prepare(self, attempts: list[Attempt]) -> list[Attempt]:
        """Invert the faces that an edit can reach; what they decode to unedited is kept for further walks."""
        backend = self.job.backend
        z_sem = stack(attempts, "z_sem")
        x_T = backend.invert(stack(attempts, "x_0"), z_sem)
        x_back = backend.round_trip(z_sem, x_T)
        for index, attempt in enumerate(attempts):
            attempt.x_T, attempt.x_back = x_T[index], None if x_back is None else x_back[index]
        return attempts

    def render(self, attempts: list[Attempt], z_edit: torch.Tensor) -> torch.Tensor:
        x_0, z_sem, x_T = (stack(attempts, name) for name in ("x_0", "z_sem", "x_T"))
        x_back = None if attempts[0].x_back is None else stack(attempts, "x_back")
        return self.job.backend.render(x_0, z_sem, x_T, z_edit, x_back=x_back)

    def may_walk_again(self, reason: Reason) -> bool:
        """The inversion is paid for: another walk costs less than another donor."""
        return True

    def confirm(self, passed: list[Passed]) -> list[Passed]:
        """All: a real donor was looked at before its edit."""
        return passed


class PriorDonors:
    """Faces drawn from the latent prior, read before they are decoded."""

    def __init__(self, job: Job, rows: Sequence[Mapping[str, Any]], result: ChunkResult):
        self.job, self.result = job, result
        # as many tries as a real donor with its reserves: a path that fails must not drain the prior
        self.tries_left = (1 + RESERVES_PER_EDIT) * len(rows)
        self.faces = PriorFaces(
            job.backend,
            job.target,
            job.protected,
            seed_parts=(job.seed, "prior", int(rows[0]["chunk"])),
            margin=DONOR_MARGIN,
            max_faces=max(MIN_DRAWS, DRAWS_PER_EDIT * len(rows)),
        )

    def next_donor(self, row: Mapping[str, Any]) -> Attempt | None:
        face = self.faces.take(str(row["target"]), str(row["from"])) if self.tries_left > 0 else None
        if face is None:
            return None
        self.tries_left -= 1
        seed, z_sem = face
        return Attempt(row, f"sample-{seed}", str(row["from"]), seed, z_sem=z_sem)

    def load(self, attempts: list[Attempt]) -> list[Attempt]:
        if attempts:
            target = target_margins(self.job, attempts, stack(attempts, "z_sem"), None)
            for index, attempt in enumerate(attempts):
                attempt.target_margins = target.at(index)
        return attempts

    def prepare(self, attempts: list[Attempt]) -> list[Attempt]:
        """Draw x_T; donors are decoded now only where identity is judged on pictures, else once their edit passes."""
        for attempt, code in zip(attempts, self.job.backend.noise([a.seed for a in attempts]), strict=True):
            attempt.x_T = code
        return self._decode_donors(attempts) if self.job.identity_sees_pictures else attempts

    def render(self, attempts: list[Attempt], z_edit: torch.Tensor) -> torch.Tensor:
        return self._decode(z_edit, stack(attempts, "x_T"))

    def may_walk_again(self, reason: Reason) -> bool:
        """Another face costs as much as another walk, and is more likely to pass than one whose target moved."""
        return reason is Reason.PROTECTED_NOT_REACHED

    def confirm(self, passed: list[Passed]) -> list[Passed]:
        """Decode the donors of edits that passed, and turn down pairs that show two people."""
        # a plan keeps the donors of all its edits, or of none
        wanted = self.job.keep_pairs or passed[0].attempt.row["keep_donor"]
        if self.job.identity_sees_pictures or not wanted:
            return passed
        clear = {id(attempt) for attempt in self._decode_donors([item.attempt for item in passed])}
        passed = [item for item in passed if id(item.attempt) in clear]
        if not passed:
            return []
        backend = self.job.backend
        x_0 = stack([item.attempt for item in passed], "x_0")
        x_edit, z_found = (torch.stack([getattr(item, name) for item in passed]) for name in ("x_edit", "z_found"))
        # both through the encoder, so that what decoding loses does not count as a change of person
        z_donor = backend.encode(x_0)
        identity = self.job.identity(z_donor, x_0, z_found, x_edit)
        kept = []
        for item, value in zip(passed, identity.tolist(), strict=True):
            item.scores = replace(item.scores, identity=value)
            if value >= self.job.checks.identity:
                kept.append(item)
            else:
                reject(self.result, item.attempt, Reason.IDENTITY_LOST, scores=item.scores)
        return kept

    def _decode(self, z_sem: torch.Tensor, x_T: torch.Tensor) -> torch.Tensor:
        return self.job.backend.decode(z_sem, x_T, num_steps=self.job.prior_steps)

    def _decode_donors(self, attempts: list[Attempt]) -> list[Attempt]:
        """Decode donors; those that look like the cell their code was sorted into."""
        decoded = self._decode(stack(attempts, "z_sem"), stack(attempts, "x_T"))
        files, x_0, finite = write_donors(self.job, attempts, decoded)
        whole = []
        for attempt, file, x, sound in zip(attempts, files, x_0, finite, strict=True):
            attempt.donor_file, attempt.x_0 = file, x
            if sound:
                whole.append(attempt)
            else:
                reject(self.result, attempt, Reason.NOT_FINITE, detail="the donor")
        return drop_unclear(self.job, whole, self.result) if whole else []


def drop_unclear(job: Job, attempts: list[Attempt], result: ChunkResult) -> list[Attempt]:
    """Turn down decoded donors that do not look like the cell their code was sorted into."""
    backend, x_0 = job.backend, stack(attempts, "x_0")
    z_found = backend.encode(x_0)
    look = look_at_donors(job, attempts)
    all_margins = [target_margins(job, attempts, z_found, x_0, look)]
    for place, judge in enumerate(job.protected):
        values = [job.groups[attempt.giver][place] for attempt in attempts]
        all_margins.append(read_margins(backend, judge, values, z_sem=z_found, x_0=x_0, look=look))
    clear = []
    for index, attempt in enumerate(attempts):
        read_here = [value for margins in all_margins for value in margins.at(index) if value is not None]
        if min(read_here) > job.checks.sampled:
            attempt.target_margins = all_margins[0].at(index)
            clear.append(attempt)
        else:
            reject(result, attempt, Reason.DONOR_UNCLEAR)
    return clear
