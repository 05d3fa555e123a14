"""Balance a dataset with an image-to-image pipeline of diffusers in the place of our own editor.

    python examples/other_generator.py photos/ out/mine --pipeline sd-turbo/ --clip ViT-B-32/ \\
        --target smile --protected age_group --path age=old:young --values young,old

The pipeline (a local folder, such as Stable Diffusion's) makes the pictures; planning, verification, resuming and
reports are those of ``vlbias balance``. What it is told follows from how far a face must move: CLIP's features are the
codes, a path is the direction between two texts, and the strength that carries a face over sets how much of the picture
the pipeline may change. An edit that does not show the wanted group, or shows somebody else, is turned down as ever.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vlbias import Balancer, Dipole, open_dataset
from vlbias.clip import Clip, load
from vlbias.data import FaceDataset
from vlbias.images import to_pil, to_tensor
from vlbias.paths import text_directions
from vlbias.types import Backend, Strengths, Traced


class PipelineBackend(Backend):
    """Edits by an image-to-image pipeline, aimed and read by CLIP.

    Args:
        pipeline: called as ``pipeline(prompt=, image=, strength=, num_inference_steps=, generator=).images``.
        clip: gives the codes and reads the pictures.
        dipoles: path -> its two poles in words; they are also the prompts.
        lengths: path -> distance between the groups in CLIP's space, see :func:`distance_between`.
        name: for provenance.
        image_size: edge in pixels that the pipeline works at.
        steps: of the pipeline.
        amount: part of the picture's noise that a walk of strength 1 lets the pipeline change, 0..1.
    """

    can_read_pictures = True

    def __init__(
        self,
        pipeline: Any,
        clip: Clip,
        dipoles: Mapping[str, Dipole],
        lengths: Mapping[str, float],
        *,
        name: str,
        image_size: int = 512,
        steps: int = 20,
        amount: float = 0.5,
    ):
        self.pipeline, self.clip, self.dipoles, self.lengths = pipeline, clip, dict(dipoles), dict(lengths)
        self.name, self.image_size, self.steps, self.amount = name, image_size, steps, amount
        self.attributes = tuple(self.dipoles)
        self.device = clip.device
        self.evaluations, self.evaluations_to_render = 0, steps
        self.directions = dict(zip(self.dipoles, text_directions(clip, list(self.dipoles.values())), strict=True))

    def fingerprint(self) -> dict[str, object]:
        modules = [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        hashed = hashlib.sha256()
        for module in [*modules, self.clip]:
            for key, value in sorted(module.state_dict().items()):
                hashed.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        texts = {name: dipole.to_list() for name, dipole in self.dipoles.items()}
        settings = {"steps": self.steps, "amount": self.amount, "lengths": self.lengths, "dipoles": texts}
        return settings | {"pipeline": type(self.pipeline).__name__, "weights": hashed.hexdigest()}

    @torch.no_grad()
    def encode(self, x_0: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.clip.encode_image(x.to(self.device)) for x in x_0.split(self.batch_size)])

    features = encode

    def walk(self, z_sem: torch.Tensor, strengths: Strengths) -> torch.Tensor:
        z = z_sem.clone()
        for name, strength in strengths.items():
            step = torch.as_tensor(strength, dtype=z.dtype, device=z.device).expand(len(z))
            z = z + (step * self.lengths[name])[:, None] * self.directions[name]
        return z

    def render(self, x_0: torch.Tensor, z_sem: torch.Tensor, z_edit: torch.Tensor, traced: Traced) -> torch.Tensor:
        edited = []
        for x, moved in zip(x_0, z_edit - z_sem, strict=True):
            asked = {name: float(moved @ self.directions[name]) / self.lengths[name] for name in self.directions}
            asked = {name: strength for name, strength in asked.items() if abs(strength) > 1e-3}
            edited.append(to_tensor(self._redraw(x, asked), self.image_size)[0] if asked else x)
        return torch.stack(edited).to(x_0.device)

    def _redraw(self, x: torch.Tensor, asked: Mapping[str, float]) -> Any:
        poles = [self.dipoles[name].positive if s > 0 else self.dipoles[name].negative for name, s in asked.items()]
        self.evaluations += self.steps
        return self.pipeline(
            prompt=", ".join(pole[0] for pole in poles),
            image=to_pil(x[None])[0],
            strength=min(max(self.amount * max(map(abs, asked.values())), 0.05), 1.0),
            num_inference_steps=self.steps,
            generator=torch.Generator().manual_seed(0),  # a pure function: the same face comes out the same
        ).images[0]

    def score(self, x_0: torch.Tensor, name: str) -> torch.Tensor:
        return torch.cat([self.clip.zero_shot(x, self.dipoles[name].classes)[:, 0] for x in x_0.split(self.batch_size)])


def distance_between(
    clip: Clip, dipole: Dipole, faces: FaceDataset, column: str, values: Sequence[Any], *, size: int, most: int = 64
) -> float:
    """How far two groups of faces lie apart along a dipole's direction, in CLIP's space."""
    direction = text_directions(clip, [dipole])[0]
    means = []
    for value in values:
        ids = faces.table.index[faces.table[column].astype(str) == str(value)][:most]
        with torch.no_grad():
            means.append((clip.encode_image(faces.tensor(list(ids), size).to(clip.device)) @ direction).mean())
    return max(float(means[1] - means[0]), 1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a dataset's folder")
    parser.add_argument("out", type=Path, help="folder for the result")
    parser.add_argument("--pipeline", type=Path, required=True, help="local folder of an image-to-image pipeline")
    parser.add_argument("--clip", required=True, help="folder of an open_clip model")
    parser.add_argument("--target", required=True, help="attribute a classifier will predict")
    parser.add_argument("--protected", required=True, help="attribute that must not drive it")
    parser.add_argument("--path", required=True, metavar="NAME=POSITIVE:NEGATIVE", help="the two poles in words")
    parser.add_argument("--values", required=True, metavar="NEGATIVE,POSITIVE", help="the column's values, in order")
    parser.add_argument("--limit", type=int, help="at most so many edits")
    arguments = parser.parse_args()
    from diffusers import AutoPipelineForImage2Image

    faces, clip = open_dataset(arguments.dataset), load(arguments.clip)
    name, _, poles = arguments.path.partition("=")
    dipole, values = Dipole(*poles.split(":")), arguments.values.split(",")
    length = distance_between(clip, dipole, faces, arguments.protected, values, size=224)
    pipeline = AutoPipelineForImage2Image.from_pretrained(arguments.pipeline, local_files_only=True)
    backend = PipelineBackend(pipeline, clip, {name: dipole}, {name: length}, name=arguments.pipeline.name)
    balancer = Balancer(
        backend, target=arguments.target, protected=arguments.protected, poles={arguments.protected: (name, values)}
    )
    plan = balancer.plan(faces, limit=arguments.limit)
    print(plan.describe())
    print(balancer.run(faces, plan, arguments.out).summary())


if __name__ == "__main__":
    main()
