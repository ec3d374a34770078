"""Claims F4.1 to F4.6, on removing filters (Li et al. 2017, arXiv 1608.08710; Molchanov et al. 2017, arXiv 1611.06440).

The papers prune VGG, ResNet and AlexNet; here it is a small convolutional network with batch norm that learns 5,000
pictures of MNIST, and every convolution loses the same share of its filters, for real. Settings were tried on the seeds
100 and 101, and fixed before the runs.
"""

import copy
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.data.images import fraction
from course_lib.evaluation import evaluate
from course_lib.measure.work import latencies
from course_lib.models.vision import SmallConvNet, lenet_300_100
from course_lib.pruning.criteria import magnitude, unit_norm, unit_random
from course_lib.pruning.held import apply_masks
from course_lib.pruning.leave_one_out import leave_one_out
from course_lib.pruning.masks import global_masks
from course_lib.pruning.structured import lowest_units, remove_units
from course_lib.pruning.taylor import unit_taylor
from course_lib.training import FitConfig, fit
from reproduce.mnist import mnist
from reproduce.record import Case, Experiment, Numbers

CASES = 5000
CHANNELS = (16, 32, 32)
DENSE = FitConfig(epochs=10, batch_size=100, learning_rate=2e-3, schedule="cosine", precision="fp32")
RETRAINING = FitConfig(epochs=4, batch_size=100, learning_rate=5e-4, precision="fp32")
SHARE = 0.5  # of the filters of each convolution, that go
FIRST_SHARE = 0.125  # where nothing is retrained
LENET = FitConfig(epochs=10, batch_size=100, learning_rate=1.2e-3, precision="fp32")
LENET_CASES = 10_000
HIDDEN = ("1", "3")  # the hidden layers of LeNet-300-100, by name
ROUNDS = 4
DRAWS = 5  # of the random choice, which counts with its mean
SCORED_ON = 1000  # training pictures
TIMED_CHANNELS = (64, 128, 128)
TIMED_BATCH = 64

Scores = dict[str, Tensor]


@cache
def some_cases() -> TensorDataset:
    """The pictures to learn from."""
    return fraction(mnist().train, CASES / len(mnist().train), seed=0)


@cache
def dense(seed: int) -> nn.Module:
    """The trained network."""
    model = SmallConvNet(CHANNELS, seed=seed)
    fit(model, some_cases(), replace(DENSE, seed=seed), progress=False)
    return model


@cache
def lenet(seed: int) -> nn.Module:
    """LeNet-300-100, trained: a network without batch norm."""
    model = lenet_300_100(seed=seed)
    train = fraction(mnist().train, LENET_CASES / len(mnist().train), seed=0)
    fit(model, train, replace(LENET, seed=seed), progress=False)
    return model


def without_filters(model: nn.Module, scores: Scores, left: float = 1 - SHARE) -> nn.Module:
    """A copy of ``model`` where each convolution keeps the best of its filters: ``left`` of what CHANNELS says."""
    counts = [round(left * count) for count in CHANNELS]
    units = {
        name: score.argsort()[: len(score) - count].tolist()
        for (name, score), count in zip(scores.items(), counts, strict=True)
    }
    return remove_units(copy.deepcopy(model), units, some_cases().tensors[0][:2])


def norms(model: nn.Module, p: float) -> Scores:
    """The norm of each filter."""
    return unit_norm(model, nn.Conv2d, p=p)


def loss_changes(model: nn.Module) -> Scores:
    """Molchanov's first-order estimate for each filter, on some of the training pictures."""
    return unit_taylor(model, _scored_on(), nn.Conv2d, progress=False)


def _scored_on() -> TensorDataset:
    return TensorDataset(*(tensor[:: CASES // SCORED_ON] for tensor in some_cases().tensors))


def damage() -> Experiment:
    """Which filters, and which hidden units of LeNet-300-100, are missed most when nothing is retrained?"""
    nets: dict[str, tuple] = {"convolutional": (dense, nn.Conv2d, FIRST_SHARE), "LeNet": (lenet, HIDDEN, SHARE)}
    choices: dict[str, Callable[..., Scores]] = {
        "smallest L1": lambda model, targets, draw: unit_norm(model, targets, p=1.0),
        "smallest L2": lambda model, targets, draw: unit_norm(model, targets, p=2.0),
        "random": lambda model, targets, draw: unit_random(model, targets, seed=draw),
        "largest L1": lambda model, targets, draw: {n: -s for n, s in unit_norm(model, targets, p=1.0).items()},
    }

    def run(case: Case) -> Numbers:
        net, choice = case["method"].split(", ")
        trained, targets, share = nets[net]
        model, example, accuracies = trained(case["seed"]), mnist().test.tensors[0][:2], []
        for draw in range(DRAWS if choice == "random" else 1):
            scores = choices[choice](model, targets, 100 * case["seed"] + draw)
            pruned = remove_units(copy.deepcopy(model), lowest_units(scores, share), example)
            accuracies.append(_accuracy(pruned))
        return {"test_accuracy": round(statistics.fmean(accuracies), 3)}

    return Experiment(
        "pruning_filters_damage",
        f"Before any retraining: {FIRST_SHARE:.1%} of the filters gone, or {SHARE:.0%} of LeNet's hidden units. Which?",
        _setting(first_share=FIRST_SHARE, draws=DRAWS, fit_lenet=LENET, cases_lenet=LENET_CASES),
        [{"seed": seed, "method": f"{net}, {choice}"} for seed in range(5) for net in nets for choice in choices],
        run,
        notes=(
            f"The random choice counts with its mean over {DRAWS} draws.",
            "The convolutional network has batch norm behind each convolution, which divides by the scale of each "
            "filter's output: there the norm of a filter says little. LeNet-300-100 has none.",
        ),
    )


def retraining() -> Experiment:
    """Pruned and retrained, against the same small network from scratch."""
    methods = ("dense", "pruned", "from scratch, 4 epochs", "from scratch, 14 epochs")
    shapes = [round((1 - SHARE) * count) for count in CHANNELS]
    longest = replace(DENSE, epochs=DENSE.epochs + RETRAINING.epochs)

    def run(case: Case) -> Numbers:
        seed, method = case["seed"], case["method"]
        if method == "dense":
            return {"test_accuracy": _accuracy(dense(seed))}
        if method == "pruned":
            model, config = without_filters(dense(seed), norms(dense(seed), 1.0)), RETRAINING
        else:
            config = longest if "14" in method else replace(DENSE, epochs=RETRAINING.epochs)
            model = SmallConvNet(shapes, seed=seed + 1000)
        fit(model, some_cases(), replace(config, seed=seed), progress=False)
        return {"test_accuracy": _accuracy(model)}

    return Experiment(
        "pruning_filters_retraining",
        f"Is a network that lost {SHARE:.0%} of its filters better than a small one from scratch?",
        _setting(retraining=RETRAINING, from_scratch=shapes),
        [{"seed": seed, "method": method} for seed in range(5) for method in methods],
        run,
        notes=(
            '"Pruned" loses the filters with the smallest L1 norm and trains 4 epochs more, at a constant low rate. '
            "From scratch the schedule is that of the dense network, over 4 epochs or, the honest control, over 14: as "
            "many as the dense network and the retraining together.",
        ),
    )


def ranks() -> Experiment:
    """How well do scores order the filters, against taking out each one?"""

    def run(case: Case) -> Numbers:
        model = dense(case["seed"])
        truth = leave_one_out(model, _scored_on(), nn.Conv2d, of="units", progress=False)
        draws = [unit_random(model, nn.Conv2d, seed=100 * case["seed"] + draw) for draw in range(DRAWS)]
        return {
            "correlation_taylor": rank_correlation(loss_changes(model), truth),
            "correlation_norm": rank_correlation(norms(model, 1.0), truth),
            "correlation_random": statistics.fmean(rank_correlation(draw, truth) for draw in draws),
        }

    return Experiment(
        "pruning_filters_ranks",
        "Which score orders filters as the loss does when each is taken out?",
        _setting(scored_on=SCORED_ON, draws=DRAWS),
        [{"seed": seed} for seed in range(5)],
        run,
        notes=(
            "Spearman's rank correlation within each convolution, and the mean of the three. Scores and the "
            f"loss with one filter taken out are measured on {SCORED_ON} training pictures.",
        ),
    )


def rank_correlation(scores: Scores, truth: Scores) -> float:
    """Spearman's correlation within each layer, and the mean over the layers; no two numbers may be equal."""
    found = []
    for name, score in scores.items():
        ranks = torch.stack([score.argsort().argsort(), truth[name].argsort().argsort()]).double()  # (2, units)
        found.append(torch.corrcoef(ranks)[0, 1].item())
    return round(statistics.fmean(found), 4)


def rounds() -> Experiment:
    """All filters at once, or a few at a time with new scores."""
    methods = ("at once", "in rounds", "at once, retrained", "in rounds, retrained")

    def run(case: Case) -> Numbers:
        rounds = ROUNDS if case["method"].startswith("in rounds") else 1
        epochs = RETRAINING.epochs // rounds if case["method"].endswith("retrained") else 0
        model = dense(case["seed"])
        for number in range(1, rounds + 1):
            model = without_filters(model, loss_changes(model), 1 - SHARE * number / rounds)
            if epochs:
                config = replace(RETRAINING, epochs=epochs, seed=case["seed"] + 100 * (number - 1))
                fit(model, some_cases(), config, progress=False)
        return {"test_accuracy": _accuracy(model)}

    return Experiment(
        "pruning_filters_rounds",
        f"Is it better to remove {SHARE:.0%} of the filters in rounds, with new scores in each?",
        _setting(retraining=RETRAINING, rounds=ROUNDS, scored_on=SCORED_ON),
        [{"seed": seed, "method": method} for seed in range(5) for method in methods],
        run,
        notes=(
            "Scores are Molchanov's first-order estimates. Retrained: 4 epochs in all, either after all filters are "
            "gone or one after each round.",
        ),
    )


def speed() -> Experiment:
    """Wall-clock time of a forward pass: dense, without half of the filters, with as many weights at zero."""

    def run(case: Case) -> Numbers:
        model = SmallConvNet(TIMED_CHANNELS, seed=case["seed"]).eval()
        images = torch.randn(TIMED_BATCH, 1, 28, 28, generator=torch.Generator().manual_seed(case["seed"]))
        half = {name: score.argsort()[: len(score) // 2].tolist() for name, score in norms(model, 1.0).items()}
        small = remove_units(copy.deepcopy(model), half, images[:2])
        count = sum(parameter.numel() for parameter in model.parameters())
        sparsity = 1 - sum(parameter.numel() for parameter in small.parameters()) / count
        sparse = apply_masks(copy.deepcopy(model), global_masks(magnitude(model), sparsity))
        times = latencies({"dense": model, "filters": small, "weights": sparse}, images, repeats=50)
        return {
            "share_of_weights_gone": round(sparsity, 3),
            "speed_up_filters": round(times["dense"].minimum / times["filters"].minimum, 3),
            "speed_up_weights": round(times["dense"].minimum / times["weights"].minimum, 3),
        }

    return Experiment(
        "pruning_filters_speed",
        "Which zeros make a network faster: filters removed, or as many single weights?",
        {"channels": TIMED_CHANNELS, "batch": TIMED_BATCH},
        [{"seed": seed} for seed in range(5)],
        run,
        notes=("The best of 50 forward passes of each, in turns, on an otherwise idle machine.",),
    )


def _setting(**more: object) -> dict[str, object]:
    return {"fit": DENSE, "channels": CHANNELS, "cases": CASES, "share": SHARE, **more}


def _accuracy(model: nn.Module) -> float:
    return round(100 * evaluate(model, mnist().test).accuracy, 2)


EXPERIMENTS = (damage, retraining, ranks, rounds, speed)
