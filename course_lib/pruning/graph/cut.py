"""Layers made smaller for real: channels taken out of every tensor that has them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.pruning.graph.channels import Axes
from course_lib.pruning.graph.follow import Example, Network, output_shapes
from course_lib.pruning.graph.hollow import hollow


@dataclass(frozen=True)
class Cut:
    """What a model is to become; nothing happens to it before ``make``.

    Attributes:
        tensors: id of a parameter, a buffer or another tensor that a module keeps -> what takes its place.
        sizes: (module, attribute, place) -> the number that stands there; the place in a tuple, or None.
    """

    tensors: Mapping[int, Tensor]
    sizes: Mapping[tuple[str, str, int | None], int]

    def make(self, model: nn.Module) -> None:
        """Put them in, under every name. Parameters are new objects, trainable if the old ones were, without gradients.

        A tensor that several layers share is shared afterwards.
        """
        for module in model.modules():
            for kept in (module._parameters, module._buffers, vars(module)):
                for key, tensor in kept.items():
                    if isinstance(tensor, Tensor) and id(tensor) in self.tensors:
                        kept[key] = self.tensors[id(tensor)]
        self.resize(model)

    def resize(self, model: nn.Module) -> None:
        """Put in the sizes only."""
        modules = dict(model.named_modules())
        for (name, attribute, place), size in self.sizes.items():
            if place is not None:
                before = getattr(modules[name], attribute)
                size = (*before[:place], size, *before[place + 1 :])
            setattr(modules[name], attribute, size)


def cut(model: nn.Module, example: Example, network: Network, removed: Tensor) -> None:
    """Take the decisions where ``removed`` (count,) is true out of ``model``, in place.

    Raises:
        ValueError: every unit of a layer would go; or the network that is left does not run, or gives another shape.
            The model is then as it was.
    """
    gone = removed[network.verdict.decision]
    for name, units in network.units.items():
        if bool(gone[units].all()):
            raise ValueError(f"every unit of layer {name!r} would be removed; expected at least one to be left")
    sizes, modules = {}, dict(model.named_modules())
    for (name, attribute, place), numbers in network.sizes.items():
        left = int((~gone[numbers]).sum())
        if left < len(numbers):
            before = getattr(modules[name], attribute)
            before = before if place is None else before[place]
            sizes[name, attribute, place] = before * left // len(numbers)
    found = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    kept = {key: part for key, axes in network.tensors.items() if (part := _kept(axes, gone))}
    after = _output_without(model, example, kept, Cut({}, sizes), found)
    if after != network.output and not bool(network.verdict.output[removed].any()):
        raise ValueError(f"what would be left gives {after} and not {network.output}")
    plans = [(found[key], axes) for key, axes in kept.items()]
    plans += [(vars(modules[n])[a], part) for (n, a), axes in network.plain.items() if (part := _kept(axes, gone))]
    tensors = {}
    scaled = {key: (rows, int((~gone[numbers]).sum()) / len(numbers)) for key, rows, numbers in network.scaled}
    for tensor, axes in plans:
        value = tensor.detach()
        if id(tensor) in scaled:
            rows, share = scaled[id(tensor)]
            value = torch.cat([value[:rows] * math.sqrt(share), value[rows:]])
        tensors[id(tensor)] = smaller(tensor, axes, value)
    Cut(tensors, sizes).make(model)


def smaller(tensor: Tensor, axes: Mapping[int, Tensor], value: Tensor | None = None) -> Tensor:
    """Some places along some axes of ``tensor``, or of ``value`` in its stead; a parameter if it is one."""
    value = tensor.detach() if value is None else value
    for axis, places in axes.items():
        value = value.index_select(axis, places.to(tensor.device))
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def _kept(axes: Axes, gone: Tensor) -> dict[int, Tensor]:
    """For each axis that loses something the places that are left."""
    found = {}
    for axis, numbers in enumerate(axes):
        if numbers is not None and bool((here := gone[numbers]).any()):
            found[axis] = (~here).nonzero().squeeze(1)
    return found


def _output_without(model: nn.Module, example: Example, kept: Mapping, sizes: Cut, found: Mapping) -> list[tuple]:
    """The shapes that the smaller network gives: it is run once on shapes, and has to run."""
    small = {}
    for key, tensor in found.items():
        shape = list(tensor.shape)
        for axis, places in kept.get(key, {}).items():
            shape[axis] = len(places)
        small[key] = hollow(tensor, tuple(shape))
    try:
        return output_shapes(model, example, small, sizes.resize)
    except ValueError as error:
        raise ValueError(f"what would be left does not run: {error}") from error
