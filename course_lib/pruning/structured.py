r"""Structured pruning that really shrinks a network: neurons and filters taken out, with all that depends on them.

Li et al. 2017, "Pruning Filters for Efficient ConvNets" (arXiv 1608.08710): a filter whose weights are small is removed
together with its feature map and the kernels of the next layer that read it. In a residual network the layers that
write into one sum lose the same filters.

    example = pictures[:1]
    tied = groups(model, example)                                    # which layers are decided together
    units = lowest_units(unit_norm(model), 0.5, tied=tied)           # layer name -> which units go
    remove_units(model, units, example)                              # smaller: weights, shapes, attributes
    structure = structure_of(model)                                  # JSON, to be saved beside the weights
    rebuild(Net(), structure).load_state_dict(model.state_dict())    # reload

What is left computes what the large network computes when the removed channels are set to zero in everything that reads
them. One exception: a layer, group or RMS normalisation takes its mean and variance over the channels that are left.

Parameters of layers that shrink are new objects: make the optimizer afterwards. A frozen parameter stays frozen.
What depends on what is found by ``course_lib.pruning.graph``, for any network whose path does not depend on its input.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from course_lib.device import check_model
from course_lib.layers import find_layer, match_names
from course_lib.pruning.checks import check_no_masks, check_numbers
from course_lib.pruning.graph import UNITS, Example, Group, Network, cut, follow, groups, rebuild, structure_of

__all__ = ["Group", "groups", "lowest_units", "rebuild", "remove_units", "structure_of"]

Model = TypeVar("Model", bound=nn.Module)


def remove_units(
    model: Model, units: Mapping[str, Sequence[int]], example: Example, *, allow_outputs: bool = False
) -> Model:
    """Remove units from ``model``, in place, with everything that depends on them; returns the model.

    A unit that is tied to others (a residual stream, a depthwise convolution) takes them with it, so one layer of a
    group is enough to name.

    Args:
        units: layer name -> the numbers of the units that go: neurons of a linear layer, filters of a convolution.
        example: an input of the shape that the model is used with; as for ``graph.follow``.
        allow_outputs: whether the network's outputs may go too. They are the classes; whoever reads them has to know.

    Raises:
        TypeError: ``model`` is not a module, or a number is no integer.
        ValueError: an unknown layer, one without units, or one that the forward pass does not run; a unit that is not
            there or named twice; every unit of a layer; units that have to stay, with the reason; a model that holds
            masks or cannot be followed; or what would be left does not run. The model is then as it was.
    """
    check_model(model)
    check_no_masks(model)
    network = follow(model, example)
    removed = torch.zeros(network.verdict.decision.shape, dtype=torch.bool)
    for name, numbers in units.items():
        chosen = _decisions(model, name, numbers, network)
        if reason := network.verdict.why_fixed(chosen, allow_outputs=allow_outputs):
            raise ValueError(f"units of layer {name!r} cannot be removed: {reason}")
        removed[chosen] = True
    cut(model, example, network, removed)
    return model


def lowest_units(
    scores: Mapping[str, Tensor], share: float | Mapping[str, float], *, tied: Sequence[Group] = ()
) -> dict[str, list[int]]:
    """The units with the lowest scores of each layer: layer name -> their numbers, ascending, for ``remove_units``.

    Exactly ``round(share · n)`` of n units; of equal scores those that come first go first.

    Args:
        scores: layer name -> one score for each unit ``(units,)``, higher is kept longer.
        share: of the units of each layer, 0 or more and below 1; or one for each name or pattern ("layer3.*"). Layers
            that no pattern matches are left alone, and where several match, the last one counts.
        tied: ``groups(model, example)``. The layers of a group are then decided together, by the sum of their scores
            (of those that have any), and named once, under the first one. Groups that are fixed are left out; without
            ``tied`` the output layer has to be left out of ``scores``.

    Raises:
        ValueError: no scores, scores that are not one finite row a layer, a share outside [0, 1), a pattern that
            matches nothing, a share that would remove every unit of a layer, a share for the very name of a layer that
            is fixed, layers of one group with different shares, scores that do not fit the groups, or no layer that
            can lose units: the reasons are listed.
    """
    _check_scores(scores)
    shares = dict.fromkeys(scores, share)
    if isinstance(share, Mapping):
        shares = {
            name: part for pattern, part in share.items() for name in match_names(scores, pattern, argument="share")
        }
        for group in tied:
            if group.fixed and (named := [name for name in group.layers if name in share]):
                raise ValueError(f"units of layer {named[0]!r} cannot be removed: {group.fixed}")
    chosen = {}
    for names, places in _decided_together(scores, tied):
        wanted = {shares[name] for name in names if name in shares}
        if not wanted:
            continue
        if len(wanted) > 1:
            raise ValueError(f"layers {', '.join(names)} are pruned together, but their shares are {sorted(wanted)}")
        total = torch.zeros(int(places[0].max()) + 1, dtype=torch.float64)  # one sum for each decision
        for name, place in zip(names, places, strict=True):
            total.index_add_(0, place, scores[name].detach().double().cpu())
        lowest = total.argsort(stable=True)[: _count(wanted.pop(), len(total), names[0])]
        chosen[names[0]] = torch.isin(places[0], lowest).nonzero().squeeze(1).tolist()
    if tied:
        _tell_what_stays({name: len(scores[name]) for name, part in shares.items() if part > 0}, tied)
    return chosen


def _tell_what_stays(asked: Mapping[str, int], tied: Sequence[Group]) -> None:
    """Raise a ``ValueError`` if no layer that was asked for can lose units, and warn if most of their units cannot.

    Args:
        asked: layer name -> how many units it has.
    """
    reasons: dict[str, list[str]] = {}
    for group in tied:
        for name in group.layers:
            if name in asked and group.fixed and not group.output:
                reasons.setdefault(group.fixed, []).append(name)
    inside = {name for group in tied for name in group.layers}
    if outside := [name for name in asked if name not in inside]:
        reasons["it is in no group, since the forward pass does not run it by itself"] = outside
    staying = {name for names in reasons.values() for name in names}
    outputs = {name for group in tied if group.output for name in group.layers}
    free = sum(units for name, units in asked.items() if name not in staying | outputs)
    text = "; ".join(
        f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: {why}" for why, names in [*reasons.items()][:5]
    )
    if asked and not free:
        raise ValueError(f"no layer with scores can lose units: {text or 'they are the output of the network'}")
    if outside or free < sum(asked[name] for name in staying):
        warnings.warn(f"{len(staying)} of {len(asked)} layers are left as they are. {text}", stacklevel=3)


def _decided_together(scores: Mapping[str, Tensor], tied: Sequence[Group]) -> list[tuple[list[str], list[Tensor]]]:
    """The scored layers of each group, with the decision that each of their units belongs to."""
    if not tied:
        return [([name], [torch.arange(len(score))]) for name, score in scores.items()]
    for group in tied:
        for name, places in group.units.items():
            if name in scores and len(scores[name]) != len(places):
                raise ValueError(f"there are {len(scores[name])} scores for the {len(places)} units of layer {name!r}")
    members = [[name for name in group.layers if name in scores] for group in tied]
    return [
        (names, [group.units[name] for name in names])
        for group, names in zip(tied, members, strict=True)
        if names and not group.fixed
    ]


def _count(share: float, units: int, name: str) -> int:
    """How many of ``units`` a share is; at least one has to be left."""
    if not 0 <= share <= 1:
        raise ValueError(f"the share of layer {name!r} is {share}; expected a number from 0 to below 1")
    count = round(share * units)
    if count == units:
        raise ValueError(f"a share of {share} of the {units} units of layer {name!r} is all; expected one to be left")
    return count


def _decisions(model: nn.Module, name: str, numbers: Sequence[int], network: Network) -> Tensor:
    """The decisions that removing these units of a layer takes."""
    if name not in network.units:
        layer = find_layer(model, name)
        if any(hasattr(layer, key) for key in UNITS):
            raise ValueError(f"layer {name!r} is not run by itself in the forward pass; expected one that is")
        kind = type(layer).__name__
        raise ValueError(f"layer {name!r} is a {kind}; expected a layer with units: linear, convolution, embedding")
    units = network.units[name]
    return network.verdict.decision[units[check_numbers(numbers, len(units), f"units of layer {name!r}")]]


def _check_scores(scores: Mapping[str, Tensor]) -> None:
    if not scores:
        raise ValueError("scores is empty; expected a row of scores for at least one layer")
    for name, score in scores.items():
        if score.dim() != 1 or len(score) == 0:
            raise ValueError(f"the scores of {name} have shape {tuple(score.shape)}; expected one for each unit")
        if not torch.isfinite(score).all():
            raise ValueError(f"the scores of {name} are not all finite; expected numbers that can be ordered")
