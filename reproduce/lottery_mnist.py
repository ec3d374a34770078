"""The lottery ticket's table: LeNet-300-100 on MNIST, round by round (Frankle and Carbin 2019, section 2).

As in the paper: Gaussian Glorot initialisation, Adam at 1.2e-3, batches of 60, 20% of the weights of each layer pruned
in a round and 10% of the output layer's, the survivors put back to their first values, 5,000 validation pictures, the
early-stopping step the one with the lowest validation loss. Ours: fewer steps (12 epochs, 11,004 steps, for 50,000;
COURSE_SCALE=full: 55 epochs, 50,435 steps), and a look at the validation pictures every 200 steps, not every 100.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from course_lib.device import weights_of
from course_lib.evaluation import evaluate
from course_lib.models.vision import lenet_300_100
from course_lib.pruning.lottery import (
    LotteryRun,
    PruningConfig,
    Round,
    iterative_pruning,
    random_masks,
    reinitialise,
    rewind,
)
from course_lib.pruning.masks import local_masks
from course_lib.training import FitConfig, fit
from reproduce.mnist import CACHE, FULL, mnist
from reproduce.record import Case, Experiment, Numbers

LENET = FitConfig(epochs=55 if FULL else 12, batch_size=60, learning_rate=1.2e-3, precision="fp32")
PRUNING = PruningConfig(rounds=18, rate=0.2, rates={"5.weight": 0.1})  # "5" is the output layer
LOOK = 200  # steps between two looks at the validation pictures
GRID = {0: 100, 3: 51.3, 7: 21.1, 9: 13.5, 12: 7.0, 15: 3.6, 18: 1.9}  # round -> percent of the weights that are left
SEEDS = 4


def glorot(module: nn.Module) -> None:
    """Weights from a normal distribution with variance 2 / (inputs + outputs), biases zero (Glorot and Bengio 2010)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)


def lenet(seed: int) -> nn.Sequential:
    """The network before training."""
    model = lenet_300_100(seed=seed)
    torch.manual_seed(seed)
    return model.apply(glorot)


class Watch:
    """Looks at the validation pictures every ``LOOK`` steps, and keeps the weights of the best look."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget all, before a new training."""
        self.count, self.losses, self.best = 0, [], None

    def __call__(self, model: nn.Module) -> None:
        """Count a step."""
        self.count += 1
        if self.count % LOOK == 0:
            self.losses.append(evaluate(model, mnist().validation).loss)
            if min(self.losses) == self.losses[-1]:
                self.best = weights_of(model)

    def numbers(self, trained: nn.Module) -> Numbers:
        """The early-stopping step, and the test accuracy there and at the end, in percent."""
        at_the_end, stopped = evaluate(trained, mnist().test), lenet_300_100()
        stopped.load_state_dict(self.best)
        return {
            "early_stop_step": LOOK * (1 + self.losses.index(min(self.losses))),
            "validation_loss": round(min(self.losses), 5),
            "test_accuracy": round(100 * evaluate(stopped, mnist().test).accuracy, 3),
            "test_accuracy_at_the_end": round(100 * at_the_end.accuracy, 3),
        }


def chain(seed: int, rounds: int) -> tuple[LotteryRun, list[Numbers]]:
    """All rounds up to ``rounds``, and the numbers of each; those that are done already come from the cache."""
    folder, watch, numbers = CACHE / f"lottery-{seed}", Watch(), []
    for unfinished in folder.glob("training-*"):  # what the watch has seen of it is lost
        shutil.rmtree(unfinished)

    def after_round(model: nn.Module, done: Round) -> None:
        numbers.append(_once(folder / f"numbers-{done.number:02d}.json", lambda: watch.numbers(model)))
        watch.begin()

    config, pruning = replace(LENET, seed=seed), replace(PRUNING, rounds=rounds)
    run = iterative_pruning(
        lenet(seed),
        mnist().train,
        config,
        pruning,
        after_step=watch,
        after_round=after_round,
        folder=folder,
        progress=False,
    )
    return run, numbers


def other_network(seed: int, kind: str, number: int) -> Numbers:
    """A control with as many weights as the ticket of that round: trained in the same way."""
    run, _ = chain(seed, number if kind != "one-shot" else 0)
    model, watch = lenet(seed), Watch()
    if kind == "re-initialised":
        reinitialise(model, run.rounds[number].masks, seed=1000 + seed, initialise=glorot)
    elif kind == "random mask":
        rewind(model, run.start, random_masks(run.rounds[number].masks, seed=seed))
    else:
        rewind(model, run.start, _one_shot(run, number))
    fit(model, mnist().train, replace(LENET, seed=seed), after_step=watch, progress=False)
    return watch.numbers(model)


def _one_shot(run: LotteryRun, number: int) -> dict[str, torch.Tensor]:
    """Masks of the trained dense network with as many weights in each layer as after ``number`` rounds."""
    shares = dict.fromkeys(run.rounds[0].masks, PRUNING.rate) | PRUNING.rates
    scores = {name: run.rounds[0].weights[name].abs() for name in shares}
    return local_masks(scores, {name: 1 - (1 - share) ** number for name, share in shares.items()})


def _once(path: Path, make: Callable[[], Numbers]) -> Numbers:
    """What ``make`` gives, or has given before."""
    if not path.exists():
        path.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def lottery_lenet() -> Experiment:
    """Tickets and their controls over the paper's grid."""

    def run(case: Case) -> Numbers:
        if case["network"] == "ticket":
            return chain(case["seed"], case["round"])[1][-1]
        return other_network(case["seed"], case["network"], case["round"])

    def cases(seed: int) -> list[Case]:
        found = [("ticket", number) for number in GRID]
        found += [(kind, number) for kind in ("re-initialised", "random mask") for number in GRID if number]
        found += [("one-shot", number) for number in (9, 12, 15)]
        return [
            {"network": kind, "round": number, "kept_percent": GRID[number], "seed": seed} for kind, number in found
        ]

    return Experiment(
        "lottery_lenet",
        "Are there winning tickets in LeNet-300-100 on MNIST?",
        {"lenet": LENET, "pruning": {"rate": 0.2, "output_rate": 0.1, "rewind_step": 0}, "look": LOOK},
        [case for seed in range(SEEDS) for case in cases(seed)],
        run,
        paper={
            "accuracy at 13.5%": "more than 0.3 points above the dense network's",
            "early stop at 21.1%": "38% earlier",
        },
        notes=(
            "Round r keeps 0.8 to the power of r of each layer's weights, 0.9 to the power of r of the output layer's.",
            "The test accuracy is that of the early-stopping step, as in the paper.",
        ),
    )


EXPERIMENTS = [lottery_lenet]
