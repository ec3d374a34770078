"""FitNets: a hidden layer of the teacher as a hint for a hidden layer of the student.

White box: needs the teacher's modules, for what its hidden layers give out.

Romero, Ballas, Kahou, Chassang, Gatta and Bengio, "FitNets: Hints for Thin Deep Nets" (ICLR 2015, arXiv
1412.6550). The layer of the teacher that is shown is the hint layer; the layer of the student that learns
from it is the guided layer.

    L_HT = 1/2 || u_h(x; W_Hint) - r(v_g(x; W_Guided); W_r) ||^2

    u_h    the teacher up to its hint layer                            a column of ``with_features``
    v_g    the student up to its guided layer                          ``GuidedStudent``, its ``layer``
    r      the regressor: from the student's shape to the teacher's    ``GuidedStudent``, its ``regressor``

Stage 1 trains W_Guided and W_r on L_HT; the student's later layers are not even run. Stage 2 trains the whole student
by distillation. The regressor is thrown away::

    data = with_features(teacher, train, ["layer2"])
    guided = GuidedStudent(student, "layer1", regressor_for((1, 16, 8, 8), (1, 32, 8, 8)))
    fit(guided, data, config, loss=stage_1_loss)
    distill(student, teacher, train, config, temperature=4, alpha=0.9)

Or both at once, on the distillation loss plus beta times L_HT, which later work compares against more often::

    data = with_features(teacher, with_teacher_logits(teacher, train), ["layer2"])
    fit(guided, data, config, loss=soft_and_hint_loss(temperature=4, alpha=0.9, beta=1))

The norm is summed over everything that belongs to one example (features, or channels, rows and columns) and
averaged over the examples of a batch. So a wider hint layer has a larger loss, and beta must make up for it.
RepDistiller averages over all (``nn.MSELoss``): its beta of 100 is not comparable with one here.

Simplified: the paper's regressor for pictures is a convolution whose kernel bridges different heights and
widths, and its other layers are maxout. Here it is a 1x1 convolution for equal heights and widths. For others,
``nn.Sequential(nn.AdaptiveAvgPool2d(size), convolution)`` is a regressor too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.activations import capture, layer_outputs, run_to
from course_lib.checking import check_number
from course_lib.device import seeded
from course_lib.distillation.hinton import batch_loss
from course_lib.evaluation import Batch
from course_lib.layers import find_layer
from course_lib.training import Loss


def regressor_for(guided_shape: Sequence[int], hint_shape: Sequence[int], *, seed: int = 0) -> nn.Module:
    """A module r that turns features of the student's shape into the teacher's.

    (N, D) to (N, D'): a linear layer; also for tokens, (N, L, D) to (N, L, D'). (N, C, H, W) to (N, C', H,
    W): a 1x1 convolution.

    Args:
        guided_shape, hint_shape: shapes of the student's and the teacher's features, with the batch in front.
        seed: of the weights at the start.

    Raises:
        ValueError: shapes that no such regressor connects.
    """
    guided, hint = tuple(guided_shape), tuple(hint_shape)
    if len(guided) != len(hint) or len(guided) not in (2, 3, 4):
        raise ValueError(
            f"no regressor from {guided} to {hint}; expected two shapes (N, D), two (N, L, D) or two "
            "(N, C, H, W): choose layers of the same kind, or give a regressor of your own"
        )
    if len(guided) == 3 and guided[1] != hint[1]:
        raise ValueError(f"no regressor from {guided} to {hint}: the lengths L differ, {guided[1]} and {hint[1]}")
    if guided[2:] != hint[2:] and len(guided) == 4:
        raise ValueError(
            f"no 1x1 convolution from {guided} to {hint}: height and width are {guided[2]}x{guided[3]} in the "
            f"student, {hint[2]}x{hint[3]} in the teacher; choose layers where they agree, or pool in front of it"
        )
    with seeded(seed):
        return nn.Linear(guided[-1], hint[-1]) if len(guided) < 4 else nn.Conv2d(guided[1], hint[1], kernel_size=1)


def hint_loss(guided: Tensor, hint: Tensor, regressor: nn.Module | None = None) -> Tensor:
    """L_HT = 1/2 || u_h - r(v_g) ||^2, summed over the features of an example and averaged over the examples.

    Args:
        guided: v_g, the student's features (N, ...).
        hint: u_h, the teacher's features (N, ...); no gradient goes into them.
        regressor: r. None: the features are compared as they are.

    Raises:
        ValueError: shapes that differ after the regressor.
    """
    predicted = guided if regressor is None else regressor(guided)
    if predicted.shape != hint.shape:
        raise ValueError(
            f"the student's features have shape {tuple(predicted.shape)} and the teacher's "
            f"{tuple(hint.shape)}; expected the same: see regressor_for"
        )
    return 0.5 * (hint.detach() - predicted).square().flatten(1).sum(dim=1).mean()  # (N, ...) -> (N,) -> ()


def with_features(
    teacher: nn.Module,
    data: TensorDataset,
    layers: Sequence[str],
    *,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> TensorDataset:
    """``data`` with one more column (N, ...) for each of ``layers``: what that layer of the teacher gives.

    The teacher answers once, in eval mode and without gradients, and is left as it was. Names are those of
    ``named_modules()``.

    Raises:
        TypeError, ValueError: as ``activations.layer_outputs``: an unknown layer (near names are listed), no data.
    """
    shown = layer_outputs(teacher, data, layers, device=device, progress=progress)
    return TensorDataset(*data.tensors, *(shown[name] for name in layers))


class GuidedStudent(nn.Module):
    """A student, and beside it the regressor on top of its guided layer, to be trained along.

    It answers as the student does. Both are shared, not copied: train this, then throw it away and keep the student.

    Raises:
        ValueError: the student has no such layer (near names are listed).
    """

    def __init__(self, student: nn.Module, layer: str, regressor: nn.Module):
        super().__init__()
        find_layer(student, layer)
        self.student, self.layer, self.regressor = student, layer, regressor

    def forward(self, inputs: Tensor) -> Tensor:
        """What the student gives."""
        return self.student(inputs)

    def predicted_hint(self, inputs: Tensor) -> Tensor:
        """r(v_g(x)); the student's later layers are not run."""
        return self.regressor(run_to(self.student, self.layer, inputs))


def stage_1_loss(model: GuidedStudent, batch: Batch) -> Tensor:
    """L_HT for ``training.fit``, on batches (inputs, ..., hints last)."""
    return hint_loss(model.predicted_hint(batch[0]), batch[-1])


def soft_and_hint_loss(*, temperature: float, alpha: float, beta: float) -> Loss:
    """``distillation_loss`` + ``beta`` L_HT for ``training.fit`` of a ``GuidedStudent``.

    Batches are (inputs, labels, teacher logits, hints).

    Raises:
        TypeError, ValueError: an argument is no number or out of range; ``beta`` is 0 (plain distillation) or above.
    """
    check_number("temperature", temperature, above=0)
    check_number("alpha", alpha, least=0, most=1)
    check_number("beta", beta, least=0)

    def loss(model: GuidedStudent, batch: Batch) -> Tensor:
        *batch, teacher_logits, hint = batch
        with capture(model.student, [model.layer]) as seen:
            soft = batch_loss(model.student, batch, teacher_logits, temperature=temperature, alpha=alpha)
        return soft + beta * hint_loss(seen[model.layer], hint, model.regressor)

    return loss
