"""The layers whose units go together: what a method that chooses units has to know."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.pruning.graph.channels import Verdict
from course_lib.pruning.graph.network import Example, follow


@dataclass(frozen=True)
class Group:
    """Layers whose units go together, unit by unit.

    Attributes:
        units: layer name -> for each of its units the number of its decision in this group ``(units,)``, int64.
            In a residual stream unit 3 of each layer has number 3. In a convolution with groups, several units of one
            layer share a number.
        decisions: how many there are.
        fixed: why its units, or some of them, cannot be removed; None if all can.
        output: whether that is because they are the network's output.
    """

    units: Mapping[str, Tensor]
    decisions: int
    fixed: str | None
    output: bool

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of its layers, in the order in which they run."""
        return tuple(self.units)


def groups(model: nn.Module, example: Example) -> list[Group]:
    """The layers with units, in groups that have to be pruned together, in the order in which they run.

    Most layers are a group of their own; the layers that write into one residual stream are one group. The network's
    output layer is a group that is fixed. The model is left as it was.

    Raises:
        TypeError, ValueError: as ``network.follow``; ValueError for a model without a layer that has units.
    """
    network = follow(model, example)
    if not network.units:
        raise ValueError(f"{type(model).__name__} runs no linear layer and no convolution: there is nothing to remove")
    makers = {name: network.verdict.decision[numbers] for name, numbers in network.units.items()}
    owner = torch.full((len(network.verdict.decision),), -1)  # decision -> the first layer of its group
    together: list[list[str]] = []
    for name, decisions in makers.items():
        met = sorted({index for index in owner[decisions].unique().tolist() if index >= 0})
        members = [layer for index in met for layer in together[index]] + [name]
        for index in met:
            together[index] = []
        together.append(members)
        for layer in members if met else [name]:
            owner[makers[layer]] = len(together) - 1
    order = {name: place for place, name in enumerate(makers)}
    kept = sorted((sorted(members, key=order.get) for members in together if members), key=lambda m: order[m[0]])
    return [_group({name: makers[name] for name in members}, network.verdict) for members in kept]


def _group(members: Mapping[str, Tensor], verdict: Verdict) -> Group:
    numbers, places = torch.cat(list(members.values())).unique(return_inverse=True)
    parts = places.split([len(value) for value in members.values()])
    reason = verdict.why_fixed(numbers)
    only_output = reason is not None and verdict.why_fixed(numbers, allow_outputs=True) is None
    return Group(dict(zip(members, parts, strict=True)), len(numbers), reason, only_output)
