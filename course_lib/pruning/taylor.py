r"""The change of the loss when a weight or a unit goes, guessed from gradients at the weights as they are.

A Taylor expansion in one weight w, or in one gate z that goes from 1 to 0 (see ``gates``), with gradient g:

.. math:: \Delta_w = -g\,w + \tfrac12 H w^2 \qquad \Delta_z = -g + \tfrac12 H

The first term is the first order, both are the second. The second derivative H of the loss is taken to be the diagonal
of the Fisher information, :math:`H \approx \frac1N \sum_n g_n^2`, the mean square of the gradients :math:`g_n` of
single examples with their own labels. Where training has ended, g is nearly 0 and the second term is the larger one.

- Molchanov et al. 2017 (arXiv 1611.06440): first order in the gate, :math:`|g z|` of each example and then the mean.
  ``unit_taylor`` as it comes; ``criteria.normalise_layers`` before layers are compared.
- Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning" (CVPR): :math:`(g w)^2`, and
  :math:`[g w - \frac12 w H w]^2` with the second order; the gate behind the batch normalisation. Squares and absolute
  values give the same order: ``absolute="mean"``.

Units cost one backward pass through the data; so do weights, or one pass for each example where the gradients of
single examples are needed. The model is in eval mode meanwhile, and then as it was, with the gradients that it held.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.checking import check_choice, check_finite
from course_lib.device import evaluating, pick_device, placed
from course_lib.evaluation import Batch, batches
from course_lib.gates import Gate, UnitScores, find_gates, gated, unit_layers
from course_lib.layers import Targets, prunable_weights
from course_lib.progress import bar
from course_lib.training import Loss, hard_label_loss

Absolute = Literal["mean", "example", "none"]


def taylor(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    targets: Targets | None = None,
    *,
    loss: Loss = hard_label_loss,
    order: int = 1,
    absolute: Absolute = "mean",
    batch_size: int = 256,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """The change of the loss if each weight alone were 0: parameter name -> a tensor of the parameter's shape.

    Args:
        data: what the loss takes, read once. Order 2 and ``absolute="example"`` need a backward pass for each example.
        loss: takes the model and a batch, returns a scalar: a mean over the examples of the batch.
        order: 1, or 2 for the diagonal Fisher information as well.
        absolute: ``mean`` scores by the size of the mean change, ``example`` by the mean size of each example's
            change (order 1 only), ``none`` gives the change with its sign: below 0, the loss is said to fall.
        progress: a bar, if it takes longer than two seconds.

    Raises:
        TypeError, ValueError: as ``layers.prunable_weights`` and ``evaluation.batches``; another order or ``absolute``
            than there is; a loss that is no scalar, not finite, or without a gradient.
    """
    weights = prunable_weights(model, targets)
    each, values = _of_each(order, absolute), list(weights.values())
    device = pick_device(device)

    def gradients() -> Iterator[tuple[int, list[Tensor]]]:
        for batch in bar(
            _ones(data, device) if each else batches(data, batch_size, device), unit="batch", show=progress
        ):
            found = _gradients(model, batch, loss, values)
            yield len(batch[0]), [g.unsqueeze(0) for g in found]  # a row for each example, or one for all

    check_finite(weights)
    with placed(model, device), evaluating(model), _requiring_gradients(values), torch.enable_grad():
        means = _means(gradients(), each)
        changes = [_change(w.detach(), g, extra, order) for w, (g, extra) in zip(values, means, strict=True)]
    return _scores(dict(zip(weights, changes, strict=True)), absolute, {name: w.device for name, w in weights.items()})


def unit_taylor(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    targets: Targets | None = None,
    *,
    loss: Loss = hard_label_loss,
    order: int = 1,
    absolute: Absolute | None = None,
    after: Mapping[str, str] | None = None,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> UnitScores:
    """The change of the loss if each unit alone gave nothing: layer name -> ``(units,)``.

    Args:
        absolute: as for ``taylor``; without it as in the papers: ``example`` with order 1, ``mean`` with order 2.
        after: from a layer's name to the name of the module behind which its gates stand; without it behind the batch
            normalisation that takes the layer's output, or behind the layer itself.
        data, loss, order, progress: as for ``taylor``.

    Raises:
        TypeError, ValueError: as ``taylor``, ``gates.unit_layers`` and ``gates.find_gates``.
    """
    layers = unit_layers(model, targets)
    if absolute is None:
        absolute = "example" if order == 1 else "mean"
    each, device = _of_each(order, absolute), pick_device(device)
    homes = {name: layer.weight.device for name, layer in layers.items()}

    def gradients() -> Iterator[tuple[int, list[Tensor]]]:
        gates: dict[str, Gate] = {}
        for batch in bar(batches(data, batch_size, device), unit="batch", show=progress):
            gates = gates or find_gates(model, layers, after, partial(loss, model, batch))
            count = len(batch[0])
            rows = (count,) if each else ()  # a gate for each example, or one for all
            opened = {name: _open_gates(layers[name], *rows, gate.units) for name, gate in gates.items()}
            with gated(gates, opened):
                found = _gradients(model, batch, loss, list(opened.values()))
            yield count, [g * count if each else g.unsqueeze(0) for g in found]  # the loss is a mean: undo its 1/N

    check_finite({name: layer.weight for name, layer in layers.items()})
    with placed(model, device), evaluating(model), torch.enable_grad():
        changes = [_change(torch.ones_like(g), g, extra, order) for g, extra in _means(gradients(), each)]
    return _scores(dict(zip(layers, changes, strict=True)), absolute, homes)


def _open_gates(layer: nn.Module, *shape: int) -> Tensor:
    """Ones, where the layer computes, with gradients."""
    weight = layer.weight
    dtype = torch.promote_types(weight.dtype, torch.float32)  # half precision has too few digits to put scores in order
    return torch.ones(shape, device=weight.device, dtype=dtype, requires_grad=True)


def _of_each(order: int, absolute: str) -> Callable[[Tensor], Tensor] | None:
    """What has to be averaged of the gradients of single examples; nothing if their sum will do."""
    if order not in (1, 2) or isinstance(order, bool):
        raise ValueError(f"order is {order!r}; expected 1, or 2 for the diagonal Fisher information as well")
    check_choice("absolute", absolute, ("mean", "example", "none"))
    if order == 2 and absolute == "example":
        raise ValueError("absolute is 'example' and order 2; expected 'mean' or 'none': it averages over the examples")
    if order == 1:
        return torch.abs if absolute == "example" else None
    return torch.square


def _means(
    gradients: Iterable[tuple[int, list[Tensor]]], each: Callable[[Tensor], Tensor] | None
) -> list[tuple[Tensor, Tensor | None]]:
    """For each weight or gate: the mean of its gradients, and the mean of ``each`` of them.

    Args:
        gradients: for each batch its number of examples, and tensors with rows: one row an example, or one for all.
    """
    count, sums = 0, []
    for size, tensors in gradients:
        rows = [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]
        new = [size / len(r) * torch.stack([r.sum(0), each(r).sum(0)] if each else [r.sum(0)]) for r in rows]
        sums = [old + n for old, n in zip(sums, new, strict=True)] if sums else new
        count += size
    return [(total[0] / count, total[1] / count if each else None) for total in sums]


def _change(value: Tensor, gradient: Tensor, extra: Tensor | None, order: int) -> Tensor:
    """The change of the loss when ``value`` goes to 0; ``extra`` is the mean of the gradients' squares or sizes."""
    if extra is None:
        return -gradient * value
    return -gradient * value + extra * value.square() / 2 if order == 2 else extra * value.abs()


def _scores(changes: Mapping[str, Tensor], absolute: str, homes: Mapping[str, torch.device]) -> dict[str, Tensor]:
    """The changes, or their sizes, where the weights lie."""
    return {n: (change if absolute == "none" else change.abs()).to(homes[n]) for n, change in changes.items()}


def _gradients(model: nn.Module, batch: Batch, loss: Loss, values: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the loss of a batch at ``values``; zeros for one that the loss does not depend on."""
    value = loss(model, batch)
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss gives {shape}; expected a scalar, the mean over the batch")
    if not torch.isfinite(value):
        raise ValueError(f"the loss is {value.item()}; expected a finite number: look for nan in the data and weights")
    if not value.requires_grad:
        raise ValueError("the loss has no gradient: something between it and the weights is detached")
    return list(torch.autograd.grad(value.reshape(()), values, allow_unused=True, materialize_grads=True))


def _ones(data: TensorDataset | DataLoader, device: torch.device) -> Iterator[Batch]:
    """The examples of ``data``, one at a time."""
    for batch in batches(data, 1, device):
        yield from zip(*(tensor.split(1) for tensor in batch), strict=True)


@contextmanager
def _requiring_gradients(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, frozen weights have gradients too; afterwards they are frozen again."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
