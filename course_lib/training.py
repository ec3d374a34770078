"""One ``fit`` loop for the whole course (and ``evaluation.evaluate`` beside it).

A method brings its loss, ``loss(model, batch) -> scalar``; ``fit`` does the rest: batches, device, mixed precision,
progress bar, accumulation, gradient clipping, learning-rate schedule, early stopping, history, checkpoints, several
processes. ``evaluation.py`` says what a batch may be, and a model's answer to it.

Several processes: pass an ``Accelerator``, and start them with ``notebook_launcher(..., num_processes=2)`` in a
notebook, or with ``accelerate launch --multi_gpu --num_processes 2 script.py`` (on a CPU too, with
``Accelerator(cpu=True)``).

Every random choice of an epoch, by PyTorch, NumPy or ``random``, follows from the seed and the number of the epoch. A
run that resumes from a checkpoint therefore needs no saved random state to arrive at the numbers of an unbroken run.

Memory and checkpoints grow with what is trained: parameters that require no gradient are neither copied nor stored.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.checkpoints import Checkpoints
from course_lib.device import (
    autocast_dtype,
    check_model,
    copy_of_state,
    pick_device,
    placed,
    put_back,
    seed_generators,
    seeded,
    undone_on_error,
)
from course_lib.evaluation import (
    PADDING_LABEL,
    Batch,
    answer,
    check_answers,
    check_data,
    check_labels,
    count_labels,
    evaluate,
    labels_of,
    to_device,
)
from course_lib.processes import Processes
from course_lib.progress import bar
from course_lib.resume import check_folder, describe
from course_lib.training_config import FitConfig, History, make_optimizer, rate_factor, steps_per_epoch

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["FitConfig", "History", "Loss", "fit", "hard_label_loss"]

Loss = Callable[[nn.Module, Batch], Tensor]


def hard_label_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy with the labels, a mean over those that are no padding (zero if all are).

    ``batch`` is (inputs, labels, ...) or a dict; ``evaluation.py`` says which labels go with which logits.
    """
    logits, labels = answer(model, batch), labels_of(model, batch)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    try:
        return _cross_entropy(logits, labels)
    except (IndexError, RuntimeError, ValueError):  # other integers than int64, or an error to be put clearly
        return _cross_entropy(logits, check_labels(labels, logits))


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.dim() < 2:
        return nn.functional.cross_entropy(logits, labels)
    if labels.dtype != torch.int64:
        labels = check_labels(labels, logits)
    labels = labels.flatten()
    total = nn.functional.cross_entropy(logits.flatten(0, -2), labels, reduction="sum")  # (N L, V), (N L,) -> ()
    return total / (labels != PADDING_LABEL).sum().clamp(min=1)


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
        loss: takes the model and a batch, returns a scalar: a mean over the batch, or over its labels without padding.
        augment: changes the inputs of each batch (not a dict), given a seeded generator.
        after_step: called with the model after each optimizer step (to apply a mask again, to limit weights).
        checkpoint_dir: a checkpoint is written here after each epoch; if there is one, training goes on from it.
            Settings, loss, data and frozen parameters have to be those it was made with.
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
    device = accelerator.device if accelerator else pick_device(device)
    history, best, checkpoints = History(), None, None
    with undone_on_error(model), placed(model, device), seeded(config.seed), _batch_norm_explained():
        run = _Run(model, train, config, loss, augment, after_step, first_step, device, Processes(accelerator))
        _check_labels_of(run, validation)
        if checkpoint_dir is not None:
            made_with = {"config": config, "first_step": first_step, "steps_per_epoch": run.steps}
            made_with |= {"loss": describe(loss), "augment": describe(augment)}
            data = {"train": train, "validation": validation}
            checkpoints = Checkpoints(checkpoint_dir, model, run.optimizer, made_with, data)
            history, best = checkpoints.read()
        epoch = first_step // run.steps + len(history.train_loss)
        total, done = config.epochs * run.steps, max(first_step, epoch * run.steps)
        if config.tokens is not None:
            total, done = config.tokens, sum(history.tokens)
        try:
            with bar(total=total, initial=done, show=progress and run.processes.rank == 0) as shown:
                while not _is_over(history, config, epoch):
                    run.epoch(epoch, history, shown)
                    newest_is_best = validation is not None and _validate(run, validation, history)
                    if config.patience is not None and newest_is_best:
                        best = copy_of_state(model, "cpu")
                    epoch += 1
                    if checkpoints and run.processes.rank == 0:
                        checkpoints.write(epoch, history, best)
                    run.processes.wait()
            if best is not None:
                put_back(model, best)
        finally:
            model.eval()  # after an interruption from the keyboard too
            run.optimizer.zero_grad(set_to_none=True)  # nobody needs the last gradient
    return history


class _Run:
    """The training of one model: what stays the same through it, and its epochs and steps."""

    def __init__(self, model, train, config, loss, augment, after_step, first_step, device, processes) -> None:
        self.model, self.train, self.config, self.loss, self.augment = model, train, config, loss, augment
        self.after_step, self.first_step, self.device, self.processes = after_step, first_step, device, processes
        self.steps, self.counted = steps_per_epoch(train, config), partial(count_labels, model)
        processes.start_alike(model)
        self.optimizer = make_optimizer(model, config)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        dtype = torch.bfloat16 if config.precision == "bf16" else autocast_dtype(device)
        mixed = dtype is not None and config.precision != "fp32"
        self.autocast = torch.autocast(device.type, dtype) if mixed else nullcontext()

    def epoch(self, epoch: int, history: History, shown) -> None:
        """One pass over the data, from the first step on or until there were enough tokens, written to ``history``."""
        config, start, total = self.config, time.perf_counter(), torch.zeros((), device=self.device)
        done, tokens, before, factor = 0, 0, sum(history.tokens), 1.0
        # Nothing random outlives the epoch. The same seed on all processes: a DataLoader then shuffles alike on each.
        seed = hash((config.seed, epoch)) % 2**63  # Python does not randomise the hash of integers
        generator = torch.Generator().manual_seed(seed)
        self.model.train()
        seed_generators(seed)
        for step, (parts, count) in enumerate(self.batches_of_steps(generator), epoch * self.steps):
            if step == epoch * self.steps and self.processes.rank > 0:
                seed_generators(seed + self.processes.rank)  # the order is drawn; dropout is to differ
            if step < self.first_step:
                continue
            if config.tokens is None:
                factor = rate_factor(config, step, config.epochs * self.steps)
            else:  # counted in steps of this one's size
                factor = rate_factor(config, (before + tokens) / max(count, 1), config.tokens / max(count, 1))
            total += self.step(parts, factor)
            done, tokens = done + 1, tokens + count
            shown.update(1 if config.tokens is None else count)
            if config.tokens is not None and before + tokens >= config.tokens:
                break
        self.processes.average_buffers(self.model)
        if done == 0 or (config.tokens is not None and tokens == 0):
            raise ValueError(f"train gave no {'label that counts' if done else 'batch'} in epoch {epoch + 1}")
        mean, rate = self.processes.mean(total).item() / done, config.learning_rate * factor
        if not math.isfinite(mean) or not all(parameter.isfinite().all() for parameter in self.parameters):
            what = "weights are no longer finite" if math.isfinite(mean) else f"loss is {mean}"
            raise FloatingPointError(
                f"the training {what} in epoch {epoch + 1}: lower the learning rate (now {rate:g}), "
                "set clip_norm, or look for inputs that are not finite"
            )
        history.train_loss.append(mean)
        history.learning_rate.append(rate)
        history.seconds.append(time.perf_counter() - start)
        if config.tokens is not None:
            history.tokens.append(tokens)

    def batches_of_steps(self, generator: torch.Generator) -> Iterator[tuple[list[tuple[Batch, float]], int]]:
        """For each step: this process's part of every batch with the weight of its loss, and the labels of them all."""
        batches = _batches(self.train, self.config, generator)
        counting = self.config.accumulate > 1 or self.config.tokens is not None
        while together := list(islice(batches, self.config.accumulate)):
            counts = [count_labels(self.model, batch) for batch in together] if counting else [1]
            count = sum(counts)
            yield [self.part(batch, own, count, generator) for batch, own in zip(together, counts, strict=True)], count

    def part(self, batch: Batch, own: int, count: int, generator: torch.Generator) -> tuple[Batch, float]:
        """This process's part of ``batch``, which has ``own`` of the ``count`` labels of a step, and its weight."""
        batch = to_device(batch, self.device)
        if self.augment is not None:  # before the batch is divided: the same for any number of processes
            if isinstance(batch, Mapping):
                raise TypeError(
                    "augment changes the inputs of (inputs, labels), but train gives dicts; change its data"
                )
            batch = (self.augment(batch[0], generator), *batch[1:])
        mine, share = self.processes.part(batch, self.counted)
        return mine, share * (own / max(count, 1))

    def step(self, parts: list[tuple[Batch, float]], factor: float) -> Tensor:
        """One step, and its loss: the sum over ``parts``, each with its weight. ``factor`` is that of the schedule."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        values = []
        for batch, weight in parts:
            with self.autocast:
                value = self.loss(self.model, batch)
            if weight != 1:
                value = value * weight
            value.backward()
            values.append(value.detach())
        self.processes.average_gradients(self.parameters)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step(self.model)
        return values[0] if len(values) == 1 else sum(values)


def _batches(train: TensorDataset | DataLoader, config: FitConfig, generator: torch.Generator) -> Iterator[Batch]:
    """Batches over all processes, a ``TensorDataset`` in an order drawn from ``generator``."""
    if not isinstance(train, TensorDataset):
        yield from train
        return
    for index in torch.randperm(len(train), generator=generator).split(config.batch_size):
        if len(index) == config.batch_size or not config.drop_last:
            yield tuple(tensor[index] for tensor in train.tensors)


def _validate(run: _Run, validation, history: History) -> bool:
    """Evaluate after an epoch, write it into ``history``, and tell whether it is the best so far."""
    with seeded(run.config.seed):  # a DataLoader draws from the generator even when it does not shuffle
        result = run.processes.agree(evaluate(run.model, validation, device=run.device))
    history.validation_loss.append(result.loss)
    history.validation_accuracy.append(result.accuracy)
    ranked = [math.inf if math.isnan(value) else value for value in history.validation_loss]
    history.best_epoch = ranked.index(min(ranked))
    return history.best_epoch == len(ranked) - 1


def _is_over(history: History, config: FitConfig, epoch: int) -> bool:
    if config.patience is not None and history.best_epoch is not None:
        if len(history.validation_loss) - 1 - history.best_epoch >= config.patience:
            return True
    return epoch >= config.epochs if config.tokens is None else sum(history.tokens) >= config.tokens


@contextmanager
def _batch_norm_explained() -> Iterator[None]:
    """PyTorch's error at a batch of one example, with what to do about it."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"batch norm cannot learn from a batch of one example ({error}); leave such a last batch out with "
            "FitConfig(drop_last=True), or drop_last=True of the DataLoader, or choose another batch_size"
        ) from error


def _check_arguments(model, train, config, validation, checkpoint_dir, first_step) -> None:
    """Find what is wrong before anything is changed."""
    check_model(model)
    if not isinstance(config, FitConfig):
        raise TypeError(f"config is a {type(config).__name__}; expected a FitConfig, such as FitConfig(epochs=3)")
    check_data("train", train)
    if steps_per_epoch(train, config) == 0:
        raise ValueError(
            f"drop_last leaves no batch: train has {len(train)} examples, batch_size is {config.batch_size}"
        )
    if validation is not None:
        check_data("validation", validation)
    elif config.patience is not None:
        raise ValueError(f"patience is {config.patience} but there are no validation data to lose patience with")
    last = 0 if config.tokens is not None else config.epochs * steps_per_epoch(train, config) - 1
    if isinstance(first_step, bool) or not isinstance(first_step, int) or not 0 <= first_step <= last:
        why = "" if config.tokens is None else " where tokens says when it ends"
        raise ValueError(f"first_step is {first_step!r}; expected a step of this run, from 0 to {last}{why}")
    if checkpoint_dir is not None:
        check_folder(checkpoint_dir, "checkpoint_dir")


def _check_labels_of(run: _Run, validation) -> None:
    """Raise before the first step if labels do not fit; those of a loader for training are checked as they come."""
    if run.loss is hard_label_loss and isinstance(run.train, TensorDataset):
        check_answers(run.model, run.train, run.device, "train")
    if validation is not None:
        check_answers(run.model, validation, run.device, "validation")
