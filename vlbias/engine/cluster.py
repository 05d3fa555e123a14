"""Workers that are actors of a Ray cluster.

Ray Data's actor pools do the same for rows of a data set. Here a piece is a chunk that stores its own result, so plain
actors are enough: Ray starts one again that died, and gives it the piece that it was at.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vlbias.engine.local import MOST_LOSSES, lost
from vlbias.engine.settings import Engine, threads_here
from vlbias.engine.worker import Answer, Worker, packed
from vlbias.errors import ConfigError, MissingDependencyError, WorkerError

__all__ = ["connected", "run_on_ray"]

#: Bytes of the shared memory of a cluster that is started here: the job goes through it, pictures do not.
_STORE_BYTES = 256 * 2**20
_LOOPBACK = "127.0.0.1"


def run_on_ray(engine: Engine, work: bytes, pieces: Sequence[Any] | None) -> Generator[tuple[int, Answer]]:
    """Do pieces on a cluster; arguments, values and errors are those of :func:`vlbias.engine.run_pieces`.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: no cluster answers at the address, or it has no room for a worker.
    """
    with connected(engine, len(work)) as ray:
        workers, cores, gpus = _shares(engine, ray.cluster_resources())
        if pieces is None:
            pieces = range(workers)
        environment = {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": "PASSIVE"}
        kind = ray.remote(Worker).options(
            num_cpus=cores, num_gpus=gpus, max_restarts=-1, max_task_retries=MOST_LOSSES - 1
        )
        job, paths = ray.put(work), [path for path in sys.path if path]
        actors = [kind.remote(environment, paths) for _ in range(min(workers, len(pieces)))]
        waiting = iter(range(len(pieces)))
        doing: dict[Any, tuple[Any, int]] = {}

        def give(actor: Any) -> None:
            number = next(waiting, None)
            if number is not None:
                doing[actor.run.remote(job, packed(pieces[number]))] = actor, number

        for actor in actors:
            give(actor)
        while doing:
            (ready, *_), _ = ray.wait(list(doing))
            actor, number = doing.pop(ready)
            try:
                answer = ray.get(ready)
            except ray.exceptions.RayActorError as error:
                raise lost(number) from error
            except ray.exceptions.RayError as error:
                raise WorkerError(f"The cluster failed: {str(error).strip().splitlines()[-1]}") from error
            give(actor)
            yield number, answer


@contextmanager
def connected(engine: Engine, num_bytes: int = 0) -> Iterator[Any]:
    """Ray, connected to its cluster; one that is started here ends with the block.

    Args:
        engine: says where the cluster is.
        num_bytes: of the job.
    """
    if engine.address is None:
        # else servers listen to the whole network, whatever address the node is given
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # the work is what was asked for; 15 would let all else go first
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("`--engine ray` needs Ray: pip install 'vlbias[ray]'.") from error
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": engine.address}
    if engine.address is None:
        options = {
            "address": "local",
            "num_cpus": max(threads_here(), (engine.workers or 1) * (engine.cores or 1)),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES + 2 * num_bytes,
            "_node_ip_address": _LOOPBACK,
        }
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError, and its own
        where = "on this machine" if engine.address is None else f"at '{engine.address}'"
        raise ConfigError(f"No Ray cluster {where}: {str(error).splitlines()[0]}") from error
    try:
        if engine.address is None and ray.util.get_node_ip_address() != _LOOPBACK:
            raise ConfigError(
                "Ray was loaded before vlbias could close its servers to the network. Let vlbias load it first, or "
                "start a cluster yourself and give its `address`."
            )
        yield ray
    finally:
        ray.shutdown()


def _shares(engine: Engine, resources: dict[str, float]) -> tuple[int, int, int]:
    """(workers, processors of each, GPUs of each) on a cluster.

    Example:
        >>> _shares(Engine(kind="ray", workers=4), {"CPU": 8.0})
        (4, 2, 0)
        >>> _shares(Engine(kind="ray"), {"CPU": 64.0, "GPU": 8.0})
        (8, 8, 1)
    """
    processors, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    usual = engine.cores or threads_here()
    workers = engine.workers or gpus or max(1, processors // usual)
    cores = engine.cores or max(1, processors // workers)
    if cores * workers > processors or (gpus and workers > gpus):
        room = min(processors // cores, gpus or processors)
        raise ConfigError(
            f"The cluster has {processors} processors and {gpus} GPUs: room for {room} workers of {cores} processors, "
            f"not for {workers}. Give fewer `workers` or `cores`."
        )
    return workers, cores, 1 if gpus else 0
