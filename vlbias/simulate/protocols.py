"""What is published of the study of Fan, Xiao and Washington (2023), as simulations of ours; the rest is UNKNOWN."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlbias.classify import FitSettings
from vlbias.data import FaceDataset
from vlbias.errors import ConfigError, LabelError
from vlbias.files import make_folder, new_file, write_file, write_json
from vlbias.images import to_pil
from vlbias.labels import label_texts
from vlbias.simulate.noise import LabelNoise
from vlbias.simulate.plans import PlanSettings, SimulationPlan
from vlbias.simulate.plans import plan as lay_out
from vlbias.simulate.regimes import expression_faces
from vlbias.simulate.runs import run

__all__ = ["PROTOCOLS", "Protocol", "describe", "draw_copy", "make_plan", "prepared", "reproduce", "tiny"]

TARGET, PROTECTED = "expression", "race"
#: What is compared, all groups together, and how its gain towards balance is published.
METRICS = {"f1": "F1", "demographic_parity_ratio": "demographic parity"}

_CLASSIFIER = FitSettings(backbone="resnet18", image_size=112, num_steps=4000, batch_size=64)


@dataclass(frozen=True)
class Protocol:
    """A published experiment.

    Attributes:
        dataset: kind of the dataset, a key of ``vlbias.data.KINDS``.
        regime: which drawn faces stand in for it in the tiny budget, a key of ``REGIMES``.
        published: metric -> gain from the least balanced to the balanced set, 0..1; NaN where no number is public.
        subject: column of the person, if there is one.
        shares, repeats: the grid, which is ours.
        classifier: how each classifier is trained, which is ours.
        min_people: people that a group needs in training and in the test; smaller groups are left out.
        is_tiny: whether it is the small run on a drawn copy, whose numbers say nothing.
    """

    dataset: str
    regime: str
    published: Mapping[str, float]
    subject: str | None
    classifier: FitSettings = _CLASSIFIER
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    repeats: int = 5
    min_people: int = 4
    is_tiny: bool = False

    @property
    def unknown(self) -> tuple[str, ...]:
        """What no public source says."""
        return (
            "which group was varied over which shares, and whether the number of images was kept",
            "the backbone, its pre-training, and how long it was trained",
            "how many simulations there were, and how images were chosen and split",
            "who said of what race a face is, where the dataset does not",
            "the exact formulas of F1 and of demographic parity (higher is better there)",
        )

    @property
    def differs(self) -> tuple[str, ...]:
        """What had to be decided here."""
        shares = ", ".join(f"{share:g}" for share in self.shares)
        return (
            f"every group is varied over {shares} of as many images in all; {self.repeats} repeats",
            f"{self.classifier.backbone} from random weights, {self.classifier.num_steps:,} steps",
            "F1 is macro F1 of the whole test set; demographic parity is the smallest over the largest share predicted "
            "as it, mean over expressions; gains are from the smallest share to equal shares, mean over groups",
        )


PROTOCOLS: Mapping[str, Protocol] = {
    "cafe": Protocol("cafe", "posed", {"f1": 0.272, "demographic_parity_ratio": 0.157}, "person"),
    "affectnet": Protocol("affectnet", "varied", dict.fromkeys(METRICS, float("nan")), None),
}


def tiny(protocol: Protocol) -> Protocol:
    """The same steps in a minute, on a drawn copy of the dataset (:func:`draw_copy`)."""
    quick = FitSettings(backbone="resnet10t", image_size=32, num_steps=20, batch_size=16)
    return replace(protocol, classifier=quick, shares=(0.0, 0.5), repeats=2, is_tiny=True)


#: Words of drawn expressions => how CAFE's file names begin, AffectNet's code.
_CODES = {
    "neutral": ("neutral", 0),
    "happy": ("happyopen", 1),
    "sad": ("sad", 2),
    "surprise": ("surprise", 3),
    "disgust": ("disgust", 5),
    "anger": ("angry", 6),
}
_PICTURES_OF_CHILD = 6


def draw_copy(protocol: Protocol, root: Path, *, seed: int = 0) -> Path:
    """A small dataset of drawn faces in the layout of the published one, AffectNet's with a ``groups.csv``."""
    faces = expression_faces(protocol.regime, 360, seed=seed, image_size=32)
    races = {"dark": "AA", "light": "EA"}
    rows = list(zip(faces.table["expression"], faces.table["skin"].map(races), faces.table["split"], strict=True))
    if protocol.dataset == "cafe":
        names = [f"sessions/1/{name}" for name in _cafe_names(rows)]
    else:
        parts = {"train": "train_set", "test": "val_set"}
        names = [f"{parts[split]}/images/{number}.jpg" for number, (_, _, split) in enumerate(rows)]
        for name, (word, _, _) in zip(names, rows, strict=True):
            label = root / name.replace("/images/", "/annotations/").replace(".jpg", "_exp.npy")
            make_folder(label.parent)
            with new_file(label) as file:
                np.save(file, np.array(str(_CODES[word][1])))
        lines = [f"{name},{race}" for name, (_, race, _) in zip(names, rows, strict=True)]
        write_file(root / "groups.csv", "\n".join(["file_name,race", *lines]) + "\n")
    for name, picture in zip(names, to_pil(faces.tensor(faces.ids, 32)), strict=True):
        make_folder((root / name).parent)
        picture.save(root / name, quality=95)
    return root


def _cafe_names(rows: list[tuple[str, str, str]]) -> list[str]:
    """File names as in CAFE; each drawn child has some pictures."""
    names, seen = [], dict.fromkeys(("AA", "EA"), 0)
    for number, (word, race, _) in enumerate(rows):
        child = seen[race] // _PICTURES_OF_CHILD
        seen[race] += 1
        names.append(f"{1000 + number}-{_CODES[word][0]}_{'FM'[child % 2]}-{race}-{child + 1:02d}.jpg")
    return names


def prepared(protocol: Protocol, dataset: FaceDataset, races: pd.DataFrame | None = None) -> FaceDataset:
    """The dataset of an experiment: faces of a known race, of groups that are large enough.

    Without an official split, two in five people are tested, by a hash of their name.

    Args:
        protocol: the experiment.
        dataset: as it was opened.
        races: ``file_name`` and ``race`` of each face, where the dataset does not say it.

    Raises:
        ConfigError: another dataset.
        LabelError: nobody says of what race faces are, or no two groups are large enough.
    """
    if dataset.name != protocol.dataset:
        raise ConfigError(f"the experiment is on '{protocol.dataset}'; got '{dataset.name}'.")
    if races is not None:
        if not {"file_name", PROTECTED} <= set(races.columns):
            raise LabelError(f"groups need the columns file_name and {PROTECTED}; got {list(races.columns)}.")
        known = races.drop_duplicates("file_name").set_index("file_name")[PROTECTED]
        found = label_texts(dataset.table["file_name"].map(known))
        dataset = dataset.with_column(PROTECTED, found, "as given in a file of groups")
    if PROTECTED not in dataset.table.columns:
        raise LabelError(
            f"'{dataset.name}' does not say of what race a face is. Give a file of groups with the columns file_name "
            f"and {PROTECTED}, and how whoever made it errs (label noise)."
        )
    table = dataset.table
    if protocol.subject is not None:
        is_test = table[protocol.subject].map(lambda name: zlib.crc32(str(name).encode()) % 5 < 2)
        table = table.assign(split=np.where(is_test, "test", "train"))
        dataset = replace(dataset, table=table)
    people = table[protocol.subject] if protocol.subject is not None else pd.Series(table.index, table.index)
    sizes = people.groupby([table[PROTECTED], table["split"]]).nunique().unstack(fill_value=0)
    least = sizes.reindex(columns=["train", "test"], fill_value=0).min(axis=1)
    kept = least.index[least >= protocol.min_people]
    if len(kept) < 2:
        raise LabelError(
            f"two groups of {protocol.min_people} people in training and in the test are needed; got {least.to_dict()}."
        )
    return dataset.select(table[PROTECTED].isin(kept))


def make_plan(
    protocol: Protocol, dataset: FaceDataset, *, seed: int = 0, noise: LabelNoise | None = None
) -> SimulationPlan:
    """The training sets of an experiment, from what :func:`prepared` gives."""
    settings = PlanSettings(
        shares=protocol.shares, repeats=protocol.repeats, subject=protocol.subject, label_noise=noise, seed=seed
    )
    return lay_out(dataset, target=TARGET, protected=PROTECTED, settings=settings)


def describe(protocol: Protocol, plan: SimulationPlan, *, images_per_second: float | None = None) -> str:
    """What a run will cost, in words; with what one card trains a second, in hours."""
    passes = len(plan) * protocol.classifier.num_steps * protocol.classifier.batch_size
    hours = "" if images_per_second is None else f", {passes / images_per_second / 3600:,.1f} GPU hours"
    lines = [plan.describe(), f"{passes / 1e6:,.1f} million images are trained on{hours}."]
    lines += [f"UNKNOWN: {item}." for item in protocol.unknown] + [f"Differs: {item}." for item in protocol.differs]
    return "\n".join(lines)


def reproduce(
    protocol: Protocol, dataset: FaceDataset, plan: SimulationPlan, out: Path, **changes: Any
) -> pd.DataFrame:
    """Run an experiment and lay its gains beside the published ones.

    Args:
        protocol: the experiment.
        dataset: from :func:`prepared`.
        plan: from :func:`make_plan`.
        out: folder of ``sim.log``, tables, ``curves.png``, ``comparison.csv`` and ``protocol.json``; a killed run goes
            on there.
        changes: settings of the classifier, such as ``device``.

    Returns:
        Metric, source ("published" or "measured"), gain towards balance with its interval, and the value at balance.
    """
    make_folder(out)
    told = {name: value for name, value in asdict(protocol).items() if name != "published"}
    published = {name: None if np.isnan(value) else value for name, value in protocol.published.items()}
    write_json(out / "protocol.json", told | {"published": published, "unknown": protocol.unknown})
    settings = replace(protocol.classifier, **changes)
    result = run(plan, dataset, model=settings.backbone, storage=out / "sim.log", settings=settings)
    result.write(out)
    rows = []
    for metric, title in METRICS.items():
        rows.append({"metric": title, "source": "published", "gain": protocol.published[metric]})
        gain = result.contrast(metric, plan.settings.focal, "gain")
        rows.append({"metric": title, "source": "measured", "gain": gain.value, "low": gain.low, "high": gain.high})
    table = pd.DataFrame(rows)
    write_file(out / "comparison.csv", table.to_csv(index=False))
    return table
