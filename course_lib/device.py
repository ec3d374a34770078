"""Where the course computes, in which number format, and from which seed.

Two environment variables steer what runs:

- ``COURSE_DEVICE``: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; without it the fastest device that is there.
- ``COURSE_SCALE``: ``quick`` (a laptop, the default) or ``full`` (the papers' tables with longer training).
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn


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
    """Start PyTorch's generators of this process from ``seed``."""
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:  # the same on the CPU, without the stack trace that manual_seed keeps for a GPU that might wake up
        torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, PyTorch's generators start from ``seed``; afterwards they go on as if nothing had happened."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()  # counting none takes its time
    apple = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(devices=gpus):
        seed_generators(seed)
        try:
            yield
        finally:
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


@contextmanager
def undone_on_error(model: nn.Module) -> Iterator[None]:
    """If the block inside raises an error, ``model`` gets its old weights, gradients and modes back."""
    weights = copy.deepcopy(model.state_dict())
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]  # a step makes new ones
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    except Exception:
        model.load_state_dict(weights)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, training in modes:
            module.training = training
        raise


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
