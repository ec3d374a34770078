r"""What is a weight worth, or a unit: the criteria by which pruning chooses.

Every criterion gives a score to each weight, or to each unit (a neuron, a filter); what has the lowest scores goes
first. This file has those that look at the weights alone; the others need data: ``taylor.py`` (with the Fisher
information) and ``leave_one_out.py``.

====================  =============================  ==============================  =====================
criterion             each weight                    each unit                       source
====================  =============================  ==============================  =====================
random                ``random_scores``              ``unit_random``                 the control
size                  ``magnitude``                  ``unit_norm``, any :math:`L^p`  Han 2015; Li 2017
loss change, guessed  ``taylor``, order 1 or 2       ``unit_taylor``, order 1 or 2   Molchanov 2017, 2019
loss change, exact    ``leave_one_out``              ``leave_one_out(of="units")``   the oracle of both
====================  =============================  ==============================  =====================

- Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks" (arXiv 1506.02626).
- Li et al. 2017, "Pruning Filters for Efficient ConvNets" (arXiv 1608.08710): :math:`s_j = \sum_l \sum |K_l|`, the sum
  over the kernels :math:`K_l` of filter j.
- Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference" (arXiv 1611.06440).

All leave the model as it was. Scores lie where the model's weights lie. A weight that several layers share is scored
once, under its first name, and a frozen weight like any other.
"""

import math
from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from course_lib.checking import check_finite
from course_lib.gates import UnitScores, unit_layers
from course_lib.layers import Targets, prunable_weights


def magnitude(model: nn.Module, targets: Targets | None = None) -> dict[str, Tensor]:
    """The absolute value of each weight: parameter name -> a tensor of the parameter's shape.

    Raises:
        TypeError, ValueError: as ``layers.prunable_weights``; a weight that is not finite.
    """
    scores = {name: weight.detach().abs() for name, weight in prunable_weights(model, targets).items()}
    if not all(score.max().isfinite() for score in scores.values() if score.numel()):  # the largest is nan if one is
        check_finite(scores)
    return scores


def random_scores(model: nn.Module, targets: Targets | None = None, *, seed: int) -> dict[str, Tensor]:
    """A number from 0 to 1 for each weight, drawn from ``seed``: parameter name -> a tensor of the parameter's shape.

    Raises:
        TypeError, ValueError: as ``layers.prunable_weights``.
    """
    generator = _generator(seed)
    weights = prunable_weights(model, targets)
    return {name: torch.rand(w.shape, generator=generator).to(w.device) for name, w in weights.items()}


def unit_norm(model: nn.Module, targets: Targets | None = None, *, p: float = 1.0) -> UnitScores:
    r"""The :math:`L^p` norm of the weights that come into each unit: layer name -> ``(units,)``. The bias is left out.

    Args:
        p: any number above 0, ``math.inf`` too (the largest weight). Below 1 it is no norm, but orders all the same.

    Raises:
        TypeError, ValueError: as ``gates.unit_layers``; ``p`` is no number above 0, or so small that the norm
            overflows; a weight that is not finite.
    """
    if not isinstance(p, Real) or isinstance(p, bool):
        raise TypeError(f"p is {p!r}, a {type(p).__name__}; expected a number above 0")
    if not p > 0:
        raise ValueError(f"p is {p}; expected a number above 0, such as 1, 2 or math.inf")
    weights = {name: _by_unit(layer) for name, layer in unit_layers(model, targets).items()}
    norms = {name: _norm(weight, p) for name, weight in weights.items()}
    if not all(norm.isfinite().all() for norm in norms.values()):
        check_finite(weights)
        raise ValueError(f"p is {p}: so small that the norm overflows; expected a larger number")
    return norms


def unit_random(model: nn.Module, targets: Targets | None = None, *, seed: int) -> UnitScores:
    """A number from 0 to 1 for each unit, drawn from ``seed``: layer name -> ``(units,)``.

    Raises:
        TypeError, ValueError: as ``gates.unit_layers``.
    """
    generator = _generator(seed)
    rows = {name: _by_unit(layer) for name, layer in unit_layers(model, targets).items()}
    return {name: torch.rand(len(weight), generator=generator).to(weight.device) for name, weight in rows.items()}


def normalise_layers(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each layer's scores divided by their L2 norm, so that layers of another scale can be compared.

    Molchanov et al. 2017 do so before they rank all units together. Scores that are all 0 stay 0.

    Shapes: as they come, those of weights or of units.

    Raises:
        ValueError: a score is not finite.
    """
    check_finite(scores, "the scores of ")
    return {name: score / max(score.norm().item(), torch.finfo(score.dtype).tiny) for name, score in scores.items()}


def _generator(seed: int) -> torch.Generator:
    """Numbers of their own: with ``seed`` itself the scores would be those that a model of the same seed drew its
    first weights from, and so put them in order."""
    return torch.Generator().manual_seed(hash((seed, 1)) % 2**63)  # Python does not randomise the hash of integers


def _by_unit(layer: nn.Module) -> Tensor:
    """The weights of a layer, a row for each unit: (units, weights)."""
    weight = layer.weight.detach()
    if getattr(layer, "transposed", False):  # (in, out / groups, H, W): the outputs of each group are in dimension 1
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def _norm(weight: Tensor, p: float) -> Tensor:
    """(units, weights) -> (units,). The largest weight is taken out first where powers could lose it."""
    if p == 1:
        return weight.abs().sum(1)
    largest = weight.abs().amax(1, keepdim=True)
    if math.isinf(p):
        return largest.squeeze(1)
    scaled = torch.where(largest > 0, weight / largest, 0)
    return largest.squeeze(1) * torch.linalg.vector_norm(scaled, p, 1)
