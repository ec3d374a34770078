"""What a call of a model costs: seconds, and bytes held meanwhile."""

import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from course_lib.device import evaluating
from course_lib.measure.size import plain_tensors
from course_lib.table import Latency


def latency(call: nn.Module | Callable[..., object], *inputs: object, repeats: int = 30, warmup: int = 3) -> Latency:
    """Time ``call(*inputs)``, ``repeats`` times after ``warmup`` runs that do not count.

    A model runs in eval mode and without gradients; a function runs as it is. A GPU is waited for.
    To compare several calls use ``latencies``: it is fairer than one ``latency`` after the other.
    """
    return latencies({"": call}, *inputs, repeats=repeats, warmup=warmup)[""]


def latencies(
    calls: Mapping[str, nn.Module | Callable[..., object]],
    *inputs: object,
    repeats: int = 30,
    warmup: int = 3,
) -> dict[str, Latency]:
    """Time several calls on the same inputs, in turns: a machine that slows down meanwhile slows all of them.

    There are five turns. In each, every call first runs ``warmup`` times, which brings its weights back into the
    processor's cache after the others have filled it, and is then timed for its share of the ``repeats``.

    Raises:
        ValueError: there is no call, ``repeats`` is below 2, or ``warmup`` is negative.
    """
    if not calls:
        raise ValueError("calls is empty; expected at least one name with a model or a function")
    if repeats < 2 or warmup < 0:
        raise ValueError(f"repeats is {repeats} and warmup {warmup}; expected at least 2 and at least 0")
    for call in calls.values():
        _check_call(call)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    turns = min(5, repeats) if len(calls) > 1 else 1
    with evaluating(*(call for call in calls.values() if isinstance(call, nn.Module))):
        for turn in range(turns):
            share = repeats // turns + (turn < repeats % turns)
            for name, call in calls.items():
                runs = [_time_once(call, inputs) for _ in range(warmup + share)]
                seconds[name] += runs[warmup:]
    return {name: _summary(runs) for name, runs in seconds.items()}


def peak_memory(call: nn.Module | Callable[..., object], *inputs: object) -> int:
    """The most bytes that ``call(*inputs)`` holds at one moment, on top of the model and the inputs.

    On cuda the allocator says it (``torch.cuda.max_memory_allocated``). On a CPU every tensor that an
    operation returns is followed until it is freed. The scratch space that a kernel takes and frees inside
    one operation is not seen there; in return the number is the same on every machine.
    A model runs in eval mode and without gradients, a function as it is.
    The device is that of the first parameter or input; without one it is the CPU.

    Raises:
        ValueError: the device is neither a CPU nor cuda; PyTorch keeps no peak elsewhere.
    """
    models = [call] if isinstance(call, nn.Module) else []
    tensors = [t for t in (*(p for m in models for p in m.parameters()), *tree_leaves(inputs)) if isinstance(t, Tensor)]
    device = tensors[0].device if tensors else torch.device("cpu")
    _check_call(call)
    with evaluating(*models), torch.set_grad_enabled(torch.is_grad_enabled() and not models):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            call(*inputs)
            torch.cuda.synchronize(device)
            return torch.cuda.max_memory_allocated(device) - before
        if device.type != "cpu":
            raise ValueError(f"device is {str(device)!r}; peak memory can be measured on 'cpu' and 'cuda'")
        with _LiveBytes() as tracker:
            call(*inputs)
        return tracker.peak


class _LiveBytes(TorchDispatchMode):
    """Follows the memory of every tensor that an operation returns; ``peak`` is the most at one moment."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for storage in _storages((args, kwargs)):
            self._seen.setdefault(storage, True)  # not made by an operation seen here: there before the call
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage not in self._seen:
                self._seen[storage] = True
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _free(self, size: int) -> None:
        self.live -= size


def _storages(tree: object) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            for _, part in plain_tensors(leaf):
                yield part.untyped_storage()


def _check_call(call: object) -> None:
    if not callable(call):
        raise TypeError(f"call is a {type(call).__name__}; expected a model or a function")


def _time_once(call: nn.Module | Callable[..., object], inputs: tuple[object, ...]) -> float:
    """Seconds of one call. Switching gradients off takes microseconds itself, so the clock starts after it."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not isinstance(call, nn.Module)):
        _wait_for_gpu()
        start = time.perf_counter()
        call(*inputs)
        _wait_for_gpu()
        return time.perf_counter() - start


def _wait_for_gpu() -> None:
    """A GPU works on after the call has returned; the clock would only see the work being handed over."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def _summary(seconds: list[float]) -> Latency:
    quarter, median, three_quarters = statistics.quantiles(seconds, n=4, method="inclusive")
    return Latency(median, three_quarters - quarter, min(seconds), len(seconds))
