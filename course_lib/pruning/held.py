"""Masks on a model: put on, held through training, taken off.

    apply_masks(model, masks)               # zero now; nothing keeps the weights there
    hold_masks(model, masks)                # zero, and kept at zero while the model is trained and saved
    release_masks(model)                    # free again, from zero
    release_masks(model, restore=True)      # free again, with the values that were pruned

A pruned weight does not stay at zero by itself: its gradient is not zero, and where it is, momentum from the steps
before the pruning moves it. While a mask is held

- the gradient of a pruned weight is zero, so that an optimizer made afterwards never moves it;
- a pruned weight is set to zero before each call of the model and in each state dict, so that one that an older
  optimizer has moved is zero again before anything is computed or saved. Pass that optimizer to ``hold_masks`` to have
  this done right after its steps as well.

Parameters and keys of the state dict keep their names: what is saved loads into the unpruned model, and the other way
round. A model with held masks can be copied, pickled and moved to another device. The masks themselves are no part of
the state dict: save ``held_masks(model)`` beside it to go on with them.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from course_lib.device import check_model
from course_lib.pruning.masks import Masks, check_masks

Model = TypeVar("Model", bound=nn.Module)
_HOLDER = "_held_masks"  # where a model keeps them


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
        optimizer: one that has been training the model: its steps are followed by zeroing, and what it
            remembers of the pruned weights (momentum) is forgotten.

    Raises:
        TypeError, ValueError: masks that are not those of parameters of the model, or an optimizer that is none; the
            model is then as it was.
    """
    parameters = masked_parameters(model, masks)
    optimizer = getattr(optimizer, "optimizer", optimizer)  # Accelerate wraps one
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; expected a torch.optim.Optimizer")
    release_masks(model)
    holder = _Holder({name: mask.clone() for name, mask in masks.items()}, parameters)
    object.__setattr__(model, _HOLDER, holder)  # not as a submodule
    holder.attach(model, optimizer)
    apply_masks(model, masks)
    holder.zero(model)
    with torch.no_grad():  # a gradient from before would be added to the next one
        for name, mask in masks.items():
            if (gradient := parameters[name].grad) is not None:
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
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in holder.masks.items():
            parameter = parameters.get(name)
            if parameter is None or parameter.shape != mask.shape:
                continue  # somebody has put another one in its place
            pruned = ~mask.to(parameter.device)
            parameter[pruned] = holder.pruned[name].to(parameter) if restore else 0
    holder.detach()
    object.__delattr__(model, _HOLDER)
    return model


def held_masks(model: nn.Module) -> Masks:
    """A copy of the masks that ``model`` holds, by parameter name; empty if it holds none."""
    check_model(model)
    holder: _Holder | None = getattr(model, _HOLDER, None)
    return {name: mask.clone() for name, mask in holder.masks.items()} if holder else {}


class _Holder:
    """The masks on one model, the values they prune, and the hooks that hold them.

    Copying or pickling the model copies this with it, hooks of modules included. PyTorch does not copy the hooks of
    parameters; they are put on again when they are missing, before the next call of the model.
    """

    def __init__(self, masks: Masks, parameters: Mapping[str, nn.Parameter]) -> None:
        self.masks = masks
        self.pruned = {
            name: parameters[name].detach()[~mask.to(parameters[name].device)] for name, mask in masks.items()
        }
        self.factors: dict[str, Tensor] = {}  # the masks as numbers: a product takes a tenth of the time of a fill
        self.handles: list = []
        self.hooked: dict[str, list[tuple[Tensor, RemovableHandle]]] = {}  # hooks, and what they multiply by

    def attach(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Hook into everything that reads the weights."""
        self.handles = [
            model.register_forward_pre_hook(_before_forward),
            model.register_state_dict_pre_hook(_before_state_dict),
            model.register_load_state_dict_post_hook(_after_load),
        ]
        if optimizer is not None:
            parameters = dict(model.named_parameters())
            for name, mask in self.masks.items():
                for moment in optimizer.state.get(parameters[name], {}).values():
                    if isinstance(moment, Tensor) and moment.shape == mask.shape:
                        moment.masked_fill_(~mask.to(moment.device), 0)
            self.handles.append(optimizer.register_step_post_hook(lambda *_: self.zero(model)))

    def zero(self, model: nn.Module) -> None:
        """Zero the pruned weights of ``model`` and see to it that their gradients will be."""
        parameters = dict(model.named_parameters())
        for name, mask in self.masks.items():
            parameter = parameters.get(name)
            if parameter is None or parameter.shape != mask.shape:
                raise ValueError(f"{name} has changed since its mask was put on; call release_masks(model) before that")
            factor = self.factors.get(name)
            if factor is None or factor.device != parameter.device or factor.dtype != parameter.dtype:
                factor = self.factors[name] = mask.to(parameter)
            # .data: a kept weight does not change, so a backward pass that is still to come stays right
            parameter.data.mul_(factor)
            if parameter.requires_grad:
                self._hook(name, parameter, factor)

    def _hook(self, name: str, parameter: nn.Parameter, factor: Tensor) -> None:
        """See to it that ``parameter`` has one hook, with this factor.

        Its type or device may have changed since the last call, or it may stand in for another for one call only
        (``torch.func.functional_call``); the other keeps its hook.
        """
        known, present = self.hooked.get(name, []), parameter._backward_hooks or {}
        if any(used is factor and handle.id in present for used, handle in known):
            return
        for _, handle in known:
            if handle.id in present:
                handle.remove()
        others = [(used, handle) for used, handle in known if handle.hooks_dict_ref() and handle.id not in present]
        self.hooked[name] = [*others, (factor, parameter.register_hook(factor.mul))]

    def detach(self) -> None:
        for handle in (*self.handles, *(handle for known in self.hooked.values() for _, handle in known)):
            handle.remove()

    def __getstate__(self) -> dict:
        handles = self.handles[:3]  # an optimizer stays with its own model
        return self.__dict__ | {"hooked": {}, "factors": {}, "handles": handles}


# Hooks are functions of the model that they are called with, not of the one they were made for: a copy has its own.
def _before_forward(model: nn.Module, inputs: tuple) -> None:
    getattr(model, _HOLDER).zero(model)


def _before_state_dict(model: nn.Module, prefix: str, keep_vars: bool) -> None:
    getattr(model, _HOLDER).zero(model)


def _after_load(model: nn.Module, incompatible: object) -> None:
    apply_masks(model, getattr(model, _HOLDER).masks)  # what is loaded may be nan, and 0 · nan is nan


def masked_parameters(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """The parameters of ``model`` by name, once it is known that ``masks`` fit them.

    Raises:
        TypeError, ValueError: they do not.
    """
    check_model(model)
    parameters = dict(model.named_parameters())
    check_masks(masks, {name: value.shape for name, value in parameters.items()}, "parameters of the model")
    return parameters
