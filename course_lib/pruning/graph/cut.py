"""Layers made smaller for real: channels taken out of every tensor that has them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.pruning.graph.channels import Axes
from course_lib.pruning.graph.hollow import hollow
from course_lib.pruning.graph.network import Example, Network, output_shapes


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
        modules = dict(model.named_modules())
        for module in modules.values():
            for kept in (module._parameters, module._buffers, vars(module)):
                for key, tensor in kept.items():
                    if id(tensor) in self.tensors:
                        kept[key] = self.tensors[id(tensor)]
        self.resize(modules)

    def resize(self, modules: Mapping[str, nn.Module]) -> None:
        """Put in the sizes only."""
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
    for place, kept in _kept({place: (numbers,) for place, numbers in network.sizes.items()}, gone).items():
        before = getattr(modules[place[0]], place[1])
        before = before if place[2] is None else before[place[2]]
        sizes[place] = before * len(kept[0]) // len(network.sizes[place])
    found = {
        id(tensor): tensor
        for module in modules.values()
        for tensor in (*module._parameters.values(), *module._buffers.values())
        if tensor is not None
    }
    kept = _kept(network.tensors, gone)
    after = _output_without(model, example, kept, Cut({}, sizes), found)
    if after != network.output and not bool(network.verdict.output[removed].any()):
        raise ValueError(f"what would be left gives {after} and not {network.output}")
    plans = [(found[key], axes) for key, axes in kept.items()]
    plans += [(vars(modules[n])[key], axes) for (n, key), axes in _kept(network.plain, gone).items()]
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


def _kept(tensors: Mapping[object, Axes], gone: Tensor) -> dict[object, dict[int, Tensor]]:
    """For each tensor that loses something, and each axis of it that does, the places that are left."""
    stretches = [(key, axis, n) for key, axes in tensors.items() for axis, n in enumerate(axes) if n is not None]
    if not stretches:
        return {}
    lengths = [numbers.numel() for _, _, numbers in stretches]
    here = gone[torch.cat([numbers for _, _, numbers in stretches])]  # all at once: there are hundreds
    lost = torch.zeros(len(lengths)).index_add_(
        0, torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)), here.float()
    )
    found: dict[object, dict[int, Tensor]] = {}
    for (key, axis, _), count, part in zip(stretches, lost.tolist(), here.split(lengths), strict=True):
        if count:
            found.setdefault(key, {})[axis] = (~part).nonzero().squeeze(1)
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
        return output_shapes(model, example, small, lambda copy: sizes.resize(dict(copy.named_modules())))
    except ValueError as error:
        raise ValueError(f"what would be left does not run: {error}") from error
