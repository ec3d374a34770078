"""A ResNet-18 with masks that hold, beside the same pruned network without them and under PyTorch's own pruning.

All have to give the same answers before they are timed. Aim: a forward pass with masks costs at most 5% more.
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from benchmarks.interleave import Row, calling, compare, interleave
from course_lib.layers import find_layer
from course_lib.pruning.criteria import magnitude
from course_lib.pruning.held import apply_masks, hold_masks
from course_lib.pruning.masks import Masks, global_masks

TITLE = "What masks that hold cost"
NOTE = (
    "torchvision's ResNet-18 with 80% of its weights at zero, 3 × 224 × 224: nothing but the zeros, course_lib's "
    "masks, and those of PyTorch's own pruning, which multiplies every weight by its mask before every call. A step of "
    "training (SGD with momentum) has to keep the zeros: without masks it does not."
)
BASE, AIMS = "without masks", {"course_lib": 1.05}
SPARSITY = 0.8


def networks() -> dict[str, nn.Module]:
    """The same pruned network three times: the weights at zero, and two ways to hold them there."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18().eval()
    masks = global_masks(magnitude(model), SPARSITY)
    return {
        BASE: apply_masks(copy.deepcopy(model), masks),
        "course_lib": hold_masks(copy.deepcopy(model), masks),
        "torch.nn.utils.prune": peer(copy.deepcopy(model), masks),
    }


def peer(model: nn.Module, masks: Masks) -> nn.Module:
    """PyTorch's pruning with ``masks``."""
    for name, mask in masks.items():
        prune.custom_from_mask(find_layer(model, name.removesuffix(".weight")), "weight", mask)
    return model


def check_same(models: Mapping[str, nn.Module], pictures: Tensor) -> None:
    """Assert that all give the same answers."""
    with torch.no_grad():
        answers = {name: model(pictures) for name, model in models.items()}
    for answer in answers.values():
        torch.testing.assert_close(answer, answers[BASE])


def stepping(model: nn.Module, pictures: Tensor) -> Callable[[object], None]:
    """A candidate that takes one step of training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    labels = torch.arange(len(pictures))

    def step(_: object) -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(pictures), labels).backward()
        optimizer.step()

    return step


def run(*, quick: bool = False) -> list[Row]:
    """Forward passes of one picture and of 32, and a step of training, after the check that they are the same."""
    models, rows = networks(), []
    pictures = torch.randn(32, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    check_same(models, pictures[:2])
    for batch in (1,) if quick else (1, 32):
        candidates = {name: calling(model, pictures[:batch]) for name, model in models.items()}
        times = interleave(candidates, rounds=3 if quick else 21, warmup=2)
        rows += [{"case": f"forward, batch {batch}", **row} for row in compare(times, base=BASE, aims=AIMS)]
    batch = 2 if quick else 8
    candidates = {name: stepping(model.train(), pictures[:batch]) for name, model in models.items()}
    times = interleave(candidates, rounds=3 if quick else 15, warmup=2)
    return rows + [{"case": f"training step, batch {batch}", **row} for row in compare(times, base=BASE)]
