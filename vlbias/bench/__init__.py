"""A benchmark that others can enter: the same tasks for every method, and a table of results that only grows.

A *task* is a training set in which a target is tied to a protected attribute, a validation set from the same source,
and a test set with as many faces in every cell. In the embedded world the truth is known, so an oracle is entered too.
An *arm* is a method (:mod:`vlbias.audit.arms`). What has been fitted once is never fitted again: results lie in one
file, by a digest of all that decides them, and any number of processes add to it.
"""

from vlbias.bench.photographs import CelebAHQTask, UTKFaceTask
from vlbias.bench.results import Entry, Result
from vlbias.bench.run import CLASSIFIERS, BenchSettings, bench
from vlbias.bench.sets import Variant, balanced_set
from vlbias.bench.table import BenchTable, RankAgreement, rank_agreement
from vlbias.bench.tasks import Task, TaskFaces, WorldTask, find_tasks, register_task

__all__ = [
    "CLASSIFIERS",
    "BenchSettings",
    "BenchTable",
    "CelebAHQTask",
    "Entry",
    "RankAgreement",
    "Result",
    "Task",
    "TaskFaces",
    "UTKFaceTask",
    "Variant",
    "WorldTask",
    "balanced_set",
    "bench",
    "find_tasks",
    "rank_agreement",
    "register_task",
]
