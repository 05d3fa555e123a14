"""vlbias: measure and mitigate bias in face datasets.

Public names are loaded on first use, so ``import vlbias`` is quick and does nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vlbias.version import __version__ as __version__

_HOMES = {
    "Balancer": "vlbias.balance",
    "Dipole": "vlbias.paths",
    "DiffAE": "vlbias.diffae",
    "Editor": "vlbias.editor",
    "PathSet": "vlbias.paths",
    "VlbiasError": "vlbias.errors",
    "load_dataset": "vlbias.data",
    "open_dataset": "vlbias.data",
}
_MODULES = (
    "alignment",
    "audit",
    "balance",
    "bench",
    "classify",
    "clip",
    "data",
    "diffae",
    "engine",
    "errors",
    "fairness",
    "images",
    "labelling",
    "leak",
    "paths",
    "report",
    "search",
    "simulate",
    "world",
)

__all__ = [
    "Balancer",
    "DiffAE",
    "Dipole",
    "Editor",
    "PathSet",
    "VlbiasError",
    "audit",
    "load_dataset",
    "open_dataset",
    "search",
    "simulate",
    "world",
]

if TYPE_CHECKING:
    import vlbias.audit as audit
    from vlbias import search, simulate, world
    from vlbias.balance import Balancer
    from vlbias.data import load_dataset, open_dataset
    from vlbias.diffae import DiffAE
    from vlbias.editor import Editor
    from vlbias.errors import VlbiasError
    from vlbias.paths import Dipole, PathSet


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"vlbias.{name}")
    raise AttributeError(f"module 'vlbias' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
