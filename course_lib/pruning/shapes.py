"""Operations run on shapes alone, with tensors on PyTorch's "meta" device, which have a shape and no numbers."""

import re
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.func import functional_call

# Activations that look at several channels at once; the others work on each number by itself.
NOT_ELEMENTWISE = (nn.MultiheadAttention, nn.Softmin, nn.Softmax2d, nn.GLU, nn.PReLU)


def shape_only(value: object) -> object:
    """A tensor without its numbers; anything else as it is."""
    return value.detach().to("meta") if isinstance(value, Tensor) else value


def as_function(module: nn.Module) -> tuple[str, Callable, tuple, dict]:
    """A layer without channels of its own as a function: its name, what runs it, its other arguments.

    Of the arguments, positional and by name, there are only those that say what happens to the channels.
    """
    kind = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    home, name, run = kind.__module__.rpartition(".")[2], kind.__name__.lower(), partial(_run, module)
    if isinstance(module, (nn.Softmax, nn.LogSoftmax)):
        return "softmax", run, (), {"dim": module.dim}
    if isinstance(module, nn.Unflatten):
        return "unflatten", run, (module.dim, module.unflattened_size), {}
    if home == "dropout" or kind is nn.Identity:
        name = "dropout"
    elif home == "activation" and not isinstance(module, NOT_ELEMENTWISE):
        name = "relu"
    elif home == "padding":
        name = "pad"
    elif home == "pooling":  # MaxPool2d -> max_pool2d
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__.replace("LP", "Lp")).lower()
    return name, run, (), {}


def layer_output(module: nn.Module, value: Tensor) -> Tensor:
    """The shape of what a linear layer, an embedding or a convolution makes of ``value``.

    It is worked out where PyTorch takes long for it: its linear layer on shapes imports a compiler first.
    """
    weight = module.weight
    if isinstance(module, nn.Linear):
        if value.shape[-1] != module.in_features:
            raise RuntimeError(f"it takes {module.in_features} numbers and not {value.shape[-1]}")
        return weight.new_empty((*value.shape[:-1], module.out_features), device="meta")
    if isinstance(module, nn.Embedding):
        return weight.new_empty((*value.shape, module.embedding_dim), device="meta")
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        convolve = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[len(module.kernel_size) - 1]
        weight = weight.new_empty(weight.shape, device="meta")
        return convolve(value, weight, None, module.stride, module.padding, module.dilation, module.groups)
    return _run(module, value)


def run_method(name: str, tensor: object, *args: object, **named: object) -> object:
    """A method, called like a function."""
    return getattr(tensor, name)(*args, **named)


def run_on(function: Callable, args: tuple, named: Mapping[str, object], tensor: Tensor) -> object:
    """A function with another tensor in the place of its first argument."""
    return function(tensor, *args, **named)


def _run(module: nn.Module, *args: object, **named: object) -> object:
    state = {key: shape_only(value) for key, value in (*module.named_parameters(), *module.named_buffers())}
    return functional_call(module, state, args, named) if state else module(*args, **named)
