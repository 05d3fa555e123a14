"""What is searched: backbone (with the dual-path cell's triple), head, optimizer with its own learning rates, and the
share of edited images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vlbias.arguments import checked_call
from vlbias.errors import ConfigError, unknown
from vlbias.iresnet import DEPTHS
from vlbias.search.cell import NUM_OPERATIONS, PUBLISHED_DPN, Skeleton
from vlbias.search.heads import HEADS
from vlbias.search.mitigations import MITIGATIONS, NO_MITIGATION
from vlbias.settings import Settings, number

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["DPN_CELL", "LEARNING_RATES", "Configuration", "Space", "laptop_space", "published_space", "space"]

#: Name under which the dual-path cell stands among the timm backbones.
DPN_CELL = "dpn-cell"

#: Optimizer -> (lowest, highest, default) learning rate, log-uniform. Source: FR-NAS.
LEARNING_RATES: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {"adam": (1e-5, 1e-2, 1e-3), "adamw": (1e-5, 1e-2, 1e-3), "sgd": (0.09, 0.8, 0.1)}
)
_NEAR_NAMES = 8


@dataclass(frozen=True)
class Configuration(Settings):
    """One point of the space.

    Args:
        backbone: timm name, or "dpn-cell".
        head: "arcface", "cosface", "magface" or "softmax".
        optimizer: "adam", "adamw" or "sgd" (momentum 0.9).
        learning_rate: peak of the schedule, > 0.
        cell: the triple of operations 0..8, for "dpn-cell" alone.
        augmentation: share of training images that are drawn from the edited ones, 0..1.
        mitigation: "none", or a training that mitigates bias, see :mod:`vlbias.search.mitigations`.
    """

    backbone: str
    head: str
    optimizer: str
    learning_rate: float = number(above=0)
    cell: tuple[int, int, int] | None = number(None, 0, 8)
    augmentation: float = number(0.0, 0, 1)
    mitigation: str = NO_MITIGATION

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mitigation not in MITIGATIONS:
            raise unknown("mitigation", self.mitigation, MITIGATIONS)
        if (self.mitigation, self.head) == ("angular", "softmax"):
            raise ConfigError("Mitigation 'angular' changes margins, and head 'softmax' has none. Take another head.")
        if (self.cell is not None) != (self.backbone == DPN_CELL):
            raise ConfigError(f"`cell` belongs to backbone '{DPN_CELL}' and to no other; got {self}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a mitigation only where there is one."""
        values = asdict(self)
        if self.mitigation == NO_MITIGATION:
            del values["mitigation"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Configuration:
        """What :meth:`to_dict` gave, again."""
        cell = values.get("cell")
        return cls(**{**values, "cell": tuple(cell) if cell is not None else None})

    def label(self) -> str:
        """Short name for tables and plots: "dpn-cell(1,0,1) cosface sgd 0.1"."""
        cell = f"({','.join(map(str, self.cell))})" if self.cell else ""
        edited = f" edited {self.augmentation:.0%}" if self.augmentation else ""
        mitigated = "" if self.mitigation == NO_MITIGATION else f" {self.mitigation}"
        return f"{self.backbone}{cell} {self.head} {self.optimizer} {self.learning_rate:.2g}{edited}{mitigated}"


@dataclass(frozen=True)
class Space:
    """The joint space; make it with :func:`space`.

    Attributes:
        backbones, heads, optimizers: choices, at least one each.
        augmentation: (lowest, highest) share of edited images; equal ends fix it.
        learning_rates: optimizer -> (lowest, highest, default).
        skeleton: widths of the dual-path network, if it is among the backbones.
        embedding_size: dimensions of the embedding.
        pretrained: backbone -> local file of weights that it starts from; others start from random ones.
        mitigations: choices, at least one.
    """

    backbones: tuple[str, ...]
    heads: tuple[str, ...]
    optimizers: tuple[str, ...]
    augmentation: tuple[float, float] = (0.0, 0.0)
    learning_rates: Mapping[str, tuple[float, float, float]] = field(default_factory=lambda: dict(LEARNING_RATES))
    skeleton: Skeleton = field(default_factory=Skeleton)
    embedding_size: int = 128
    pretrained: Mapping[str, str] = field(default_factory=dict)
    mitigations: tuple[str, ...] = (NO_MITIGATION,)

    def __post_init__(self) -> None:
        for name in ("backbones", "heads", "optimizers", "mitigations"):
            choices = getattr(self, name)
            if not choices or len(set(choices)) != len(choices):
                raise ConfigError(f"`{name}` must be distinct names, at least one; got {choices}.")
        for head in self.heads:
            if head not in HEADS:
                raise unknown("head", head, HEADS)
        for mitigation in self.mitigations:
            if mitigation not in MITIGATIONS:
                raise unknown("mitigation", mitigation, MITIGATIONS)
        if "angular" in self.mitigations and "softmax" in self.heads:
            raise ConfigError(
                "Mitigation 'angular' changes margins, and head 'softmax' has none. Leave one of them out."
            )
        for optimizer in self.optimizers:
            if optimizer not in LEARNING_RATES:
                raise unknown("optimizer", optimizer, LEARNING_RATES)
            low, high, default = self.learning_rates[optimizer]
            if not 0 < low <= default <= high:
                raise ConfigError(
                    f"Learning rates of {optimizer} need 0 < low <= default <= high; got {low, high, default}."
                )
        for backbone in self.backbones:
            check_backbone(backbone)
        for backbone in self.pretrained:
            if backbone not in self.backbones or backbone == DPN_CELL:
                raise unknown("pretrained backbone", backbone, [name for name in self.backbones if name != DPN_CELL])
        low, high = self.augmentation
        if not 0 <= low <= high <= 1:
            raise ConfigError(
                f"`augmentation` must be (low, high) with 0 <= low <= high <= 1; got {self.augmentation}."
            )
        if self.embedding_size < 2:
            raise ConfigError(f"`embedding_size` must be at least 2; got {self.embedding_size}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Space:
        """What :meth:`to_dict` gave, again, also by way of JSON."""
        skeleton = values["skeleton"]
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list | tuple)}
        own = Skeleton(**{**skeleton, "inc_sec": tuple(skeleton["inc_sec"])})
        rates = {name: tuple(rate) for name, rate in values["learning_rates"].items()}
        return cls(**{**values, **lists, "learning_rates": rates, "skeleton": own})

    @property
    def needs_edits(self) -> bool:
        """Whether some configuration trains on edited images."""
        return self.augmentation[1] > 0

    def suggest(self, trial: BaseTrial) -> Configuration:
        """Draw a configuration from an Optuna trial; each optimizer has a learning rate of its own name."""
        backbone = trial.suggest_categorical("backbone", list(self.backbones))
        cell = None
        if backbone == DPN_CELL:
            edges = [trial.suggest_categorical(f"edge_{i}", list(range(NUM_OPERATIONS))) for i in (1, 2, 3)]
            cell = (edges[0], edges[1], edges[2])
        optimizer = trial.suggest_categorical("optimizer", list(self.optimizers))
        low, high, _ = self.learning_rates[optimizer]
        low_share, high_share = self.augmentation
        return Configuration(
            backbone=backbone,
            cell=cell,
            head=trial.suggest_categorical("head", list(self.heads)),
            optimizer=optimizer,
            learning_rate=trial.suggest_float(f"learning_rate_{optimizer}", low, high, log=True),
            augmentation=trial.suggest_float("augmentation", low_share, high_share)
            if high_share > low_share
            else low_share,
            mitigation=trial.suggest_categorical("mitigation", list(self.mitigations))
            if len(self.mitigations) > 1
            else self.mitigations[0],
        )

    def default_parameters(self) -> dict[str, Any]:
        """The first trial of a study: first choices, default rates, the ordinary block, no edits."""
        optimizer = self.optimizers[0]
        values: dict[str, Any] = {
            "backbone": self.backbones[0],
            "optimizer": optimizer,
            "head": self.heads[0],
            f"learning_rate_{optimizer}": self.learning_rates[optimizer][2],
        }
        if self.backbones[0] == DPN_CELL:
            values |= {f"edge_{i}": operation for i, operation in enumerate(PUBLISHED_DPN, start=1)}
        if self.augmentation[1] > self.augmentation[0]:
            values["augmentation"] = self.augmentation[0]
        if len(self.mitigations) > 1:
            values["mitigation"] = self.mitigations[0]
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain values; mitigations only where there are any."""
        values = {**asdict(self), "learning_rates": {name: list(rate) for name, rate in self.learning_rates.items()}}
        if self.mitigations == (NO_MITIGATION,):
            del values["mitigations"]
        return values


def check_backbone(name: str) -> None:
    """Refuse a backbone that timm does not have, naming the nearest ones (timm knows more than a thousand)."""
    import difflib

    import timm

    if name != DPN_CELL and name not in DEPTHS and not timm.is_model(name):
        near = difflib.get_close_matches(name, [DPN_CELL, *DEPTHS, *timm.list_models()], n=_NEAR_NAMES, cutoff=0.4)
        raise unknown(
            "backbone", name, near or [DPN_CELL, "resnet18", "mobilenetv3_small_100"], where="the search space"
        )


@checked_call
def space(
    backbones: Sequence[str] = (DPN_CELL,),
    heads: Sequence[str] = ("cosface", "arcface", "magface"),
    optimizers: Sequence[str] = ("sgd", "adam", "adamw"),
    augmentation: tuple[float, float] = (0.0, 0.0),
    *,
    learning_rates: Mapping[str, Sequence[float]] | None = None,
    skeleton: Skeleton | None = None,
    embedding_size: int = 128,
    pretrained: Mapping[str, str] | None = None,
) -> Space:
    """A search space.

    Args:
        backbones: timm names, "iresnet18" to "iresnet100", and "dpn-cell" (the published cell, 729 architectures).
        heads, optimizers: choices by name.
        augmentation: lowest and highest share of edited images in training.
        learning_rates: optimizer -> (lowest, highest) or (lowest, highest, default); the published ones otherwise.
        skeleton: widths of the dual-path network; the published ones otherwise.
        embedding_size: dimensions of the embedding.
        pretrained: backbone -> local file of weights that it starts from.

    Mitigations are added with ``dataclasses.replace(space, mitigations=("none", "angular"))``.

    Raises:
        UnknownNameError: a backbone, head or optimizer that does not exist; near names are listed.
        ConfigError: a range or choice makes no sense.
    """
    for optimizer in learning_rates or {}:
        if optimizer not in LEARNING_RATES:
            raise unknown("optimizer", optimizer, LEARNING_RATES)
    rates = dict(LEARNING_RATES)
    for optimizer, rate in (learning_rates or {}).items():
        if len(rate) not in (2, 3):
            raise ConfigError(
                f"Learning rates of {optimizer} are (low, high) or (low, high, default); got {tuple(rate)}."
            )
        middle = rate[2] if len(rate) == 3 else (rate[0] * rate[1]) ** 0.5
        rates[optimizer] = (float(rate[0]), float(rate[1]), float(middle))
    return Space(
        tuple(backbones),
        tuple(heads),
        tuple(optimizers),
        (float(augmentation[0]), float(augmentation[1])),
        rates,
        skeleton or Skeleton(),
        embedding_size,
        dict(pretrained or {}),
    )


@checked_call
def published_space(augmentation: tuple[float, float] = (0.0, 0.0)) -> Space:
    """The joint space of the paper: the dual-path cell, three margin heads, three optimizers.

    ``augmentation`` is ours: lowest and highest share of edited images.
    """
    return space(augmentation=augmentation)


@checked_call
def laptop_space(augmentation: tuple[float, float] = (0.0, 0.0)) -> Space:
    """A space whose networks train on 64 px faces within seconds an epoch on two CPU cores."""
    return space(
        backbones=("resnet10t", "mobilenetv3_small_050", DPN_CELL),
        augmentation=augmentation,
        skeleton=Skeleton.laptop(),
        embedding_size=64,
        optimizers=("adamw", "adam", "sgd"),
    )
