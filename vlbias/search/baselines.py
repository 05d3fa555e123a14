"""Named networks of the published search, to stand beside what a search found, trained alike.

Architectures, heads, optimizers and learning rates are those of the configuration files of Dooley, Sukthanker et al.
(2023); each also with what mitigates bias there, see :mod:`vlbias.search.mitigations`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vlbias.errors import unknown
from vlbias.search.mitigations import MITIGATIONS, NO_MITIGATION
from vlbias.search.spaces import Configuration

__all__ = ["BASELINES", "baseline_names", "baseline_number"]

#: Short name => timm name.
NETWORKS = {
    "resnet50": "resnet50",
    "dpn": "dpn107",
    "rexnet": "rexnet_200",
    "tnt": "tnt_s_patch16_224",
    "inception": "inception_resnet_v2",
}
_HEADS, _RATES = ("cosface", "arcface", "magface"), {"sgd": 0.1, "adamw": 0.001}

_PLAIN = {
    f"{name}-{head}-{optimizer}": Configuration(backbone, head, optimizer, rate)
    for (name, backbone), head, (optimizer, rate) in itertools.product(NETWORKS.items(), _HEADS, _RATES.items())
}
#: "dpn-cosface-sgd" and so on: every network with every head and optimizer; then the same with a mitigation.
BASELINES: Mapping[str, Configuration] = _PLAIN | {
    f"{name}-{mitigation}": replace(plain, mitigation=mitigation)
    for mitigation, (name, plain) in itertools.product(MITIGATIONS, _PLAIN.items())
    if mitigation != NO_MITIGATION
}
#: Baselines are counted from here, where no trial comes.
_FIRST = 1_000_000


def baseline_names(wanted: Sequence[str]) -> list[str]:
    """Names of baselines; "all" is every network once, with CosFace and SGD.

    Raises:
        UnknownNameError: no such baseline.

    Example:
        >>> baseline_names(["all"])[:2]
        ['resnet50-cosface-sgd', 'dpn-cosface-sgd']
    """
    names = [f"{name}-cosface-sgd" for name in NETWORKS] if list(wanted) == ["all"] else list(wanted)
    for name in names:
        if name not in BASELINES:
            raise unknown("baseline", name, ["all", *BASELINES])
    return list(dict.fromkeys(names))


def baseline_number(name: str) -> int:
    """Its number beside those of trials; the seeds of its trainings follow from it."""
    return _FIRST + list(BASELINES).index(name)
