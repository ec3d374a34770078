"""Claims F3c and F3d: networks that no longer depend on the order of their examples, and three ways to retrain.

Frankle et al. 2020 (arXiv 1912.05671) and Renda et al. 2020 (arXiv 2003.02389) train ResNets on CIFAR-10 and ImageNet
for days; here a residual network of 13 convolutions learns 3,000 pictures of MNIST at half size, with their optimizer
and learning rate: SGD with momentum, 0.1, a tenth and a hundredth later on. LeNet-300-100 learns 10,000 pictures with
Adam. Settings were tried on the seeds 100 and 101, and fixed before the runs.
"""

import copy
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.data.images import fraction
from course_lib.device import weights_of
from course_lib.evaluation import evaluate
from course_lib.models.vision import lenet_300_100
from course_lib.pruning.criteria import magnitude
from course_lib.pruning.held import hold_masks
from course_lib.pruning.lottery import LotteryRun, PruningConfig, iterative_pruning, random_masks, rewind
from course_lib.pruning.masks import Masks, global_masks
from course_lib.training import FitConfig, fit
from reproduce.barrier import error_barrier
from reproduce.mnist import mnist
from reproduce.record import Case, Experiment, Numbers
from reproduce.small_resnet import half_size, small_resnet

RESIDUAL = FitConfig(epochs=10, batch_size=100, learning_rate=0.1, optimizer="sgd", schedule="step", precision="fp32")
RESIDUAL_CASES = 3000
BLOCKS = 2  # at each width
LENET = FitConfig(epochs=10, batch_size=100, learning_rate=1.2e-3, precision="fp32")
LENET_CASES = 10_000
WHEN = (0.0, 0.02, 0.1)  # shares of the training, after which the examples come in another order
ROUNDS, RATE = 3, 0.6
LATER = 0.1  # a share of the training, that tickets are rewound to
AGAIN = (5, 6, 7, 8)  # seeds that were added for a second look
ORDERS = (0, 1000)  # of the examples: added to the seed
RETRAINING_FROM = 0.25  # a share of the training: the rest is what each way to retrain has
SPARSITIES = (0.2, 0.8, 0.95)
WIDTHS = {"narrow": (8, 16, 32), "wide": (16, 32, 64)}


@dataclass(frozen=True)
class Subject:
    """What is trained: fresh networks, data and settings for a seed."""

    model: nn.Module
    train: TensorDataset
    test: TensorDataset
    config: FitConfig

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.config.epochs * math.ceil(len(self.train) / self.config.batch_size)

    def fresh(self) -> nn.Module:
        """The network with its initial weights."""
        return copy.deepcopy(self.model)

    def accuracy(self, model: nn.Module) -> float:
        """On the test pictures, in percent."""
        return round(100 * evaluate(model, self.test).accuracy, 2)


def residual(seed: int, *, widths: tuple[int, ...] = WIDTHS["narrow"], blocks: int = BLOCKS) -> Subject:
    """The residual network."""
    model = small_resnet(widths, blocks=blocks, seed=seed)
    return Subject(model, *half_size(RESIDUAL_CASES), replace(RESIDUAL, seed=seed))


def lenet(seed: int) -> Subject:
    """LeNet-300-100."""
    train = fraction(mnist().train, LENET_CASES / len(mnist().train), seed=0)
    return Subject(lenet_300_100(seed=seed), train, mnist().test, replace(LENET, seed=seed))


SUBJECTS = {"residual": residual, "LeNet": lenet}


def trained(subject: Subject, keep: Iterable[int] = ()) -> tuple[nn.Module, dict[int, dict[str, Tensor]]]:
    """The network, trained, and its weights after the steps in ``keep``."""
    model, kept, steps = subject.fresh(), {}, 0
    keep = set(keep)

    def look(model: nn.Module) -> None:
        nonlocal steps
        steps += 1
        if steps in keep:
            kept[steps] = weights_of(model)

    kept[0] = weights_of(model)
    fit(model, subject.train, subject.config, after_step=look, progress=False)
    return model, kept


def in_order(
    subject: Subject, start: dict[str, Tensor], step: int, order: int, masks: Masks | None = None
) -> dict[str, Tensor]:
    """The weights at the end of a training that goes on from ``start`` at ``step``, with the examples in that order."""
    model = subject.fresh()
    model.load_state_dict(start)
    if masks is not None:
        hold_masks(model, masks)
    config = replace(subject.config, seed=subject.config.seed + order)
    fit(model, subject.train, config, first_step=step, progress=False)
    return weights_of(model)


@cache
def _trajectory(net: str, seed: int) -> dict[int, dict[str, Tensor]]:
    subject = SUBJECTS[net](seed)
    return trained(subject, [round(share * subject.steps) for share in WHEN])[1]


def stability() -> Experiment:
    """Two copies of a network go on from step k with the examples in another order: how far apart do they end?"""

    def run(case: Case) -> Numbers:
        net, share = case["method"].split(", ")
        subject = SUBJECTS[net](case["seed"])
        step = round(float(share.rstrip("%")) / 100 * subject.steps)
        start = _trajectory(net, case["seed"])[step]
        first, second = (in_order(subject, start, step, order) for order in ORDERS)
        model = subject.fresh()
        barrier = error_barrier(model, first, second, subject.train, subject.test)
        model.load_state_dict(first)
        return {"step": step, "test_accuracy": subject.accuracy(model), "error_barrier": round(barrier, 3)}

    return Experiment(
        "lottery_stability",
        "From when on does the order of the examples no longer matter?",
        _setting(when=WHEN, orders=ORDERS),
        [
            {"seed": seed, "method": f"{net}, {100 * share:g}%"}
            for seed in range(3)
            for net, shares in (("residual", WHEN), ("LeNet", WHEN[:1]))
            for share in shares
        ]
        + [{"seed": seed, "method": f"residual, {100 * share:g}%"} for seed in AGAIN for share in (WHEN[0], WHEN[-1])],
        run,
        notes=(
            "Two copies share the given part of the training, then see the examples in different orders. Error "
            "barrier: how far the test error rises on the straight line between the two, in percentage points.",
            "Means and variances of batch norm are taken anew from the training pictures at each of 11 points of the "
            "line, its ends included.",
        ),
    )


def tickets() -> Experiment:
    """Lottery tickets and random masks: how good, and how far apart do two orders of the examples take them?"""

    def run(case: Case) -> Numbers:
        net, kind = case["method"].split(", ")
        subject = SUBJECTS[net](case["seed"])
        done = _lottery(net, case["seed"], LATER if kind == f"ticket from {LATER:.0%}" else 0)
        masks, first = done.rounds[-1].masks, done.rounds[-1].weights
        if kind.startswith("random"):
            masks = random_masks(masks, seed=case["seed"])
            first = in_order(subject, done.start, done.rewind_step, ORDERS[0], masks)
        second = in_order(subject, done.start, done.rewind_step, ORDERS[1], masks)
        model = subject.fresh()
        barrier = error_barrier(model, first, second, subject.train, subject.test)
        accuracies = []
        for weights in (done.rounds[0].weights, first, second):
            model.load_state_dict(weights)
            accuracies.append(subject.accuracy(model))
        mean = statistics.fmean(accuracies[1:])
        return {
            "test_accuracy": round(mean, 3),
            "behind_dense": round(accuracies[0] - mean, 3),
            "error_barrier": round(barrier, 3),
        }

    kinds = ("ticket from 0%", f"ticket from {LATER:.0%}", "random mask from 0%")
    return Experiment(
        "lottery_rewinding",
        f"How good, and how stable, are tickets with {(1 - RATE) ** ROUNDS:.1%} of the weights?",
        _setting(later=LATER, rounds=ROUNDS, rate=RATE, orders=ORDERS),
        [{"seed": seed, "method": f"{net}, {kind}"} for seed in range(4) for net in SUBJECTS for kind in kinds],
        run,
        notes=(
            "The percentage is the part of the training that the weights are rewound to the end of.",
            "Accuracy is the mean of two copies that see the examples in different orders; the error barrier is that "
            "between them.",
            "A random mask keeps as many weights in each layer as the ticket from 0%.",
        ),
    )


@cache
def _lottery(net: str, seed: int, share: float) -> LotteryRun:
    subject = SUBJECTS[net](seed)
    pruning = PruningConfig(ROUNDS, RATE, rewind_step=round(share * subject.steps), scope="global")
    return iterative_pruning(subject.fresh(), subject.train, subject.config, pruning, progress=False)


@cache
def _to_prune(width: str, seed: int) -> tuple[nn.Module, dict[int, dict[str, Tensor]]]:
    subject = residual(seed, widths=WIDTHS[width], blocks=1)
    return trained(subject, [round(RETRAINING_FROM * subject.steps)])


def retraining() -> Experiment:
    """Three ways to retrain after pruning once, each with the same number of steps."""
    ways = ("learning rate rewound", "weights rewound", "fine-tuned")

    def run(case: Case) -> Numbers:
        width, sparsity, way = case["method"].split(", ")
        subject = residual(case["seed"], widths=WIDTHS[width], blocks=1)
        step = round(RETRAINING_FROM * subject.steps)
        dense, kept = _to_prune(width, case["seed"])
        if way == "dense":
            return {"test_accuracy": subject.accuracy(dense)}
        model, config = copy.deepcopy(dense), subject.config
        masks = global_masks(magnitude(model), float(sparsity.rstrip("%")) / 100)
        if way == "weights rewound":
            rewind(model, kept[step], masks)
        else:
            hold_masks(model, masks)
        if way == "fine-tuned":  # the last rate of the schedule
            config = replace(config, learning_rate=config.learning_rate / 100, schedule="constant")
        fit(model, subject.train, config, first_step=step, progress=False)
        return {"test_accuracy": subject.accuracy(model)}

    narrow = [f"narrow, {100 * sparsity:g}%, {way}" for sparsity in SPARSITIES for way in ways]
    wide = [f"wide, {100 * SPARSITIES[0]:g}%, {way}" for way in (ways[0], ways[2])]
    return Experiment(
        "lottery_retraining",
        "How to retrain a pruned network: rewind the weights, the learning rate, or neither?",
        {
            "fit": RESIDUAL,
            "cases": RESIDUAL_CASES,
            "widths": WIDTHS,
            "blocks": 1,
            "retraining_from": RETRAINING_FROM,
            "sparsities": SPARSITIES,
        },
        [
            {"seed": seed, "method": method}
            for seed in range(5)
            for method in ("narrow, 0%, dense", *narrow, "wide, 0%, dense", *wide)
        ],
        run,
        notes=(
            "Pruned once, by magnitude over all layers together, then trained for 75% of the steps of the dense "
            "training: with its schedule from a quarter on, or with its last learning rate.",
            "The optimizer starts afresh each time.",
        ),
    )


def _setting(**more: object) -> dict[str, object]:
    return {
        "fit": RESIDUAL,
        "widths": WIDTHS["narrow"],
        "blocks": BLOCKS,
        "cases": RESIDUAL_CASES,
        "fit_lenet": LENET,
        "cases_lenet": LENET_CASES,
        **more,
    }


EXPERIMENTS = (stability, tickets, retraining)
