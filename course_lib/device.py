"""Where the course computes, in which number format, and from which seed.

Two environment variables steer what runs:

- ``COURSE_DEVICE``: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; without it the fastest device that is there.
- ``COURSE_SCALE``: ``quick`` (a laptop, the default) or ``full`` (the papers' tables with longer training).
"""

import copy
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def pick_device(preferred: str | torch.device | None = None) -> torch.device:
    """The device to compute on: ``preferred``, else ``COURSE_DEVICE``, else cuda, mps, cpu in that order.

    Raises:
        ValueError: the device is unknown, or this machine does not have it.
    """
    wanted = preferred or os.environ.get("COURSE_DEVICE")
    if not wanted:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {str(wanted)!r} cannot be used here ({str(error).splitlines()[0]}); "
            "set COURSE_DEVICE to cpu, cuda or mps, or unset it"
        ) from error
    return device


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The number format for mixed precision on ``device``: bfloat16 on a GPU that has it, else none."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return None


def scale() -> Literal["quick", "full"]:
    """The size of the experiments, from ``COURSE_SCALE``; ``quick`` unless it is set.

    Raises:
        ValueError: ``COURSE_SCALE`` is neither.
    """
    value = os.environ.get("COURSE_SCALE", "quick")
    if value not in ("quick", "full"):
        raise ValueError(f"COURSE_SCALE is {value!r}; expected 'quick' or 'full'")
    return value


def seed_generators(seed: int) -> None:
    """Start the generators of this process from ``seed``: PyTorch's, NumPy's and Python's."""
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:  # the same on the CPU, without the stack trace that manual_seed keeps for a GPU that might wake up
        torch.default_generator.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed % 2**64)  # of a negative seed it would take the absolute value


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the generators of PyTorch, NumPy and Python start from ``seed``; afterwards they go on undisturbed."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()  # counting none takes its time
    apple = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    others = numpy.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=gpus):
        seed_generators(seed)
        try:
            yield
        finally:
            numpy.random.set_state(others[0])
            random.setstate(others[1])
            if apple is not None:
                torch.mps.set_rng_state(apple)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Inside, the models are in eval mode; afterwards each module is back in the mode it had."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict on the CPU: each tensor on its own and in plain order, as safetensors wants them."""
    return {
        name: value.detach().cpu().contiguous().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in model.state_dict().items()
    }


def trained_state(model: nn.Module, *, frozen: bool = False) -> dict[str, dict]:
    """What training changes in ``model``, by name; the tensors are the model's own.

    Returns:
        ``tensors``: the parameters that require a gradient (with ``frozen`` all), and the buffers; ``extra``: what
        modules keep beside them (``get_extra_state``).
    """
    parameters = {name: value for name, value in model.named_parameters() if frozen or value.requires_grad}
    tensors = {name: value for name, value in (parameters | dict(model.named_buffers())).items() if not is_lazy(value)}
    own = {name: module for name, module in model.named_modules() if _keeps_extra_state(module)}
    return {"tensors": tensors, "extra": {name: module.get_extra_state() for name, module in own.items()}}


def copy_of_state(model: nn.Module, device: torch.device | str | None = None, *, frozen: bool = False) -> dict:
    """A copy of ``trained_state``, its tensors on ``device``, or where the model's are if none."""
    state = trained_state(model, frozen=frozen)
    copies = {name: value.detach().to(device or value.device, copy=True) for name, value in state["tensors"].items()}
    return {"tensors": copies, "extra": copy.deepcopy(state["extra"])}


@torch.no_grad()
def put_back(model: nn.Module, state: dict[str, dict]) -> None:
    """Give ``model`` the values of ``state``, a ``copy_of_state``. A buffer of another size is replaced.

    Raises:
        ValueError: a parameter has another shape.
    """
    for name, value in state["tensors"].items():
        path, _, key = name.rpartition(".")
        owner = model.get_submodule(path)
        own = getattr(owner, key)
        value = value.to(own.device)
        expanded = 0 in own.stride() and own.numel() > 1  # its numbers share one place in memory: none can be written
        if key in owner._buffers and (own.shape != value.shape or expanded):
            owner._buffers[key] = own if torch.equal(own, value) else value
        elif own.shape != value.shape:
            raise ValueError(f"{name} is {tuple(own.shape)} in the model, {tuple(value.shape)} in what is put back")
        else:
            own.copy_(value)
    for name, value in state["extra"].items():
        model.get_submodule(name).set_extra_state(value)


@contextmanager
def undone_on_error(model: nn.Module, *, frozen: bool = False) -> Iterator[None]:
    """If the block inside raises an error, ``model`` gets its old weights, buffers, gradients and modes back.

    This keeps a copy of what training changes; with ``frozen`` of the frozen parameters too, if the block writes them.
    """
    before = copy_of_state(model, frozen=frozen)
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]  # a step makes new ones
    modules = [(part, part.training, dict(part._parameters), dict(part._buffers)) for part in model.modules()]
    try:
        yield
    except Exception:
        for module, training, parameters, buffers in modules:  # they may have been replaced by others
            module.training = training
            module._parameters.update(parameters)
            module._buffers.update(buffers)
        put_back(model, before)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        raise


def _keeps_extra_state(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state


def check_model(model: object) -> None:
    """Raise a ``TypeError`` unless ``model`` is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")


def device_of(model: nn.Module) -> torch.device:
    """The device that the model lies on (of its first parameter or buffer); the CPU if it has neither."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, ``model`` lies on ``device``; afterwards it is back where it was."""
    home = device_of(model)
    try:
        model.to(device)  # inside: when memory runs out half way, the first half goes back too
        yield
    finally:
        model.to(home)
