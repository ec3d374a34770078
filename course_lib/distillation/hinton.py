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

Gray box: only the teacher's logits are used.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.data import DataLoader, TensorDataset

from course_lib.checking import check_finite, check_number, check_type
from course_lib.device import evaluating, pick_device, placed
from course_lib.evaluation import INTEGERS, Batch, answer, check_data, labels_of, predict_logits
from course_lib.training import FitConfig, History, Loss, fit

if TYPE_CHECKING:
    from accelerate import Accelerator


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
    ignore_index: int = -100,
) -> Tensor:
    """Soft targets weighed against hard labels: ``alpha T² KL(p, q) + (1 - alpha) CE``, a mean over the positions.

    Args:
        student_logits: ``(N, C)``, or ``(N, L, V)`` for a sequence.
        teacher_logits: the same shape; no gradient flows into it.
        labels: ``(N,)`` or ``(N, L)``, of an integer type. Positions that hold ``ignore_index`` count in neither term.
            Without labels there is only the soft term, and ``alpha`` has to be 1.
        temperature: of both models, above 0.
        alpha: weight of the soft targets, from 0 to 1.
        mask: boolean, shaped like the labels; positions that are false count in neither term.

    Returns:
        a scalar, float32 for logits of a smaller format; zero, with a zero gradient, when no position counts.

    Raises:
        ValueError: an argument is out of range, shapes differ, or logits that count are not finite.
        TypeError: labels are not integers, or an argument is of another type.
    """
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher_logits)):
        check_type(name, logits, Tensor, "a tensor")
    check_number("temperature", temperature, above=0)
    _check_alpha(alpha, labels)
    _check_shapes(student_logits, teacher_logits, labels, mask)
    labels = None if labels is None else labels.long()
    counted = _counted(student_logits, labels, mask, ignore_index)
    student, teacher = _at_least_float32(student_logits), _at_least_float32(teacher_logits.detach())
    if counted is not None:  # (N, L, V) -> (positions that count, V)
        student, teacher = student[counted], teacher[counted]
        labels = labels[counted] if labels is not None else None
    student, teacher = student.flatten(0, -2), teacher.flatten(0, -2)  # (..., C) -> (P, C)
    if len(student) == 0:
        return student.sum()
    log_q, log_p = log_softmax(student / temperature, dim=-1), log_softmax(teacher / temperature, dim=-1)
    # "batchmean" divides by the number of rows; "mean" would divide by the number of classes as well
    loss = alpha * temperature**2 * kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    if labels is not None:
        loss = loss + (1 - alpha) * cross_entropy(student, labels.flatten())
    if not math.isfinite(loss.item()):
        check_finite({"student_logits": student, "teacher_logits": teacher}, what="")
    return loss


def with_teacher_logits(
    teacher: nn.Module, data: TensorDataset, *, device: str | torch.device | None = None
) -> TensorDataset:
    """``data`` with one more column: the teacher's logits ``(N, C)`` for the inputs. The teacher is left as it was.

    Raises:
        TypeError: ``data`` is no ``TensorDataset``, or ``teacher`` no module.
        ValueError: ``data`` is empty.
    """
    check_type("data", data, TensorDataset, "a TensorDataset")
    return TensorDataset(*data.tensors, predict_logits(teacher, data, device=device))


def soft_target_loss(*, temperature: float, alpha: float) -> Loss:
    """``distillation_loss`` for ``training.fit``, on batches (inputs, labels, ..., teacher logits last).

    In a batch that is a dict, the teacher's logits are the entry ``teacher_logits``.

    Raises:
        TypeError, ValueError: ``temperature`` or ``alpha`` is no number, or out of range.
    """
    check_number("temperature", temperature, above=0)
    _check_alpha(alpha, ())

    def loss(student: nn.Module, batch: Batch) -> Tensor:
        if isinstance(batch, Mapping):
            batch = dict(batch)
            teacher_logits = batch.pop("teacher_logits")
        else:
            *batch, teacher_logits = batch
        if alpha < 1 and not isinstance(batch, Mapping) and len(batch) < 2:
            raise ValueError(f"the transfer set holds no labels; expected (inputs, labels), or alpha=1 and not {alpha}")
        # the transfer set needs no labels for soft targets alone
        labels = labels_of(student, batch, "the transfer set") if alpha < 1 else None
        return distillation_loss(answer(student, batch), teacher_logits, labels, temperature=temperature, alpha=alpha)

    return loss


def distill(
    student: nn.Module,
    teacher: nn.Module,
    train: TensorDataset | DataLoader,
    config: FitConfig | None = None,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    validation: TensorDataset | DataLoader | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
    checkpoint_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    accelerator: "Accelerator | None" = None,
    progress: bool = True,
) -> History:
    """Train ``student`` in place on the teacher's soft targets; the teacher is left as it was.

    The teacher answers in eval mode. It answers each example once, before training, if the inputs stay the same in
    every epoch (a ``TensorDataset`` without ``augment``), and each batch anew otherwise.

    Args:
        train: the transfer set, (inputs, labels). With ``alpha`` 1 the labels are not looked at.
        temperature, alpha: of ``distillation_loss``.
        config and the others: of ``training.fit``.

    Raises:
        TypeError, ValueError: as ``distillation_loss`` and ``training.fit``; the student is then as it was.
    """
    loss = soft_target_loss(temperature=temperature, alpha=alpha)
    check_data("train", train)
    device = accelerator.device if accelerator else pick_device(device)
    with evaluating(teacher), placed(teacher, device):
        if isinstance(train, TensorDataset) and augment is None:
            train = with_teacher_logits(teacher, train, device=device)
        else:
            loss = _asking(teacher, loss)
        return fit(
            student,
            train,
            config,
            validation=validation,
            loss=loss,
            augment=augment,
            after_step=after_step,
            checkpoint_dir=checkpoint_dir,
            device=device,
            accelerator=accelerator,
            progress=progress,
        )


def _asking(teacher: nn.Module, loss: Loss) -> Loss:
    """``loss`` on batches to which the teacher's logits are added as they come."""

    def ask(student: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher_logits = answer(teacher, batch)
        if isinstance(batch, Mapping):
            return loss(student, {**batch, "teacher_logits": teacher_logits})
        return loss(student, (*batch, teacher_logits))

    return ask


def _at_least_float32(logits: Tensor) -> Tensor:
    """Half precision has too few digits for the small differences between two distributions."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def _check_alpha(alpha: float, labels) -> None:
    check_number("alpha", alpha, least=0, most=1)  # 0: labels alone, 1: soft targets alone
    if labels is None and alpha != 1:
        raise ValueError(f"alpha is {alpha} but there are no labels to weigh the soft targets against: pass alpha=1")


def _check_shapes(student: Tensor, teacher: Tensor, labels: Tensor | None, mask: Tensor | None) -> None:
    if student.shape != teacher.shape or student.dim() < 2:
        raise ValueError(
            f"student_logits are {tuple(student.shape)} and teacher_logits {tuple(teacher.shape)}; "
            "expected the same shape, (N, C) or (N, L, V)"
        )
    for name, tensor in (("labels", labels), ("mask", mask)):
        if tensor is not None and tensor.shape != student.shape[:-1]:
            raise ValueError(f"{name} are {tuple(tensor.shape)}; expected {tuple(student.shape[:-1])} like the logits")
    if labels is not None and labels.dtype not in INTEGERS:
        raise TypeError(f"labels are {labels.dtype}; expected class numbers, torch.int64")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"mask is {mask.dtype}; expected torch.bool")


def _counted(logits: Tensor, labels: Tensor | None, mask: Tensor | None, ignore_index: int) -> Tensor | None:
    """Which positions count, shaped like the labels; nothing if all do. Checks the range of the labels that count."""
    counted = mask
    if labels is not None:
        kept = labels != ignore_index
        wrong = labels[kept & ((labels < 0) | (labels >= logits.shape[-1]))]
        if len(wrong):
            raise ValueError(f"labels hold {wrong[0].item()}; expected 0 to {logits.shape[-1] - 1}, or {ignore_index}")
        counted = kept if mask is None else kept & mask
    return None if counted is None or bool(counted.all()) else counted
