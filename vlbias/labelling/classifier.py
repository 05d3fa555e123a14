"""Any classifier as a labeller, and CLIP as a classifier without training (zero-shot)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from vlbias.arguments import checked_call
from vlbias.data import FaceDataset
from vlbias.errors import ConfigError, ShapeError
from vlbias.labelling.labels import Labels, batches, table_of
from vlbias.progress import track
from vlbias.settings import checked_number

if TYPE_CHECKING:
    from vlbias.clip import Clip, Prompts

__all__ = ["ClassifierLabeller", "zero_shot"]

OUTPUTS = ("probabilities", "logits")


class ClassifierLabeller:
    """Labels by any function from pictures to class scores: a timm or torchvision network, a pipeline, CLIP.

    Args:
        predict: images float32 (b, 3, size, size) in [-1, 1] => scores (b, number of classes).
        classes: the label of each column; text, numbers, whatever the dataset uses.
        size: edge in pixels of the pictures that ``predict`` gets.
        output: what the scores are: ``"probabilities"`` (rows sum to one) or ``"logits"``.
        mean, std: per channel, for a network that expects ``(x01 - mean) / std`` of pictures x01 in [0, 1], as networks
            trained on ImageNet do; ``None`` to pass pictures in [-1, 1].
        min_confidence: a face whose likeliest class is less likely has no label (reason ``low_confidence``).
        source: who gives the labels; ``None`` for "a classifier".

    The confidence is the probability of the likeliest class as the classifier states it. It is not calibrated: score
    the labeller against given labels with :func:`vlbias.labelling.evaluate`, which shows accuracy by confidence.
    """

    @checked_call
    def __init__(
        self,
        predict: Callable[[torch.Tensor], torch.Tensor],
        classes: Sequence[object],
        *,
        size: int,
        output: str = "probabilities",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        min_confidence: float = 0.0,
        source: str | None = None,
    ):
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ConfigError(f"`classes` must be two or more different labels; got {list(classes)}.")
        if output not in OUTPUTS:
            raise ConfigError(f"`output` must be one of {', '.join(OUTPUTS)}; got '{output}'.")
        if (mean is None) != (std is None):
            raise ConfigError("`mean` and `std` go together; give both or neither.")
        checked_number("min_confidence", min_confidence, float, low=0, high=1)
        checked_number("size", size, low=1, high=4096)
        self.predict, self.classes, self.size, self.output = predict, list(classes), size, output
        self.mean = None if mean is None else torch.tensor(list(mean)).view(1, 3, 1, 1)
        self.std = None if std is None else torch.tensor(list(std)).view(1, 3, 1, 1)
        self.min_confidence = min_confidence
        self.source = source or "labels of a classifier, not of a person"

    @torch.no_grad()
    def probabilities(self, x: torch.Tensor) -> torch.Tensor:
        """Images (b, 3, size, size) in [-1, 1] => probabilities (b, number of classes) on the CPU.

        Raises:
            ShapeError: the classifier gives another number of classes, NaN, or probabilities that do not sum to one.
        """
        if self.mean is not None and self.std is not None:
            x = ((x + 1) / 2 - self.mean) / self.std
        scores = torch.as_tensor(self.predict(x)).detach().float().cpu()
        if scores.shape != (len(x), len(self.classes)):
            raise ShapeError(
                f"the classifier gave {tuple(scores.shape)} scores; expected ({len(x)}, {len(self.classes)}) for the "
                f"classes {self.classes}."
            )
        if torch.isnan(scores).any():
            raise ShapeError("the classifier gave NaN. Check its weights and the range of its input.")
        if self.output == "logits":
            return scores.softmax(dim=1)
        if (scores < 0).any() or ((scores.sum(dim=1) - 1).abs() > 1e-3).any():
            raise ShapeError("the classifier's rows do not sum to one; pass output='logits' if they are logits.")
        return scores

    def label(self, dataset: FaceDataset, *, batch_size: int = 64) -> Labels:
        """Label every face, with progress on stderr.

        Args:
            dataset: the faces.
            batch_size: pictures at a time; it changes speed and memory alone.

        Returns:
            Also columns ``p_<class>``, the probability of each class.

        Raises:
            ConfigError: ``batch_size`` is below 1.
        """
        checked_number("batch_size", batch_size, low=1)
        rows: dict[str, dict[str, object]] = {}
        with track(len(dataset), "labelling", "images") as progress:
            for ids, x, broken in batches(dataset, self.size, batch_size):
                rows |= {item: {"reason": reason} for item, reason in broken.items()}
                for item, row in zip(ids, self.probabilities(x) if ids else [], strict=True):
                    rows[item] = self._row(row)
                progress.update(len(ids) + len(broken))
        return Labels(self.source, table_of(rows, dataset))

    def _row(self, probabilities: torch.Tensor) -> dict[str, object]:
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        sure = confidence >= self.min_confidence
        row: dict[str, object] = {
            "label": self.classes[best] if sure else None,
            "confidence": confidence,
            "reason": None if sure else "low_confidence",
        }
        return row | {f"p_{name}": float(value) for name, value in zip(self.classes, probabilities, strict=True)}


@checked_call
def zero_shot(
    clip: Clip,
    classes: Mapping[str, Prompts],
    *,
    temperature: float | None = None,
    templates: Sequence[str] | None = None,
    min_confidence: float = 0.0,
) -> ClassifierLabeller:
    """A labeller that compares pictures with texts.

    Args:
        clip: compares them, see ``vlbias.clip.load``.
        classes: label => prompt or prompts, at least two, such as ``{"glasses": "a person who wears glasses", ...}``.
            Say what is absent too: "a person without glasses" rather than "a person".
        temperature: of the softmax over similarities; ``None`` for the one that the model learned.
        templates: sentences with one ``{}`` that every prompt is put in; ``None`` for the prompts alone.
        min_confidence: faces below it get no label.

    Raises:
        ConfigError: fewer than two classes.
    """
    prompts = dict(classes)
    if len(prompts) < 2:
        raise ConfigError(f"`classes` must name at least two labels with their prompts; got {list(prompts)}.")

    def predict(x: torch.Tensor) -> torch.Tensor:
        return clip.zero_shot(x, prompts, temperature=temperature, templates=templates)

    texts = {name: text if isinstance(text, str) else " | ".join(text) for name, text in prompts.items()}
    shown = "; ".join(f"{name}: {text}" for name, text in texts.items())
    return ClassifierLabeller(
        predict,
        list(prompts),
        size=max(clip.preprocess.size),
        min_confidence=min_confidence,
        source=f"zero-shot labels of the CLIP '{clip.name}' ({shown}), not of a person",
    )
