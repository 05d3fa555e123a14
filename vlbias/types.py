"""What the library asks of models that are not its own.

A :class:`vlbias.Balancer` plans, verifies, resumes and reports; the pictures come from a *back end*. The library's own
is :class:`vlbias.rendering.Renderer` (a diffusion autoencoder with learned paths). Any other generator takes its place
by subclassing :class:`Backend`; ``examples/other_generator.py`` does so with a diffusers pipeline.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from vlbias.errors import CheckpointError, ConfigError, unknown
from vlbias.paths import Dipole

__all__ = ["Backend", "Quality", "Strengths", "Traced"]

#: Path -> calibrated strength, one number for all faces or one for each (b,); + moves towards the positive pole.
Strengths = Mapping[str, float | torch.Tensor]

#: How near an edit comes to one of many evaluations: a preview, what is written as a rule, or no visible difference.
Quality = Literal["draft", "standard", "exact"]


@dataclass(frozen=True)
class Traced:
    """What a back end keeps of faces that it is about to edit, however often.

    Attributes:
        x_T: stochastic codes (b, ...): the detail that ``z_sem`` leaves open.
        residuals: (b, ...) what is added on the way so that an unedited code shows the face itself; ``None`` for a back
            end that needs none.
        on_drawn_way: whether :meth:`Backend.draw` made the faces on it; otherwise it was traced for edits.
    """

    x_T: torch.Tensor
    residuals: torch.Tensor | None = None
    on_drawn_way: bool = False


class Backend(Protocol):
    """A model that edits faces, as the balancer sees it.

    Faces are float32 (b, 3, h, w) in [-1, 1] with h = w = ``image_size``; codes are float (b, d). Batches have any
    size: a back end splits them as its memory asks. Every method is a pure function of its arguments, so that a run can
    be resumed and shared between machines.

    Attributes:
        name: for provenance and messages.
        license: of the weights; ``None`` where it is not stated.
        image_size: edge in pixels of the faces that go in and come out.
        layout: how faces lie in them, a key of ``vlbias.alignment.LAYOUTS``.
        device: where tensors are expected.
        batch_size: faces that it is convenient to hand over together.
        attributes: the paths that :meth:`walk` knows.
        dipoles: path or reading -> its two poles in words.
        evaluations: network evaluations so far, counted in single faces; it only grows.
        evaluations_to_open: what one :meth:`trace` costs for one face, for the price of a plan.
        evaluations_to_render: what one :meth:`render` costs for one face.
        adds_difference: whether :meth:`render` puts the change on the donor's own pixels. Such a change can be made
            smaller or larger without another evaluation.
        varied: how much its edits differ in how far they go where nobody asks, see ``vlbias.balance.Checks``.
        can_read_pictures: whether :meth:`score` and :meth:`features` work.
        can_sample: whether :meth:`sample_codes`, :meth:`noise` and :meth:`decode` work.
    """

    name: str
    license: str | None = None
    image_size: int
    layout: str = "ffhq"
    device: torch.device = torch.device("cpu")
    batch_size: int = 32
    attributes: Sequence[str]
    dipoles: Mapping[str, Dipole]
    evaluations: int = 0
    evaluations_to_open: int = 0
    evaluations_to_render: int = 1
    adds_difference: bool = False
    varied: float = 0.0
    can_read_pictures: bool = False
    can_sample: bool = False

    # -- needed -------------------------------------------------------------------------------------------------------

    def fingerprint(self) -> Mapping[str, object]:
        """Everything that decides a pixel or a verdict, as plain values: settings, and a hash of the weights.

        A run is resumed by a back end of the same fingerprint alone.
        """
        ...

    def encode(self, x_0: torch.Tensor) -> torch.Tensor:
        """Faces (b, 3, h, w) => semantic codes (b, d): what attributes and identity are read from."""
        ...

    def walk(self, z_sem: torch.Tensor, strengths: Strengths) -> torch.Tensor:
        """Codes (b, d) => codes moved along paths, all of them at once; cheap, for it is tried many times a face.

        Raises:
            UnknownNameError: no path of that name.
        """
        ...

    def render(self, x_0: torch.Tensor, z_sem: torch.Tensor, z_edit: torch.Tensor, traced: Traced) -> torch.Tensor:
        """Show the change from ``z_sem`` to ``z_edit`` on the donors.

        Args:
            x_0: donors (b, 3, h, w).
            z_sem: their codes (b, d).
            z_edit: walked codes (b, d).
            traced: of :meth:`trace`.

        Returns:
            Edited faces (b, 3, h, w) in [-1, 1]; where a code did not move, the donor itself.
        """
        ...

    # -- with a default -----------------------------------------------------------------------------------------------

    def seconds_per_evaluation(self) -> float | None:
        """Time of one evaluation for one face, for the price of a plan; ``None`` where it is not measured."""
        return None

    def at_quality(self, quality: Quality) -> Backend:
        """The same back end at another quality: ``draft`` for previews, ``standard``, or ``exact``.

        Raises:
            ConfigError: it has ``standard`` alone.
        """
        if quality == "standard":
            return self
        raise ConfigError(f"'{self.name}' renders at one quality. Use quality='standard'; got {quality!r:.60}.")

    def normalize(self, z_sem: torch.Tensor) -> torch.Tensor:
        """Codes => codes whose dimensions weigh alike, in which identity is measured."""
        return z_sem

    def trace(self, x_0: torch.Tensor, z_sem: torch.Tensor) -> Traced:
        """What :meth:`render` needs of faces, made once for all their walks. Nothing, by default."""
        return Traced(torch.zeros_like(x_0))

    def correction(
        self,
        z_sem: torch.Tensor,
        z_edit: torch.Tensor,
        z_found: torch.Tensor,
        asked: Sequence[Collection[str]],
        *,
        complete: bool = False,
    ) -> torch.Tensor | None:
        """What to add to walked codes so that pictures show what the walks meant.

        Args:
            z_sem: codes of the donors (b, d).
            z_edit: walked codes (b, d).
            z_found: what :meth:`encode` reads in the rendered pictures (b, d).
            asked: for each face the attributes that were to move; all others are brought back to the donor.
            complete: whether the asked attributes, too, are brought to what ``z_edit`` says. Without it they are left
                to whoever decides how far a face walks.

        Returns:
            Changes of the codes (b, d); ``None`` for a back end that cannot correct.
        """
        return None

    def effects(self, names: Sequence[str]) -> torch.Tensor | None:
        """What attributes do to a normalised code (k, d), for those of ``names`` that are known; ``None`` for none."""
        return None

    def probe(self, z_sem: torch.Tensor, name: str) -> torch.Tensor:
        """Probability (b,) of a dipole's positive pole, read from codes.

        Raises:
            UnknownNameError: no probe of that name. A linear reading is then fitted to the dataset's own labels.
        """
        raise unknown("probe", name, [], where=self.name)

    def score(self, x_0: torch.Tensor, name: str) -> torch.Tensor:
        """Probability (b,) of a dipole's positive pole, read from pictures by a network of text and images.

        Raises:
            CheckpointError: there is none.
        """
        raise CheckpointError(f"'{self.name}' has no CLIP to read texts with. Load it with clip=...")

    def features(self, x_0: torch.Tensor) -> torch.Tensor:
        """Unit features (b, e) of pictures, which linear readings are fitted to.

        Raises:
            CheckpointError: there are none.
        """
        raise CheckpointError(f"'{self.name}' has no CLIP to look at pictures with. Load it with clip=...")

    # -- to draw new faces (``source="prior"``) -----------------------------------------------------------------------

    def sample_codes(self, seeds: Sequence[int]) -> torch.Tensor:
        """Semantic codes (n, d) of new faces, one for each seed.

        Raises:
            CheckpointError: it cannot sample.
        """
        raise CheckpointError(f"'{self.name}' has no latent prior, so it cannot sample.")

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Fresh stochastic codes (n, ...), one for each seed.

        Raises:
            CheckpointError: it cannot sample.
        """
        raise CheckpointError(f"'{self.name}' cannot draw faces.")

    def decode(self, z_sem: torch.Tensor, x_T: torch.Tensor, *, num_steps: int | None = None) -> torch.Tensor:
        """Codes => faces (b, 3, h, w) in [-1, 1]; ``num_steps`` evaluations each, ``None`` for the usual number.

        Raises:
            CheckpointError: it cannot sample.
        """
        raise CheckpointError(f"'{self.name}' cannot draw faces.")

    def draw(self, z_sem: torch.Tensor, x_T: torch.Tensor, *, num_steps: int) -> tuple[torch.Tensor, Traced]:
        """:meth:`decode`, and what :meth:`trace` gives of these faces where it costs nothing more.

        Returns:
            Faces (b, 3, h, w); without residuals, edits of them are decoded from ``x_T``.

        Raises:
            CheckpointError: it cannot sample.
        """
        return self.decode(z_sem, x_T, num_steps=num_steps), Traced(x_T)

    def evaluations_to_draw(self, num_steps: int) -> tuple[int, int]:
        """What one :meth:`draw` costs for one face, and an edit of that face, for the price of a plan."""
        return num_steps, num_steps
