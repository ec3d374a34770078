"""FitNets: a hidden layer of the teacher as a hint for a hidden layer of the student.

White box: needs the teacher's modules, for what its hidden layers give out.

Romero, Ballas, Kahou, Chassang, Gatta and Bengio, "FitNets: Hints for Thin Deep Nets" (ICLR 2015, arXiv
1412.6550). The layer of the teacher that is shown is the hint layer; the layer of the student that learns
from it is the guided layer.

    L_HT = 1/2 || u_h(x; W_Hint) - r(v_g(x; W_Guided); W_r) ||^2

    u_h    the teacher up to its hint layer                            ``hint_layer``
    v_g    the student up to its guided layer                          ``guided_layer``
    r      the regressor: from the student's shape to the teacher's    ``regressor``

Stage 1 (``fit_hints``) trains W_Guided and W_r on L_HT; the student's later layers are not even run. Stage 2
trains the whole student by distillation, ``hinton.distill``. The regressor is thrown away.
``distill_with_hints`` does both at once: the distillation loss plus beta times L_HT, which later work
compares against more often than the two stages.

The norm is summed over everything that belongs to one example (features, or channels, rows and columns) and
averaged over the examples of a batch. So a wider hint layer has a larger loss, and beta must make up for it.
RepDistiller averages over all (``nn.MSELoss``): its beta of 100 is not comparable with one here.

Simplified: the paper's regressor for pictures is a convolution whose kernel bridges different heights and
widths, and its other layers are maxout. Here it is a 1x1 convolution for equal heights and widths, with
average pooling in front of it only where it is asked for.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.activations import capture, layer_outputs, run_to
from course_lib.checking import check_number
from course_lib.device import seeded
from course_lib.distillation.hinton import distillation_loss, with_teacher_logits
from course_lib.layers import find_layer
from course_lib.training import FitConfig, History, fit


class HintFit(NamedTuple):
    """What training leaves beside the student: the loss by epoch, and the regressor, now of no more use."""

    history: History
    regressor: nn.Module


def regressor_for(
    guided_shape: tuple[int, ...], hint_shape: tuple[int, ...], *, pool: bool = False, seed: int = 0
) -> nn.Module:
    """A module r that turns features of the student's shape into the teacher's.

    (N, D) to (N, D'): a linear layer; also for tokens, (N, L, D) to (N, L, D'). (N, C, H, W) to (N, C', H,
    W): a 1x1 convolution.

    Args:
        guided_shape, hint_shape: shapes of the student's and the teacher's features, with the batch in front.
        pool: for different heights and widths, average the student's features over the teacher's grid first.
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
    with seeded(seed):
        if len(guided) < 4:
            if guided[1:-1] != hint[1:-1]:
                raise ValueError(
                    f"no regressor from {guided} to {hint}: the lengths L differ, {guided[1]} and {hint[1]}"
                )
            return nn.Linear(guided[-1], hint[-1])
        convolution = nn.Conv2d(guided[1], hint[1], kernel_size=1)
    if guided[2:] == hint[2:]:
        return convolution
    if not pool:
        raise ValueError(
            f"no 1x1 convolution from {guided} to {hint}: height and width are {guided[2]}x{guided[3]} in the "
            f"student, {hint[2]}x{hint[3]} in the teacher; choose layers where they agree, or say pool=True"
        )
    return nn.Sequential(nn.AdaptiveAvgPool2d(hint[2:]), convolution)


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


def fit_hints(
    student: nn.Module,
    teacher: nn.Module,
    train: TensorDataset,
    config: FitConfig | None = None,
    *,
    guided_layer: str,
    hint_layer: str,
    regressor: nn.Module | None = None,
    pool: bool = False,
    progress: bool = True,
) -> HintFit:
    """Stage 1: train the student up to its guided layer, in place, to predict the teacher's hint layer.

    Labels are not used. The layers behind the guided one are not run and stay as they are, so the student is
    of no use yet: stage 2, ``hinton.distill``, trains all of it. The teacher is asked once for each input, in
    eval mode without gradients, and left as it was.

    Args:
        student, teacher: any modules that take the inputs of ``train``.
        train: inputs (N, ...), labels (N,).
        config: as in ``training.fit``.
        guided_layer, hint_layer: names as in ``named_modules()``, of the student and of the teacher.
        regressor: r, trained along; None: ``regressor_for`` the shapes of the two layers, from the seed of
            ``config``.
        pool: passed to ``regressor_for``.

    Returns:
        The history of the loss, and the regressor.

    Raises:
        ValueError: an unknown layer (near names are listed), or shapes that no regressor connects.
    """
    config = config or FitConfig()
    find_layer(student, guided_layer)  # before the teacher is put to work
    hints = layer_outputs(teacher, train, [hint_layer], progress=progress)[hint_layer]  # (N, ...)
    if regressor is None:
        regressor = _regressor(student, guided_layer, train, hints, pool=pool, seed=config.seed)
    learner = _UpTo(student, guided_layer, regressor)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        inputs, hint = batch
        return hint_loss(model(inputs), hint)

    history = fit(learner, TensorDataset(train.tensors[0], hints), config, loss=loss, progress=progress)
    return HintFit(history, regressor)


def distill_with_hints(
    student: nn.Module,
    teacher: nn.Module,
    train: TensorDataset,
    config: FitConfig | None = None,
    *,
    guided_layer: str,
    hint_layer: str,
    beta: float,
    temperature: float,
    alpha: float,
    regressor: nn.Module | None = None,
    pool: bool = False,
    validation: TensorDataset | None = None,
    progress: bool = True,
) -> HintFit:
    """Both at once: train the student, in place, on the distillation loss plus beta times the hint loss.

    Args:
        beta: weight of L_HT, not negative; 0 is plain distillation.
        temperature, alpha: as in ``hinton.distillation_loss``.
        validation: inputs and labels, scored after each epoch by ``training.fit``.
        The others as in ``fit_hints``.

    Returns:
        The history of the sum of both losses, and the regressor.

    Raises:
        ValueError: as ``fit_hints``; a beta below 0 or not finite.
    """
    config = config or FitConfig()
    check_number("beta", beta, least=0)
    find_layer(student, guided_layer)
    hints = layer_outputs(teacher, train, [hint_layer], progress=progress)[hint_layer]  # (N, ...)
    if regressor is None:
        regressor = _regressor(student, guided_layer, train, hints, pool=pool, seed=config.seed)
    learner = _WithRegressor(student, regressor)
    data = TensorDataset(*with_teacher_logits(teacher, train).tensors, hints)
    with capture(student, [guided_layer]) as seen:

        def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
            inputs, labels, teacher_logits, hint = batch
            student_logits = model(inputs)  # also fills seen
            soft = distillation_loss(student_logits, teacher_logits, labels, temperature=temperature, alpha=alpha)
            return soft + beta * hint_loss(seen[guided_layer], hint, regressor)

        history = fit(learner, data, config, validation=validation, loss=loss, progress=progress)
    return HintFit(history, regressor)


class _UpTo(nn.Module):
    """r(v_g(x)): the student up to its guided layer, and the regressor on top."""

    def __init__(self, student: nn.Module, layer: str, regressor: nn.Module):
        super().__init__()
        self.student, self.layer, self.regressor = student, layer, regressor

    def forward(self, inputs: Tensor) -> Tensor:
        return self.regressor(run_to(self.student, self.layer, inputs))


class _WithRegressor(nn.Module):
    """The student, and beside it a regressor to be trained along; it answers as the student does."""

    def __init__(self, student: nn.Module, regressor: nn.Module):
        super().__init__()
        self.student, self.regressor = student, regressor

    def forward(self, inputs: Tensor) -> Tensor:
        return self.student(inputs)


def _regressor(
    student: nn.Module, layer: str, train: TensorDataset, hints: Tensor, *, pool: bool, seed: int
) -> nn.Module:
    shape = layer_outputs(student, train.tensors[0][:1], [layer])[layer].shape
    return regressor_for(tuple(shape), tuple(hints.shape), pool=pool, seed=seed)
