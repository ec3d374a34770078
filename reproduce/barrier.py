"""The error barrier between two trained networks (Frankle et al. 2020, arXiv 1912.05671).

On the straight line between the weights W₁ and W₂ the error E may rise above that of the ends. The barrier is
the largest rise of E(αW₁ + (1 − α)W₂) above αE(W₁) + (1 − α)E(W₂): the paper takes the mean of the two ends, which for
ends that are about equally good is the same.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import TensorDataset

from course_lib.evaluation import evaluate

Weights = Mapping[str, Tensor]


def error_barrier(
    model: nn.Module, first: Weights, second: Weights, train: TensorDataset, test: TensorDataset, *, points: int = 11
) -> float:
    """The barrier in percentage points of test error, at least 0; ``model`` is not changed.

    Args:
        first, second: state dicts of two trained copies of ``model``.
        train: means and variances of batch norm are taken anew from these inputs at every point of the line, its
            ends included: those of the ends, averaged, would not be those of the network between.
        points: how many points of the line, ends included.
    """
    probe, errors = copy.deepcopy(model), []
    shares = [index / (points - 1) for index in range(points)]
    for share in shares:
        probe.load_state_dict({name: between(first[name], second[name], share) for name in first})
        refresh_batch_norm(probe, train)
        errors.append(100 * (1 - evaluate(probe, test).accuracy))
    ends = [(1 - share) * errors[0] + share * errors[-1] for share in shares]
    return max(error - end for error, end in zip(errors, ends, strict=True))


def between(first: Tensor, second: Tensor, share: float) -> Tensor:
    """``(1 − share) · first + share · second``; a counter, which is no floating-point number, is the first one's."""
    return torch.lerp(first, second, share) if first.is_floating_point() else first


def refresh_batch_norm(model: nn.Module, data: TensorDataset, *, batch_size: int = 500) -> None:
    """Take means and variances of every batch norm anew, in place: the averages over all batches of ``data``."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    model.train()
    with torch.no_grad():
        for inputs in data.tensors[0].split(batch_size):
            model(inputs)
    model.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
