"""A global magnitude mask over millions of weights, beside ``torch.nn.utils.prune.global_unstructured``.

Both have to prune the same weights, and with many equal weights exactly as many as asked for, before they are timed.
"""

import copy

import torch
from torch import nn
from torch.nn.utils import prune

from benchmarks.interleave import Row, compare, interleave
from course_lib.layers import prunable_weights
from course_lib.pruning.criteria import magnitude
from course_lib.pruning.held import hold_masks
from course_lib.pruning.masks import global_masks, sparsity_of

TITLE = "A global mask over 5.8 million weights"
NOTE = (
    "80% of the weights of three linear layers, the smallest of all together. Aim: at most 0.15 of the time of "
    "PyTorch's own pruning. The mask alone, and with everything that holds it on the model. On weights rounded to "
    "1/64, most of them equal to others, the count is exact too."
)
BASE = "torch.nn.utils.prune"
SPARSITY = 0.8


def network(*, rounded: bool = False) -> nn.Sequential:
    """Three layers with 5.8 million weights; ``rounded`` makes most of them equal to others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1600, 1600), nn.Linear(1600, 1600), nn.Linear(1600, 425))
    with torch.no_grad():
        for layer in model:
            layer.weight.normal_()
            if rounded:
                layer.weight.copy_((64 * layer.weight).round() / 64)
    return model


def ours(model: nn.Module) -> dict[str, torch.Tensor]:
    """course_lib's masks."""
    return global_masks(magnitude(model), SPARSITY)


def held(model: nn.Module) -> nn.Module:
    """course_lib's masks, put on the model."""
    return hold_masks(model, ours(model))


def peer(model: nn.Sequential) -> nn.Sequential:
    """PyTorch's pruning, which puts its masks on the model."""
    prune.global_unstructured([(layer, "weight") for layer in model], prune.L1Unstructured, amount=SPARSITY)
    return model


def check_same() -> None:
    """Assert that both prune the same weights, and exactly as many as asked for where weights are equal."""
    model = network()
    masks, theirs = ours(model), peer(copy.deepcopy(model))
    for name, mask in masks.items():
        different = int((mask != theirs.get_submodule(name.removesuffix(".weight")).weight_mask.bool()).sum())
        assert different <= 2, (name, different)  # random floats: a few are equal among millions
    tied = network(rounded=True)
    count = sum(weight.numel() for weight in prunable_weights(tied).values())
    assert sparsity_of(ours(tied)) == round(SPARSITY * count) / count


def run(*, quick: bool = False) -> list[Row]:
    """The time of a mask, on weights that differ and on weights of which many are equal."""
    check_same()
    rows = []
    for case, model in (("random weights", network()), ("rounded weights", network(rounded=True))):
        times = interleave(
            {BASE: peer, "course_lib, mask only": ours, "course_lib, held": held},
            rounds=3 if quick else 15,
            prepare=lambda model=model: copy.deepcopy(model),
        )
        rows += [{"case": case, **row} for row in compare(times, base=BASE)]
    return rows
