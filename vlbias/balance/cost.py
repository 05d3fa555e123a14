"""What a plan will cost on this machine: counted, then multiplied by one small timing."""

from __future__ import annotations

from vlbias.balance.calibration import SAMPLED_FACES
from vlbias.balance.pictures import median_bytes
from vlbias.balance.plan import Cost, Plan
from vlbias.balance.round_trip import evaluations_of
from vlbias.data import FaceDataset
from vlbias.types import Backend

__all__ = ["estimate", "opened_before"]

# Tries that an edit takes on average: some are walked again, some donors are replaced.
EXPECTED_TRIES = 1.3
# The encoder and the scorers beside the UNet.
OVERHEAD = 1.1
# A PNG of a face.
BYTES_PER_PIXEL = 2.0


def opened_before(plan: Plan) -> int:
    """Edits of a plan whose donor is opened for another edit of their chunk, so that it costs nothing again."""
    if plan.settings["source"] != "real":
        return 0
    return int(plan.table.duplicated(["chunk", "donor"]).sum())


def estimate(
    backend: Backend,
    plan: Plan,
    faces: FaceDataset | None,
    *,
    prior_steps: int,
    pairs: bool,
    own_size: bool,
    trips: int = 0,
) -> Cost:
    """Price a plan.

    Args:
        backend: its network is timed for a moment.
        plan: what is to be done.
        faces: the dataset, or ``None``.
        prior_steps: network evaluations of a decode in prior mode.
        pairs: whether prior mode decodes donors that do not enter the dataset.
        own_size: whether edits are as large as their donors.
        trips: originals that pass through the editor.
    """
    images = len(plan) + int(plan.table["keep_donor"].sum())
    if plan.settings["source"] == "real":
        opened = len(plan) - opened_before(plan)
        evaluations = opened * backend.evaluations_to_open + len(plan) * EXPECTED_TRIES * backend.evaluations_to_render
    else:
        seen = pairs or images > len(plan)
        a_donor, a_try = backend.evaluations_to_draw(prior_steps) if seen else (0, prior_steps)
        evaluations = len(plan) * (a_donor + EXPECTED_TRIES * a_try)
        if faces is None:
            evaluations += SAMPLED_FACES * prior_steps
    evaluations += evaluations_of(trips, backend)
    seconds = backend.seconds_per_evaluation() if len(plan) else None
    minutes = None if seconds is None else round(evaluations * seconds * OVERHEAD / 60, 2)
    pictures = images + plan.num_copies + (0 if faces is None else len(faces.table))
    small = backend.image_size**2 * BYTES_PER_PIXEL
    typical = small if faces is None else median_bytes(faces, otherwise=small)
    edited = typical if own_size and plan.settings["source"] == "real" else small
    megabytes = ((pictures - images) * typical + images * edited) / 1e6
    return Cost(images + plan.num_copies, round(evaluations), minutes, round(megabytes, 2))
