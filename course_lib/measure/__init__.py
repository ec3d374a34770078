"""Measuring a model: how large it is, how much work it does, how long that takes, how good it is.

- ``size.py``, on the shelf: ``count_parameters``, ``count_nonzero``, ``bytes_in_memory``, ``bytes_on_disk``,
  ``compression_ratio``
- ``arithmetic.py``: ``flops``
- ``work.py``, what a call costs: ``latency``, ``latencies``, ``peak_memory``
- ``quality.py``: ``accuracy``, ``perplexity``
- here, all at once: ``compare_models`` makes the course's table

Nothing here changes a model: it is put in eval mode where that matters, and back as it was.
Units: bytes, seconds, and floating point operations; one multiply-add is two operations.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.device import device_of
from course_lib.evaluation import evaluate
from course_lib.measure.arithmetic import flops
from course_lib.measure.quality import accuracy, perplexity
from course_lib.measure.size import (
    bytes_in_memory,
    bytes_on_disk,
    compression_ratio,
    count_nonzero,
    count_parameters,
)
from course_lib.measure.work import latencies, latency, peak_memory
from course_lib.table import ComparisonTable, Latency, Row

__all__ = [
    "Latency",
    "accuracy",
    "bytes_in_memory",
    "bytes_on_disk",
    "compare_models",
    "compression_ratio",
    "count_nonzero",
    "count_parameters",
    "flops",
    "latencies",
    "latency",
    "peak_memory",
    "perplexity",
]


def compare_models(
    models: Mapping[str, nn.Module],
    example: Tensor | tuple[object, ...],
    data: TensorDataset | None = None,
    *,
    timed: bool = True,
) -> ComparisonTable:
    """The table of several models, each measured where it is and compared with the first.

    They are timed in turns, which is fair to all.

    Args:
        models: by the names that the table shows, the one to compare with first.
        example: the input of one call, or a tuple of inputs; FLOPs, latency and peak memory are of this call.
        data: pictures and labels; with it the table says how accurate the models are on them.
        timed: if false, latency is left out.

    Raises:
        TypeError: one of the models is no module.
        ValueError: there are no models; as ``latencies`` and ``evaluation.evaluate``.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    rows = [_measured(name, model, inputs, data) for name, model in models.items()]
    if timed and models:
        times = latencies(models, *inputs)
        rows = [replace(row, latency=times[row.name]) for row in rows]
    return ComparisonTable(rows)


def _measured(name: str, model: nn.Module, inputs: tuple[object, ...], data: TensorDataset | None) -> Row:
    """Everything but the time."""
    parameters, device = count_parameters(model), device_of(model)
    return Row(
        name=name,
        quality={} if data is None else {"accuracy": evaluate(model, data, device=device).accuracy},
        parameters=parameters,
        nonzero=count_nonzero(model),
        bytes_in_memory=bytes_in_memory(model),
        bytes_on_disk=bytes_on_disk(model),
        flops=flops(model, *inputs),
        peak_memory=peak_memory(model, *inputs) if device.type in ("cpu", "cuda") else None,
        example=", ".join("×".join(map(str, t.shape)) for t in inputs if isinstance(t, Tensor)),
        device=_named(device),
    )


def _named(device: torch.device) -> str:
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
