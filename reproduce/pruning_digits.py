"""Four claims of lesson 03 again, on digits and on twenty new networks, after five could not tell. Minutes.

The lesson's networks, settings and cuts; here a random choice of filters is drawn ten times, and the mean is taken.
Nothing is trained after a cut.
"""

import copy
import statistics
from dataclasses import replace
from functools import cache

from torch import Tensor, nn

from course_lib.data.images import ImageData, load_images
from course_lib.evaluation import evaluate
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.pruning.criteria import magnitude, unit_norm, unit_random
from course_lib.pruning.held import apply_masks
from course_lib.pruning.leave_one_out import leave_one_out
from course_lib.pruning.masks import Masks, global_masks, local_masks
from course_lib.training import FitConfig, fit
from reproduce.record import Case, Experiment, Numbers

PERCEPTRON = FitConfig(epochs=20, precision="fp32")
CONVOLUTIONAL = FitConfig(epochs=6, precision="fp32")
SIZES, CHANNELS = [64, 32, 10], (16, 32)
CHOICE, SCOPE, FILTERS = 0.6, 0.8, 0.3  # shares removed: to compare criteria, to compare scopes, of the filters
DRAWS = 10
SEEDS = range(20, 40)


@cache
def digits() -> ImageData:
    """The pictures."""
    return load_images("digits")


def pruning_digits() -> Experiment:
    """A perceptron without weights and a convolutional network without filters, chosen in several ways."""
    return Experiment(
        "pruning_digits",
        "Small, flat or any: which weights and filters can go at once, and compared with which others? (digits)",
        {
            "perceptron": PERCEPTRON,
            "sizes": SIZES,
            "convolutional": CONVOLUTIONAL,
            "channels": CHANNELS,
            "removed": {"weights": CHOICE, "weights, global and local": SCOPE, "filters": FILTERS},
            "draws": DRAWS,
        },
        [{"seed": seed} for seed in SEEDS],
        _run,
        notes=(
            "Test accuracy in percent. Flat: what changes the training loss least when it goes alone, measured. "
            f"{CHOICE:.0%} of the weights are gone ({SCOPE:.0%} where global and local are compared), {FILTERS:.0%} of "
            "the filters.",
        ),
    )


def _run(case: Case) -> Numbers:
    return _weights(case["seed"]) | _filters(case["seed"])


def _weights(seed: int) -> Numbers:
    model = mlp(SIZES, seed=seed)
    fit(model, digits().train, replace(PERCEPTRON, seed=seed), progress=False)
    small, flat = magnitude(model), _flat(model, None, "weights")

    def accuracy(masks: Masks) -> float:
        return _accuracy(apply_masks(copy.deepcopy(model), masks))

    return {
        "weights_small": accuracy(global_masks(small, CHOICE)),
        "weights_flat": accuracy(global_masks(flat, CHOICE)),
        "weights_global": accuracy(global_masks(small, SCOPE)),
        "weights_local": accuracy(local_masks(small, SCOPE)),
    }


def _filters(seed: int) -> Numbers:
    model = SmallConvNet(CHANNELS, seed=seed)
    fit(model, digits().train, replace(CONVOLUTIONAL, seed=seed), progress=False)
    flat, small = _flat(model, "blocks.*", "units"), unit_norm(model, "blocks.*")
    draws = [unit_random(model, "blocks.*", seed=DRAWS * seed + draw) for draw in range(DRAWS)]
    together, each_layer = (
        round(statistics.fmean(_without(model, cut(draw, FILTERS)) for draw in draws), 2)
        for cut in (global_masks, local_masks)
    )
    return {
        "filters_flat": _without(model, global_masks(flat, FILTERS)),
        "filters_any": together,
        "filters_small_each_layer": _without(model, local_masks(small, FILTERS)),
        "filters_any_each_layer": each_layer,
    }


def _flat(model: nn.Module, targets: str | None, of: str) -> dict[str, Tensor]:
    changes = leave_one_out(model, digits().train, targets, of=of, progress=False)
    return {name: change.abs() for name, change in changes.items()}


def _without(model: SmallConvNet, masks: Masks) -> float:
    """Test accuracy when the batch normalisation of the filters that go gives nothing."""
    model = copy.deepcopy(model)
    for name, kept in masks.items():
        norm = model.get_submodule(name[:-1] + "1")  # behind "blocks.0.0" stands "blocks.0.1"
        norm.weight.data *= kept
        norm.bias.data *= kept
    return _accuracy(model)


def _accuracy(model: nn.Module) -> float:
    return round(100 * evaluate(model, digits().test).accuracy, 2)


EXPERIMENTS = (pruning_digits,)
