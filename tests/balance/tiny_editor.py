"""An editor whose every part is a formula, so that what a pipeline does with it can be worked out on paper.

A face is 8 x 8 pixels. Each of six orthonormal patterns carries one number of z_sem; what no pattern explains is x_T.
z_sem[0] is skin, [1] smile, [2] age, the rest is who it is. It is a ``vlbias.types.Backend`` and runs in
microseconds. Run as a script it balances a folder in a process of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vlbias.diffae.sampling import seeded_noise
from vlbias.images import to_pil, to_tensor
from vlbias.paths import Dipole
from vlbias.types import Backend, Traced

SIZE, DIM = 8, 6
NAMES = {"skin_tone": 0, "smile": 1, "age": 2}


def patterns() -> torch.Tensor:
    """(d, 3*8*8) orthogonal rows of norm 4: a code of 1 moves each pixel by about 0.3."""
    random = torch.randn(DIM, 3 * SIZE * SIZE, generator=torch.Generator().manual_seed(7))
    return torch.linalg.qr(random.T)[0].T * 4


class TinyDiffAE:
    """z_sem = projections of the picture; x_T = the rest of it."""

    def __init__(self) -> None:
        self.patterns = patterns()
        self.evaluations = 0
        self.delay_s = 0.0

    def encode(self, x_0: torch.Tensor) -> torch.Tensor:
        return x_0.flatten(1) @ self.patterns.T / 16

    def _picture(self, z_sem: torch.Tensor) -> torch.Tensor:
        return (z_sem @ self.patterns).reshape(-1, 3, SIZE, SIZE)

    def decode(self, z_sem: torch.Tensor, x_T: torch.Tensor, num_steps: int = 20, solver: str = "ddim") -> torch.Tensor:
        self.evaluations += len(z_sem) * num_steps
        time.sleep(self.delay_s)
        rest = x_T * 0.05
        rest = rest - self._picture(self.encode(rest))
        return (self._picture(z_sem) + rest).clamp(-1, 1)

    def invert(self, x_0: torch.Tensor, z_sem: torch.Tensor, num_steps: int = 20, solver: str = "ddim") -> torch.Tensor:
        self.evaluations += len(z_sem) * num_steps
        return (x_0 - self._picture(z_sem)) / 0.05

    def normalize(self, z_sem: torch.Tensor) -> torch.Tensor:
        return z_sem / 0.3

    def denormalize(self, z: torch.Tensor) -> torch.Tensor:
        return z * 0.3


class TinyEditor(Backend):
    """``leak`` of every step along a path lands on the smile, ``drift`` on the identity; ``blunt`` paths do nothing."""

    name, license, image_size, batch_size = "tiny", "MIT", SIZE, 16
    attributes = ("skin_tone", "age")
    can_read_pictures = can_sample = True
    invert_steps, decode_steps = 4, 3

    def __init__(
        self, *, leak: float = 0.0, drift: float = 0.0, blunt: bool = False, blind: bool = False, method: str = "decode"
    ) -> None:
        self.diffae = TinyDiffAE()
        self.leak, self.drift, self.blunt, self.blind = leak, drift, blunt, blind
        self.adds_difference = method == "difference"
        self.evaluations_to_open = self.invert_steps + (self.decode_steps if self.adds_difference else 0)
        self.evaluations_to_render = self.decode_steps
        self.dipoles = {name: Dipole("yes", "no") for name in NAMES}

    @property
    def evaluations(self) -> int:
        return self.diffae.evaluations

    def fingerprint(self) -> dict[str, object]:
        return {"leak": self.leak, "drift": self.drift, "blunt": self.blunt, "blind": self.blind}

    def seconds_per_evaluation(self) -> float:
        return 1e-3

    def encode(self, x_0: torch.Tensor) -> torch.Tensor:
        return self.diffae.encode(x_0)

    def normalize(self, z_sem: torch.Tensor) -> torch.Tensor:
        return self.diffae.normalize(z_sem)

    def trace(self, x_0: torch.Tensor, z_sem: torch.Tensor) -> Traced:
        x_T = self.diffae.invert(x_0, z_sem, self.invert_steps)
        return Traced(x_T, x_0 - self.decode(z_sem, x_T) if self.adds_difference else None)

    def decode(self, z_sem: torch.Tensor, x_T: torch.Tensor, *, num_steps: int | None = None) -> torch.Tensor:
        return self.diffae.decode(z_sem, x_T, num_steps or self.decode_steps)

    def walk(self, z_sem: torch.Tensor, strengths: dict[str, torch.Tensor]) -> torch.Tensor:
        z = z_sem.clone()
        for name, strength in strengths.items():
            if not self.blunt:
                z[:, NAMES[name]] += 0.6 * strength
                z[:, 1] += self.leak * torch.as_tensor(strength).abs() * -z_sem[:, 1].sign()
                z[:, 4] += self.drift * strength
        return z

    def render(self, x_0: torch.Tensor, z_sem: torch.Tensor, z_edit: torch.Tensor, traced: Traced) -> torch.Tensor:
        edited = self.decode(z_edit, traced.x_T) if len(z_sem) else x_0
        return edited if traced.residuals is None else (edited + traced.residuals).clamp(-1, 1)

    def probe(self, z_sem: torch.Tensor, name: str) -> torch.Tensor:
        return torch.sigmoid(8 * z_sem[:, NAMES[name]] * (0 if self.blind else 1))

    def score(self, x: torch.Tensor, name: str) -> torch.Tensor:
        # a second opinion: the same pattern, read with another slope and some noise of the picture's own
        reading = 5 * self.diffae.encode(x)[:, NAMES[name]] + 0.05 * torch.sin(50 * x.sum(dim=(1, 2, 3)))
        return torch.sigmoid(reading * (0 if self.blind else 1))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x.flatten(1), dim=1)

    def sample_codes(self, seeds: list[int]) -> torch.Tensor:
        return self.diffae.denormalize(seeded_noise(list(seeds), (DIM,)))

    def noise(self, seeds: list[int]) -> torch.Tensor:
        return seeded_noise([seed + 2**40 for seed in seeds], (3, SIZE, SIZE))


class MortalEditor(TinyEditor):
    """Kills the first process but its maker's that edits with it; ``marker`` says that it has happened."""

    def __init__(self, marker: Path, **options: Any) -> None:
        super().__init__(**options)
        self.marker, self.maker = marker, os.getpid()

    def render(self, *given: Any) -> torch.Tensor:
        if os.getpid() != self.maker and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().render(*given)


def make_faces(folder: Path, cells: dict[tuple[str, int, str], int], *, seed: int = 0, model: TinyDiffAE | None = None):
    """Write PNG faces whose z_sem says skin and smile: cells are (split, smile, skin) -> number."""
    from vlbias.data.table import FaceDataset

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    model = model or TinyDiffAE()
    rows, ids = [], []
    for (split, smile, skin), n in cells.items():
        for _ in range(n):
            z = rng.normal(0, 0.3, DIM)
            z[0] = (1 if skin == "dark" else -1) * rng.uniform(0.15, 0.45)
            z[1] = (1 if smile else -1) * rng.uniform(0.2, 0.45)
            x_T = torch.tensor(rng.normal(size=(1, 3, SIZE, SIZE)), dtype=torch.float32)
            x_0 = model.decode(torch.tensor(z[None], dtype=torch.float32), x_T)
            name = f"{len(rows):04d}.png"
            if not (folder / name).exists():  # other processes may be reading
                to_pil(x_0)[0].save(folder / name)
            rows.append({"file_name": name, "split": split, "smile": smile, "skin": skin, "skin_tone": 3.5, "age": 30})
            ids.append(f"{len(rows) - 1:04d}")
    return FaceDataset("tiny faces", pd.DataFrame(rows, index=ids), root=folder, license="MIT")


def run_job(out: Path, root: Path, delay_s: float = 0.0, shard: tuple[int, int] | None = None, begun=None) -> None:
    """Balance the tiny faces, slowly enough to be killed; ``begun`` is called before the first chunk."""
    from vlbias.balance import Balancer

    editor = TinyEditor(leak=0.12)
    faces = make_faces(root, CELLS)
    balancer = Balancer(editor, target="smile", protected="skin", chunk_size=5, seed=3)
    plan = balancer.plan(faces)
    editor.diffae.delay_s = delay_s
    if begun is not None:
        begun()
    balancer.run(faces, plan, out, shard=shard, show_progress=False)


CELLS = {
    ("train", 0, "light"): 20,
    ("train", 0, "dark"): 4,
    ("train", 1, "light"): 5,
    ("train", 1, "dark"): 18,
    ("test", 0, "light"): 2,
    ("test", 1, "dark"): 2,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    run_job(Path(sys.argv[1]), Path(sys.argv[2]))

__all__ = ["CELLS", "TinyEditor", "make_faces", "run_job", "to_tensor"]
