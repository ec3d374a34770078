"""A global magnitude mask over 5 and over 50 million weights, beside sorting them and PyTorch's own pruning.

Ours and PyTorch's have to prune the same weights, and with many equal weights exactly as many as asked for, before they
are timed. Aim: from 5 to 50 million weights a mask grows no faster than sorting does.
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

TITLE = "A global mask over millions of weights"
NOTE = (
    "80% of the weights of two linear layers, the smallest of all together, beside sorting their absolute values. The "
    "mask alone, with everything that holds it on the model, and by PyTorch's own pruning. *Growth* is the minimum "
    "over that of a tenth of the weights: it should not exceed the growth of sorting. On weights rounded to 1/64, most "
    "of them equal to others, the count is exact too."
)
BASE, OURS = "torch.sort", "course_lib, mask only"
SPARSITY = 0.8
WIDTHS = {"5 million": 1_580, "50 million": 5_000}  # of two square layers with so many weights together
QUICK = {"50,000": 158, "500,000": 500}


def network(width: int, *, rounded: bool = False) -> nn.Sequential:
    """Two square layers; ``rounded`` makes most of their weights equal to others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
    with torch.no_grad():
        for layer in model:
            layer.weight.normal_()
            if rounded:
                layer.weight.copy_((64 * layer.weight).round() / 64)
    return model


def sort(model: nn.Sequential) -> torch.Tensor:
    """The absolute values of all weights, in order."""
    return torch.cat([layer.weight.detach().abs().flatten() for layer in model]).sort().values


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


def check_same(width: int) -> None:
    """Assert that both prune the same weights, and exactly as many as asked for where weights are equal."""
    model = network(width)
    masks, theirs = ours(model), peer(copy.deepcopy(model))
    for name, mask in masks.items():
        different = int((mask != theirs.get_submodule(name.removesuffix(".weight")).weight_mask.bool()).sum())
        assert different <= 2, (name, different)  # random floats: a few are equal among millions
    tied = network(width, rounded=True)
    count = sum(weight.numel() for weight in prunable_weights(tied).values())
    assert sparsity_of(ours(tied)) == round(SPARSITY * count) / count


def with_growth(rows: list[Row], smaller: list[Row]) -> list[Row]:
    """``rows`` with their minima over those of ``smaller``, and the aim for ours."""
    growth = {row["what"]: row["minimum ms"] / before["minimum ms"] for row, before in zip(rows, smaller, strict=True)}
    aim = {"aim": f"growth ≤ {growth[BASE]:.1f}", "met": growth[OURS] <= growth[BASE]}
    return [row | {"growth": growth[row["what"]]} | (aim if row["what"] == OURS else {}) for row in rows]


def run(*, quick: bool = False) -> list[Row]:
    """The time of a mask, on weights that differ and on weights of which many are equal."""
    widths = QUICK if quick else WIDTHS
    small, large = widths
    check_same(widths[small])
    rows: dict[str, list[Row]] = {}
    for size, rounded in ((small, False), (small, True), (large, False)):
        times = interleave(
            {BASE: sort, OURS: ours, "course_lib, held": held, "torch.nn.utils.prune": peer},
            rounds=3 if quick else 7 if size == large else 15,
            prepare=lambda model=network(widths[size], rounded=rounded): copy.deepcopy(model),
        )
        case = f"{size}{', rounded' if rounded else ''}"
        rows[case] = [{"case": case, **row} for row in compare(times, base=BASE)]
    rows[large] = with_growth(rows[large], rows[small])
    return sum(rows.values(), [])
