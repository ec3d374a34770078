"""How good is a model: one ``evaluate`` loop and one ``predict_logits`` for the whole course."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.device import device_of, evaluating, pick_device

Batch = Sequence[Tensor]


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
    """How well ``model`` answers on ``data``, (inputs, labels); the model is left as it was."""
    total, right, count = 0.0, 0, 0
    with closing(_predictions(model, data, batch_size, device)) as predictions:
        for logits, batch in predictions:
            labels = batch[1]
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
    """The model's logits for every example of ``data`` in order, (N, C) on the CPU; the model is left as it was."""
    with closing(_predictions(model, data, batch_size, device)) as predictions:
        return torch.cat([logits.cpu() for logits, _ in predictions])


def check_data(name: str, data: TensorDataset | DataLoader) -> None:
    """Raise a ``TypeError`` or ``ValueError`` that names the argument unless ``data`` can be iterated over."""
    if not isinstance(data, (TensorDataset, DataLoader)):
        raise TypeError(f"{name} is a {type(data).__name__}; expected a TensorDataset or a DataLoader")
    if len(data) == 0:
        raise ValueError(f"{name} is empty: there is nothing to learn from or to evaluate")


def _predictions(
    model: nn.Module, data: TensorDataset | DataLoader, batch_size: int, device: str | torch.device | None
) -> Iterator[tuple[Tensor, Batch]]:
    """The logits of each batch and the batch, in order, on the device that computes."""
    check_data("data", data)
    home, device = device_of(model), pick_device(device)
    in_order = data
    if isinstance(data, TensorDataset):
        in_order = zip(*(tensor.split(batch_size) for tensor in data.tensors), strict=True)
    try:
        with evaluating(model.to(device)), torch.no_grad():
            for batch in in_order:
                batch = tuple(tensor.to(device) for tensor in batch)
                yield model(batch[0]), batch
    finally:
        model.to(home)
