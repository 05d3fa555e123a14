"""Where the pieces of a long job are done: in this process, in several of this machine, or on a Ray cluster."""

from vlbias.engine.pool import run_pieces, standing_workers
from vlbias.engine.settings import Engine, checked_engine, gpus_here
from vlbias.engine.worker import Work

__all__ = ["Engine", "Work", "checked_engine", "gpus_here", "run_pieces", "standing_workers"]
