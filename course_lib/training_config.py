"""The settings of a training run and what follows from them alone: the optimizer and the learning rate of each step."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    Attributes:
        epochs: passes over the training data.
        batch_size: examples in a step, over all processes together; a ``DataLoader`` brings its own.
        learning_rate: the highest learning rate of the schedule.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        momentum: for ``sgd``.
        weight_decay: as the optimizer defines it.
        schedule: ``constant``, ``cosine`` or ``linear`` down to zero, or ``step``: a tenth after half of the steps, a
            hundredth after three quarters.
        warmup: share of the steps in which the learning rate rises from zero.
        clip_norm: the largest norm that the gradient may have; none: not clipped.
        patience: stop after so many epochs without a lower validation loss, and take back the best weights.
        precision: ``fp32``, ``bf16`` (mixed), or ``auto``: bf16 on a GPU that has it.
        seed: of the order of the examples, of dropout and of augmentation.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "linear", "step"] = "constant"
    warmup: float = 0.0
    clip_norm: float | None = None
    patience: int | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "seed"):
            self._check_number(name, int, "a whole number")
        for name in ("learning_rate", "momentum", "weight_decay", "warmup", "clip_norm"):
            self._check_number(name, (int, float), "a number")
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm", "patience"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; expected a number above 0")
        for name, known in (
            ("optimizer", ("adam", "adamw", "sgd")),
            ("schedule", ("constant", "cosine", "linear", "step")),
            ("precision", ("auto", "fp32", "bf16")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}; expected a number, 0 or above")
        for name in ("momentum", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number of at least 0 and below 1")

    def _check_number(self, name: str, kind: type | tuple[type, ...], expected: str) -> None:
        value = getattr(self, name)
        if value is None and name in ("clip_norm", "patience"):
            return
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; expected {expected}")


@dataclass
class History:
    """What happened in each epoch: one number an epoch in each list, the validation lists empty without validation.

    ``train_loss`` is the mean over the steps of the epoch, while the weights were changing; ``learning_rate`` is that
    of the last step. ``best_epoch`` counts from 0 and is the epoch with the lowest validation loss.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None


def make_optimizer(model: nn.Module, config: FitConfig) -> Optimizer:
    """The optimizer over all parameters of ``model`` that are to be trained, with the fused kernels where they fit.

    Raises:
        ValueError: there are none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("model has no parameter that requires a gradient: nothing to train")
    rate, decay = config.learning_rate, config.weight_decay
    fused = _fused_fits(model, parameters) or None  # none: PyTorch's own choice, never a fused one
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=config.momentum, weight_decay=decay, fused=fused)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay, fused=fused)


def _fused_fits(model: nn.Module, parameters: list[nn.Parameter]) -> bool:
    """Whether the fused kernels for CPUs compute the right thing here: one call a step, much faster for small nets.

    They walk through memory from the first number on: a parameter with gaps (a slice of a larger tensor) would be
    computed wrongly, and its neighbours be written over. They know no sparse gradients. On GPUs PyTorch's own choice
    is as good, and the fused kernels there stop at a gradient with other strides, which a size of 1 can bring about.
    """
    plain = all(
        parameter.device.type == "cpu"
        and parameter.dtype in (torch.float32, torch.float64)
        and parameter.layout is torch.strided
        and parameter.is_contiguous()
        for parameter in parameters
    )
    return plain and not any(getattr(module, "sparse", False) for module in model.modules())


def rate_factor(config: FitConfig, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at ``step`` of ``steps``: a rise, then as the schedule says."""
    rise = round(config.warmup * steps)
    if step < rise:
        return (step + 1) / rise
    if config.schedule == "constant":
        return 1.0
    gone = (step - rise) / (steps - rise)
    if config.schedule == "step":
        return 1.0 if gone < 0.5 else 0.1 if gone < 0.75 else 0.01
    return 1 - gone if config.schedule == "linear" else (1 + math.cos(math.pi * gone)) / 2
