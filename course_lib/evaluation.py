"""How good is a model: one ``evaluate`` loop and one ``predict_logits`` for the whole course."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.device import check_model, evaluating, pick_device, placed

Batch = Sequence[Tensor]
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats, share of right answers, wrong answers, and how many were asked."""

    loss: float
    accuracy: float
    errors: int
    count: int


def evaluate(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    *,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
) -> Evaluation:
    """How well ``model`` answers on ``data``, (inputs, labels); the model is left as it was.

    Args:
        model: gives logits (N, C).
        data: inputs (N, ...), labels (N,) of an integer type.
        batch_size: examples at a time; a ``DataLoader`` brings its own.
        device: where to compute, ``pick_device`` if none.

    Raises:
        ValueError: the data are empty or hold no labels, or a label is out of range.
        TypeError: the model, the data or the labels are of another type.
    """
    total, right, count = 0.0, 0, 0
    with closing(_predictions(model, data, batch_size, device)) as predictions:
        for logits, batch in predictions:
            if len(batch) < 2:
                raise ValueError("data holds no labels; expected batches of (inputs, labels)")
            labels = check_labels(batch[1], logits)
            total += nn.functional.cross_entropy(logits.float(), labels, reduction="sum").item()
            right += int((logits.argmax(-1) == labels).sum())
            count += labels.numel()
    return Evaluation(loss=total / count, accuracy=right / count, errors=count - right, count=count)


def predict_logits(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    *,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
) -> Tensor:
    """The model's logits for every example of ``data`` in order, (N, C) on the CPU; the model is left as it was.

    The arguments and errors are those of ``evaluate``; labels are not needed.
    """
    with closing(_predictions(model, data, batch_size, device)) as predictions:
        return torch.cat([logits.cpu() for logits, _ in predictions])


def batches(data: TensorDataset | DataLoader, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """The batches of ``data`` in order, on ``device``; a ``DataLoader`` brings its own size.

    Raises:
        TypeError, ValueError: as ``check_data``, or ``batch_size`` is below 1.
    """
    check_data("data", data)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more")
    in_order = data
    if isinstance(data, TensorDataset):
        in_order = zip(*(tensor.split(batch_size) for tensor in data.tensors), strict=True)
    return (tuple(tensor.to(device) for tensor in batch) for batch in in_order)


def check_data(name: str, data: TensorDataset | DataLoader) -> None:
    """Raise a ``TypeError`` or ``ValueError`` that names the argument unless ``data`` can be iterated over."""
    if not isinstance(data, (TensorDataset, DataLoader)):
        raise TypeError(f"{name} is a {type(data).__name__}; expected a TensorDataset or a DataLoader")
    try:
        count = len(data)
    except TypeError as error:  # an IterableDataset without a length
        raise TypeError(f"{name} has no length ({error}); give it a __len__: its steps have to be counted") from error
    if count == 0:
        raise ValueError(f"{name} is empty: there is nothing to learn from or to evaluate")


def check_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """``labels`` (N,) as int64, if each is a class for which ``logits`` (N, C) have a column.

    Raises:
        TypeError: they are not integers.
        ValueError: another shape, or a label below 0 or above C - 1.
    """
    if labels.dtype not in INTEGERS:
        raise TypeError(f"labels are {labels.dtype}; expected class numbers, torch.int64")
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"labels are {tuple(labels.shape)} and the logits {tuple(logits.shape)}; expected (N,) and (N, C)"
        )
    labels = labels.long()
    wrong = labels[(labels < 0) | (labels >= logits.shape[1])]
    if len(wrong):
        last = logits.shape[1] - 1
        raise ValueError(f"labels hold {wrong[0].item()}; expected 0 to {last}, a class for each of the model's logits")
    return labels


def _predictions(
    model: nn.Module, data: TensorDataset | DataLoader, batch_size: int, device: str | torch.device | None
) -> Iterator[tuple[Tensor, Batch]]:
    """The logits of each batch and the batch, in order, on the device that computes."""
    check_model(model)
    device = pick_device(device)
    in_order = batches(data, batch_size, device)
    with placed(model, device), evaluating(model), torch.no_grad():
        for batch in in_order:
            yield model(batch[0]), batch
