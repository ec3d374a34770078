"""Lottery tickets: pruning in rounds, with rewinding.

Frankle and Carbin 2019, "The Lottery Ticket Hypothesis" (arXiv 1803.03635), sections 1 and 2. Iterative magnitude
pruning of a network f(x; θ)::

    start from θ_0, train for j steps to θ_j
    prune p% of the weights that are left: those with the smallest |θ_j|; this makes the mask m
    put the others back to θ_0: the ticket f(x; m ⊙ θ_0); train it, prune it, and so on

``rate`` is p as a share, ``LotteryRun.start`` is θ_0, ``Round.masks`` is m, ``Round.weights`` is θ_j. With
``rewind_step`` k > 0 the survivors go back to θ_k, a little after the beginning (Frankle et al. 2020, arXiv
1912.05671).

What happens to the weights and to the learning rate after pruning (Renda, Frankle and Carbin 2020, arXiv 2003.02389),
each time for T - k steps of T:

=================  ===================  ==================================
``retrain``        weights              learning rate
=================  ===================  ==================================
"rewind"           those of step k      as from step k on
"learning-rate"    as trained           as from step k on
"fine-tune"        as trained           low: that of the last step
=================  ===================  ==================================

Only weights are rewound. The optimizer starts afresh in each round.

Two controls tell what a ticket owes to its mask and what to its weights: ``reinitialise`` keeps the mask and draws new
weights; ``random_masks`` keeps the weights and draws another mask with as many weights in each layer.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.device import seeded, undone_on_error, weights_of
from course_lib.evaluation import check_data
from course_lib.layers import match_names, prunable_weights
from course_lib.pruning.config import PruningConfig
from course_lib.pruning.held import held_masks, hold_masks, masked_parameters, release_masks
from course_lib.pruning.masks import Masks, global_masks, local_masks, sparsity_of
from course_lib.resume import Stages, describe
from course_lib.training import FitConfig, History, Loss, fit, hard_label_loss
from course_lib.training_config import rate_factor, steps_per_epoch

__all__ = ["LotteryRun", "PruningConfig", "Round", "iterative_pruning", "random_masks", "reinitialise", "rewind"]

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Round:
    """One round: the masks it was trained with, the weights it ended with (a state dict), and its history."""

    number: int
    masks: Masks
    weights: dict[str, Tensor]
    history: History

    @property
    def sparsity(self) -> float:
        """The share of the prunable weights that is zero."""
        return sparsity_of(self.masks)


@dataclass(frozen=True)
class LotteryRun:
    """All rounds, the dense network being round 0, and the state dict that the survivors are put back to."""

    start: dict[str, Tensor]
    rewind_step: int
    rounds: list[Round]


def iterative_pruning(
    model: nn.Module,
    train: TensorDataset | DataLoader,
    config: FitConfig,
    pruning: PruningConfig,
    *,
    validation: TensorDataset | DataLoader | None = None,
    loss: Loss = hard_label_loss,
    after_step: Callable[[nn.Module], None] | None = None,
    after_round: Callable[[nn.Module, Round], None] | None = None,
    folder: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> LotteryRun:
    """Train ``model``, then prune and train it again in rounds; it is changed in place.

    It ends trained, with the masks of the last round held (``release_masks`` takes them off); round 0 has none to
    hold. After an error it is as it was before.

    Args:
        config: the training of the dense network and, with the change that ``pruning.retrain`` means, of each round.
        validation, loss, after_step, device, progress: as for ``training.fit``.
        after_round: called with the trained model and the round, also with round 0, and again when a saved round is
            read.
        folder: every finished round is saved here, and a run that was interrupted goes on from there.

    Raises:
        ValueError: a rewind step that the training does not come to, a model that holds masks already, or a folder with
            another run: other settings, data, loss, or first weights.
        TypeError, ValueError, FloatingPointError: as ``training.fit`` and ``layers.prunable_weights``.
    """
    rates, steps = _rates(model, train, config, pruning), config.epochs * steps_per_epoch(train, config)
    settings = {"training": config, "loss": describe(loss), "rates": rates}
    settings["pruning"] = replace(pruning, rounds=0, rates=None, targets=None)  # more rounds may follow
    data = {"train": train, "validation": validation, "the first weights": weights_of(model)}
    stages, rounds = Stages(folder, settings, data), []

    def trained(masks: Masks, config: FitConfig, first_step: int, after_step) -> dict:
        options = {"validation": validation, "loss": loss, "device": device, "progress": progress}
        options |= {"after_step": after_step, "checkpoint_dir": stages.unfinished(_name(len(rounds)))}
        history = fit(model, train, config, first_step=first_step, **options)
        return {"masks": masks, "weights": weights_of(model), "history": asdict(history)}

    def dense() -> dict:
        parameters = dict(model.named_parameters())
        masks = {name: torch.ones(parameters[name].shape, dtype=torch.bool) for name in rates}
        done = trained(masks, config, 0, start.after_step)
        if start.weights is None:
            raise ValueError(
                f"patience ended the dense training after {start.count} steps, before rewind_step, which is "
                f"{pruning.rewind_step}; expected an earlier step, or more patience"
            )
        return done

    def pruned() -> dict:
        masks = _cut(rounds[-1], rates, pruning)
        if pruning.retrain == "rewind":
            rewind(model, start.weights, masks)
        else:
            hold_masks(model, masks)
        return trained(masks, _config_of_a_round(config, pruning, steps), pruning.rewind_step, after_step)

    with undone_on_error(model, frozen=True), _released_on_error(model):
        start = _Start(model, pruning.rewind_step, after_step, stages)
        for number in range(pruning.rounds + 1):
            saved = stages.names(_name(number))
            done = stages.once(_name(number), pruned if number else dense)
            rounds.append(Round(number, done["masks"], done["weights"], History(**done["history"])))
            if saved and number:
                rewind(model, done["weights"], done["masks"])
            elif saved:
                model.load_state_dict(done["weights"])
            if after_round is not None:
                after_round(model, rounds[-1])
    return LotteryRun(start.weights, pruning.rewind_step, rounds)


def rewind(model: Model, start: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Model:
    """Make ``model`` the ticket m ⊙ θ_k, in place, and return it: the weights of ``start``, with ``masks`` held.

    Raises:
        RuntimeError: ``start`` is the state dict of another model.
        TypeError, ValueError: as ``held.hold_masks``.
    """
    masked_parameters(model, masks)
    release_masks(model)
    model.load_state_dict(start)
    return hold_masks(model, masks)


def reinitialise(
    model: Model,
    masks: Mapping[str, Tensor],
    *,
    seed: int,
    initialise: Callable[[nn.Module], object] | None = None,
) -> Model:
    """Draw new weights for ``model``, in place, with ``masks`` held, and return it: the control m ⊙ θ'_0.

    Args:
        initialise: draws the weights of one module, called with each; without it each module's own
            ``reset_parameters``, by which PyTorch initialises it.

    Raises:
        ValueError: a module with parameters of its own has no ``reset_parameters``.
        TypeError, ValueError: as ``held.hold_masks``.
    """
    masked_parameters(model, masks)
    drawn = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    if initialise is None:
        if stuck := [module for module in drawn if not hasattr(module, "reset_parameters")]:
            raise ValueError(f"{type(stuck[0]).__name__} has no reset_parameters; pass initialise, which draws weights")
        initialise = _reset
    release_masks(model)
    with seeded(seed), torch.no_grad():
        for module in drawn:
            initialise(module)
    return hold_masks(model, masks)


def random_masks(masks: Mapping[str, Tensor], *, seed: int) -> Masks:
    """Masks that keep as many weights in each layer as ``masks`` do, in places drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator).to(mask.device)].view_as(mask)
        for name, mask in masks.items()
    }


def _rates(model: nn.Module, train, config: FitConfig, pruning: PruningConfig) -> dict[str, float]:
    """The share that each round prunes of each weight's tensor. Raises before anything is changed."""
    check_data("train", train)
    names = list(prunable_weights(model, pruning.targets))
    rates = dict.fromkeys(names, pruning.rate)
    for pattern, rate in (pruning.rates or {}).items():
        rates |= dict.fromkeys(match_names(names, pattern, argument="rates for"), rate)
    if held_masks(model):
        raise ValueError("model holds masks already; call release_masks(model) first")
    steps = config.epochs * steps_per_epoch(train, config)
    if pruning.rewind_step >= steps:
        raise ValueError(f"rewind_step is {pruning.rewind_step}; expected a step of the training, below {steps}")
    return rates


def _cut(last: Round, rates: Mapping[str, float], pruning: PruningConfig) -> Masks:
    """The masks of the next round: the smallest magnitudes go, so many that (1 - rate) to the power of it is left."""
    sizes, number = {name: last.weights[name].abs() for name in rates}, last.number + 1
    if pruning.scope == "global":
        return global_masks(sizes, 1 - (1 - pruning.rate) ** number, within=last.masks)
    return local_masks(sizes, {name: 1 - (1 - rate) ** number for name, rate in rates.items()}, within=last.masks)


def _config_of_a_round(config: FitConfig, pruning: PruningConfig, steps: int) -> FitConfig:
    """How a round is trained: as the dense network, but for fine-tuning."""
    if pruning.retrain != "fine-tune":
        return config
    rate = pruning.fine_tune_rate or config.learning_rate * rate_factor(config, steps - 1, steps)
    return replace(config, learning_rate=rate, schedule="constant", warmup=0.0)


class _Start:
    """The weights of step k of the dense training, stored as soon as they are there."""

    def __init__(self, model: nn.Module, step: int, after_step, stages: Stages) -> None:
        self.step, self.then, self.stages, self.count = step, after_step, stages, 0
        self.weights: dict[str, Tensor] | None = None
        if step == 0 or stages.names("start"):
            self.weights = stages.once("start", lambda: weights_of(model))
        elif folder := stages.unfinished(_name(0)):  # of a training whose step k nobody kept: begin again
            shutil.rmtree(folder, ignore_errors=True)

    def after_step(self, model: nn.Module) -> None:
        """Call ``then``; keep the weights if this was step k."""
        if self.then is not None:
            self.then(model)
        self.count += 1
        if self.weights is None and self.count == self.step:
            self.weights = self.stages.once("start", lambda: weights_of(model))


@contextmanager
def _released_on_error(model: nn.Module) -> Iterator[None]:
    """On an error no masks stay on ``model``."""
    try:
        yield
    except Exception:
        release_masks(model)
        raise


def _name(number: int) -> str:
    return f"round-{number:02d}"


def _reset(module: nn.Module) -> None:
    module.reset_parameters()
