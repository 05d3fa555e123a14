"""Evaluations of small batches on a GPU, replayed from CUDA graphs: launching 700 kernels takes longer than they do.

A network is captured when it has evaluated the same kind of batch a few times. The first replay is compared with a
plain evaluation; where it differs, or nothing can be captured, a warning says so and evaluations stay plain.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

__all__ = ["evaluated", "is_worth_it", "plain_evaluations"]

#: Pictures of a batch up to which launches take longer than what they launch.
LARGEST_BATCH = 8
#: Evaluations of a kind before it is captured, which costs five more; and kinds that are kept, each with its memory.
PATIENCE, MOST_KINDS = 16, 4
#: How far a replay may be from a plain evaluation, as a share of the largest number in it.
_TOLERANCE = 1e-2

_is_enabled = True


@contextlib.contextmanager
def plain_evaluations() -> Iterator[None]:
    """Within it nothing is captured or replayed; to compare."""
    global _is_enabled
    before, _is_enabled = _is_enabled, False
    try:
        yield
    finally:
        _is_enabled = before


def is_worth_it(device: torch.device, batch: int) -> bool:
    """Whether evaluations of ``batch`` pictures on ``device`` are replayed once they repeat."""
    return device.type == "cuda" and 0 < batch <= LARGEST_BATCH


class _Kinds:
    """Of one network: how often it evaluated each kind of batch, and what replays those that repeat."""

    def __init__(self, network: nn.Module) -> None:
        self.lock = threading.Lock()
        self.weights = list(network.parameters())
        self.counts: Counter[Hashable] = Counter()
        self.replays: OrderedDict[Hashable, Callable[..., Tensor]] = OrderedDict()
        self.is_refused = False


_kinds: WeakKeyDictionary[nn.Module, _Kinds] = WeakKeyDictionary()


def evaluated(network: nn.Module, *inputs: Tensor) -> Tensor:
    """``network(*inputs)``, on a GPU replayed where that is worth it.

    Args:
        network: maps tensors to a tensor, without asking the processor anything on the way.
        inputs: tensors with pictures first, all on one device.
    """
    if not _is_enabled or network.training or not is_worth_it(inputs[0].device, len(inputs[0])):
        return network(*inputs)
    if torch.is_grad_enabled() and any(value.requires_grad for value in (*inputs, *network.parameters())):
        return network(*inputs)
    kinds = _kinds.get(network)
    if kinds is None or kinds.weights[0] is not next(network.parameters()):
        kinds = _kinds[network] = _Kinds(network)
    with kinds.lock:
        return network(*inputs) if kinds.is_refused else _replayed(kinds, network, inputs)


def _replayed(kinds: _Kinds, network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    kind = _kind(kinds.weights, inputs)
    kinds.counts[kind] += 1
    if kind in kinds.replays:
        kinds.replays.move_to_end(kind)
        return kinds.replays[kind](*inputs)
    out: Tensor = network(*inputs)
    if kinds.counts[kind] >= PATIENCE:
        try:
            replay = _capture(network, inputs)
            _check(replay(*inputs), out)
        except RuntimeError as error:  # errors of CUDA are such
            kinds.is_refused = True
            warnings.warn(f"evaluations are not replayed from CUDA graphs: {error}"[:300], stacklevel=2)
            return out
        kinds.replays[kind] = replay
        while len(kinds.replays) > MOST_KINDS:
            del kinds.counts[kinds.replays.popitem(last=False)[0]]
    return out


def _kind(weights: list[nn.Parameter], inputs: tuple[Tensor, ...]) -> Hashable:
    """What a replay may not change: shapes, types, stream, precision, and where the weights lie."""
    device = inputs[0].device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    is_tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    stream = torch.cuda.current_stream(inputs[0].device).cuda_stream if device == "cuda" else 0
    places = hash(tuple(weight.data_ptr() for weight in weights))
    return tuple((v.shape, v.dtype, v.device) for v in inputs), precision, is_tf32, stream, places


def _check(found: Tensor, wanted: Tensor) -> None:
    limit = _TOLERANCE * wanted.abs().max()
    if not bool((found - wanted).abs().max() <= limit):
        raise RuntimeError("a replay differs from the evaluation that it repeats.")


def _capture(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """What replays the network; its inputs are copied into memory of the graph's own, its output out of it."""
    device = inputs[0].device
    kind = device.type
    # a cast of weights that autocast remembers would be freed while the graph still reads it
    autocast = torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )
    # tensors made in inference mode could not be written outside of it
    with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device), autocast:
        held = [value.clone() for value in inputs]
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries choose their algorithms and take their memory
                network(*held)
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            out = network(*held)

    def replay(*given: Tensor) -> Tensor:
        with torch.no_grad():
            for mine, theirs in zip(held, given, strict=True):
                mine.copy_(theirs)
            graph.replay()
            return out.clone()

    return replay
