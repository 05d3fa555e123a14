"""Rendering: faces to codes, codes along paths, codes back to faces. Tensors in, tensors out.

This is the library's own :class:`vlbias.types.Backend`: a diffusion autoencoder, paths in its semantic space, linear
probes that read attributes there, and a CLIP that reads pictures. :class:`vlbias.Editor` puts pictures before it and
files behind it; :class:`vlbias.Balancer` drives it face by face.
"""

from __future__ import annotations

import functools
import math
import numbers
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Literal, TypeVar

import torch
from einops import rearrange, repeat

from vlbias.alignment import LAYOUTS
from vlbias.arguments import checked_call
from vlbias.checkpoints import list_checkpoints, weights_digest
from vlbias.clip import Clip
from vlbias.diffae import DiffAE, Student, seeded_noise
from vlbias.diffae.evaluation import psnr
from vlbias.errors import CheckpointError, ConfigError, ImageError, OutOfRangeWarning, unknown
from vlbias.paths import Dipole, PathSet, PathTrainingSettings, Probes, extend_paths
from vlbias.settings import Settings, checked_number, number
from vlbias.types import Backend, Quality, Strengths, Traced

__all__ = ["Qualities", "RenderSettings", "Renderer", "read_varied"]

Found = TypeVar("Found")

# What qualities change; measured on the shipped editors.
_DRAFT = {"edit_steps": 1, "invert_steps": 4, "decode_steps": 4}
_EXACT = {"edit_steps": 50, "invert_steps": 48, "decode_steps": 48}

#: A picture that is rebuilt worse than faces of the editor's own kind by more than this is none of them. Measured: the
#: editor of drawn faces knows 5 of 100 photographs so, and all of 120 drawn faces; the one of photographs 98 of 100.
UNKNOWN_DB = 5.0
# Faces of its own that an editor is measured on, and network evaluations of such a decode.
_REBUILD_FACES, _REBUILD_STEPS = 8, 3
_REBUILD_SEED = 100  # of other noise than its own faces are drawn from
#: Faces read within so much calibrated strength of the mean face, to either side. Measured on 200 drawn faces: -0.64 to
#: +0.87 by age, -0.85 to +0.79 by skin tone; an edit that reads beyond 1.1 is washed out.
KNOWN_STRENGTH = 1.1
#: Longest walk that is allowed, in calibrated strength: beyond it codes leave what the autoencoder has seen.
MAX_STRENGTH = 4.0


@dataclass(frozen=True)
class RenderSettings(Settings):
    """How codes become pictures.

    Attributes:
        invert_steps: network evaluations of the inversion x_0 -> x_T, 1..1000.
        decode_steps: network evaluations of a decode, 1..1000.
        edit_steps: with ``method="difference"``, levels of noise from the picture to pure noise, 1..1000. The first and
            the last need no evaluation: there are ``edit_evaluations`` there, and as many back.
        solver: solver of both directions, see ``DiffAE.decode``.
        method: ``"decode"`` inverts a donor and decodes the edited code; ``"difference"`` adds what the edit changes to
            the donor, along the inversion (:func:`vlbias.diffae.multistep.retrace`), which keeps detail that the
            autoencoder loses and needs fewer steps.
        corrections: how often :meth:`Renderer.edit` reads an edit back and corrects it, 0..100; each time costs one
            more decode and one encoding.
        batch_size: faces that go through the network together, >= 1; it changes speed and memory alone.
    """

    invert_steps: int = number(12, 1, 1000)
    decode_steps: int = number(12, 1, 1000)
    edit_steps: int = number(5, 1, 1000)
    solver: Literal["ddim", "dpm++2m"] = "dpm++2m"
    method: Literal["decode", "difference"] = "difference"
    corrections: int = number(1, 0, 100)
    batch_size: int = number(32, 1, 65_536)

    @property
    def edit_evaluations(self) -> int:
        """Network evaluations of an edit along the inversion, there, and as many back."""
        return max(1, self.edit_steps - 2)

    @property
    def evaluations_per_edit(self) -> int:
        """Network evaluations for one edited face, the inversion included, corrections not."""
        return 2 * self.edit_evaluations if self.method == "difference" else self.invert_steps + self.decode_steps


@dataclass(frozen=True)
class Qualities(Settings):
    """What other qualities than ``standard`` change of an editor's :class:`RenderSettings`.

    The defaults are those of the shipped editors, measured by ``benchmarks/solvers.py``. An editor that needs others
    says so in its ``config.json``, as ``{"qualities": {"draft": {"edit_steps": 3}}}``.

    Attributes:
        draft: for previews; drawn faces are 30 dB from an edit of 60 evaluations a direction, photographs 36 dB.
        exact: of 1,000 pixels' values no more than one is further than half a grey level from that edit.
    """

    draft: Mapping[str, int] = field(default_factory=lambda: dict(_DRAFT))
    exact: Mapping[str, int] = field(default_factory=lambda: dict(_EXACT))

    def __post_init__(self) -> None:
        super().__post_init__()
        for changes in (self.draft, self.exact):
            RenderSettings.from_dict(changes)  # refused before anything is edited


class Renderer(Backend):
    """A diffusion autoencoder with its paths, probes and CLIP, ready to edit tensors of faces.

    Args:
        diffae: the autoencoder.
        clip: reads pictures against texts; ``None`` where nobody needs that.
        paths: paths in the autoencoder's semantic space; ``None`` to encode and decode only.
        probes: linear readings of attributes from codes.
        settings: steps and solver; ``None`` for the defaults.
        info: what the checkpoint says of itself (name, license, layout, trained_on, ...).
        student: makes the edits of as many evaluations as it was trained for, with ``method="difference"`` and
            ``solver="dpm++2m"``; the autoencoder makes all others, inverts and decodes. ``None`` for none.

    Raises:
        CheckpointError: paths for codes of another size, or a student of another architecture.
        ConfigError: ``info`` has qualities that are none, or ``varied`` out of range.
    """

    @checked_call
    def __init__(
        self,
        diffae: DiffAE,
        *,
        clip: Clip | None = None,
        paths: PathSet | None = None,
        probes: Probes | None = None,
        settings: RenderSettings | None = None,
        info: Mapping[str, object] | None = None,
        student: Student | None = None,
    ):
        if paths is not None and paths.dim != diffae.config.embed_channels:
            raise CheckpointError(
                f"the paths are for codes of {paths.dim} numbers, the autoencoder makes "
                f"{diffae.config.embed_channels}; they belong to different checkpoints."
            )
        if student is not None and replace(student.model.config, prior=None) != replace(diffae.config, prior=None):
            raise CheckpointError("the student is that of an autoencoder of another architecture; distil one anew.")
        self.diffae = diffae.eval()
        self.clip, self.paths, self.probes, self.student = clip, paths, probes, student
        self.settings = settings or RenderSettings()
        self.info = dict(info or {})
        self.qualities = Qualities.from_dict(self.info.get("qualities", {}))  # type: ignore[arg-type]  # it is checked
        self.varied = read_varied(self.info)
        self.name = str(self.info.get("name", "unnamed"))
        self.license = str(self.info["license"]) if self.info.get("license") else None
        self.image_size = diffae.config.image_size
        self.layout = _layout(self.info)
        self.device = diffae.device
        self.batch_size = self.settings.batch_size
        self.attributes = [] if paths is None else list(paths.names)
        known = {} if probes is None else dict(probes.dipoles)
        self.dipoles: dict[str, Dipole] = known | ({} if paths is None else dict(paths.dipoles))
        #: Keywords that ``vlbias.editor_folder.read_editor`` opened it with; ``None`` where it was put together.
        self.source: Mapping[str, object] | None = None
        self.evaluations = 0
        self.adds_difference = self.settings.method == "difference"
        self.evaluations_to_render = (
            self.settings.edit_evaluations if self.adds_difference else self.settings.decode_steps
        )
        #: What traces and retraces: the student where it serves.
        serves = student is not None and student.edit_evaluations == self.settings.edit_evaluations
        serves = serves and self.adds_difference and self._order == 2
        self._editing = student.model if student is not None and serves else self.diffae
        self.evaluations_to_open = self.settings.evaluations_per_edit - self.evaluations_to_render
        self.can_read_pictures = clip is not None
        self.can_sample = diffae.prior is not None

    def changed(
        self,
        *,
        paths: PathSet | None = None,
        probes: Probes | None = None,
        settings: RenderSettings | None = None,
        student: Student | None = None,
    ) -> Renderer:
        """The same networks with other paths, probes, settings or student; ``None`` keeps what is there."""
        other = Renderer(
            self.diffae,
            clip=self.clip,
            paths=paths or self.paths,
            probes=probes or self.probes,
            settings=settings or self.settings,
            info=self.info,
            student=student or self.student,
        )
        other.source = self.source if paths is None and probes is None and student is None else None
        return other

    @checked_call
    def at_quality(self, quality: Quality) -> Renderer:
        """See :meth:`vlbias.types.Backend.at_quality`; ``standard`` is what :attr:`settings` say."""
        if quality == "standard":
            return self
        return self.changed(settings=replace(self.settings, **getattr(self.qualities, quality)))

    def fingerprint(self) -> dict[str, object]:
        """See :meth:`vlbias.types.Backend.fingerprint`."""
        paths, clip = self.paths, self.clip
        student = None if self._editing is self.diffae else self._editing.unet
        return {
            "weights": weights_digest(self.diffae, paths, self.probes, clip, student),
            "render": asdict(self.settings),
            "diffae": self.diffae.config.to_dict(),
            "paths": None if paths is None else {"space": paths.space, "step_size": paths.step_size},
            "clip": None if clip is None else clip.preprocess.to_config(),
            "dipoles": {name: dipole.to_list() for name, dipole in self.dipoles.items()},
        }

    def seconds_per_evaluation(self, batch_size: int = 8) -> float:
        """Time of one single-face evaluation of the UNet, in batches; not counted as an evaluation."""
        x_T = self.noise(range(min(batch_size, self.batch_size)))
        seconds = []
        with torch.no_grad():
            z_sem = self.diffae.encode(x_T.clamp(-1, 1))
            t = torch.zeros(len(x_T), dtype=torch.int64, device=x_T.device)
            for _ in range(2):  # the first call also pays for one-time work
                start = time.perf_counter()
                self.diffae(x_T, t, z_sem)  # without a solver, which may take a second to be loaded
                if x_T.is_cuda:
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
        return min(seconds) / len(x_T)

    # -- codes --------------------------------------------------------------------------------------------------------

    def encode(self, x_0: torch.Tensor) -> torch.Tensor:
        """Faces (b, 3, h, w) in [-1, 1] => semantic codes z_sem (b, d), as the encoder gives them."""
        return self._batched(self.diffae.encode, x_0)

    def invert(self, x_0: torch.Tensor, z_sem: torch.Tensor) -> torch.Tensor:
        """Faces and their semantic codes => stochastic codes x_T (b, 3, h, w), by DDIM inversion."""
        steps = self.settings.invert_steps
        self.evaluations += steps * len(x_0)
        return self._batched(
            lambda x, z: self.diffae.invert(x, z, num_steps=steps, solver=self.settings.solver), x_0, z_sem
        )

    def decode(self, z_sem: torch.Tensor, x_T: torch.Tensor, *, num_steps: int | None = None) -> torch.Tensor:
        """Codes (b, d) and (b, 3, h, w) => faces (b, 3, h, w) in [-1, 1].

        Args:
            z_sem, x_T: the codes.
            num_steps: network evaluations for each face; ``None`` for the settings' ``decode_steps``.
        """
        steps = num_steps or self.settings.decode_steps
        self.evaluations += steps * len(z_sem)
        return self._batched(
            lambda z, x: self.diffae.decode(z, x, num_steps=steps, solver=self.settings.solver), z_sem, x_T
        )

    def draw(self, z_sem: torch.Tensor, x_T: torch.Tensor, *, num_steps: int) -> tuple[torch.Tensor, Traced]:
        """See :meth:`vlbias.types.Backend.draw`; fewer than 4 steps have no way between their ends."""
        if self._student_draws(num_steps):  # a student's way is its own
            drawn = self.decode(z_sem, x_T, num_steps=num_steps)
            return drawn, self.trace(drawn, z_sem)
        if not self.adds_difference or num_steps < 4:
            return super().draw(z_sem, x_T, num_steps=num_steps)
        self.evaluations += num_steps * len(z_sem)
        parts = self._batches(partial(self.diffae.draw, num_steps=num_steps, order=self._order), z_sem, x_T)
        x_0, traced = zip(*parts, strict=True)
        found, residuals = map(torch.cat, zip(*traced, strict=True))
        return torch.cat(x_0), Traced(found, residuals, on_drawn_way=True)

    def evaluations_to_draw(self, num_steps: int) -> tuple[int, int]:
        """See :meth:`vlbias.types.Backend.evaluations_to_draw`; an edit spends nothing at the ends of a drawn way."""
        if self._student_draws(num_steps):
            return num_steps + self.evaluations_to_open, self.evaluations_to_render
        return num_steps, self._on_drawn_way(num_steps)

    def _student_draws(self, num_steps: int) -> bool:
        """Whether a student edits faces drawn in so many steps: where the way they were drawn on costs no less."""
        serves = self._editing is not self.diffae
        return serves and self.settings.evaluations_per_edit <= self._on_drawn_way(num_steps)

    def _on_drawn_way(self, num_steps: int) -> int:
        return num_steps - 2 if self.adds_difference and num_steps > 3 else num_steps

    def normalize(self, z_sem: torch.Tensor) -> torch.Tensor:
        """z_sem => codes of mean 0 and deviation 1 in each dimension."""
        return self.diffae.normalize(z_sem.to(self.device))

    def sample_codes(self, seeds: Sequence[int]) -> torch.Tensor:
        """Semantic codes (n, d) from the latent prior, one for each seed; nothing is decoded.

        Raises:
            CheckpointError: the autoencoder has no prior.
        """
        prior = self.diffae.prior
        if prior is None:
            raise CheckpointError(
                f"'{self.name}' has no latent prior, so it cannot sample. Train one: vlbias train prior."
            )
        noise = seeded_noise(seeds, (self.diffae.config.embed_channels,)).to(self.device)
        with torch.no_grad():
            return self.diffae.denormalize(prior.sample(noise))

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Fresh stochastic codes x_T (n, 3, h, w), one for each seed."""
        # Apart from the seeds' use for z_sem, or both codes would start with the same numbers.
        shifted = [seed + 2**40 for seed in seeds]
        return seeded_noise(shifted, (3, self.image_size, self.image_size)).to(self.device)

    # -- what it knows ------------------------------------------------------------------------------------------------

    def rebuild_db(self, x_0: torch.Tensor, z_sem: torch.Tensor) -> torch.Tensor:
        """How well faces are rebuilt from their semantic codes alone: PSNR in dB (b,); a few evaluations each.

        With their own stochastic codes all pictures come back well. From fresh ones, only what the autoencoder knows.
        """
        noise = self.noise(range(_REBUILD_SEED, _REBUILD_SEED + len(x_0)))
        fresh = self.decode(z_sem, noise, num_steps=_REBUILD_STEPS)
        return psnr(fresh, x_0.to(fresh.device))

    @functools.cached_property
    def usual_rebuild_db(self) -> float | None:
        """The median of :meth:`rebuild_db` for faces of its own; ``None`` without a prior to draw some from.

        An editor's folder holds it as it was when it was saved: measuring takes longer than an edit.
        """
        saved, render = self.info.get("usual_rebuild_db"), self.info.get("render")
        if isinstance(saved, float) and isinstance(render, dict) and render.get("solver") == self.settings.solver:
            return saved
        if not self.can_sample:
            return None
        seeds = range(_REBUILD_FACES)
        own = self.decode(self.sample_codes(seeds), self.noise(seeds), num_steps=2 * _REBUILD_STEPS)
        return float(self.rebuild_db(own, self.encode(own)).median())

    def check_known(self, x_0: torch.Tensor, hint: str = "") -> None:
        """Refuse pictures (b, 3, h, w) that are rebuilt much worse than faces of the editor's own kind.

        Args:
            x_0: the pictures.
            hint: a further remedy, for the message.

        Raises:
            ImageError: says which picture, and what the editor was made for.
        """
        usual = self.usual_rebuild_db
        if usual is None:
            return
        rebuilt = self.rebuild_db(x_0, self.encode(x_0))
        worst = int(rebuilt.argmin())
        if rebuilt[worst] >= usual - UNKNOWN_DB:
            return
        which = "the picture" if len(x_0) == 1 else f"picture {worst + 1} of {len(x_0)}"
        others = [name for name in list_checkpoints() if name != self.name]
        raise ImageError(
            f"{which} is not of the kind that editor '{self.name}' was made for"
            f" ({self.info.get('trained_on', 'see its config.json')}): it rebuilds it with "
            f"{float(rebuilt[worst]):.0f} dB, faces of its own kind with {usual:.0f} dB",
            code="other_kind",
            remedy=f"Use another editor{f' (--editor {others[0]})' if others else ''}, {hint}or edit it all the same "
            "with check=False (--any-picture).",
        )

    def warn_beyond(self, z_sem: torch.Tensor, strengths: Mapping[str, float]) -> None:
        """Warn of a walk that ends beyond the faces that the editor knows, and say how far it may go.

        Probes read how far, in units of strength; see :data:`KNOWN_STRENGTH`.

        Args:
            z_sem: codes (b, d) of the faces that are to be walked.
            strengths: of each path, as for :meth:`walk`.

        Warns:
            OutOfRangeWarning: of the face that is led furthest, with the strength that stays inside.
        """
        for name, strength in strengths.items():
            if self.probes is None or name not in self.probes.names or not strength:
                continue
            column = self.probes.index(name)
            before = self.probes.logits(z_sem.to(self.device))[:, column]
            change = self.probes.logits(self.walk(z_sem, {name: strength}))[:, column] - before
            edge = self.probes.bias[column] + KNOWN_STRENGTH * change / abs(strength)
            # A reading changes nearly in proportion to the strength.
            share = ((edge - before) / change).nan_to_num(1.0).clamp(0, 1)
            least = int(share.argmin())
            if share[least] == 1:
                continue
            which = f"face {least + 1} of {len(z_sem)}" if len(z_sem) > 1 else "this face"
            warnings.warn(
                f"{name}={strength:+g} leads {which} beyond those that editor '{self.name}' knows, so the picture may "
                f"be washed out or unlike any face. {name}="
                f"{math.trunc(100 * strength * float(share[least])) / 100:+g} stays inside.",
                OutOfRangeWarning,
                stacklevel=3,
            )

    # -- editing ------------------------------------------------------------------------------------------------------

    def edit(
        self,
        x_0: torch.Tensor,
        z_sem: torch.Tensor,
        strengths: Strengths,
        *,
        traced: Traced | None = None,
    ) -> torch.Tensor:
        """Walk, render, and correct what the picture does not show as the walk meant it.

        A decoded face shows a walk only nearly: a little less of what was asked, a trace of a beard that was not. So
        the edit is encoded again, :meth:`correction` says what is missing, and the face is rendered again,
        ``settings.corrections`` times. An editor without probes renders once. The balancer renders and corrects in the
        same way, but decides by its own scorers how far a face walks, and whether a correction is needed.

        Args:
            x_0, z_sem: see :meth:`render`.
            strengths: see :meth:`walk`.
            traced: the :meth:`trace` of the donors, if it was made.

        Returns:
            Edited faces (b, 3, h, w) in [-1, 1].
        """
        traced = traced or self.trace(x_0, z_sem)
        walked = z_edit = self.walk(z_sem, strengths)
        edited = self.render(x_0, z_sem, z_edit, traced)
        for _ in range(self.settings.corrections):
            asked = [strengths.keys()] * len(z_sem)
            change = self.correction(z_sem, walked, self.encode(edited), asked, complete=True)
            if change is None:
                break
            z_edit = z_edit + change
            edited = self.render(x_0, z_sem, z_edit, traced)
        return edited

    def strip(self, x_0: torch.Tensor, name: str, strengths: torch.Tensor) -> torch.Tensor:
        """One face (1, 3, h, w) at strengths (n,) of a path, in their order from end to end: (n, 3, h, w)."""
        z_sem = self.encode(x_0)
        for end in (strengths[0], strengths[-1]):
            self.warn_beyond(z_sem, {name: float(end)})

        def repeated(tensor: torch.Tensor) -> torch.Tensor:
            return repeat(tensor, "1 ... -> n ...", n=len(strengths))

        traced = self.trace(x_0, z_sem)  # one face, traced once
        residuals = None if traced.residuals is None else repeated(traced.residuals)
        traced = Traced(repeated(traced.x_T), residuals)
        return self.edit(repeated(x_0), repeated(z_sem), {name: strengths}, traced=traced)

    def walk(self, z_sem: torch.Tensor, strengths: Strengths) -> torch.Tensor:
        """Move semantic codes (b, d) along paths, all of them at once; nothing is decoded.

        Args:
            z_sem: codes, raw (not normalised).
            strengths: for each path a number or (b,) numbers, calibrated.

        Raises:
            UnknownNameError: no path of that name.
        """
        for name in strengths:
            self.check_path(name)
        if self.paths is None or not strengths:
            return z_sem.clone()
        with torch.no_grad():
            return self.paths.walk(z_sem.to(self.device), strengths)

    def check_path(self, name: str) -> None:
        """Refuse an attribute that no path moves.

        Raises:
            UnknownNameError: no path of that name.
        """
        self._check_name("attribute", name, self.attributes)

    def check_strengths(self, strengths: Mapping[str, float]) -> None:
        """Refuse walks that no path makes, or that lead too far.

        Raises:
            UnknownNameError: no path of that name.
            ConfigError: a strength that is no finite number, or beyond :data:`MAX_STRENGTH`.
        """
        for name, strength in strengths.items():
            self.check_path(name)
            if isinstance(strength, bool) or not isinstance(strength, numbers.Real):
                raise ConfigError(f"strength of '{name}' must be a number; got {strength!r}.")
            if not math.isfinite(strength) or abs(strength) > MAX_STRENGTH:
                raise ConfigError(
                    f"strength of '{name}' must lie in [-{MAX_STRENGTH:g}, {MAX_STRENGTH:g}]; got {strength}."
                )

    def trace(self, x_0: torch.Tensor, z_sem: torch.Tensor) -> Traced:
        """What :meth:`render` needs of donors, whatever it makes of them; see :class:`vlbias.types.Traced`."""
        if not self.adds_difference:
            return Traced(self.invert(x_0, z_sem))
        steps = self.settings.edit_evaluations
        self.evaluations += steps * len(x_0)
        parts = self._batches(partial(self._editing.trace, num_steps=steps, order=self._order), x_0, z_sem)
        x_T, residuals = map(torch.cat, zip(*parts, strict=True))
        return Traced(x_T, residuals)

    def render(self, x_0: torch.Tensor, z_sem: torch.Tensor, z_edit: torch.Tensor, traced: Traced) -> torch.Tensor:
        """Show the change from ``z_sem`` to ``z_edit`` on the donors.

        Args:
            x_0: donors (b, 3, h, w) in [-1, 1].
            z_sem: their semantic codes (b, d).
            z_edit: the walked codes (b, d).
            traced: of :meth:`trace`.

        Returns:
            Edited faces (b, 3, h, w) in [-1, 1]; where a code did not move, the donor itself.
        """
        if traced.residuals is None:
            edited = self.decode(z_edit, traced.x_T)
        else:
            self.evaluations += traced.residuals.shape[1] * len(x_0)
            network = self.diffae if traced.on_drawn_way else self._editing
            edited = self._batched(partial(network.retrace, order=self._order), z_edit, traced.x_T, traced.residuals)
        still = (z_edit.to(z_sem.device) == z_sem).all(dim=1)
        return torch.where(rearrange(still, "b -> b 1 1 1").to(x_0.device), x_0, edited.to(x_0.device))

    def correction(
        self,
        z_sem: torch.Tensor,
        z_edit: torch.Tensor,
        z_found: torch.Tensor,
        asked: Sequence[Collection[str]],
        *,
        complete: bool = False,
    ) -> torch.Tensor | None:
        """What to add to walked codes so that the probes read what they should; see ``Backend.correction``.

        The codes are moved along the probes' effects. A correction is never longer than the walk itself: that would be
        another edit.
        """
        probes = self.probes
        if probes is None:
            return None
        with torch.no_grad():
            found, meant = probes.logits(z_found), probes.logits(z_edit)
            wanted = probes.logits(z_sem)
            for row, names in enumerate(asked):
                columns = [column for column, name in enumerate(probes.names) if name in names]
                wanted[row, columns] = (meant if complete else found)[row, columns]
            change = probes.shift(z_edit, wanted - found) - z_edit
            length = change.norm(dim=1).clamp_min(1e-12)
            longest = (z_edit - z_sem).norm(dim=1)
            return change * (longest / length).clamp(max=1).unsqueeze(1)

    # -- learning -----------------------------------------------------------------------------------------------------

    def check_new_path(self, name: str, reserved: Collection[str] = ()) -> None:
        """Refuse a name that a new path cannot have.

        Args:
            name: the name.
            reserved: arguments beside which the path's name is to stand.

        Raises:
            ConfigError: the name is taken or reserved, or is not an identifier.
        """
        if name in self.attributes:
            raise ConfigError(f"the editor has a path '{name}' already; choose another name.")
        if not name.isidentifier():
            raise ConfigError(f"a path name must be usable as an argument name (letters, digits, _); got '{name}'.")
        if name in reserved:
            raise ConfigError(f"'{name}' is an argument of Editor.edit itself; choose another name for the path.")

    def learned(
        self,
        name: str,
        dipole: Dipole,
        x_0: torch.Tensor,
        *,
        guards: Sequence[str] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Renderer:
        """The same networks with one path more, which two texts are enough to learn; see :meth:`vlbias.Editor.learn`.

        Args:
            name, dipole: of the path.
            x_0: faces (n, 3, h, w) to learn on.
            guards: dipoles that the path must leave alone; ``None`` for all that are known.
            settings: fields of ``vlbias.paths.PathTrainingSettings``; the network is that of the other paths.

        Raises:
            UnknownNameError: no dipole of a guard's name.
            CheckpointError: there is no CLIP.
        """
        others = {key: value for key, value in self.dipoles.items() if key != name}
        for guard in guards or ():
            if guard not in others:
                raise unknown("dipole", guard, others, where=self.name)
        alike = {} if self.paths is None else {"network": self.paths.network}
        paths, probes = extend_paths(
            self.diffae,
            self.need_clip(),
            {name: dipole},
            x_0.to(self.device),
            paths=self.paths,
            probes=self.probes,
            guards=others if guards is None else {key: others[key] for key in guards},
            settings=PathTrainingSettings.from_dict({**alike, **(settings or {})}),
        )
        return self.changed(paths=paths, probes=probes)

    # -- readings -----------------------------------------------------------------------------------------------------

    def effects(self, names: Sequence[str]) -> torch.Tensor | None:
        """What attributes do to a normalised code (k, d), others held, for those of ``names`` with a probe."""
        probes = self.probes
        known = [] if probes is None else [probes.names.index(name) for name in names if name in probes.names]
        if probes is None or not known:
            return None
        moved = probes.effects[known] * probes.std
        start = probes.mean.expand_as(moved)
        return self.normalize(start + moved) - self.normalize(start)

    def probe(self, z_sem: torch.Tensor, name: str) -> torch.Tensor:
        """The latent probe's probability (b,) of the positive pole for codes (b, d); nothing is decoded.

        Raises:
            UnknownNameError: no probe of that name.
        """
        probes = self.probes
        self._check_name("probe", name, [] if probes is None else probes.names)
        assert probes is not None  # it has one of that name
        with torch.no_grad():
            return probes.score(z_sem.to(self.device), name)

    def score(self, x_0: torch.Tensor, name: str) -> torch.Tensor:
        """CLIP's probability (b,) that each face (b, 3, h, w) is nearer the positive pole of a dipole.

        Raises:
            UnknownNameError: no dipole of that name.
            CheckpointError: there is no CLIP.
        """
        self._check_name("dipole", name, self.dipoles)
        clip, poles = self.need_clip(), self.dipoles[name].classes
        return self._batched(lambda x: clip.zero_shot(x, poles)[:, 0], x_0)

    def features(self, x_0: torch.Tensor) -> torch.Tensor:
        """CLIP's unit features (b, e) of faces (b, 3, h, w).

        Raises:
            CheckpointError: there is no CLIP.
        """
        with torch.no_grad():
            return self.need_clip().encode_image(x_0.to(self.device))

    def _check_name(self, kind: str, name: str, known: Collection[str]) -> None:
        if name not in known:
            raise unknown(kind, name, known, where=self.name)

    def need_clip(self) -> Clip:
        """The CLIP.

        Raises:
            CheckpointError: there is none.
        """
        if self.clip is None:
            raise CheckpointError(f"'{self.name}' has no CLIP to read texts with. Load it with clip=...")
        return self.clip

    @property
    def _order(self) -> int:
        """Of the steps of an edit: DDIM is the first order of the same solver."""
        return 1 if self.settings.solver == "ddim" else 2

    def _batched(self, function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
        return torch.cat(self._batches(function, *tensors))

    def _batches(self, function: Callable[..., Found], *tensors: torch.Tensor) -> list[Found]:
        with torch.no_grad():
            batches = zip(*(tensor.split(self.batch_size) for tensor in tensors), strict=True)
            return [function(*(part.to(self.device) for part in parts)) for parts in batches]


def read_varied(info: Mapping[str, object]) -> float:
    """How much an editor's edits differ in how far they go, as its description states it, 0..1; 0 where it does not.

    Raises:
        ConfigError: it states something else.
    """
    return float(checked_number("varied", info.get("varied", 0.0), float, low=0, high=1))


def _layout(info: Mapping[str, object]) -> str:
    """``layout`` as a checkpoint states it; else what its ``trained_on`` names; else that of the published models."""
    stated = str(info.get("layout") or "")
    trained_on = str(info.get("trained_on", "")).lower()
    return stated or next((name for name in LAYOUTS if trained_on.startswith(name)), "ffhq")
