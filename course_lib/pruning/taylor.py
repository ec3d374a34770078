r"""The change of the loss when a weight or a unit goes, guessed from gradients at the weights as they are.

A Taylor expansion in one weight w that goes to 0, or in one gate z that goes from 1 to 0 (see ``gates``), with the
gradient g and the second derivative H of the loss:

.. math:: \Delta_w = -g\,w + \tfrac12 H w^2 \qquad \Delta_z = -g + \tfrac12 H

The first term is the first order, both are the second. H is taken to be the diagonal of the (empirical) Fisher
information, :math:`H \approx \frac1N \sum_n g_n^2`: the mean square of the gradients :math:`g_n` of single examples
with their own labels. Where training has ended, g is nearly 0 and the second term is the larger one.

- Molchanov et al. 2017 (arXiv 1611.06440): first order in the gate, :math:`|g z|` of each example and then the mean.
  ``unit_taylor`` as it comes; ``criteria.normalise_layers`` before layers are compared.
- Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning" (CVPR): :math:`(g w)^2`, and
  :math:`[g w - \frac12 w H w]^2` with the second order; the gate behind the batch normalisation. Squares and absolute
  values give the same order: ``absolute="mean"``.

Units cost one backward pass through the data; so do weights, or one pass for each example where the gradients of
single examples are needed. The model is in eval mode meanwhile, and then as it was, with the gradients that it held.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
# Of one weight's or gate's gradients over the examples: the mean, and the means of the sizes and of the squares; the
# last two only where single examples were asked for.
Means = tuple[Tensor, Tensor | None, Tensor | None]


def first_order(value: Tensor, gradient: Tensor) -> Tensor:
    """-g w: the change of the loss when ``value`` goes to 0, along the tangent. Any shape, elementwise."""
    return -gradient * value


def second_order(value: Tensor, gradient: Tensor, curvature: Tensor) -> Tensor:
    """-g w + H w² / 2, with the Fisher information as ``curvature``. Any shape, elementwise."""
    return first_order(value, gradient) + curvature * value.square() / 2


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
    single = _single_examples(order, absolute)
    weights = prunable_weights(model, targets)
    means = _means_at_weights(model, data, weights, loss, single, batch_size, device, progress)
    return {name: _score(weight.detach(), means[name], order, absolute) for name, weight in weights.items()}


def fisher(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    targets: Targets | None = None,
    *,
    loss: Loss = hard_label_loss,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """The diagonal of the empirical Fisher information, F = mean of g_n²: parameter name -> the parameter's shape.

    The arguments and errors are those of ``taylor``; it costs a backward pass for each example.
    """
    weights = prunable_weights(model, targets)
    means = _means_at_weights(model, data, weights, loss, True, 1, device, progress)
    return {name: squares for name, (_, _, squares) in means.items()}


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
    absolute = absolute or ("example" if order == 1 else "mean")
    layers, single, device = unit_layers(model, targets), _single_examples(order, absolute), pick_device(device)
    homes = {name: layer.weight.device for name, layer in layers.items()}
    check_finite({name: layer.weight for name, layer in layers.items()})

    def gradients() -> Iterator[tuple[int, list[Tensor]]]:
        gates: dict[str, Gate] = {}
        for batch in bar(batches(data, batch_size, device), unit="batch", show=progress):
            gates = gates or find_gates(model, layers, after, partial(loss, model, batch))
            count = len(batch[0])
            rows = (count,) if single else ()  # a gate for each example, or one for all
            opened = {name: _open_gates(layers[name], *rows, gate.units) for name, gate in gates.items()}
            with gated(gates, opened):
                found = _gradients(model, batch, loss, list(opened.values()))
            yield count, [g * count if single else g.unsqueeze(0) for g in found]  # the loss is a mean: undo its 1/N

    with placed(model, device), evaluating(model), torch.enable_grad():
        means = dict(zip(layers, _means(gradients(), single), strict=True))
    return {n: _score(torch.ones_like(m[0]), m, order, absolute).to(homes[n]) for n, m in means.items()}


def _score(value: Tensor, means: Means, order: int, absolute: str) -> Tensor:
    """The change of the loss when ``value`` goes to 0, or its size."""
    gradient, sizes, squares = (None if mean is None else mean.to(value.device) for mean in means)
    if absolute == "example":
        return sizes * value.abs()
    change = first_order(value, gradient) if order == 1 else second_order(value, gradient, squares)
    return change if absolute == "none" else change.abs()


def _single_examples(order: int, absolute: str) -> bool:
    """Whether the gradients of single examples are needed, or only their mean."""
    if order not in (1, 2) or isinstance(order, bool):
        raise ValueError(f"order is {order!r}; expected 1, or 2 for the diagonal Fisher information as well")
    check_choice("absolute", absolute, ("mean", "example", "none"))
    if order == 2 and absolute == "example":
        raise ValueError("absolute is 'example' and order 2; expected 'mean' or 'none': it averages over the examples")
    return order == 2 or absolute == "example"


def _means_at_weights(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    weights: Mapping[str, nn.Parameter],
    loss: Loss,
    single: bool,
    batch_size: int,
    device: str | torch.device | None,
    progress: bool,
) -> dict[str, Means]:
    """The means of the gradients at each weight, one example at a time if ``single``."""
    check_finite(weights)
    values, device = list(weights.values()), pick_device(device)

    def gradients() -> Iterator[tuple[int, list[Tensor]]]:
        parts = batches(data, 1 if single else batch_size, device)
        for batch in bar(_ones(parts) if single else parts, unit="batch", show=progress):
            yield len(batch[0]), [g.unsqueeze(0) for g in _gradients(model, batch, loss, values)]

    with placed(model, device), evaluating(model), _requiring_gradients(values), torch.enable_grad():
        return dict(zip(weights, _means(gradients(), single), strict=True))


def _means(gradients: Iterable[tuple[int, list[Tensor]]], single: bool) -> list[Means]:
    """From gradients with rows, one row an example or one for all, and the number of examples: their means."""
    count, sums = 0, []
    for size, tensors in gradients:
        rows = [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]
        kinds = [(r, r.abs(), r.square()) if single else (r,) for r in rows]
        new = [size / len(of[0]) * torch.stack([kind.sum(0) for kind in of]) for of in kinds]
        sums = [old + n for old, n in zip(sums, new, strict=True)] if sums else new
        count += size
    return [tuple(total / count) if single else (total[0] / count, None, None) for total in sums]


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


def _open_gates(layer: nn.Module, *shape: int) -> Tensor:
    """Ones, where the layer computes, with gradients."""
    dtype = torch.promote_types(layer.weight.dtype, torch.float32)
    return torch.ones(shape, device=layer.weight.device, dtype=dtype, requires_grad=True)


def _ones(parts: Iterable[Batch]) -> Iterator[Batch]:
    """The examples of batches, one at a time."""
    for batch in parts:
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
