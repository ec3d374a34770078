"""The settings of a training run and what follows from them alone: the optimizer and the learning rate of each step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from course_lib.layers import match_names


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    Attributes:
        epochs: passes over the training data.
        batch_size: examples in a batch, over all processes together; a ``DataLoader`` brings its own.
        learning_rate: the highest learning rate of the schedule.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        momentum: for ``sgd``.
        weight_decay: as the optimizer defines it.
        schedule: ``constant``, ``cosine`` or ``linear`` down to zero, or ``step``: a tenth after half of the steps, a
            hundredth after three quarters.
        warmup: share of the steps in which the learning rate rises from zero.
        clip_norm: the largest norm that the gradient may have; None: not clipped.
        patience: stop after so many epochs without a lower validation loss, and take back the best weights.
        precision: ``fp32``, ``bf16`` (mixed), or ``auto``: bf16 on a GPU that has it.
        seed: of the order of the examples, of dropout and of augmentation.
        drop_last: leave out a last batch with fewer examples than the others; a ``DataLoader`` has its own.
        accumulate: batches whose gradients are added up for one step, that of one batch which holds all their examples.
        tokens: in place of ``epochs``: go over the data until so many labels have been learned from. They are the
            tokens of a text, padding left out, or the examples where each has one label.
        parameter_groups: other settings for some parameters, by name or pattern of names (the first that matches
            counts): ``{"*.bias": {"weight_decay": 0.0}, "*.lora_B": {"learning_rate": 0.01}}``.
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
    drop_last: bool = False
    accumulate: int = 1
    tokens: int | None = None
    parameter_groups: Mapping[str, Mapping[str, float]] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            _check(name, getattr(self, name), whole=True)
        for name in ("patience", "tokens"):
            _check(name, getattr(self, name), whole=True, optional=True)
        _check("seed", self.seed, whole=True, least=-math.inf)
        _check("learning_rate", self.learning_rate)
        _check("clip_norm", self.clip_norm, optional=True)
        _check("weight_decay", self.weight_decay, least=0)
        for name in ("momentum", "warmup"):
            _check(name, getattr(self, name), least=0, below=1)
        for name, known in (
            ("optimizer", ("adam", "adamw", "sgd")),
            ("schedule", ("constant", "cosine", "linear", "step")),
            ("precision", ("auto", "fp32", "bf16")),
            ("drop_last", (False, True)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(str, known))}")
        for pattern, own in (self.parameter_groups or {}).items():
            for name, value in own.items():
                if name not in ("learning_rate", "weight_decay"):
                    raise ValueError(
                        f"parameter_groups[{pattern!r}] sets {name}; expected learning_rate or weight_decay"
                    )
                _check(f"{name} of {pattern!r}", value, least=0)


def _check(
    name: str,
    value: object,
    *,
    whole: bool = False,
    optional: bool = False,
    least: float | None = None,
    below: float = math.inf,
) -> None:
    """Raise unless ``value`` is a number from ``least`` on, above 0 if ``least`` is None, and under ``below``."""
    if value is None and optional:
        return
    if not isinstance(value, int if whole else (int, float)) or isinstance(value, bool):
        expected = "a whole number" if whole else "a number"
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; expected {expected}")
    if not ((value > 0 if least is None else value >= least) and value < below):
        expected = "above 0" if least is None else f"of at least {least}"
        raise ValueError(
            f"{name} is {value}; expected a number {expected}{f' and below {below}' if below < math.inf else ''}"
        )


@dataclass
class History:
    """What happened in each epoch: one number an epoch in each list, the validation lists empty without validation.

    ``train_loss`` is the mean over the steps of the epoch, while the weights were changing; ``learning_rate`` is that
    of the last step. ``best_epoch`` counts from 0 and is the epoch with the lowest validation loss. ``tokens`` are the
    labels learned from, where ``FitConfig.tokens`` says how many they should be.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    tokens: list[int] = field(default_factory=list)


def make_optimizer(model: nn.Module, config: FitConfig) -> Optimizer:
    """The optimizer over all parameters of ``model`` that are to be trained, with the fused kernels where they fit.

    Each of its groups has ``initial_lr``, the highest learning rate of its schedule.

    Raises:
        ValueError: there are none, or a pattern of ``parameter_groups`` matches none of those left by the ones before.
    """
    left = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not left:
        raise ValueError("model has no parameter that requires a gradient: nothing to train")
    fused = _fused_fits(model, list(left.values())) or None  # none: PyTorch's own choice, never a fused one
    groups = []
    for pattern, own in (config.parameter_groups or {}).items():
        names = match_names(left, pattern, argument="parameter_groups has")
        groups.append({"params": [left.pop(name) for name in names], "settings": own})
    groups = [group for group in ({"params": list(left.values()), "settings": {}}, *groups) if group["params"]]
    for group in groups:
        own = group.pop("settings")
        group["lr"] = group["initial_lr"] = own.get("learning_rate", config.learning_rate)
        group["weight_decay"] = own.get("weight_decay", config.weight_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=config.momentum, fused=fused)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, config.learning_rate, fused=fused)


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


def steps_per_epoch(train: TensorDataset | DataLoader, config: FitConfig) -> int:
    """How many steps ``fit`` makes of one pass over ``train``; the last one may be of fewer examples."""
    batches = len(train)
    if isinstance(train, TensorDataset):
        batches = len(train) // config.batch_size if config.drop_last else math.ceil(len(train) / config.batch_size)
    return math.ceil(batches / config.accumulate)


def rate_factor(config: FitConfig, step: float, steps: float) -> float:
    """What the learning rate is multiplied by at ``step`` of ``steps``: a rise, then as the schedule says."""
    rise = round(config.warmup * steps)
    if step < rise:
        return min(1.0, (step + 1) / rise)
    if config.schedule == "constant":
        return 1.0
    gone = (step - rise) / (steps - rise)
    if config.schedule == "step":
        return 1.0 if gone < 0.5 else 0.1 if gone < 0.75 else 0.01
    return 1 - gone if config.schedule == "linear" else (1 + math.cos(math.pi * gone)) / 2
