"""How a balancer works, beyond which attributes it balances: checked once, when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal, TypedDict

from vlbias.balance.identity import Identity
from vlbias.balance.own_scorers import OwnScorer
from vlbias.balance.plan import Level
from vlbias.balance.verification import Checks
from vlbias.errors import ConfigError, PlanError
from vlbias.leak import LeakSettings
from vlbias.networks import FaceNetwork
from vlbias.settings import Settings, number
from vlbias.types import Quality

__all__ = ["BalanceOptions", "BalanceSettings"]


@dataclass(frozen=True)
class BalanceSettings(Settings):
    """How a :class:`vlbias.Balancer` plans, verifies and writes.

    Attributes:
        to: how far, see :func:`vlbias.balance.wanted_counts`: ``"max"``, ``"mean"``, ``"all"``, a number, or shares.
        copies: share of what each short cell lacks that copies of the cell's own originals fill, 0 <= share < 1; edits
            fill the rest, and copies take the places of edits that verification turns down. 0 for edits alone.
        splits: splits to balance; the others are passed on as they are.
        poles: {column: (path, {value: place in -1..1})}, or values in order, for columns the library does not know.
            Naming them also plans for values that do not occur.
        path: with a single protected column, ``path="age", poles={"young": -1, "old": +1}`` (or values in order) says
            the same.
        checks: what an edit must pass.
        identity: ``"latent"``, ``"clip"``, a face embedder (a file or folder, see :func:`vlbias.networks.load_network`,
            or a ``FaceNetwork``), or a callable, see :data:`vlbias.balance.identity.Identity`.
        scorers: column -> who reads it from pictures in CLIP's place: a classifier's file or folder, a ``Classifier``,
            a ``ClassifierLabeller``, or a ``FaceNetwork`` around any function.
        prior_steps: network evaluations of a decode in prior mode, >= 1. An edit of a donor that was decoded goes along
            its way and takes two less.
        keep_pairs: in prior mode, also decode the donors of edits into ``OUT/donors`` so that pairs can be seen.
        chunk_size: edits that are committed, and walked, together, >= 1.
        quality: of the edits of real donors: ``draft`` for a look at what comes of it, ``standard``, or ``exact``; see
            :class:`vlbias.rendering.Qualities`. What it costs stands in the plan. Faces from the prior take
            ``prior_steps``.
        size: ``own`` writes an edit at its donor's width and height, in the donor's file format and quality: the
            donor's pixels plus what the edit changed. ``editor`` writes a PNG of the editor's size.
        leak: how it is measured what gives edits away: ``"low-level"``, ``"network"`` for that and a small network,
            which takes minutes, or :class:`vlbias.leak.LeakSettings`. It changes the report alone.
        round_trip: whether the originals of the balanced splits pass through the editor as well, to another group and
            back, so that what editing leaves behind says nothing about the cell. It costs two edits for each original
            (one with ``method="decode"``), and changes the originals a little.
        layout: ``flat`` puts pictures into the folders of their splits, ``class-folders`` into one folder for each
            class of the target inside them, as torchvision's ``ImageFolder(OUT / "train")`` reads them.
        format: what the output is when it is done: an ``imagefolder`` of loose pictures, or in their place shards below
            ``OUT/data`` for sets that are too large for it: ``webdataset`` (tar) or ``parquet``.
        shard_size: pictures of a shard, >= 1.
        pseudonymise: whether pictures get other names, and nothing that is written says what the donors' files were
            called.
        pseudonyms: with it: a file outside of the run's folder for the key and the names; one that is there gives its
            key. ``None`` draws a key that is forgotten when the run is done.

    Raises:
        PlanError, ConfigError: names the setting, its value and what it may be.
    """

    to: Level = "max"
    copies: float = number(0.0, 0, below=1)
    splits: Sequence[str] = ("train",)
    poles: Mapping[Any, Any] | Sequence[Any] | None = None
    path: str | None = None
    checks: Checks = field(default_factory=Checks)
    identity: str | PathLike[str] | FaceNetwork | Identity = "latent"
    scorers: Mapping[str, OwnScorer] | None = None
    prior_steps: int = number(4, 1, 1000)
    keep_pairs: bool = True
    chunk_size: int = number(32, 1)
    quality: Quality = "standard"
    size: Literal["own", "editor"] = "own"
    leak: str | LeakSettings = "low-level"
    round_trip: bool = False
    layout: Literal["flat", "class-folders"] = "flat"
    format: Literal["imagefolder", "webdataset", "parquet"] = "imagefolder"
    shard_size: int = number(10_000, 1)
    pseudonymise: bool = False
    pseudonyms: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.splits, str):
            object.__setattr__(self, "splits", (self.splits,))
        if not isinstance(self.checks, Checks):
            raise ConfigError(f"`checks` must be a Checks, such as Checks(goal=0.8); got {self.checks!r}.")
        super().__post_init__()
        if not self.splits or len(set(self.splits)) != len(self.splits):
            raise PlanError(f"`splits` must name one split or several, each once; got {list(self.splits)}.")
        if self.pseudonyms is not None and not self.pseudonymise:
            raise ConfigError("`pseudonyms` is the file of `pseudonymise`: give that too (--pseudonymise).")


class BalanceOptions(TypedDict, total=False):
    """The fields of :class:`BalanceSettings` as keywords of a :class:`vlbias.Balancer`."""

    to: Level
    copies: float
    splits: Sequence[str]
    poles: Mapping[Any, Any] | Sequence[Any] | None
    path: str | None
    checks: Checks
    identity: str | PathLike[str] | FaceNetwork | Identity
    scorers: Mapping[str, OwnScorer] | None
    prior_steps: int
    keep_pairs: bool
    chunk_size: int
    quality: Quality
    size: Literal["own", "editor"]
    leak: str | LeakSettings
    round_trip: bool
    layout: Literal["flat", "class-folders"]
    format: Literal["imagefolder", "webdataset", "parquet"]
    shard_size: int
    pseudonymise: bool
    pseudonyms: str | PathLike[str] | None
