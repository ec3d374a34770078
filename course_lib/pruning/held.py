"""Masks on a model: put on, held through training, taken off.

    apply_masks(model, masks)               # zero now; nothing keeps the weights there
    hold_masks(model, masks)                # zero, and kept at zero while the model is trained and saved
    release_masks(model)                    # free again, from zero
    release_masks(model, restore=True)      # free again, with the values that were pruned

A pruned weight does not stay at zero by itself: its gradient is not zero, and where it is, momentum from the steps
before the pruning moves it. While a mask is held, the gradient of each pruned weight is set to zero, so that an
optimizer made afterwards never moves it. One made before has momentum: pass it to ``hold_masks``, and it forgets what
it knows of the pruned weights. If it is not passed, or if somebody writes into the weights, they are set to zero
again before the next call of the model, and in every state dict. A call costs nothing as long as nobody has written.

Parameters and keys of the state dict keep their names: what is saved loads into the unpruned model, and the other way
round. A model with held masks can be copied, pickled and moved to another device. The masks themselves are no part of
the state dict: save ``held_masks(model)`` beside it to go on with them.
"""

from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from course_lib.device import check_model
from course_lib.pruning.masks import Masks, check_masks

Model = TypeVar("Model", bound=nn.Module)
_HOLDER = "_held_masks"  # the attribute in which a model keeps them


def apply_masks(model: Model, masks: Mapping[str, Tensor]) -> Model:
    """Set the pruned weights of ``model`` to zero, in place, and return it. Nothing keeps them at zero.

    Raises:
        TypeError, ValueError: masks that are not those of parameters of the model; it is then as it was.
    """
    parameters = masked_parameters(model, masks)
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0)
    return model


def hold_masks(model: Model, masks: Mapping[str, Tensor], *, optimizer: Optimizer | None = None) -> Model:
    """Set the pruned weights of ``model`` to zero, in place, and keep them there; returns the model.

    Masks that are held already are replaced; what they pruned and these do not starts from zero.

    Args:
        masks: by parameter name, true where kept.
        optimizer: one that has been training the model: it forgets the momentum of the pruned weights.

    Raises:
        TypeError, ValueError: masks that are not those of parameters of the model, or an optimizer that is none; the
            model is then as it was.
    """
    parameters = masked_parameters(model, masks)
    optimizer = getattr(optimizer, "optimizer", optimizer)  # Accelerate wraps one
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; expected a torch.optim.Optimizer")
    release_masks(model)
    holder = _Holder(model, {name: mask.clone() for name, mask in masks.items()}, parameters)
    object.__setattr__(model, _HOLDER, holder)  # not as a submodule
    apply_masks(model, masks)
    holder.look(model)
    remembered = optimizer.state if optimizer is not None else {}
    for name, mask in masks.items():
        _clear(remembered.get(parameters[name], {}).values(), mask)
        if (gradient := parameters[name].grad) is not None:  # the next one would be added to it
            gradient.mul_(mask.to(gradient))
    return model


def release_masks(model: Model, *, restore: bool = False) -> Model:
    """Take the masks off ``model``, in place, and return it; without masks nothing happens.

    Args:
        restore: give the pruned weights back the values that they had when the masks were put on; the kept weights
            stay as they are now. Without it they stay at zero, free to be trained.
    """
    check_model(model)
    holder: _Holder | None = getattr(model, _HOLDER, None)
    if holder is None:
        return model
    with torch.no_grad():
        for name, parameter in holder.fitting(model):
            pruned = ~holder.masks[name].to(parameter.device)
            parameter[pruned] = holder.pruned[name].to(parameter) if restore else 0
    holder.detach()
    object.__delattr__(model, _HOLDER)
    return model


def held_masks(model: nn.Module) -> Masks:
    """A copy of the masks that ``model`` holds, by parameter name; empty if it holds none."""
    check_model(model)
    holder: _Holder | None = getattr(model, _HOLDER, None)
    return {name: mask.clone() for name, mask in holder.masks.items()} if holder else {}


def masked_parameters(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """The parameters of ``model`` by name, once it is known that ``masks`` fit them.

    Raises:
        TypeError, ValueError: they do not.
    """
    check_model(model)
    parameters = dict(model.named_parameters())
    check_masks(masks, {name: value.shape for name, value in parameters.items()}, "parameters of the model")
    return parameters


class _Holder:
    """The masks on one model, the values they prune, and the hooks that hold them.

    Copying or pickling the model copies this with it, and the copy hooks into the copied parameters.
    """

    def __init__(self, model: nn.Module, masks: Masks, parameters: Mapping[str, nn.Parameter]) -> None:
        self.masks = masks
        self.pruned = {
            name: parameters[name].detach()[~mask.to(parameters[name].device)] for name, mask in masks.items()
        }
        self.parameters: dict[str, nn.Parameter] = {}  # as ``look`` found them last
        self.handles = [
            model.register_forward_pre_hook(_before_forward),
            model.register_state_dict_post_hook(_in_state_dict),
            model.register_load_state_dict_post_hook(_after_load),
        ]
        self._start()

    def _start(self) -> None:
        """Hook into the gradients of the parameters."""
        self.hooked = WeakIdKeyDictionary()  # tensor -> the handle of its hook
        self.factors: dict[str, Tensor] = {}  # the masks as numbers: a product takes a tenth of the time of a fill
        self.looked_at: dict[str, tuple[bool, int]] = {}  # whether a weight had gradients then, and its version
        self.stepped = True  # a gradient was made since the last look: an optimizer may have moved the weights
        for name, parameter in self.parameters.items():
            self._hook(name, parameter)

    def look(self, model: nn.Module) -> None:
        """Set the pruned weights to zero if anybody may have written into them since the last look."""
        for name, mask in self.masks.items():
            weight = _find(model, name)
            hooked, version = self.looked_at.get(name, (None, None))
            known = self.parameters.get(name) is weight and weight is not None and hooked == weight.requires_grad
            if known and version == weight._version and not self.stepped:
                continue
            if weight is None or weight.shape != mask.shape:
                raise ValueError(f"{name} has changed since its mask was put on; call release_masks(model) before that")
            # .data: a kept weight does not change, so a backward pass that is still to come stays right
            weight.data.mul_(self.factor(name, weight))
            if not known:
                self._hook(name, weight)
            if isinstance(weight, nn.Parameter):  # and not a tensor that functional_call puts there for one call
                self.parameters[name], self.looked_at[name] = weight, (weight.requires_grad, weight._version)
        self.stepped = False

    def factor(self, name: str, like: Tensor) -> Tensor:
        """The mask as numbers of the format of ``like``, on its device."""
        factor = self.factors.get(name)
        if factor is None or factor.device != like.device or factor.dtype != like.dtype:
            factor = self.factors[name] = self.masks[name].to(like)
        return factor

    def fitting(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that still have the shape of their masks; somebody may have put others in their place."""
        for name, parameter in model.named_parameters():
            if name in self.masks and parameter.shape == self.masks[name].shape:
                yield name, parameter

    def detach(self) -> None:
        for handle in (*self.handles, *self.hooked.values()):
            handle.remove()

    def _hook(self, name: str, weight: Tensor) -> None:
        if weight.requires_grad and weight not in self.hooked:
            self.hooked[weight] = weight.register_hook(lambda gradient: self._masked(name, gradient))

    def _masked(self, name: str, gradient: Tensor) -> Tensor:
        self.stepped = True
        return gradient * self.factor(name, gradient)

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key not in ("hooked", "factors", "looked_at")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self._start()


# Hooks are functions of the model that they are called with, not of the one they were made for: a copy has its own.
def _before_forward(model: nn.Module, inputs: tuple) -> None:
    if not torch.compiler.is_compiling():
        getattr(model, _HOLDER).look(model)


def _in_state_dict(model: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict) -> None:
    """Where pruned weights have been moved, put masked copies into the state dict; the model is left alone."""
    for name, mask in getattr(model, _HOLDER).masks.items():
        value = state.get(prefix + name)
        if value is not None and value.shape == mask.shape and value.detach()[~mask.to(value.device)].any():
            state[prefix + name] = value * mask.to(value)


def _after_load(model: nn.Module, incompatible: object) -> None:
    apply_masks(model, getattr(model, _HOLDER).masks)  # what is loaded may be nan, and 0 · nan is nan


def _find(model: nn.Module, name: str) -> Tensor | None:
    """The parameter of that name, without the time that ``named_parameters`` takes."""
    *path, key = name.split(".")
    module = model
    for part in path:
        module = module._modules.get(part) if module is not None else None
    return module._parameters.get(key) if module is not None else None


def _clear(moments, mask: Tensor) -> None:
    """Set to zero what an optimizer remembers of pruned weights."""
    for moment in moments:
        if isinstance(moment, Tensor) and moment.shape == mask.shape:
            moment.masked_fill_(~mask.to(moment.device), 0)
