"""Fair architecture search: error and a group gap as two objectives, over architectures and hyperparameters.

The joint space and the metrics are those of Dooley, Sukthanker et al. (NeurIPS 2023); studies are Optuna's, joined by
any number of workers, with multi-objective successive halving on top; see ``docs/search.md``.

Needs the extra: ``pip install "vlbias[search]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlbias.errors import MissingDependencyError
from vlbias.search.cell import PUBLISHED_DPN, Skeleton, dpn_cell
from vlbias.search.evaluation import CLASSIFY_OBJECTIVES, IDENTIFY_OBJECTIVES, Evaluation
from vlbias.search.gallery import balanced_gallery
from vlbias.search.heads import MagFaceHead, make_head
from vlbias.search.inference import Comparison, compare, intervals
from vlbias.search.metric_table import evaluate
from vlbias.search.metrics import group_table, identification_ranks, published_two_group
from vlbias.search.pareto import dominates, front_ranks, hypervolume, should_stop
from vlbias.search.reliability import reliability
from vlbias.search.spaces import Configuration, Space, laptop_space, published_space, space
from vlbias.search.task import Task, drawn_people, make_task
from vlbias.search.trainer import Trainer, TrainSettings, embed
from vlbias.search.verification import verify

if TYPE_CHECKING:
    from vlbias.search.export import load_model
    from vlbias.search.front import Candidate, Front
    from vlbias.search.study import SearchSettings, Study, open_study, run
    from vlbias.search.transfers import Transfer, transfer

__all__ = [
    "CLASSIFY_OBJECTIVES",
    "IDENTIFY_OBJECTIVES",
    "PUBLISHED_DPN",
    "Candidate",
    "Comparison",
    "Configuration",
    "Evaluation",
    "Front",
    "MagFaceHead",
    "SearchSettings",
    "Skeleton",
    "Space",
    "Study",
    "Task",
    "TrainSettings",
    "Trainer",
    "Transfer",
    "balanced_gallery",
    "compare",
    "dominates",
    "dpn_cell",
    "drawn_people",
    "embed",
    "evaluate",
    "front_ranks",
    "group_table",
    "hypervolume",
    "identification_ranks",
    "intervals",
    "laptop_space",
    "load_model",
    "make_head",
    "make_task",
    "open_study",
    "published_space",
    "published_two_group",
    "reliability",
    "run",
    "should_stop",
    "space",
    "transfer",
    "verify",
]

# Modules that need Optuna, or write models, are loaded on first use.
_LATE = {
    "Candidate": "front",
    "Front": "front",
    "SearchSettings": "study",
    "Study": "study",
    "Transfer": "transfers",
    "load_model": "export",
    "open_study": "study",
    "run": "study",
    "transfer": "transfers",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'vlbias.search' has no attribute '{name}'")
    import importlib

    try:
        return getattr(importlib.import_module(f"vlbias.search.{_LATE[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("optuna", "pytorch_metric_learning"):
            raise
        raise MissingDependencyError(f'The search needs {error.name}: pip install "vlbias[search]".') from error
