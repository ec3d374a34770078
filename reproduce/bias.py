"""What one bias changes for classes that a student was never shown: Hinton et al. 2015, section 3.

The paper finds the cause of most errors in a bias that is too low, or too high. Here: the best number to add to the
biases of some classes, found exactly, and the errors before and after.
"""

import torch
from torch import Tensor, nn

from course_lib.data.images import ImageData
from course_lib.evaluation import predict_logits
from reproduce.record import Numbers

BIAS_CURVE = [step / 2 for step in range(-4, 25)]


def bias_numbers(model: nn.Module, data: ImageData, classes: list[int]) -> Numbers:
    """Test errors of ``data``, on all and on ``classes``, before and after the bias is moved, and the curve between."""
    labels, validation_labels = data.test.tensors[1], data.validation.tensors[1]
    logits, validation_logits = predict_logits(model, data.test), predict_logits(model, data.validation)
    on_classes = torch.isin(labels, torch.tensor(classes))
    shifts = {
        "": 0.0,
        "_shifted_on_validation": best_shift(validation_logits, validation_labels, classes),
        "_shifted_on_test": best_shift(logits, labels, classes),
    }
    numbers: Numbers = {"count_of_classes": int(on_classes.sum())}
    for name, shift in shifts.items():
        wrong = errors_after(logits, labels, classes, shift)
        numbers |= {
            f"shift{name}": round(shift, 3),
            f"errors{name}": int(wrong.sum()),
            f"errors_on_classes{name}": int(wrong[on_classes].sum()),
        }
    sign = -1 if len(classes) > 1 else 1  # the 3 is raised, the 7 and the 8 are lowered
    curve = [sign * shift for shift in BIAS_CURVE]
    numbers["curve"] = {
        "shift": curve,
        "errors": [int(errors_after(logits, labels, classes, shift).sum()) for shift in curve],
    }
    return numbers


def best_shift(logits: Tensor, labels: Tensor, classes: list[int]) -> float:
    """The number to add to the biases of ``classes`` that leaves the fewest errors; of several, the nearest to 0.

    Exact: a case of one of the classes is right above some shift, any other case below some shift, so that the
    errors change at these numbers only. One shift between each two of them is tried.

    Shapes: logits ``(N, C)``, labels ``(N,)``.
    """
    above, below = _thresholds(logits.double(), labels, classes)
    steps = torch.cat([above, below]).unique()  # sorted
    if len(steps) == 0:
        return 0.0
    between = (steps[1:] + steps[:-1]) / 2
    tried = torch.cat([steps[:1] - 1, between, steps[-1:] + 1, torch.zeros(1, dtype=steps.dtype)])
    right = torch.searchsorted(above, tried) + len(below) - torch.searchsorted(below, tried, right=True)
    best = tried[right == right.max()]
    return best[best.abs().argmin()].item()


def _thresholds(logits: Tensor, labels: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Sorted: the shifts above which the cases of ``classes`` are right, and below which the other cases are."""
    moved = torch.zeros(logits.shape[1], dtype=torch.bool)
    moved[classes] = True
    own = logits.gather(1, labels[:, None]).squeeze(1)
    best_moved = logits[:, moved].max(1).values
    best_other = logits[:, ~moved].max(1).values
    inside = moved[labels]
    above = (best_other - own)[inside & (own == best_moved)]
    below = (own - best_moved)[~inside & (own == best_other)]
    return above.sort().values, below.sort().values


def errors_after(logits: Tensor, labels: Tensor, classes: list[int], shift: float) -> Tensor:
    """Which cases are wrong, ``(N,)`` boolean, once ``shift`` is added to the logits of ``classes``."""
    shifted = logits.clone()
    shifted[:, classes] += shift
    return shifted.argmax(1) != labels
