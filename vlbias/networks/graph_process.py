"""ONNX graphs of strangers in processes of their own: how long one takes and how much it holds no look at it tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlbias.errors import CheckpointError, UnsafeCheckpointError

__all__ = ["MAX_BYTES", "GraphProcess"]

#: What a graph may hold beside its weights.
MAX_BYTES = 3 * 2**28
#: Seconds of processors that a graph may take for its first picture (for a whole batch, where it wants a fixed one).
SECONDS = 8.0
#: It may take as long again to load with each so many bytes, and so many times as long for a picture as before.
_LOADED_BYTES, _SLOWER = 2**28, 4


class GraphProcess:
    """The process that holds a graph; after a fork, or when it had to be ended, there is a new one.

    Args:
        path: the ``.onnx`` file.
        num_bytes: of that file and its weights together.

    Attributes:
        inputs: (name, kind of numbers, shape) of each input of the graph.
        outputs: name of each output.
        longest_s: seconds of processors for a picture so far; 0 before the first.

    Raises:
        CheckpointError: onnxruntime refuses the graph, or the graph ends the process.
        UnsafeCheckpointError: it takes too long to load.
    """

    def __init__(self, path: Path, num_bytes: int):
        self.path, self._num_bytes, self.longest_s = path, num_bytes, 0.0
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        allowed_s = SECONDS * (1 + self._num_bytes // _LOADED_BYTES)
        numbers = (MAX_BYTES, self._num_bytes, torch.get_num_threads(), allowed_s)
        # -P: the modules beside the program are no packages of their own
        words = (sys.executable, "-P", Path(__file__).with_name("graph_program.py"), self.path.absolute(), *numbers)
        self._child = subprocess.Popen(
            [*map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._of = os.getpid()
        self._end = weakref.finalize(self, _end, self._child)
        said, _ = self._hear(allowed_s)
        if "error" in said:
            raise CheckpointError(f"{self.path} cannot be loaded by onnxruntime: {said['error']}")
        self.inputs, self.outputs = said["inputs"], said["outputs"]

    def run(self, name: str, output: str, pictures: np.ndarray) -> tuple[dict[str, Any], np.ndarray | None]:
        """Give pictures to the input ``name``: what was said of the output, and its numbers if it has any.

        What was said is its "dtype" and "shape", or an "error", and whether that is of "memory".

        Raises:
            UnsafeCheckpointError: it takes too long.
            CheckpointError: it ended the process.
        """
        with self._lock:
            if self._of != os.getpid() or not self._end.alive:
                self._start()
            allowed_s = SECONDS + _SLOWER * self.longest_s * len(pictures)
            asked = {"input": name, "output": output, "seconds": allowed_s}
            self._say(asked | {"dtype": str(pictures.dtype), "shape": pictures.shape}, pictures)
            said, numbers = self._hear(allowed_s)
            if "seconds" in said:
                self.longest_s = max(self.longest_s, said["seconds"] / len(pictures), 1e-9)
            return said, numbers

    def _say(self, asked: dict[str, Any], pictures: np.ndarray) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(asked).encode() + b"\n" + pictures.tobytes())
            self._child.stdin.flush()
        except BrokenPipeError:  # why it has ended is said by who listens
            return

    def _hear(self, allowed_s: float) -> tuple[dict[str, Any], np.ndarray | None]:
        answer = None
        try:
            answer = self._answer()
        finally:
            if answer is None:  # also when somebody interrupts: half an answer would stand before the next
                self._end()
        if answer is None:
            raise self._why_it_ended(allowed_s)
        return answer

    def _answer(self) -> tuple[dict[str, Any], np.ndarray | None] | None:
        """What was said and its numbers; None of a process that ended."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        said = json.loads(line)
        if not np.issubdtype(said.get("dtype", "O"), np.floating):
            return said, None
        count = np.dtype(said["dtype"]).itemsize * int(np.prod(said["shape"]))
        data = self._child.stdout.read(count)
        return (said, np.frombuffer(data, said["dtype"]).reshape(said["shape"])) if len(data) == count else None

    def _why_it_ended(self, allowed_s: float) -> CheckpointError:
        code = self._child.returncode
        if code == -getattr(signal, "SIGPROF", 0):
            return UnsafeCheckpointError(
                f"{self.path} worked for more than {allowed_s:.3g} seconds and was stopped. Use a smaller network."
            )
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return CheckpointError(f"{self.path} ended the process that ran it ({name}). Export the network anew.")


def _end(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except BrokenPipeError:
            continue
    if child.poll() is None:
        child.terminate()
    child.wait()
