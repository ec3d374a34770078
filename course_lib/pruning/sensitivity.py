"""How sensitive is each layer: prune one layer at a time, to each sparsity, and see how well the network still does.

Han et al. 2015 (arXiv 1506.02626) choose the sparsity of each layer by such curves, and Li et al. 2017 (arXiv
1608.08710) the layers whose filters they touch at all. Nothing is trained in between, and only one layer is pruned at
a time: a curve says where to begin, not where the whole network will end.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.checking import near_names
from course_lib.device import check_model, evaluating, pick_device, placed
from course_lib.evaluation import Evaluation, batches, check_data, evaluate
from course_lib.gates import Gate, find_gates, gated, unit_layers
from course_lib.layers import Targets
from course_lib.progress import bar
from course_lib.pruning.criteria import magnitude, unit_norm
from course_lib.pruning.masks import local_masks


def sensitivity_curve(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    sparsities: Sequence[float],
    *,
    scores: Mapping[str, Tensor] | None = None,
    targets: Targets | None = None,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> dict[str, list[Evaluation]]:
    """For each layer: how the network does with this layer alone pruned to each of ``sparsities``.

    The model is in eval mode meanwhile, and then as it was, to the bit.

    Args:
        data: inputs and labels, as for ``evaluation.evaluate``.
        sparsities: shares of the layer's weights (or units) that are pruned, each from 0 to 1.
        scores: which go first, the lowest: scores of weights, by parameter name, or of units, by layer name. Without
            them the smallest weights go, of the layers that ``targets`` mean.
        targets: as for ``layers.find_layers``; not together with ``scores``.
        progress: a bar, if it takes longer than two seconds.

    Returns:
        under the names of the scores, an ``Evaluation`` for each sparsity.

    Raises:
        TypeError, ValueError: as ``criteria.magnitude``, ``masks.local_masks`` and ``evaluation.evaluate``; no
            sparsities; scores of what the model does not have, or of another shape; scores and targets.
    """
    check_model(model)
    check_data("data", data)
    if not len(sparsities):
        raise ValueError("sparsities are empty; expected one or more shares, from 0 to 1")
    if scores is not None and targets is not None:
        raise ValueError("scores and targets are both given; expected one: scores name their layers themselves")
    scores = magnitude(model, targets) if scores is None else scores
    units = _check_names(model, scores)
    masks = [local_masks(scores, sparsity) for sparsity in sparsities]  # all are checked before anything is changed
    device = pick_device(device)
    curves: dict[str, list[Evaluation]] = {name: [] for name in scores}
    with placed(model, device), bar(total=len(masks) * len(scores), show=progress) as steps:
        gates = _gates(model, units, data, device)
        for name in scores:
            for mask in masks:
                kept = mask[name].to(device)
                with gated(gates, {name: kept}) if name in gates else _zeroed(model.get_parameter(name), kept):
                    curves[name].append(evaluate(model, data, batch_size=batch_size, device=device))
                steps.update()
    return curves


def _gates(
    model: nn.Module, units: list[str], data: TensorDataset | DataLoader, device: torch.device
) -> dict[str, Gate]:
    """The gates of the layers named ``units``."""
    if not units:
        return {}
    inputs = next(iter(batches(data, 1, device)))[0]
    with evaluating(model):
        return find_gates(model, unit_layers(model, units), None, lambda: model(inputs))


@contextmanager
def _zeroed(weight: nn.Parameter, kept: Tensor) -> Iterator[None]:
    """Inside, ``weight`` is zero where ``kept`` is false; afterwards it is as it was, to the bit."""
    inside = weight.detach()
    before = inside.clone()
    try:
        inside[~kept] = 0
        yield
    finally:
        inside.copy_(before)


def _check_names(model: nn.Module, scores: Mapping[str, Tensor]) -> list[str]:
    """Which of the scores are of units. Raises unless all fit a weight or a layer of the model."""
    parameters, layers = dict(model.named_parameters()), dict(model.named_modules())
    units = [name for name in scores if name in layers]
    outputs = {name: len(score) for name, score in unit_norm(model, units).items()} if units else {}
    for name, score in scores.items():
        if name not in parameters and name not in layers:
            names = [*parameters, *layers]
            raise ValueError(
                f"scores for {name!r}: {type(model).__name__} has none of that name; {near_names(name, names)}"
            )
        expected = tuple(parameters[name].shape) if name in parameters else (outputs[name],)
        if tuple(score.shape) != expected:
            raise ValueError(f"the scores of {name} have shape {tuple(score.shape)}; expected {expected}")
    return units
