"""A network on faces with all that it takes to ask it: how pictures are cut for it, what its outputs mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from vlbias.errors import ConfigError, ShapeError
from vlbias.files import sha256_json
from vlbias.networks.inputs import FaceInput
from vlbias.networks.outputs import FaceOutput

__all__ = ["FaceNetwork"]


@dataclass(frozen=True)
class FaceNetwork:
    """A network that reads something from faces: who it is, a label, or a number.

    Attributes:
        name: for messages and reports, such as its file's name.
        run: input (b, 3, size, size), float32, as ``input`` makes it => outputs (b, n). Any function of your own.
        input: how pictures are cut and normalised.
        output: what the outputs mean; an embedding by default.
        digest: hash of its files, so that a run is not resumed with another network; "" for a function.
        batch_size: pictures that it sees together; it changes speed and memory alone.

    Example:
        >>> mean_grey = FaceNetwork("grey", lambda x: x.mean(dim=(1, 2, 3))[:, None], FaceInput(size=8, mean=0, std=1))
        >>> mean_grey.outputs(torch.ones(2, 3, 16, 16), layout="ffhq").tolist()
        [[255.0], [255.0]]
    """

    name: str
    run: Callable[[torch.Tensor], Any] = field(repr=False)
    input: FaceInput
    output: FaceOutput = field(default_factory=FaceOutput)
    digest: str = ""
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"`batch_size` must be >= 1; got {self.batch_size}.")

    @torch.no_grad()
    def outputs(self, x: torch.Tensor, *, layout: str) -> torch.Tensor:
        """What the network gives for pictures.

        Args:
            x: (b, 3, h, w) in [-1, 1], any size.
            layout: how faces lie in them, a key of ``vlbias.alignment.LAYOUTS``.

        Returns:
            float64 (b, n) on the CPU; NaN where the network gives it.

        Raises:
            ShapeError: the pictures or the outputs have another shape.
        """
        rows = []
        for part in x.split(self.batch_size) if len(x) else ():
            found = torch.as_tensor(self.run(self.input(part, layout=layout))).detach().cpu()
            if found.ndim != 2 or len(found) != len(part) or not found.shape[1]:
                raise ShapeError(f"{self.name} gave {tuple(found.shape)} for {len(part)} pictures; expected (b, n).")
            rows.append(found.double())
        return torch.cat(rows) if rows else torch.empty(0, 0, dtype=torch.float64)

    def embeddings(self, x: torch.Tensor, *, layout: str) -> torch.Tensor:
        """Pictures => unit vectors (b, n), float64; a vector of zeros or NaN gives NaN. See :meth:`outputs`."""
        raw = self.outputs(x, layout=layout)
        return torch.where(raw.norm(dim=1, keepdim=True) > 0, F.normalize(raw, dim=1, eps=0), float("nan"))

    def probabilities(self, x: torch.Tensor, *, layout: str) -> torch.Tensor:
        """Pictures => float64 (b, number of ``output.labels``), rows sum to one. See :meth:`outputs`."""
        return self._said(self.output.probabilities, x, layout)

    def numbers(self, x: torch.Tensor, *, layout: str) -> torch.Tensor:
        """Pictures => float64 (b,), in the unit of ``output.values``. See :meth:`outputs`."""
        return self._said(self.output.numbers, x, layout)

    def _said(self, read: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, layout: str) -> torch.Tensor:
        try:
            return read(self.outputs(x, layout=layout))
        except ShapeError as error:
            raise ShapeError(f"{self.name}: {error}") from error

    @property
    def fingerprint(self) -> str:
        """Its name with a short hash of all that decides its readings: files, preprocessing, meaning of the outputs."""
        decided = sha256_json([self.digest, asdict(self.input), asdict(self.output)])
        return f"{self.name} ({decided[:16]})"
