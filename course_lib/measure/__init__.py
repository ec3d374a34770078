"""Measuring a model: how large it is, how much work it does, how long that takes, how good it is.

- ``size.py``, on the shelf: ``count_parameters``, ``count_nonzero``, ``bytes_in_memory``, ``bytes_on_disk``,
  ``compression_ratio``
- ``work.py``, when it is called: ``flops``, ``latency``, ``latencies``, ``peak_memory``
- ``quality.py``: ``accuracy``, ``perplexity``
- here, all at once: ``measure_model`` makes one ``Row`` of a ``course_lib.table.ComparisonTable``

Nothing here changes a model: it is put in eval mode where that matters, and back as it was.
Units: bytes, seconds, and floating point operations; one multiply-add is two operations.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.device import device_of
from course_lib.evaluation import evaluate
from course_lib.measure.quality import accuracy, perplexity
from course_lib.measure.size import (
    bytes_in_memory,
    bytes_on_disk,
    check_model,
    compression_ratio,
    count_nonzero,
    count_parameters,
)
from course_lib.measure.work import Latency, flops, latencies, latency, peak_memory
from course_lib.table import Row

__all__ = [
    "Latency",
    "accuracy",
    "bytes_in_memory",
    "bytes_on_disk",
    "compression_ratio",
    "count_nonzero",
    "count_parameters",
    "flops",
    "latencies",
    "latency",
    "measure_model",
    "peak_memory",
    "perplexity",
]


def measure_model(
    name: str,
    model: nn.Module,
    example: Tensor | tuple[object, ...],
    data: TensorDataset | None = None,
    *,
    quality: Mapping[str, float] | None = None,
    repeats: int = 30,
    timed: bool = True,
) -> Row:
    """Measure everything about a model where it is, for one row of a ``ComparisonTable``.

    Args:
        name: what the table calls it.
        example: the input of one call, or a tuple of inputs; FLOPs, latency and peak memory are of this call.
        data: pictures and labels; with it the row says the model's accuracy on them.
        quality: other measures of quality by name, such as ``{"perplexity": 12.5}``.
        repeats: how often the call is timed.
        timed: if false, latency is left out.
    """
    check_model(model)
    inputs = example if isinstance(example, tuple) else (example,)
    device = device_of(model)
    scores = dict(quality or {})
    if data is not None:
        scores = {"accuracy": evaluate(model, data, device=device).accuracy} | scores
    return Row(
        name=name,
        quality=scores,
        parameters=count_parameters(model),
        nonzero=count_nonzero(model),
        bytes_in_memory=bytes_in_memory(model),
        bytes_on_disk=bytes_on_disk(model),
        flops=flops(model, *inputs),
        latency=latency(model, *inputs, repeats=repeats) if timed else None,
        peak_memory=peak_memory(model, *inputs) if device.type in ("cpu", "cuda") else None,
        example=", ".join("×".join(map(str, t.shape)) for t in inputs if isinstance(t, Tensor)),
        device=device.type if device.type != "cpu" else f"CPU, {torch.get_num_threads()} threads",
    )
