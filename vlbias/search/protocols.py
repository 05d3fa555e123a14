"""What is published of the search of Dooley, Sukthanker et al. (2023), as a run of ours; the rest is UNKNOWN."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from vlbias.data import FaceDataset, balance_people
from vlbias.data.celebahq import CELEBA_ATTRIBUTES
from vlbias.data.people import split_of_person
from vlbias.errors import ConfigError
from vlbias.files import make_folder, write_file, write_json
from vlbias.images import to_pil
from vlbias.search.cell import Skeleton
from vlbias.search.spaces import Space, published_space, space
from vlbias.search.study import SearchSettings, run
from vlbias.search.task import drawn_people
from vlbias.search.trainer import TrainSettings

__all__ = ["PROTOCOLS", "Protocol", "Published", "draw_copy", "plan", "reproduce", "tiny"]


@dataclass(frozen=True)
class Published:
    """A row of the published results: error in per cent and rank disparity, both on test."""

    name: str
    error_percent: float
    rank_disparity: float


@dataclass(frozen=True)
class Protocol:
    """A published experiment.

    Attributes:
        dataset: kind of the dataset, a key of ``vlbias.data.KINDS``.
        protected: column of the groups.
        rungs: epochs at which trials are compared; the last is the full budget.
        n_trials: trials in all.
        image_size: side in pixels.
        batch_size: images a step.
        results: what was published.
        unknown: what no public source says.
        differs: what is done in another way here.
        is_tiny: whether it is the small run on a drawn copy, whose numbers say nothing.
    """

    dataset: str
    protected: str
    rungs: tuple[int, ...]
    results: tuple[Published, ...]
    unknown: tuple[str, ...]
    differs: tuple[str, ...]
    n_trials: int = 200
    image_size: int = 224
    batch_size: int = 64
    is_tiny: bool = False

    def settings(self, *, seed: int = 0, device: str | None = None, amp: bool = False) -> SearchSettings:
        """The search that it is."""
        return SearchSettings(
            image_size=self.image_size,
            n_trials=self.n_trials,
            fidelity=("epochs", self.rungs[0], self.rungs[-1]),
            rungs=self.rungs,
            eta=2.0,
            max_error=1.0 if self.is_tiny else 0.5,
            training=TrainSettings(batch_size=self.batch_size, device=device, amp=amp),
            seed=seed,
        )

    def space(self) -> Space:
        """The published space; of the tiny run, with the laptop's widths."""
        small = Skeleton.laptop()
        return space(skeleton=small, embedding_size=32) if self.is_tiny else published_space()


_DIFFERS = (
    "the sampler is TPE, not SMAC with ParEGO; a trial that is promoted goes on and is not trained anew",
    "trials above an error of .5 never count as fair: a network that tells nobody apart has no gap",
)
_UNKNOWN = ("the seeds of the published trials", "how many GPU hours they took")

PROTOCOLS: Mapping[str, Protocol] = {
    "celeba": Protocol(
        "celeba",
        "Male",
        (25, 50, 100),
        (
            Published("SMAC_000", 3.14, 3.41),
            Published("SMAC_010", 3.92, 3.18),
            Published("SMAC_680", 3.19, 3.81),
            Published("DPN, CosFace, SGD", 4.77, 4.17),
            Published("DPN, MagFace, SGD", 12.5, 2.58),
        ),
        _UNKNOWN,
        _DIFFERS,
    ),
    "vggface2": Protocol(
        "vggface2",
        "gender",
        (3, 5, 10),
        (
            Published("SMAC_301", 3.66, 0.230),
            Published("DPN, CosFace, AdamW", 3.56, 0.279),
            Published("ReXNet", 4.14, 0.221),
        ),
        (*_UNKNOWN, "how the training people were divided into training and validation"),
        (*_DIFFERS, "the lowest budget is 3 epochs where 2.5 are published: epochs are whole here"),
    ),
}


def tiny(protocol: Protocol) -> Protocol:
    """The same steps in a minute, on a drawn copy of the dataset (:func:`draw_copy`)."""
    return replace(protocol, rungs=(1, 2), n_trials=3, image_size=24, batch_size=16, is_tiny=True)


def draw_copy(protocol: Protocol, root: Path, *, seed: int = 0) -> Path:
    """A small dataset of drawn faces in the layout of the published one; its genders and attributes mean nothing."""
    per_person, num_people = 5, 40
    faces = drawn_people(num_people * per_person, per_person, seed=seed, image_size=32)
    pictures = to_pil(faces.tensor(faces.ids, 32))
    owner = [number // per_person for number in range(len(pictures))]
    split = [("train", "train", "train", "val", "test")[person // 2 % 5] for person in owner]
    if protocol.dataset == "celeba":
        names = [f"img_align_celeba/{number + 1:06d}.jpg" for number in range(len(pictures))]
        lists = _celeba_lists([Path(name).name for name in names], owner, split)
    else:
        ids = _class_ids([split[number * per_person] for number in range(num_people)])
        names = [
            f"{'test' if split[number] == 'test' else 'train'}/{ids[person]}/{number % per_person + 1:04d}_01.jpg"
            for number, person in enumerate(owner)
        ]
        is_train = [int(split[person * per_person] != "test") for person in range(num_people)]
        rows = [f'{ids[p]}, "Person_{p}",{per_person},{is_train[p]}, {"mf"[p % 2]},' for p in range(num_people)]
        lists = {"identity_meta.csv": "\n".join(["Class_ID, Name, Sample_Num, Flag, Gender", *rows]) + "\n"}
    for name, picture in zip(names, pictures, strict=True):
        make_folder((root / name).parent)
        picture.save(root / name, quality=95)
    for name, text in lists.items():
        write_file(root / name, text)
    return root


def _class_ids(splits: list[str]) -> list[str]:
    """A class id for each person, whose hash gives the wanted split; test people have any."""
    ids: list[str] = []
    numbers = itertools.count(1)
    for wanted in splits:
        names = (f"n{number:06d}" for number in numbers)
        ids.append(next(name for name in names if wanted in ("test", split_of_person(name, test=False))))
    return ids


def _celeba_lists(names: list[str], owner: list[int], split: list[str]) -> dict[str, str]:
    male = CELEBA_ATTRIBUTES.index("Male")
    rows = [
        f"{name} " + " ".join("1" if i == male and person % 2 else "-1" for i in range(len(CELEBA_ATTRIBUTES)))
        for name, person in zip(names, owner, strict=True)
    ]
    code = {"train": 0, "val": 1, "test": 2}
    return {
        "list_attr_celeba.txt": "\n".join([str(len(names)), " ".join(CELEBA_ATTRIBUTES), *rows]) + "\n",
        "identity_CelebA.txt": "".join(f"{name} {who}\n" for name, who in zip(names, owner, strict=True)),
        "list_eval_partition.txt": "\n".join(f"{name} {code[part]}" for name, part in zip(names, split, strict=True)),
    }


def plan(protocol: Protocol, dataset: FaceDataset, *, refit: int = 3, images_per_second: float | None = None) -> str:
    """What a run will cost, in words.

    Args:
        protocol: the experiment.
        dataset: balanced as the run will have it (:func:`vlbias.data.balance_people`).
        refit: trainings of each candidate for the held-out front.
        images_per_second: what one card trains of the published network; ``None`` leaves hours out.
    """
    num_images = int((dataset.table["split"] == "train").sum())
    lowest = protocol.n_trials * protocol.rungs[0]
    likely = sum(
        protocol.n_trials / 2**step * (stop - start)
        for step, (start, stop) in enumerate(zip((0, *protocol.rungs), protocol.rungs, strict=False))
    )
    highest = protocol.n_trials * protocol.rungs[-1]
    lines = [
        f"{protocol.n_trials} trials on {num_images:,} training images of {protocol.image_size} px, compared at "
        f"{', '.join(map(str, protocol.rungs))} epochs; {refit} refits of each candidate at {protocol.rungs[-1]}."
    ]
    for name, epochs in (("if half is stopped at each", likely), ("at least", lowest), ("at most", highest)):
        passes = epochs * num_images
        hours = "" if images_per_second is None else f", {passes / images_per_second / 3600:,.1f} GPU hours"
        lines.append(f"{name}: {epochs:,.0f} epochs, {passes / 1e6:,.1f} million images{hours}")
    per_refit = refit * protocol.rungs[-1] * num_images
    hours = "" if images_per_second is None else f", {per_refit / images_per_second / 3600:,.1f} GPU hours"
    lines.append(f"each candidate of the front: {per_refit / 1e6:,.1f} million images{hours}")
    lines += [f"UNKNOWN: {item}." for item in protocol.unknown] + [f"Differs: {item}." for item in protocol.differs]
    return "\n".join(lines)


def balanced(protocol: Protocol, dataset: FaceDataset, *, seed: int = 0) -> FaceDataset:
    """The dataset of an experiment: as many people and images of both groups in each split, as published.

    Raises:
        ConfigError: another dataset, or one that does not say who is shown.
    """
    if dataset.name != protocol.dataset:
        raise ConfigError(f"the experiment is on '{protocol.dataset}'; got '{dataset.name}'.")
    if "identity" not in dataset.table.columns:
        raise ConfigError(
            f"'{dataset.name}' does not say who is shown. CelebA needs identity_CelebA.txt, given on request."
        )
    return balance_people(dataset, protocol.protected, seed=seed)


def reproduce(protocol: Protocol, dataset: FaceDataset, out: Path, *, refit: int = 3, **options: Any) -> pd.DataFrame:
    """Run an experiment and lay its front beside the published numbers.

    Args:
        protocol: the experiment.
        dataset: from :func:`balanced`.
        out: folder of the study, ``front.png``, ``comparison.csv`` and ``protocol.json``; a killed run goes on there.
        refit: trainings of each candidate for the held-out front.
        options: of :meth:`Protocol.settings`: seed, device, amp.

    Returns:
        Name, source ("published" or "measured"), error in per cent and rank disparity on test, and for what was
        measured whether it is on the front.
    """
    make_folder(out)
    write_json(out / "protocol.json", asdict(protocol))
    study = run(
        dataset,
        protected=protocol.protected,
        space=protocol.space(),
        storage=str(out / "study.log"),
        settings=protocol.settings(**options),
    )
    front = study.front(refit=refit)
    study.write(out, front)
    published = pd.DataFrame([asdict(row) | {"source": "published"} for row in protocol.results])
    measured = pd.DataFrame(
        {
            "name": front.table["label"],
            "error_percent": 100 * front.table["error"],
            "rank_disparity": front.table["rank_gap"],
            "source": "measured",
            "on_front": front.table["on_front"],
        }
    )
    table = pd.concat([published, measured], ignore_index=True)
    table = table[["name", "source", "error_percent", "rank_disparity", "on_front"]]
    write_file(out / "comparison.csv", table.to_csv(index=False))
    return table
