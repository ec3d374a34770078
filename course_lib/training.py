"""One ``fit`` loop for the whole course (and ``evaluation.evaluate`` beside it).

A method brings its loss, ``loss(model, batch) -> scalar``; ``fit`` does the rest: batches, device, mixed precision,
progress bar, gradient clipping, learning-rate schedule, early stopping, history, checkpoints, several processes.

Several processes: pass an ``Accelerator``, and start them with ``notebook_launcher(..., num_processes=2)`` in a
notebook, or with ``accelerate launch --multi_gpu --num_processes 2 script.py`` (on a CPU too, with
``Accelerator(cpu=True)``).

Every random choice of an epoch follows from the seed and the number of the epoch. A run that resumes from a
checkpoint therefore needs no saved random state to arrive at the numbers of an unbroken run.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.checkpoints import check_folder, load_checkpoint, save_checkpoint, weights_of
from course_lib.device import (
    autocast_dtype,
    check_model,
    device_of,
    pick_device,
    seed_generators,
    seeded,
    undone_on_error,
)
from course_lib.evaluation import Batch, check_data, check_labels, evaluate, predict_logits
from course_lib.processes import Processes
from course_lib.progress import bar
from course_lib.training_config import FitConfig, History, make_optimizer, rate_factor

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["FitConfig", "History", "Loss", "fit", "hard_label_loss"]

Loss = Callable[[nn.Module, Batch], Tensor]


def hard_label_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy with the labels; ``batch`` is (inputs, labels, ...), labels (N,) of an integer type."""
    inputs, labels = batch[:2]
    logits = model(inputs)
    try:
        return nn.functional.cross_entropy(logits, labels)
    except (IndexError, RuntimeError, ValueError):  # other integers than int64, or an error to be put clearly
        return nn.functional.cross_entropy(logits, check_labels(labels, logits))


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
    first_step: int = 0,
    device: str | torch.device | None = None,
    accelerator: "Accelerator | None" = None,
    progress: bool = True,
) -> History:
    """Train ``model`` in place; it ends in eval mode, on the device that it came from.

    If training fails, the model is as it was before; an interruption from the keyboard keeps the new weights.

    Args:
        train: a ``TensorDataset`` is shuffled and cut into batches here; a ``DataLoader`` is taken as it is. (One with
            a generator of its own draws from it: such a run has another order of examples after it resumes.)
        config: the settings, ``FitConfig()`` if none.
        validation: (inputs, labels), evaluated after each epoch.
        loss: takes the model and a batch (inputs first), returns a scalar: a mean over the batch.
        augment: changes the inputs of each batch, given a seeded generator.
        after_step: called with the model after each optimizer step (to apply a mask again, to limit weights).
        checkpoint_dir: a checkpoint is written here after each epoch; if there is one, training goes on from it.
            The settings and the size of the data have to be those it was made with.
        first_step: leave out so many steps; the order of the examples and the learning rate go on as if they had been
            done (rewinding to a step needs this). The history begins with the epoch of this step.
        device: where to compute, ``pick_device`` if none.
        accelerator: for several processes. Each takes its share of every batch, and the gradient is that of the
            whole batch. Dropout differs from that of one process, and batch norm uses the statistics of each share.

    Raises:
        ValueError: the data are empty, patience without validation, a first step that is not one of the run, or a
            checkpoint that does not fit.
        TypeError: an argument is of another type than it should be.
        FloatingPointError: the loss or the weights are no longer finite.
    """
    config = FitConfig() if config is None else config
    _check_arguments(model, train, config, validation, checkpoint_dir, first_step)
    if loss is hard_label_loss and isinstance(train, TensorDataset):
        _check_all_labels(model, train)
    with undone_on_error(model), _trained_at_home(model), seeded(config.seed):
        run = _Run(model, config, loss, augment, after_step, device, accelerator)
        history = _epochs(run, train, validation, checkpoint_dir, first_step, progress)
        run.optimizer.zero_grad(set_to_none=True)  # nobody needs the last gradient
    return history


def _check_arguments(model, train, config, validation, checkpoint_dir, first_step) -> None:
    """Find what is wrong before anything is changed."""
    check_model(model)
    if not isinstance(config, FitConfig):
        raise TypeError(f"config is a {type(config).__name__}; expected a FitConfig, such as FitConfig(epochs=3)")
    check_data("train", train)
    if validation is not None:
        check_data("validation", validation)
    elif config.patience is not None:
        raise ValueError(f"patience is {config.patience} but there are no validation data to lose patience with")
    last = config.epochs * steps_per_epoch(train, config) - 1
    if isinstance(first_step, bool) or not isinstance(first_step, int) or not 0 <= first_step <= last:
        raise ValueError(f"first_step is {first_step!r}; expected a step of this run, from 0 to {last}")
    if checkpoint_dir is not None:
        check_folder(checkpoint_dir)


def steps_per_epoch(train: TensorDataset | DataLoader, config: FitConfig) -> int:
    """How many steps ``fit`` makes of one pass over ``train``; the last batch may be smaller."""
    return math.ceil(len(train) / config.batch_size) if isinstance(train, TensorDataset) else len(train)


def _check_all_labels(model: nn.Module, train: TensorDataset) -> None:
    """Raise before the first step if any label does not fit the model's answer to the first example."""
    if len(train.tensors) < 2:
        raise ValueError("train holds no labels; expected TensorDataset(inputs, labels), or a loss that needs none")
    inputs, labels = train.tensors[:2]
    answer = predict_logits(model, TensorDataset(inputs[:1]), device=device_of(model))  # (1, C)
    check_labels(labels, answer.expand(len(labels), *answer.shape[1:]))


@contextmanager
def _trained_at_home(model: nn.Module) -> Iterator[None]:
    """``model`` ends in eval mode, also after an interruption from the keyboard, and on the device it came from."""
    home = device_of(model)
    try:
        yield
    except Exception:  # the modes are given back with everything else
        raise
    except BaseException:
        model.eval()
        raise
    else:
        model.eval()
    finally:
        model.to(home)


class _Run:
    """What stays the same through a run: model, optimizer, where and how to compute."""

    def __init__(self, model, config, loss, augment, after_step, device, accelerator) -> None:
        self.config, self.loss, self.augment, self.after_step = config, loss, augment, after_step
        self.processes = Processes(accelerator)
        self.device = accelerator.device if accelerator else pick_device(device)
        self.model = model.to(self.device)
        self.processes.start_alike(self.model)
        self.optimizer = make_optimizer(self.model, config)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        dtype = torch.bfloat16 if config.precision == "bf16" else autocast_dtype(self.device)
        mixed = dtype is not None and config.precision != "fp32"
        self.autocast = torch.autocast(self.device.type, dtype) if mixed else nullcontext()

    def step(self, batch: Batch, weight: float, rate: float) -> Tensor:
        """One step; ``weight`` is how often the mean over the processes counts this one's part of the batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.autocast:
            value = self.loss(self.model, batch)
        if weight != 1:
            value = value * weight
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        self.processes.average_gradients(self.parameters)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step(self.model)
        return value.detach()


def _epochs(run: _Run, train, validation, checkpoint_dir, first_step: int, progress: bool) -> History:
    """All epochs, from the last checkpoint on."""
    config, history, best = run.config, History(), None
    steps = steps_per_epoch(train, config)
    made_with = {**asdict(config), "steps_per_epoch": steps, **({"first_step": first_step} if first_step else {})}
    if checkpoint_dir is not None and (saved := load_checkpoint(checkpoint_dir, run.model, run.optimizer, made_with)):
        history, best = History(**saved[0]), saved[1]
    done = first_step // steps + len(history.train_loss)
    hidden = not progress or run.processes.rank > 0
    total = config.epochs * steps
    with bar(total=total, initial=max(first_step, done * steps), show=not hidden) as steps_bar:
        for epoch in range(done, config.epochs):
            if _out_of_patience(history, config):
                break
            _train_epoch(run, train, epoch, steps, max(0, first_step - epoch * steps), history, steps_bar)
            newest_is_best = validation is not None and _validate(run, validation, history)
            if config.patience is not None and newest_is_best:
                best = weights_of(run.model)
            if checkpoint_dir is not None:
                if run.processes.rank == 0:
                    so_far = asdict(history)
                    save_checkpoint(checkpoint_dir, epoch + 1, run.model, run.optimizer, made_with, so_far, best)
                run.processes.wait()
    if best is not None:
        run.model.load_state_dict(best)
    return history


def _train_epoch(run: _Run, train, epoch: int, steps: int, left_out: int, history: History, steps_bar) -> None:
    """One pass over the data but for the first batches that are ``left_out``, written into ``history``."""
    config, start = run.config, time.perf_counter()
    # Nothing random outlives the epoch. The same seed on all processes: a DataLoader then shuffles alike on each.
    seed = hash((config.seed, epoch)) % 2**63  # Python does not randomise the hash of integers
    generator = torch.Generator().manual_seed(seed)
    total, rate = torch.zeros((), device=run.device), config.learning_rate
    run.model.train()
    seed_generators(seed)
    for index, (batch, weight) in enumerate(_batches(train, generator, run)):
        if index == 0 and run.processes.rank > 0:
            seed_generators(seed + run.processes.rank)  # the order is drawn; dropout is to differ
        if index < left_out:
            continue
        rate = config.learning_rate * rate_factor(config, epoch * steps + index, config.epochs * steps)
        total += run.step(batch, weight, rate)
        steps_bar.update()
    run.processes.average_buffers(run.model)
    mean = run.processes.mean(total).item() / (steps - left_out)
    if not math.isfinite(mean) or not all(parameter.isfinite().all() for parameter in run.parameters):
        what = "weights are no longer finite" if math.isfinite(mean) else f"loss is {mean}"
        raise FloatingPointError(
            f"the training {what} in epoch {epoch + 1}: lower the learning rate (now {rate:g}), "
            "set clip_norm, or look for inputs that are not finite"
        )
    history.train_loss.append(mean)
    history.learning_rate.append(rate)
    history.seconds.append(time.perf_counter() - start)


def _batches(train: TensorDataset | DataLoader, generator: torch.Generator, run: _Run) -> Iterator[tuple[Batch, float]]:
    """This process's part of each batch on its device, and the weight of that part."""
    for batch in _whole_batches(train, run.config.batch_size, generator):
        inputs, *rest = (t if t.device == run.device else t.to(run.device, non_blocking=True) for t in batch)
        if run.augment is not None:  # before the batch is divided: the same for any number of processes
            inputs = run.augment(inputs, generator)
        yield run.processes.part((inputs, *rest))


def _whole_batches(data: TensorDataset | DataLoader, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Batches over all processes, a ``TensorDataset`` in an order drawn from ``generator``."""
    if not isinstance(data, TensorDataset):
        yield from data
        return
    for index in torch.randperm(len(data), generator=generator).split(size):
        yield tuple(tensor[index] for tensor in data.tensors)


def _validate(run: _Run, validation, history: History) -> bool:
    """Evaluate after an epoch, write it into ``history``, and tell whether it is the best so far."""
    with seeded(run.config.seed):  # a DataLoader draws from the generator even when it does not shuffle
        result = run.processes.agree(evaluate(run.model, validation, device=run.device))
    history.validation_loss.append(result.loss)
    history.validation_accuracy.append(result.accuracy)
    ranked = [math.inf if math.isnan(value) else value for value in history.validation_loss]
    history.best_epoch = ranked.index(min(ranked))
    return history.best_epoch == len(ranked) - 1


def _out_of_patience(history: History, config: FitConfig) -> bool:
    if config.patience is None or history.best_epoch is None:
        return False
    return len(history.validation_loss) - 1 - history.best_epoch >= config.patience
