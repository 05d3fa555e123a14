"""A process that holds one ONNX graph of somebody else and runs it: it may die, hang or swell, and nothing else does.

``graph_process.py`` starts this file by its path, so it imports nothing of the library and is there in a moment. It
reads and writes a line of JSON and then, for an array, its numbers; what a graph makes is never unpickled.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

#: Largest output that is passed on: a million float32 numbers for each of 32 pictures.
_MAX_OUTPUT_BYTES = 2**27
#: What threads and the reader of the file map beside what the graph holds.
_SPARE_BYTES, _THREAD_BYTES = 2**28, 80 * 2**20


def _bound(num_bytes: int, threads: int) -> None:
    """At most so many bytes more than now, where the system keeps such bounds."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes + _SPARE_BYTES + threads * _THREAD_BYTES, most))


def _allow(seconds: float) -> None:
    """The system ends this process when it has used so many seconds of processors; 0 for no end."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _session(runtime: Any, path: str, max_bytes: int, threads: int) -> Any:
    place = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    runtime.create_and_register_allocator(place, runtime.OrtArenaCfg({"max_mem": max_bytes}))
    options = runtime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # as large as the file
    options.log_severity_level = 4  # what goes wrong is raised
    options.intra_op_num_threads = threads
    # by path, so that weights beside the file are found; the graph cannot register libraries of operators.
    # constants are not computed in advance: that knows no bound
    unbounded = ["ConstantFolding"]
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=unbounded)


def _run(session: Any, asked: dict[str, Any], source: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """The answer to one question, and the numbers behind it."""
    count = int(np.prod(asked["shape"])) * np.dtype(asked["dtype"]).itemsize
    x = np.frombuffer(source.read(count), asked["dtype"]).reshape(asked["shape"])
    begun = time.process_time()
    found = np.asarray(session.run([asked["output"]], {asked["input"]: x})[0])
    said = {"dtype": str(found.dtype), "shape": found.shape, "seconds": time.process_time() - begun}
    if found.nbytes > _MAX_OUTPUT_BYTES:
        raise MemoryError(f"its output has {found.nbytes:,} bytes")
    return said, found.tobytes() if np.issubdtype(found.dtype, np.floating) else b""


def _tell(sink: BinaryIO, said: dict[str, Any], numbers: bytes = b"") -> None:
    sink.write(json.dumps(said).encode() + b"\n" + numbers)
    sink.flush()


def _failed(error: Exception) -> dict[str, Any]:
    text = str(error).strip() or type(error).__name__
    return {"error": text.splitlines()[0], "memory": isinstance(error, MemoryError) or "lloc" in text}


def main(path: str, max_bytes: str, weights: str, threads: str, seconds: str) -> None:
    """Hold the graph at ``path`` until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks is interrupted, and ends this
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        import onnxruntime

        _allow(float(seconds))
        _bound(int(max_bytes) + 4 * int(weights), int(threads))
        session = _session(onnxruntime, path, int(max_bytes), int(threads))
        inputs = [(item.name, item.type, item.shape) for item in session.get_inputs()]
        said: dict[str, Any] = {"inputs": inputs, "outputs": [item.name for item in session.get_outputs()]}
    except Exception as error:  # its own classes share no base but this
        said = _failed(error)
    _allow(0)
    _tell(sink, said)
    for line in iter(source.readline, b""):
        asked = json.loads(line)
        _allow(asked["seconds"])
        try:
            said, numbers = _run(session, asked, source)
        except Exception as error:  # who asked is told, and raises it
            said, numbers = _failed(error), b""
        _allow(0)
        _tell(sink, said, numbers)


if __name__ == "__main__":
    main(*sys.argv[1:])
