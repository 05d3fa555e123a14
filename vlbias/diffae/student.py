"""A few-step student: a UNet that makes edits along the inversion in fewer evaluations than its teacher needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vlbias import checkpoints
from vlbias.arguments import checked_call
from vlbias.diffae.model import DiffAE, with_unet
from vlbias.diffae.unet import UNet
from vlbias.errors import CheckpointError, ConfigError
from vlbias.files import AnyPath, draft_folder, read_object, write_json
from vlbias.settings import Settings, number

__all__ = ["Student"]

_WEIGHTS = "unet.safetensors"


@dataclass(frozen=True)
class _Described(Settings):
    """``config.json`` of a student."""

    edit_evaluations: int = number(low=1, high=1000)


@dataclass(frozen=True, eq=False)
class Student:
    """What :func:`vlbias.diffae.distillation.train_student` makes of an autoencoder. It serves edits alone.

    Attributes:
        model: the teacher with another UNet; encoder, prior and statistics are the teacher's own.
        edit_evaluations: network evaluations of an edit there, and as many back. With any other number the student
            knows less than its teacher.
    """

    model: DiffAE
    edit_evaluations: int

    @checked_call
    def save_pretrained(self, folder: AnyPath, dtype: torch.dtype | None = torch.float16) -> None:
        """Write ``config.json`` and ``unet.safetensors``; ``dtype=None`` keeps the weights as they are.

        Raises:
            OutputError: the folder cannot be written.
        """
        with draft_folder(folder) as draft:
            checkpoints.save_tensors(draft / _WEIGHTS, self.model.unet.state_dict(), dtype)
            write_json(draft / "config.json", _Described(self.edit_evaluations).to_dict())
            checkpoints.write_manifest(draft)

    @classmethod
    @checked_call
    def from_pretrained(cls, folder: AnyPath, teacher: DiffAE) -> Student:
        """Load a folder written by :meth:`save_pretrained`, onto the teacher's device.

        Raises:
            CheckpointError: a file is missing or changed, or the weights are not those of a UNet like the teacher's.
        """
        folder = checkpoints.whole_folder(folder)
        try:
            described = _Described.from_dict(read_object(folder / "config.json"))
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
        with torch.device("meta"):
            unet = UNet(teacher.config)
        checkpoints.fill(unet, checkpoints.load_tensors(folder / _WEIGHTS), str(folder / _WEIGHTS), assign=True)
        unet.to(teacher.device).eval().requires_grad_(False)
        return cls(with_unet(teacher, unet), described.edit_evaluations)
