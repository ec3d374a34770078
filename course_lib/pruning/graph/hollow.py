"""A copy of a model whose tensors have shapes and no numbers.

Forward passes write on what they belong to: caches, counters, statistics. So a network is looked at on a copy. It takes
milliseconds and no memory, whatever the size of the model: its parameters and buffers lie on PyTorch's "meta" device.
Buffers of whole numbers are real copies, since code looks at them (positions, masks).
"""

import copy
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

_SHARED = {str, int, float, complex, bool, bytes, type, type(None), torch.dtype, torch.device, types.FunctionType}
_SHARED |= {types.BuiltinFunctionType, types.ModuleType, torch.Size, torch.Generator}
_BOXES = {dict, OrderedDict, set, list}


def hollow(tensor: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """A tensor of the same kind without its numbers, or a real copy if these are whole; of another shape if given."""
    shape = tensor.shape if shape is None else shape
    if tensor.is_floating_point() or tensor.is_complex() or tensor.is_meta or shape != tensor.shape:
        result = torch.empty(shape, dtype=tensor.dtype, device="meta")
    else:
        result = tensor.detach().clone()
    return nn.Parameter(result, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else result


def hollow_copy(model: nn.Module, tensors: Mapping[int, Tensor], number: Callable | None = None) -> nn.Module:
    """A copy of ``model`` with ``tensors`` in the place of its own, whose ids they have.

    Args:
        number: ``number(module, name, value)`` gives what a module that is not PyTorch's own is to have instead of a
            whole number that it keeps under a name; None: the same number.
    """
    made: dict[int, object] = dict(tensors)

    def copied(value: object) -> object:
        kind = type(value)
        if kind in _SHARED:
            return value
        if id(value) in made:
            return made[id(value)]
        if isinstance(value, nn.Module):
            return module_copied(value)
        if isinstance(value, Tensor):
            made[id(value)] = hollow(value)
        elif kind in (dict, OrderedDict, defaultdict):
            made[id(value)] = result = value.copy()
            for key, part in value.items():
                result[key] = copied(part)
        elif kind in (list, set, deque):
            made[id(value)] = result = kind(value)
            result.clear()
            (result.update if kind is set else result.extend)(map(copied, value))
        elif kind is tuple:
            made[id(value)] = tuple(map(copied, value))
        elif kind is types.MethodType:
            made[id(value)] = types.MethodType(value.__func__, copied(value.__self__))
        else:
            try:
                made[id(value)] = copy.deepcopy(value, made)
            except Exception:  # a lock, a file: it is shared
                made[id(value)] = value
        return made[id(value)]

    def module_copied(module: nn.Module) -> nn.Module:
        made[id(module)] = result = object.__new__(type(module))
        whole = number if not type(module).__module__.startswith("torch.nn.") else None
        state = result.__dict__
        for key, value in vars(module).items():
            kind = type(value)
            if whole is not None and kind is int:
                state[key] = whole(module, key, value)
            elif kind in _SHARED:
                state[key] = value
            elif kind in _BOXES and not value:  # most of a module's dictionaries are empty
                state[key] = kind()
            else:
                state[key] = copied(value)
        return result

    return copied(model)
