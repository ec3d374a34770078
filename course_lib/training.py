"""One ``fit`` loop for the whole course (and ``evaluation.evaluate`` beside it).

A method brings its loss, ``loss(model, batch) -> scalar``; ``fit`` does the rest: batches, device, mixed precision,
progress bar, gradient clipping, learning-rate schedule, early stopping, history, checkpoints, several processes.

Every random choice of an epoch follows from the seed and the number of the epoch. A run that resumes from a
checkpoint therefore needs no saved random state to arrive at the numbers of an unbroken run.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from course_lib.checkpoints import load_checkpoint, save_checkpoint
from course_lib.device import autocast_dtype, device_of, pick_device, seeded
from course_lib.evaluation import Batch, check_data, evaluate

if TYPE_CHECKING:
    from accelerate import Accelerator

Loss = Callable[[nn.Module, Batch], Tensor]


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
        schedule: ``constant``, or ``cosine`` or ``linear`` down to zero.
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
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: float = 0.0
    clip_norm: float | None = None
    patience: int | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm", "patience"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; expected a number above 0")
        for name, known in (
            ("optimizer", ("adam", "adamw", "sgd")),
            ("schedule", ("constant", "cosine", "linear")),
            ("precision", ("auto", "fp32", "bf16")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}; expected a share of the steps, at least 0 and below 1")


@dataclass
class History:
    """What happened in each epoch: one number an epoch in each list, the validation lists empty without validation.

    ``best_epoch`` counts from 0 and is the epoch with the lowest validation loss.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None


def hard_label_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy with the labels; ``batch`` is (inputs, labels, ...)."""
    inputs, labels = batch[:2]
    return nn.functional.cross_entropy(model(inputs), labels)


def fit(
    model: nn.Module,
    train: TensorDataset | DataLoader,
    config: FitConfig | None = None,
    *,
    validation: TensorDataset | DataLoader | None = None,
    loss: Loss = hard_label_loss,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
    checkpoint_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    accelerator: "Accelerator | None" = None,
    progress: bool = True,
) -> History:
    """Train ``model`` in place; it ends in eval mode, on the device that it came from.

    If training fails, the model gets its old weights back; an interruption from the keyboard keeps the new ones.

    Args:
        train: a ``TensorDataset`` is shuffled and cut into batches here; a ``DataLoader`` is taken as it is.
        config: the settings, ``FitConfig()`` if none.
        validation: (inputs, labels), evaluated after each epoch.
        loss: takes the model and a batch (inputs first), returns a scalar: a mean over the batch.
        augment: changes the inputs of each batch, given a seeded generator.
        after_step: called with the model after each optimizer step (to apply a mask again, to limit weights).
        checkpoint_dir: a checkpoint is written here after each epoch; if there is one, training goes on from it.
        accelerator: for several processes. Each takes its share of every batch, and the gradient is that of the
            whole batch. Batch norm keeps to the statistics of each process's share.

    Raises:
        ValueError: the data are empty, patience without validation, or a checkpoint that does not fit.
        FloatingPointError: the loss is no longer finite.
    """
    config = config or FitConfig()
    check_data("train", train)
    if validation is not None:
        check_data("validation", validation)
    elif config.patience is not None:
        raise ValueError(f"patience is {config.patience} but there are no validation data to lose patience with")
    before = copy.deepcopy(model.state_dict())
    home = device_of(model)
    try:
        run = _Run(model, config, loss, augment, after_step, device, accelerator)
        return _epochs(run, train, validation, checkpoint_dir, progress)
    except Exception:
        model.load_state_dict(before)
        raise
    finally:
        model.to(home).eval()


class _Run:
    """What stays the same through a run: model, optimizer, where and how to compute."""

    def __init__(self, model, config, loss, augment, after_step, device, accelerator) -> None:
        self.config, self.loss, self.augment, self.after_step = config, loss, augment, after_step
        self.accelerator = accelerator
        self.rank, self.world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
        self.device = accelerator.device if accelerator else pick_device(device)
        self.model = model.to(self.device)
        self.optimizer = _optimizer(self.model, config)
        self.prepared = accelerator.prepare(self.model) if accelerator else self.model
        dtype = torch.bfloat16 if config.precision == "bf16" else autocast_dtype(self.device)
        mixed = dtype is not None and config.precision != "fp32"
        self.autocast = torch.autocast(self.device.type, dtype) if mixed else nullcontext()

    def step(self, batch: Batch, share: float, rate: float) -> Tensor:
        """One step; ``share`` is this process's part of the batch, times the number of processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.autocast:
            value = self.loss(self.prepared, batch)
        self.optimizer.zero_grad(set_to_none=True)
        scaled = value if share == 1 else value * share
        self.accelerator.backward(scaled) if self.accelerator else scaled.backward()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step(self.model)
        return value.detach()


def _epochs(run: _Run, train, validation, checkpoint_dir, progress: bool) -> History:
    """All epochs, from the last checkpoint on."""
    config, history, best = run.config, History(), None
    if checkpoint_dir is not None and (saved := load_checkpoint(checkpoint_dir, run.model, run.optimizer)):
        history, best = _resume(saved, config, checkpoint_dir)
    steps = _steps_per_epoch(train, config.batch_size)
    done = len(history.train_loss)
    hidden = not progress or run.rank > 0
    with tqdm(
        total=config.epochs * steps, initial=done * steps, unit="step", delay=2, leave=False, disable=hidden
    ) as bar:
        for epoch in range(done, config.epochs):
            if _out_of_patience(history, config):
                break
            _train_epoch(run, train, epoch, steps, history, bar)
            if validation is not None and _validate(run, validation, history):
                best = {name: value.detach().cpu().clone() for name, value in run.model.state_dict().items()}
            if checkpoint_dir is not None and run.rank == 0:
                state = {"config": asdict(config), "history": asdict(history)}
                kept = best if config.patience is not None else None
                save_checkpoint(checkpoint_dir, epoch + 1, run.model, run.optimizer, state, kept)
    if config.patience is not None and best is not None:
        run.model.load_state_dict(best)
    return history


def _train_epoch(run: _Run, train, epoch: int, steps: int, history: History, bar: tqdm) -> None:
    """One pass over the data, written into ``history``."""
    config, start = run.config, time.perf_counter()
    # Nothing random outlives the epoch. The same seed on all processes: a DataLoader then shuffles alike on each.
    seed = hash((config.seed, epoch)) % 2**63  # Python does not randomise the hash of integers
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), device=run.device)
    rate = config.learning_rate
    run.prepared.train()
    with seeded(seed):
        for index, (batch, share) in enumerate(_batches(train, config.batch_size, generator, run)):
            rate = config.learning_rate * _factor(config, epoch * steps + index, config.epochs * steps)
            total += run.step(batch, share, rate) * share
            bar.update()
    if run.accelerator:
        total = run.accelerator.reduce(total, "mean")
    mean = total.item() / steps
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"the training loss is {mean} in epoch {epoch + 1}: lower the learning rate (now {rate:g}), "
            "set clip_norm, or look for inputs that are not finite"
        )
    history.train_loss.append(mean)
    history.learning_rate.append(rate)
    history.seconds.append(time.perf_counter() - start)


def _batches(
    train: TensorDataset | DataLoader, size: int, generator: torch.Generator, run: _Run
) -> Iterator[tuple[Batch, float]]:
    """This process's share of each batch on its device, and the weight of that share."""
    for batch in _whole_batches(train, size, generator):
        whole = len(batch[0])
        if run.world > 1:
            # a process left without examples repeats the first one, with weight zero, so that all meet at the gradient
            mine = [tensor[run.rank :: run.world] for tensor in batch]
            weight = len(mine[0]) * run.world / whole
            batch = mine if len(mine[0]) else [tensor[:1] for tensor in batch]
        else:
            weight = 1.0
        inputs, *rest = (tensor.to(run.device, non_blocking=True) for tensor in batch)
        if run.augment is not None:
            inputs = run.augment(inputs, generator)
        yield (inputs, *rest), weight


def _whole_batches(data: TensorDataset | DataLoader, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Batches over all processes, a ``TensorDataset`` in an order drawn from ``generator``."""
    if not isinstance(data, TensorDataset):
        yield from data
        return
    for index in torch.randperm(len(data), generator=generator).split(size):
        yield tuple(tensor[index] for tensor in data.tensors)


def _validate(run: _Run, validation, history: History) -> bool:
    """Evaluate after an epoch, write it into ``history``, and tell whether it is the best so far."""
    result = evaluate(run.model, validation, device=run.device)
    history.validation_loss.append(result.loss)
    history.validation_accuracy.append(result.accuracy)
    history.best_epoch = min(range(len(history.validation_loss)), key=history.validation_loss.__getitem__)
    return history.best_epoch == len(history.validation_loss) - 1


def _out_of_patience(history: History, config: FitConfig) -> bool:
    if config.patience is None or history.best_epoch is None:
        return False
    return len(history.validation_loss) - 1 - history.best_epoch >= config.patience


def _resume(saved: tuple[dict, dict[str, Tensor] | None], config: FitConfig, folder) -> tuple[History, dict | None]:
    """The history and the best weights of a checkpoint, if it was made with the same settings."""
    state, best = saved
    for name, value in asdict(config).items():
        if state["config"].get(name) != value:
            raise ValueError(
                f"the checkpoint in {folder} was made with {name}={state['config'].get(name)!r}, not {value!r}; "
                "use the same config to go on, or another checkpoint_dir to start afresh"
            )
    return History(**state["history"]), best


def _optimizer(model: nn.Module, config: FitConfig) -> Optimizer:
    """The optimizer over all parameters that are to be trained."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("model has no parameter that requires a gradient: nothing to train")
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=config.momentum, weight_decay=decay)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay)


def _factor(config: FitConfig, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at ``step`` of ``steps``: a rise, then constant, cosine or linear."""
    rise = round(config.warmup * steps)
    if step < rise:
        return (step + 1) / rise
    if config.schedule == "constant":
        return 1.0
    gone = (step - rise) / (steps - rise)
    return 1 - gone if config.schedule == "linear" else (1 + math.cos(math.pi * gone)) / 2


def _steps_per_epoch(train: TensorDataset | DataLoader, batch_size: int) -> int:
    return math.ceil(len(train) / batch_size) if isinstance(train, TensorDataset) else len(train)
