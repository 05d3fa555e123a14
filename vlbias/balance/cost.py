"""What a plan will cost on this machine: counted, then multiplied by one small timing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from vlbias.balance.judges import SAMPLED_FACES
from vlbias.balance.plan import Cost, Plan
from vlbias.balance.round_trip import evaluations_of
from vlbias.balance.written import median_bytes

if TYPE_CHECKING:
    from vlbias.editor import Editor

__all__ = ["estimate", "seconds_per_evaluation"]

# Tries that an edit takes in the mean: some are walked again, some donors are replaced.
EXPECTED_TRIES = 1.3
# The encoder and the judges beside the UNet.
OVERHEAD = 1.1
# A PNG of a face.
BYTES_PER_PIXEL = 2.0


def estimate(
    editor: Editor, plan: Plan, faces: Any | None, *, prior_steps: int, pairs: bool, own_size: bool, trips: int = 0
) -> Cost:
    """Price a plan.

    Args:
        editor: its UNet is timed for a moment.
        plan: what is to be done.
        faces: the dataset, or ``None``.
        prior_steps: network evaluations of a decode in prior mode.
        pairs: whether prior mode decodes donors that do not enter the dataset.
        own_size: whether edits are as large as their donors.
        trips: originals that pass through the editor.
    """
    settings = editor.settings
    images = len(plan) + int(plan.table["keep_donor"].sum())
    if plan.settings["source"] == "real":
        once = settings.evaluations_per_edit - settings.decode_steps
        evaluations = len(plan) * (once + EXPECTED_TRIES * settings.decode_steps)
    else:
        donors = 1 if pairs or images > len(plan) else 0
        evaluations = len(plan) * prior_steps * (EXPECTED_TRIES + donors)
        if faces is None:
            evaluations += SAMPLED_FACES * prior_steps
    evaluations += evaluations_of(trips, settings)
    minutes = None
    if len(plan):
        minutes = round(evaluations * seconds_per_evaluation(editor) * OVERHEAD / 60, 2)
    pictures = images + (0 if faces is None else len(faces.table))
    small = editor.image_size**2 * BYTES_PER_PIXEL
    typical = small if faces is None else median_bytes(faces, otherwise=small)
    edited = typical if own_size and plan.settings["source"] == "real" else small
    megabytes = ((pictures - images) * typical + images * edited) / 1e6
    return Cost(images, round(evaluations), minutes, round(megabytes, 2))


def seconds_per_evaluation(editor: Editor, batch_size: int = 8) -> float:
    """Seconds of one single-image evaluation of the UNet, in batches; the editor's own count is left as it was."""
    batch_size = min(batch_size, editor.settings.batch_size)
    x_T = editor.noise(range(batch_size))
    before = editor.diffae.evaluations
    seconds = []
    with torch.no_grad():
        z_sem = editor.diffae.encode(x_T.clamp(-1, 1))
        for _ in range(2):  # the first call also pays for one-time work
            start = time.perf_counter()
            editor.diffae.decode(z_sem, x_T, num_steps=1)
            if x_T.is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    editor.diffae.evaluations = before
    return min(seconds) / batch_size
