"""Claims F3a, on pruning weights and training the rest (Han et al. 2015, arXiv 1506.02626), on MNIST.

LeNet-300-100 as in the paper, on 20,000 training pictures, and a small convolutional network for the claim about its
first layer. Masks cut the smallest magnitudes over all layers together; the paper cuts in each layer at a multiple of
its standard deviation. Settings were tried on the seeds 100 and 101, and fixed before the runs.
"""

import copy
from dataclasses import replace
from functools import cache

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from course_lib.data.images import fraction
from course_lib.evaluation import Batch, evaluate
from course_lib.layers import prunable_weights
from course_lib.models.vision import SmallConvNet, lenet_300_100
from course_lib.pruning.criteria import magnitude
from course_lib.pruning.held import hold_masks
from course_lib.pruning.lottery import reinitialise
from course_lib.pruning.masks import Masks, global_masks
from course_lib.pruning.sensitivity import sensitivity_curve
from course_lib.training import FitConfig, Loss, fit, hard_label_loss
from reproduce.mnist import mnist
from reproduce.record import Case, Experiment, Numbers

SPARSITY = 0.95
LENET_CASES = 20_000
DENSE = FitConfig(epochs=8, batch_size=100, learning_rate=1e-3, precision="fp32")
RETRAINING = replace(DENSE, epochs=4, learning_rate=DENSE.learning_rate / 10)  # a tenth, as in the paper
ROUNDS = 4
LONGEST = replace(DENSE, epochs=DENSE.epochs + RETRAINING.epochs)
PENALTIES = {"L1": 5e-5, "L2": 1e-4}
CONVOLUTIONAL = FitConfig(epochs=10, batch_size=100, learning_rate=2e-3, schedule="cosine", precision="fp32")
CHANNELS = (16, 32, 32)
CASES = 5000
LAYER_SPARSITIES = (0.5, 0.8, 0.9)


@cache
def some_cases(count: int) -> TensorDataset:
    """Training pictures."""
    return fraction(mnist().train, count / len(mnist().train), seed=0)


@cache
def dense(seed: int) -> nn.Module:
    """LeNet-300-100, trained."""
    model = lenet_300_100(seed=seed)
    fit(model, some_cases(LENET_CASES), replace(DENSE, seed=seed), progress=False)
    return model


@cache
def convolutional(seed: int) -> nn.Module:
    """A small convolutional network, trained on few pictures."""
    model = SmallConvNet(CHANNELS, seed=seed)
    fit(model, some_cases(CASES), replace(CONVOLUTIONAL, seed=seed), progress=False)
    return model


def penalised(kind: str, strength: float) -> Loss:
    """The loss with ``strength`` times the sum of all absolute weights (L1) or of their squares (L2)."""

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        weights = prunable_weights(model).values()
        sizes = [weight.abs().sum() if kind == "L1" else weight.square().sum() for weight in weights]
        return cross_entropy(model(batch[0]), batch[1]) + strength * torch.stack(sizes).sum()

    return loss


def retraining() -> Experiment:
    """What becomes of a network without 95% of its weights: left so, trained again in several ways, begun anew."""
    methods = ("dense", "pruned", "one-shot", "iterative", "iterative, longer", "drawn anew", "drawn anew, longer")
    return Experiment(
        "pruning_retraining",
        f"What does a network without {SPARSITY:.0%} of its weights need? (LeNet-300-100)",
        {
            "fit": DENSE,
            "cases": LENET_CASES,
            "retraining": RETRAINING,
            "drawn_anew_longer": LONGEST,
            "sparsity": SPARSITY,
            "rounds": ROUNDS,
        },
        [{"seed": seed, "method": method} for seed in range(5) for method in methods],
        lambda case: _accuracies(_treated(case["method"], case["seed"])),
        notes=(
            '"One-shot" retrains 4 epochs; "iterative" prunes four times, with an epoch after each; '
            '"iterative, longer" with four epochs after each.',
            '"Drawn anew" keeps the mask and draws the weights again, then trains 4 epochs at the low rate; '
            '"longer" trains 12 epochs at the full rate, as many as the dense network and its retraining together.',
        ),
    )


def _treated(method: str, seed: int) -> nn.Module:
    model = copy.deepcopy(dense(seed))
    if method == "dense":
        return model
    if method.startswith("iterative"):
        epochs = RETRAINING.epochs if method.endswith("longer") else RETRAINING.epochs // ROUNDS
        return _iterative(model, replace(RETRAINING, epochs=epochs, seed=seed))
    masks = global_masks(magnitude(model), SPARSITY)
    if method == "pruned":
        return hold_masks(model, masks)
    if method.startswith("drawn anew"):
        reinitialise(model, masks, seed=seed + 1000)
    config = LONGEST if method.endswith("longer") else RETRAINING
    return _retrained(model, masks, replace(config, seed=seed))


def _iterative(model: nn.Module, config: FitConfig) -> nn.Module:
    """The same share of what is left in each round; another order of the examples in each."""
    for number in range(1, ROUNDS + 1):
        masks = global_masks(magnitude(model), 1 - (1 - SPARSITY) ** (number / ROUNDS))
        _retrained(model, masks, replace(config, seed=config.seed + 100 * (number - 1)))
    return model


def _retrained(model: nn.Module, masks: Masks, config: FitConfig, loss: Loss = hard_label_loss) -> nn.Module:
    fit(hold_masks(model, masks), some_cases(LENET_CASES), config, loss=loss, progress=False)
    return model


def penalty() -> Experiment:
    """An L1 or an L2 penalty in all of the training: before and after retraining."""

    def run(case: Case) -> Numbers:
        kind, seed = case["method"], case["seed"]
        loss, model = penalised(kind, PENALTIES[kind]), lenet_300_100(seed=seed)
        fit(model, some_cases(LENET_CASES), replace(DENSE, seed=seed), loss=loss, progress=False)
        numbers = {"test_accuracy_dense": _accuracy(model)}
        masks = global_masks(magnitude(model), SPARSITY)
        numbers["test_accuracy_pruned"] = _accuracy(hold_masks(model, masks))
        _retrained(model, masks, replace(RETRAINING, seed=seed), loss)
        return numbers | {"test_accuracy_retrained": _accuracy(model)}

    return Experiment(
        "pruning_penalty",
        f"Which penalty prepares a network for losing {SPARSITY:.0%} of its weights, L1 or L2? (LeNet-300-100)",
        {
            "fit": DENSE,
            "cases": LENET_CASES,
            "retraining": RETRAINING,
            "sparsity": SPARSITY,
            "penalties": PENALTIES,
        },
        [{"seed": seed, "method": method} for seed in range(5) for method in PENALTIES],
        run,
        notes=(
            "A penalty is its strength times the sum over all weights, in training and in retraining. Each strength is "
            "the one of three that did best after retraining, on the seed 100.",
        ),
    )


def layers() -> Experiment:
    """One layer pruned at a time."""

    def run(case: Case) -> Numbers:
        model = (dense if case["method"] == "LeNet-300-100" else convolutional)(case["seed"])
        curves = sensitivity_curve(model, mnist().test, LAYER_SPARSITIES)
        accuracies = {
            name: [round(100 * evaluation.accuracy, 2) for evaluation in curve] for name, curve in curves.items()
        }
        first, *others = (sum(values) / len(values) for values in accuracies.values())
        return {
            "test_accuracy": _accuracy(model),
            "test_accuracy_first_layer_pruned": round(first, 2),
            "test_accuracy_worst_other_pruned": round(min(others), 2),
            "curves": accuracies,
        }

    return Experiment(
        "pruning_layers",
        "Which layer suffers most from losing a share of its weights?",
        {
            "fit": DENSE,
            "cases_lenet": LENET_CASES,
            "fit_convolutional": CONVOLUTIONAL,
            "channels": CHANNELS,
            "cases": CASES,
            "sparsities": LAYER_SPARSITIES,
        },
        [{"seed": seed, "method": net} for seed in range(5) for net in ("LeNet-300-100", "SmallConvNet")],
        run,
        notes=(
            "Accuracy is the mean over the three shares; nothing is retrained. The worst other layer is that with the "
            "lowest mean. "
            "The convolutional network learns 5,000 pictures.",
        ),
    )


def _accuracies(model: nn.Module) -> Numbers:
    return {"test_accuracy": _accuracy(model)}


def _accuracy(model: nn.Module) -> float:
    return round(100 * evaluate(model, mnist().test).accuracy, 2)


EXPERIMENTS = (retraining, penalty, layers)
