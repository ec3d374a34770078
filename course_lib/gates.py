"""Units and their gates: one number on each output of a layer, 1 as it is, 0 as if the unit were not there.

A unit is one output of a layer: a neuron of a linear layer, a filter of a convolution. Its gate multiplies what it
gives out, so taking a unit away is setting one number to zero, and the gradient at the gate says what that changes
(Molchanov et al. 2017 and 2019). Gates are forward hooks: there for a while, and then gone.

Where the gate stands matters. A batch normalisation behind the layer turns a channel of zeros into a constant, and the
rest of the network still hears it. So the gate stands behind the normalisation, as it does in the paper of 2019. Then
a closed gate is the same as real removal, if whatever comes next maps 0 to 0 (ReLU, pooling, dropout do; a sigmoid
does not: name it in ``after``).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from course_lib.checking import near_names
from course_lib.layers import Targets, find_layer, find_layers, prunable_weights

UnitScores = dict[str, Tensor]  # layer name -> one number for each of its units (units,)
UNIT_KINDS = (nn.Linear, _ConvNd)


@dataclass(frozen=True)
class Gate:
    """A place for gates: the module whose output they multiply, along which axis, and how many units there are."""

    module: nn.Module
    axis: int
    units: int


def unit_layers(model: nn.Module, targets: Targets | None = None) -> dict[str, nn.Module]:
    """The layers with units that ``targets`` mean, by name; without targets all linear and convolution layers.

    The projections inside a ``MultiheadAttention`` are left out then: its own forward pass reads their weights, and
    the layers themselves are never called.

    Raises:
        TypeError, ValueError: as ``layers.find_layers``; a layer that is neither linear nor a convolution.
    """
    layers = find_layers(model, targets, kinds=UNIT_KINDS)
    if targets is None:
        inside = {id(part) for m in model.modules() if isinstance(m, nn.MultiheadAttention) for part in m.children()}
        layers = {name: layer for name, layer in layers.items() if id(layer) not in inside}
    for name, layer in layers.items():
        if not isinstance(layer, UNIT_KINDS):
            raise ValueError(f"layer {name!r} is a {type(layer).__name__}; expected a linear layer or a convolution")
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear layer and no convolution that is called by itself")
    prunable_weights(model, list(layers))  # a lazy layer has no units yet: the error is there
    return layers


def find_gates(
    model: nn.Module, layers: Mapping[str, nn.Module], after: Mapping[str, str] | None, forward: Callable[[], object]
) -> dict[str, Gate]:
    """Where the gates of each layer stand, by the layer's name.

    Args:
        after: from the name of a layer to the name of the module behind which its gates are to stand; for the others
            it is the batch normalisation that takes the layer's output, if there is one, else the layer itself.
        forward: runs the model once.

    Raises:
        ValueError: a layer that the forward pass does not come by, a name in ``after`` that is not there, or a module
            there that does not give one channel for each unit.
    """
    for name in after or {}:
        if name not in layers:
            raise ValueError(f"layer in after {name!r} matches none of the names; {near_names(name, list(layers))}")
    named = {name: find_layer(model, place) for name, place in (after or {}).items()}
    places = dict(layers) | _norms_behind(model, layers, named, forward) | named
    gates = {}
    for name, layer in layers.items():
        units = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        gates[name] = Gate(places[name], _axis(layer), units)
    return gates


def _axis(layer: nn.Module) -> int:
    """The axis of a layer's output along which its units lie: (..., units), or (N, units, H, W)."""
    return -1 if isinstance(layer, nn.Linear) else -1 - len(layer.kernel_size)


@contextmanager
def gated(gates: Mapping[str, Gate], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the outputs at ``gates`` are multiplied by ``values``, by layer name.

    Shapes: ``(units,)`` for all examples alike, or ``(N, units)`` with a row for each of the N examples of a batch.
    """

    def multiply(value: Tensor, axis: int, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return output * _spread(value, output, axis)

    with ExitStack() as hooks:
        for name, value in values.items():
            hook = partial(multiply, value, gates[name].axis)
            hooks.enter_context(gates[name].module.register_forward_hook(hook))
        yield


def _spread(value: Tensor, output: Tensor, axis: int) -> Tensor:
    """``value``, (units,) or (N, units), with the axes of ``output``."""
    shape = [1] * output.dim()
    shape[axis] = value.shape[-1]
    if value.dim() == 2:
        if len(output) != len(value):
            raise ValueError(
                f"a layer gives {tuple(output.shape)} for a batch of {len(value)}: its first dimension is not the "
                "examples, so their changes cannot be told apart; pass order=1 and absolute='mean' or 'none'"
            )
        shape[0] = len(value)
    return value.view(shape).to(output.dtype)


def _norms_behind(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    named: Mapping[str, nn.Module],
    forward: Callable[[], object],
) -> dict[str, nn.Module]:
    """For each layer whose output goes straight into a batch normalisation: that one. Checks ``named`` on the way."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    at_named: dict[str, list[object]] = {name: [] for name in named}
    behind: dict[str, nn.Module] = {}

    def note(norm: nn.Module, inputs: tuple) -> None:
        behind.update({name: norm for name, seen in outputs.items() if any(inputs[0] is output for output in seen)})

    def keep(seen: list[object], module: nn.Module, inputs: tuple, output: object) -> None:
        seen.append(output)

    with ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                hooks.enter_context(module.register_forward_pre_hook(note))
        for modules, seen in ((layers, outputs), (named, at_named)):
            for name, module in modules.items():
                hooks.enter_context(module.register_forward_hook(partial(keep, seen[name])))
        forward()
    for name, seen in outputs.items():
        if not seen:
            raise ValueError(f"layer {name!r} was not called in a forward pass of {type(model).__name__}")
        if name in named:
            _check_named(name, _axis(layers[name]), seen, at_named[name])
    return behind


def _check_named(name: str, axis: int, outputs: list[Tensor], at_named: list[object]) -> None:
    """Raise a ``ValueError`` unless the module gives the layer's channels, once for each time the layer is called."""
    if len(at_named) != len(outputs):
        raise ValueError(
            f"the module after layer {name!r} is called {len(at_named)} times in a forward pass, the layer "
            f"{len(outputs)}; expected one that belongs to this layer alone"
        )
    units = outputs[0].shape[axis]
    for output in at_named:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if not isinstance(output, Tensor) or len(shape) < -axis or shape[axis] != units:
            raise ValueError(
                f"the module after layer {name!r} gives {shape}; "
                f"expected {units} channels at dimension {axis}, one for each unit"
            )
