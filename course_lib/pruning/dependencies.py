"""Which units of a network have to go together: its dependency graph, followed with ``torch.fx``.

A unit is one output of a layer: a neuron, a filter. Removing it for real also removes the channel that it makes from
everything behind: the batch normalisation, the inputs of the next layers, and, where two branches are added up, the
same unit of every layer that writes into the sum. ``torch.fx`` gives the network as a list of operations; one pass over
the list, on shapes alone, finds which channel of which tensor is tied to which (``operations.py``, ``resizing.py``).

The forward pass is followed in the present mode, and in the other one (training or eval) too if there are layers
that this one does not run. ``torch.fx`` cannot follow a forward pass whose path depends on the values of its input. A
part of such a model can still be pruned: any submodule is a model.

Not followed, and fixed: an attention layer's matrix products (``heads.py`` has its heads), parameters that are used
outside of a layer, layers that PyTorch computes as a whole (``nn.LSTM``, ``nn.MultiheadAttention``).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.pruning.channels import Fixed
from course_lib.pruning.resizing import PRODUCERS, Ends
from course_lib.pruning.tracing import Example, trace


@dataclass(frozen=True)
class Dependencies:
    """The decisions that a network leaves open: each channel that may go belongs to exactly one.

    Attributes:
        ends: for each layer, by name, the number of the decision for each channel it reads and each that it makes.
        fixed: channels that stay, with the reason.
        count: decisions are numbered from 0 to below ``count``; not every number is used.
    """

    ends: Mapping[str, Ends]
    fixed: tuple[Fixed, ...]
    count: int

    def why_fixed(self, removed: Tensor, *, allow_outputs: bool = False) -> str | None:
        """The first reason against removing the decisions where ``removed`` (count,) is true, if there is one."""
        for fixed in self.fixed:
            if not (allow_outputs and fixed.output) and bool(removed[fixed.labels].any()):
                return fixed.reason
        return None


@dataclass(frozen=True)
class Group:
    """Layers whose units go together, unit by unit.

    Attributes:
        units: layer name -> for each of its units the number of its decision in this group ``(units,)``, int64.
            In a residual stream unit 3 of each layer has number 3. In a convolution with groups, several units of one
            layer share a number.
        decisions: how many there are.
        fixed: why its units, or some of them, cannot be removed; none if all can.
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


def dependencies(model: nn.Module, example: Example) -> Dependencies:
    """Follow ``model`` on the shape of ``example``; no weight is read, and the model is left as it was.

    Args:
        example: what the model takes: a tensor, a tuple of arguments, or a dict of named ones. Small is fine if it has
            the shape that the model is used with; only its shape counts.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: ``torch.fx`` cannot trace the model, or the example does not fit.
    """
    channels, ends = trace(model, example)
    lowest = channels.decisions()
    numbered = {name: Ends(*(None if e is None else lowest[e] for e in (at.inputs, at.outputs))) for name, at in ends}
    fixed = tuple(Fixed(lowest[each.labels], each.reason, each.output) for each in channels.fixed)
    return Dependencies(numbered, fixed, channels.count)


def groups(model: nn.Module, example: Example) -> list[Group]:
    """The layers with units, in groups that have to be pruned together, in the order in which they run.

    Most layers are a group of their own; the layers that write into one residual stream are one group. The network's
    output layer is a group that is fixed. The model is left as it was.

    Raises:
        TypeError, ValueError: as ``dependencies``; ValueError for a model without a layer that has units.
    """
    found = dependencies(model, example)
    modules = dict(model.named_modules())
    makers = {name: ends.outputs for name, ends in found.ends.items() if isinstance(modules[name], PRODUCERS)}
    if not makers:
        raise ValueError(f"{type(model).__name__} runs no linear layer and no convolution: there is nothing to remove")
    owner = torch.full((found.count,), -1)  # decision -> the first layer of its group
    together: list[dict[str, Tensor]] = []
    for name, decisions in makers.items():
        met = sorted({int(index) for index in owner[decisions].unique() if index >= 0})
        members = {key: value for index in met for key, value in together[index].items()} | {name: decisions}
        for index in met:
            together[index] = {}
        together.append(members)
        for value in members.values():
            owner[value] = len(together) - 1
    order = list(makers)
    kept = sorted((members for members in together if members), key=lambda members: min(map(order.index, members)))
    return [_group({name: m[name] for name in order if name in m}, found) for m in kept]


def _group(members: Mapping[str, Tensor], found: Dependencies) -> Group:
    numbers, places = torch.cat(list(members.values())).unique(return_inverse=True)
    parts = places.split([len(value) for value in members.values()])
    removed = torch.zeros(found.count, dtype=torch.bool)
    removed[numbers] = True
    reason = found.why_fixed(removed)
    only_output = reason is not None and found.why_fixed(removed, allow_outputs=True) is None
    return Group(dict(zip(members, parts, strict=True)), len(numbers), reason, only_output)
