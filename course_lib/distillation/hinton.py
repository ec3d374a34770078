r"""Knowledge distillation with soft targets.

Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), sections 2 and 3.

====================  ==========================================================================================
paper                 here
====================  ==========================================================================================
:math:`T`             ``temperature``
:math:`z_i, v_i`      ``student_logits``, ``teacher_logits``
:math:`q_i, p_i`      ``soften(student_logits, T)``, ``soften(teacher_logits, T)``   (Eq. 1)
====================  ==========================================================================================

The objective, with the weight ``alpha`` of the soft targets:

.. math:: L = \alpha\,T^2\,KL(p \,\|\, q) + (1-\alpha)\,CE(y, \mathrm{softmax}(z))

The paper writes cross-entropy where the first term has KL: the two differ by the entropy of ``p``, which the student
cannot change, so the gradients are equal, and KL is zero when the student agrees with its teacher. The gradient of
the first term without its factor is :math:`(q_i - p_i)/T` (Eq. 2), and shrinks as :math:`1/T^2` (Eq. 3): hence T².

A distillation is ``fit`` with this loss, on data to which the teacher's logits were added (``distill`` is that call)::

    data = with_teacher_logits(teacher, train)
    fit(student, data, config, loss=soft_target_loss(temperature=4, alpha=0.9))

Gray box: only the teacher's logits are used.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.utils.data import TensorDataset

from course_lib.checking import check_number, check_type
from course_lib.device import device_of, evaluating
from course_lib.evaluation import (
    INTEGERS,
    PADDING_LABEL,
    Batch,
    answer,
    check_labels,
    labels_of,
    predict_logits,
    to_device,
)
from course_lib.training import FitConfig, History, Loss, fit

FLOAT64_ABOVE = 20  # the temperature from which float32 has too few digits


def soften(logits: Tensor, temperature: float) -> Tensor:
    """Softmax of ``logits / temperature`` over the last dimension (Eq. 1).

    Shapes: ``(..., C)`` -> ``(..., C)``, each row a distribution.

    Raises:
        ValueError: ``temperature`` is not a finite number above 0.
        TypeError: ``logits`` is no tensor, or ``temperature`` no number.
    """
    check_type("logits", logits, Tensor, "a tensor")
    check_number("temperature", temperature, above=0)
    return torch.softmax(logits / temperature, dim=-1)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float,
    alpha: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Soft targets weighed against hard labels: ``alpha T² KL(p, q) + (1 - alpha) CE``, a mean over the positions.

    Logits that are nan or infinite make the loss so too; nothing here waits for a GPU to find that out.

    Args:
        student_logits: ``(N, C)``, or ``(N, L, V)`` for a sequence.
        teacher_logits: the same shape; no gradient flows into it.
        labels: ``(N,)`` or ``(N, L)``, of an integer type. Without labels there is only the soft term, and ``alpha``
            has to be 1. Positions of a sequence that hold -100 count in neither term; an example ``(N,)`` that holds it
            has no hard term.
        temperature: of both models, above 0.
        alpha: weight of the soft targets, from 0 to 1.
        mask: boolean, shaped like the labels; positions that are false count in neither term.

    Returns:
        a scalar, float32 for logits of a smaller format; zero, with a zero gradient, when no position counts.

    Raises:
        ValueError: an argument is out of range, or shapes differ.
        TypeError: labels are not integers, or an argument is of another type.
    """
    _check(student_logits, teacher_logits, labels, temperature, alpha, mask)
    student, teacher = _at_least_float32(student_logits), _at_least_float32(teacher_logits.detach())
    targets, count = None if labels is None else labels.long(), len(student)
    if mask is not None or student.dim() > 2:
        student, teacher, targets, count = _without_padding(student, teacher, targets, mask)
    log_q = log_softmax(_precise(student, temperature) / temperature, dim=-1)
    log_p = log_softmax(_precise(teacher, temperature) / temperature, dim=-1)
    kl = (log_p.exp() * (log_p - log_q)).sum() / count
    loss = alpha * temperature**2 * kl
    if targets is not None:
        try:
            loss = loss + (1 - alpha) * (cross_entropy(student, targets, reduction="sum") / count)
        except IndexError:  # a label out of range, to be put clearly
            check_labels(labels, student_logits)
            raise
    return loss.to(student.dtype)


def with_teacher_logits(
    teacher: nn.Module, data: TensorDataset, *, device: str | torch.device | None = None
) -> TensorDataset:
    """``data`` with one more column: the teacher's logits ``(N, C)`` or ``(N, L, V)`` for the inputs.

    The teacher answers once, in eval mode and without gradients, and is left as it was. For a ``DataLoader``, or inputs
    that are augmented in each epoch, give the teacher to ``soft_target_loss`` instead.

    Raises:
        TypeError: ``data`` is no ``TensorDataset``, or ``teacher`` no module.
        ValueError: ``data`` is empty.
    """
    check_type("data", data, TensorDataset, "a TensorDataset (for a loader: soft_target_loss(teacher=...))")
    return TensorDataset(*data.tensors, predict_logits(teacher, data, device=device))


def soft_target_loss(*, temperature: float, alpha: float, teacher: nn.Module | None = None) -> Loss:
    """``distillation_loss`` for ``training.fit``, on batches (inputs, labels, ..., teacher logits last).

    With a ``teacher`` it is asked for its logits as the batches come, which may then be dicts. It answers in eval mode,
    without gradients, on the device where it lies.

    With ``alpha`` 1 there need not be labels. If there are, they only say which positions of a sequence are padding.

    Raises:
        TypeError, ValueError: ``temperature`` or ``alpha`` is no number, or out of range.
    """
    check_number("temperature", temperature, above=0)
    check_number("alpha", alpha, least=0, most=1)

    def loss(student: nn.Module, batch: Batch) -> Tensor:
        if teacher is None:
            check_type("the batch", batch, (tuple, list), "a tuple that ends in teacher logits; a dict needs teacher=")
            batch, teacher_logits = batch[:-1], batch[-1]
        else:
            teacher_logits = _ask(teacher, batch)
        return batch_loss(student, batch, teacher_logits, temperature=temperature, alpha=alpha)

    return loss


def batch_loss(student: nn.Module, batch: Batch, teacher_logits: Tensor, *, temperature: float, alpha: float) -> Tensor:
    """``distillation_loss`` of what ``student`` answers to ``batch``, (inputs, labels, ...) or a dict.

    Raises:
        TypeError, ValueError: as ``distillation_loss``; ``alpha`` is below 1 and the batch has no labels.
    """
    student_logits, labels, mask = answer(student, batch), None, None
    teacher_logits = teacher_logits.to(student_logits.device)
    has_labels = batch.get("labels") is not None if isinstance(batch, Mapping) else len(batch) > 1
    if alpha < 1 or (has_labels and student_logits.dim() > 2):
        labels = labels_of(student, batch, "the transfer set")
    if alpha == 1 and labels is not None:
        labels, mask = None, labels.long() != PADDING_LABEL
    return distillation_loss(student_logits, teacher_logits, labels, temperature=temperature, alpha=alpha, mask=mask)


def distill(
    student: nn.Module,
    teacher: nn.Module,
    train: TensorDataset,
    config: FitConfig | None = None,
    *,
    temperature: float,
    alpha: float,
    progress: bool = True,
) -> History:
    """Train ``student`` in place on the teacher's soft targets for ``train``; the teacher is left as it was.

    Raises:
        TypeError, ValueError: as ``with_teacher_logits``, ``soft_target_loss`` and ``training.fit``.
    """
    loss = soft_target_loss(temperature=temperature, alpha=alpha)
    return fit(student, with_teacher_logits(teacher, train), config, loss=loss, progress=progress)


def _ask(teacher: nn.Module, batch: Batch) -> Tensor:
    with evaluating(teacher), torch.no_grad():
        return answer(teacher, to_device(batch, device_of(teacher)))


def _at_least_float32(logits: Tensor) -> Tensor:
    """Half precision has too few digits for the small differences between two distributions."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def _precise(logits: Tensor, temperature: float) -> Tensor:
    """Softened, two distributions differ by about 1 / T, and T² makes what was lost in that large again."""
    if temperature <= FLOAT64_ABOVE or logits.device.type == "mps":  # GPUs of Apple have no float64
        return logits
    return logits.double()


def _without_padding(
    student: Tensor, teacher: Tensor, labels: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | int]:
    """As rows (positions, C) and (positions,), so that a row that does not count adds 0; and how many do."""
    student, teacher = student.flatten(0, -2), teacher.flatten(0, -2)
    counted = None if mask is None else mask.flatten()
    if labels is not None:
        labels = labels.flatten()
        counted = labels != PADDING_LABEL if counted is None else counted & (labels != PADDING_LABEL)
        labels = labels.masked_fill(~counted, PADDING_LABEL)
    if counted is None:
        return student, teacher, labels, len(student)
    left_out = ~counted.unsqueeze(-1)  # also where the logits there are nan: no row is picked out, no GPU waited for
    return student.masked_fill(left_out, 0), teacher.masked_fill(left_out, 0), labels, counted.sum().clamp(min=1)


def _check(student, teacher, labels, temperature, alpha, mask) -> None:
    check_number("temperature", temperature, above=0)
    check_number("alpha", alpha, least=0, most=1)  # 0: labels alone, 1: soft targets alone
    check_type("student_logits", student, Tensor, "a tensor")
    check_type("teacher_logits", teacher, Tensor, "a tensor")
    if student.shape != teacher.shape or student.dim() < 2:
        raise ValueError(
            f"student_logits are {tuple(student.shape)} and teacher_logits {tuple(teacher.shape)}; "
            "expected the same shape, (N, C) or (N, L, V)"
        )
    if labels is None and alpha != 1:
        raise ValueError(f"alpha is {alpha} but there are no labels to weigh the soft targets against: pass alpha=1")
    if labels is not None and (labels.shape != student.shape[:-1] or labels.dtype not in INTEGERS):
        check_labels(labels, student)
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"mask is {mask.dtype}; expected torch.bool")
    if mask is not None and mask.shape != student.shape[:-1]:
        raise ValueError(f"mask is {tuple(mask.shape)}; expected {tuple(student.shape[:-1])} like the labels")
