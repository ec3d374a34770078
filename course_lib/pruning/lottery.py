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
from course_lib.pruning.round_files import RoundFiles
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
            another run.
        TypeError, ValueError, FloatingPointError: as ``training.fit`` and ``layers.prunable_weights``.
    """
    rounds = _Rounds(model, train, config, pruning, folder)
    rounds.fit_options = {"validation": validation, "loss": loss, "device": device, "progress": progress}
    with undone_on_error(model, frozen=True), _released_on_error(model):
        start, newest = rounds.dense(after_step)
        done = [newest]
        for number in range(pruning.rounds + 1):
            if number:
                newest = rounds.pruned(number, start, newest, after_step)
                done.append(newest)
            if after_round is not None:
                after_round(model, newest)
    return LotteryRun(start, pruning.rewind_step, done)


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


class _Rounds:
    """What stays the same over the rounds of one run, and how a round is made."""

    fit_options: dict

    def __init__(self, model, train, config: FitConfig, pruning: PruningConfig, folder) -> None:
        check_data("train", train)
        self.model, self.train, self.config, self.pruning = model, train, config, pruning
        self.names = list(prunable_weights(model, pruning.targets))
        self.shares = dict.fromkeys(self.names, pruning.rate)
        for pattern, share in (pruning.rates or {}).items():
            self.shares |= dict.fromkeys(match_names(self.names, pattern, argument="rates for"), share)
        if held_masks(model):
            raise ValueError("model holds masks already; call release_masks(model) first")
        self.steps = config.epochs * steps_per_epoch(train, config)
        if pruning.rewind_step >= self.steps:
            raise ValueError(
                f"rewind_step is {pruning.rewind_step}; expected a step of the training, below {self.steps}"
            )
        self.files = RoundFiles(folder, self._settings(), weights_of(model)) if folder is not None else None

    def dense(self, after_step) -> tuple[dict[str, Tensor], Round]:
        """Train the dense network: the weights of the rewind step, and round 0."""
        masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in self._weights().items()}
        start = self.files.load_start() if self.files else None
        if start is not None and (saved := self._saved(0)):
            return start, saved
        if start is None and self.files:  # where the step was counted from is unknown: begin again
            shutil.rmtree(self.files.training(0), ignore_errors=True)
        kept = _Keeper(self.pruning.rewind_step, after_step, start)
        kept.look(self.model, 0, self.files)
        history = self._fit(0, self.config, 0, lambda model: kept.after_step(model, self.files))
        if kept.start is None:
            raise ValueError(
                f"patience ended the dense training after {kept.count} steps, before rewind_step, which is "
                f"{self.pruning.rewind_step}; expected an earlier step, or more patience"
            )
        return kept.start, self._done(0, masks, history)

    def pruned(self, number: int, start: dict[str, Tensor], last: Round, after_step) -> Round:
        """Prune what the last round has trained, and train the rest."""
        if saved := self._saved(number):
            return saved
        masks = self._cut(number, last)
        if self.pruning.retrain == "rewind":
            rewind(self.model, start, masks)
        else:
            hold_masks(self.model, masks)
        history = self._fit(number, self._config_of_a_round(), self.pruning.rewind_step, after_step)
        return self._done(number, masks, history)

    def _cut(self, number: int, last: Round) -> Masks:
        """The smallest magnitudes go, so many that (1 - rate) to the power of ``number`` is left."""
        scores = {name: last.weights[name].abs() for name in self.names}
        sparsities = {name: 1 - (1 - share) ** number for name, share in self.shares.items()}
        if self.pruning.scope == "global":
            return global_masks(scores, 1 - (1 - self.pruning.rate) ** number, within=last.masks)
        return local_masks(scores, sparsities, within=last.masks)

    def _config_of_a_round(self) -> FitConfig:
        if self.pruning.retrain != "fine-tune":
            return self.config
        last = self.config.learning_rate * rate_factor(self.config, self.steps - 1, self.steps)
        rate = self.pruning.fine_tune_rate or last
        return replace(self.config, learning_rate=rate, schedule="constant", warmup=0.0)

    def _fit(self, number: int, config: FitConfig, first_step: int, after_step) -> History:
        checkpoints = self.files.training(number) if self.files else None
        options = self.fit_options | {"after_step": after_step, "checkpoint_dir": checkpoints}
        return fit(self.model, self.train, config, first_step=first_step, **options)

    def _saved(self, number: int) -> Round | None:
        """A round that lies in the folder, put into the model."""
        saved = self.files.load_round(number) if self.files else None
        if saved is None:
            return None
        masks, weights, history = saved
        if number:
            rewind(self.model, weights, masks)
        else:
            self.model.load_state_dict(weights)
        return Round(number, masks, weights, history)

    def _done(self, number: int, masks: Masks, history: History) -> Round:
        done = Round(number, masks, weights_of(self.model), history)
        if self.files:
            self.files.save_round(number, masks, done.weights, history)
        return done

    def _weights(self) -> dict[str, Tensor]:
        parameters = dict(self.model.named_parameters())
        return {name: parameters[name].detach().cpu() for name in self.names}

    def _settings(self) -> dict:
        pruning = {
            name: value for name, value in vars(self.pruning).items() if name not in ("rounds", "rates", "targets")
        }
        return asdict(self.config) | pruning | {"rates": self.shares, "steps": self.steps}


class _Keeper:
    """Keeps the weights of one step of a training, and counts the steps until then."""

    def __init__(self, step: int, after_step, start: dict[str, Tensor] | None) -> None:
        self.step, self.then, self.start, self.count = step, after_step, start, 0

    def look(self, model: nn.Module, count: int, files: RoundFiles | None) -> None:
        if self.start is None and count == self.step:
            self.start = weights_of(model)
            if files:
                files.save_start(self.start)

    def after_step(self, model: nn.Module, files: RoundFiles | None) -> None:
        if self.then is not None:
            self.then(model)
        self.count += 1
        self.look(model, self.count, files)


@contextmanager
def _released_on_error(model: nn.Module) -> Iterator[None]:
    """On an error no masks stay on ``model``."""
    try:
        yield
    except Exception:
        release_masks(model)
        raise


def _reset(module: nn.Module) -> None:
    module.reset_parameters()
