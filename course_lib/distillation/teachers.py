"""Several teachers, and a teacher that sees something else.

Gray box: everything here needs the teachers' logits and nothing else from inside them.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015, arXiv 1503.02531), section 2:
the soft targets of an ensemble are "the arithmetic or geometric mean of their individual predictive
distributions". With K teachers, logits z_k, weights w_k that sum to one, and p_k = softmax(z_k / T):

    arithmetic   a = sum_k w_k p_k
    geometric    g = exp(sum_k w_k log p_k) / Z = softmax(sum_k w_k z_k / T)

The geometric mean is the softmax of the averaged logits because log p_k = z_k / T - (a number that does not
depend on the class), and the division by Z removes any such number. The arithmetic mean says "possible" where
any teacher says so; the geometric mean says "possible" only where all of them do.

A weighted sum of losses, one for each teacher, is the third way. With q for the student's distribution,

    sum_k w_k KL(p_k || q) = KL(a || q) + sum_k w_k KL(p_k || a),

and the last term does not contain q: the value differs, the gradient is that of the arithmetic mean.
(The geometric mean appears in the same way when the two arguments of KL change places.)

Cross-modal teachers follow Gupta, Hoffman and Malik, "Cross Modal Distillation for Supervision Transfer"
(2016, arXiv 1507.00448) in one idea only: paired data. The teacher sees one modality of an example, the
student another; they share the example. Here the logits are passed on, where that paper passes on features.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.checking import check_choice, check_number, check_type
from course_lib.distillation.hinton import distillation_loss
from course_lib.evaluation import predict_logits

MEANS = ("arithmetic", "geometric")


def average_probabilities(
    logits: Sequence[Tensor], weights: Sequence[float] | None = None, temperature: float = 1.0
) -> Tensor:
    """Arithmetic mean of the teachers' softened distributions: K tensors (..., C) -> (..., C).

    Args:
        logits: one tensor (..., C) for each teacher, all of one shape.
        weights: one number for each teacher, not negative; scaled to sum to one. None: all equal.
        temperature: T in softmax(z / T).

    Raises:
        TypeError: ``logits`` is not a list of floating-point tensors, or the temperature no number.
        ValueError: no teacher, different shapes, bad weights, or a temperature that is not above 0.
    """
    check_number("temperature", temperature, above=0)
    return _log_average_probabilities(_stack("logits", logits), _normalised(weights, len(logits)), temperature).exp()


def average_logits(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Weighted mean of the teachers' logits, (..., C); its softmax is the geometric mean, at any temperature.

    Takes the arguments of ``average_probabilities``, without the temperature: averaging and dividing by T
    change places freely.

    Raises:
        TypeError, ValueError: as ``average_probabilities``.
    """
    stacked = _stack("logits", logits)  # (K, ..., C)
    shares = _normalised(weights, len(logits)).to(stacked)
    return torch.tensordot(shares, stacked, dims=1)  # (K,) @ (K, ..., C) -> (..., C)


class Ensemble(nn.Module):
    """Several teachers that answer as one: a module from inputs to logits, to be used wherever a teacher is.

    With ``mean="geometric"`` the answer is the averaged logits. With ``mean="arithmetic"`` it is T log a, so
    that the softmax of the answer at the temperature T is the arithmetic mean a of the distributions softened
    at T. That holds at one temperature only, so give the temperature of the distillation here too; at the
    default, 1, the answer is log a.

    The teachers are shared, not copied. Eval mode and no_grad are the caller's, as for any module.

    Raises:
        TypeError, ValueError: ``teachers`` is no list of modules or empty, ``mean`` is neither of the two; else as
            ``average_probabilities``.
    """

    def __init__(
        self,
        teachers: Sequence[nn.Module],
        mean: str = "arithmetic",
        *,
        weights: Sequence[float] | None = None,
        temperature: float = 1.0,
    ):
        super().__init__()
        # a Sequential is a module and a sequence of modules too, but its layers are no teachers
        listed = isinstance(teachers, (list, tuple, nn.ModuleList))
        if not listed or not all(isinstance(teacher, nn.Module) for teacher in teachers):
            raise TypeError(f"teachers is a {type(teachers).__name__}; expected a list of modules")
        check_choice("mean", mean, MEANS)
        check_number("temperature", temperature, above=0)
        self.mean, self.temperature = mean, temperature
        self.weights = _normalised(weights, len(teachers)).tolist()
        self.teachers = nn.ModuleList(teachers)
        # a new module says that it is training; this one is what its teachers are
        self.training = self.teachers.training = any(teacher.training for teacher in teachers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N, ...), as each teacher takes them, to logits (N, C)."""
        logits = [teacher(inputs) for teacher in self.teachers]
        if self.mean == "geometric":
            return average_logits(logits, self.weights)
        weights = _normalised(self.weights, len(logits))
        return self.temperature * _log_average_probabilities(_stack("logits", logits), weights, self.temperature)


def several_teachers_loss(
    student_logits: Tensor,
    teachers_logits: Sequence[Tensor],
    labels: Tensor | None = None,
    *,
    weights: Sequence[float] | None = None,
    temperature: float,
    alpha: float,
) -> Tensor:
    """A distillation loss for each teacher, summed with weights.

        alpha T^2 sum_k w_k KL(p_k || q) + (1 - alpha) CE(labels, student)

    The alternative to averaging the teachers first. Its gradient is that of the arithmetic mean (the head of
    this file says why), so it is the choice when the teachers' terms are to be looked at, or weighted anew,
    one by one.

    ``teachers_logits`` and ``weights`` are those of ``average_probabilities``, the others of ``distillation_loss``.

    Raises:
        TypeError, ValueError: as ``average_probabilities`` and ``distillation_loss``.
    """
    each = _stack("teachers_logits", teachers_logits)  # (K, ..., C)
    losses = [distillation_loss(student_logits, z, labels, temperature=temperature, alpha=alpha) for z in each]
    return (torch.stack(losses) * _normalised(weights, len(each)).to(losses[0])).sum()


def pair_teacher_logits(
    teacher: nn.Module, teacher_data: TensorDataset | Tensor, student_data: TensorDataset
) -> TensorDataset:
    """What a teacher says of its own modality, laid beside the student's.

    Row i of both must be the same example. Where ``teacher_data`` has labels too, they are compared, which
    catches two data sets in different orders: a mistake that raises no error by itself and teaches the
    student noise. The teacher answers in eval mode without gradients, and is left in the mode that it was in.

    Args:
        teacher: module from its modality to logits (N, C).
        teacher_data: inputs (N, ...) of the teacher, or a data set (inputs, labels).
        student_data: data set (inputs, labels) of the student.

    Returns:
        TensorDataset of inputs (N, ...), labels (N,), teacher logits (N, C).

    Raises:
        TypeError: the data are not of the kinds above.
        ValueError: the student's have no labels, the numbers of rows differ, or labels do.
    """
    if isinstance(teacher_data, Tensor):
        teacher_data = TensorDataset(teacher_data)
    check_type("teacher_data", teacher_data, TensorDataset, "a tensor or a TensorDataset")
    check_type("student_data", student_data, TensorDataset, "a TensorDataset of inputs and labels")
    if len(student_data.tensors) < 2:
        raise ValueError("student_data holds no labels; expected a TensorDataset of inputs and labels")
    inputs, labels = student_data.tensors[:2]
    if len(teacher_data) != len(student_data):
        raise ValueError(
            f"teacher_data has {len(teacher_data)} rows and student_data has {len(student_data)}: "
            "row i of both must be the same example"
        )
    if len(teacher_data.tensors) > 1:
        differ = (teacher_data.tensors[1].cpu() != labels.cpu()).nonzero().flatten().tolist()
        if differ:
            raise ValueError(
                f"teacher_data and student_data disagree on {len(differ)} of {len(labels)} labels, "
                f"first in row {differ[0]}: the two are not in the same order"
            )
    return TensorDataset(inputs, labels, predict_logits(teacher, teacher_data))


def _stack(name: str, logits: Sequence[Tensor]) -> Tensor:
    """Checked and stacked: K tensors (..., C) -> (K, ..., C). ``name`` is that of the argument, for the errors."""
    check_type(name, logits, (list, tuple), "a list with one tensor for each teacher")
    if not logits:
        raise ValueError(f"{name} is empty; expected at least one teacher")
    for position, tensor in enumerate(logits):
        check_type(f"{name}[{position}]", tensor, Tensor, "a tensor")
        if not tensor.is_floating_point():
            raise TypeError(f"{name}[{position}] is {tensor.dtype}; expected a floating-point tensor")
        if tensor.shape != logits[0].shape:
            shapes = f"{name}[{position}] has shape {tuple(tensor.shape)} and {name}[0] {tuple(logits[0].shape)}"
            raise ValueError(f"{shapes}; expected the same shape")
    return torch.stack(tuple(logits))


def _normalised(weights: Sequence[float] | None, count: int) -> Tensor:
    """Weights that sum to one, (K,), in float64."""
    if count == 0:
        raise ValueError("teachers is empty; expected at least one")
    values = torch.tensor([1.0] * count if weights is None else list(weights), dtype=torch.float64)
    if values.shape != (count,):
        raise ValueError(f"weights are {values.tolist()}; expected {count} numbers, one for each teacher")
    if not bool(values.isfinite().all()) or bool((values < 0).any()) or float(values.sum()) == 0.0:
        raise ValueError(f"weights are {values.tolist()}; expected finite numbers, none below 0 and not all 0")
    return values / values.sum()


def _log_average_probabilities(stacked: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """log sum_k w_k softmax(z_k / T), (K, ..., C) -> (..., C)."""
    # in log space a small share keeps its digits; a weight of 0 becomes -inf, which drops that teacher
    log_weights = weights.log().to(stacked).reshape(-1, *[1] * (stacked.dim() - 1))  # (K, 1, ..., 1)
    return torch.logsumexp(log_weights + F.log_softmax(stacked / temperature, dim=-1), dim=0)
