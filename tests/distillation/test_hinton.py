"""Soft targets: by hand, against the paper's formulas in float64, against torchdistill, and as properties."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax as scipy_softmax
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from course_lib.distillation.hinton import distill, distillation_loss, soft_target_loss, soften, with_teacher_logits
from course_lib.models.vision import mlp
from course_lib.training import FitConfig, fit

# softmax of (0, log 3) is (1/4, 3/4)
STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]])
KL = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)  # of (1/4, 3/4) from (1/2, 1/2)


def pair(shape=(6, 5), seed=0, spread=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=dtype) * spread for _ in range(2))
    labels = torch.randint(0, shape[-1], shape[:-1], generator=generator)
    return student, teacher, labels


def loss_of_the_paper(student, teacher, labels, temperature, alpha):
    """Section 2 in NumPy and float64, one example at a time; KL for the soft term."""
    total = 0.0
    for z, v, y in zip(student.numpy(), teacher.numpy(), labels.numpy(), strict=True):
        p, q = scipy_softmax(v / temperature), scipy_softmax(z / temperature)
        soft = sum(pi * (math.log(pi) - math.log(qi)) for pi, qi in zip(p, q, strict=True))
        total += alpha * temperature**2 * soft - (1 - alpha) * scipy_log_softmax(z)[y]
    return total / len(labels)


# ---- soften


def test_soften_by_hand():
    torch.testing.assert_close(soften(TEACHER, 1.0), torch.tensor([[0.25, 0.75]]))
    # at T = 2 the odds are the square root: 1 to sqrt(3)
    torch.testing.assert_close(soften(TEACHER, 2.0), torch.tensor([[1.0, math.sqrt(3)]]) / (1 + math.sqrt(3)))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4, 20.0, 1e6])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_soften_is_scipy_s_softmax(temperature, shape):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 10
    expected = scipy_softmax(logits.numpy() / temperature, axis=-1)
    np.testing.assert_allclose(soften(logits, temperature).numpy(), expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("temperature", [0, 0.0, -1, math.inf, -math.inf, math.nan])
def test_temperature_out_of_range(temperature):
    with pytest.raises(ValueError, match="temperature is .*; expected a finite number above 0"):
        soften(TEACHER, temperature)
    with pytest.raises(ValueError, match="temperature is .*; expected a finite number above 0"):
        distillation_loss(STUDENT, TEACHER, temperature=temperature, alpha=1)


@pytest.mark.parametrize("temperature", ["4", None, [4.0]])
def test_temperature_of_another_type(temperature):
    with pytest.raises(TypeError, match="temperature is .*; expected a finite number above 0"):
        soften(TEACHER, temperature)


# ---- the loss


def test_loss_by_hand():
    labels = torch.tensor([1])
    assert distillation_loss(STUDENT, TEACHER, temperature=1.0, alpha=1.0).item() == pytest.approx(KL)
    assert distillation_loss(STUDENT, TEACHER, labels, temperature=1.0, alpha=0.0).item() == pytest.approx(math.log(2))
    # logits 0 and 2 log 3 at T = 2 are (1/4, 3/4) again: four times the same KL, for T squared
    half = distillation_loss(STUDENT, 2 * TEACHER, labels, temperature=2.0, alpha=0.5).item()
    assert half == pytest.approx(0.5 * 4 * KL + 0.5 * math.log(2))


def test_the_mean_is_over_examples_not_over_classes():
    once = distillation_loss(STUDENT, TEACHER, temperature=1.0, alpha=1.0)
    thrice = distillation_loss(STUDENT.repeat(3, 1), TEACHER.repeat(3, 1), temperature=1.0, alpha=1.0)
    torch.testing.assert_close(once, thrice)
    # classes that nobody believes in change nothing
    wide = [torch.cat([z, torch.full((1, 6), -60.0)], dim=1) for z in (STUDENT, TEACHER)]
    torch.testing.assert_close(distillation_loss(*wide, temperature=1.0, alpha=1.0), once)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_loss_is_the_paper_s(temperature, alpha):
    student, teacher, labels = pair()
    got = distillation_loss(student, teacher, labels, temperature=temperature, alpha=alpha)
    assert got.item() == pytest.approx(loss_of_the_paper(student, teacher, labels, temperature, alpha), rel=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_gradient_is_equation_2(temperature):
    student, teacher, labels = pair()
    student.requires_grad_()
    alpha, count, classes = 0.7, *student.shape
    distillation_loss(student, teacher, labels, temperature=temperature, alpha=alpha).backward()
    p, q = (scipy_softmax(z.detach().numpy() / temperature, axis=-1) for z in (teacher, student))
    hard = scipy_softmax(student.detach().numpy(), axis=-1) - np.eye(classes)[labels.numpy()]
    expected = (alpha * temperature**2 * (q - p) / temperature + (1 - alpha) * hard) / count
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=1e-9, atol=1e-14)


def test_gradient_against_finite_differences():
    student, teacher, labels = pair((3, 4))
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: distillation_loss(z, teacher, labels, temperature=3.0, alpha=0.4), (student,)
    )


def test_at_a_high_temperature_the_gradient_matches_logits():
    # Eq. 4: with logits of zero mean, dC/dz is (z - v) / (N T^2), N the number of classes; T^2 is in our loss
    student, teacher, _ = pair((4, 10))
    student, teacher = (z - z.mean(-1, keepdim=True) for z in (student, teacher))
    student.requires_grad_()
    errors = []
    for temperature in (20.0, 200.0, 2000.0):
        loss = distillation_loss(student, teacher, temperature=temperature, alpha=1.0)
        (gradient,) = torch.autograd.grad(loss, student)
        limit = (student - teacher).detach() / 10 / 4  # 10 classes, a mean over 4 examples
        errors.append(((gradient - limit).norm() / limit.norm()).item())
    assert errors[0] > 5 * errors[1] > 25 * errors[2] and errors[2] < 2e-3


def test_without_its_factor_the_gradient_shrinks_as_the_square_of_the_temperature():
    student, teacher, _ = pair((4, 10))
    student.requires_grad_()
    norms = []
    for temperature in (20.0, 40.0):
        loss = distillation_loss(student, teacher, temperature=temperature, alpha=1.0) / temperature**2
        norms.append(torch.autograd.grad(loss, student)[0].norm().item())
    assert norms[0] / norms[1] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_loss_and_gradient_are_torchdistill_s(temperature, alpha):
    losses = pytest.importorskip("torchdistill.losses.mid_level")
    student, teacher, labels = pair(dtype=torch.float32)
    mine, theirs = student.clone().requires_grad_(), student.clone().requires_grad_()
    # their alpha weighs the cross-entropy, and beta the soft term, which has T squared already
    peer = losses.KDLoss(
        student_module_path="s", student_module_io="output", teacher_module_path="t", teacher_module_io="output",
        temperature=temperature, alpha=1 - alpha, beta=alpha,
    )  # fmt: skip
    expected = peer({"s": {"output": theirs}}, {"t": {"output": teacher}}, labels)
    if alpha == 1:
        expected = expected * temperature**2  # they leave the factor out where there is no hard term
    got = distillation_loss(mine, teacher, labels, temperature=temperature, alpha=alpha)
    torch.testing.assert_close(got, expected)
    got.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_no_gradient_reaches_the_teacher():
    student, teacher, labels = pair()
    student.requires_grad_()
    teacher.requires_grad_()
    distillation_loss(student, teacher, labels, temperature=2.0, alpha=0.5).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


LOGITS = arrays(np.float64, (3, 4), elements=st.floats(-20, 20))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LOGITS, LOGITS, st.floats(0.5, 20))
def test_the_soft_term_is_never_negative(student, teacher, temperature):
    loss = distillation_loss(torch.tensor(student), torch.tensor(teacher), temperature=temperature, alpha=1.0).item()
    assert loss >= -1e-12 * temperature**2


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LOGITS, LOGITS, arrays(np.float64, (3, 1), elements=st.floats(-50, 50)), st.floats(0.5, 20))
def test_a_constant_in_each_row_changes_nothing(student, teacher, constant, temperature):
    labels = torch.tensor([0, 1, 2])
    student, teacher, constant = map(torch.tensor, (student, teacher, constant))
    kwargs = {"temperature": temperature, "alpha": 0.5}
    expected = distillation_loss(student, teacher, labels, **kwargs)
    torch.testing.assert_close(distillation_loss(student + constant, teacher, labels, **kwargs), expected)
    torch.testing.assert_close(distillation_loss(student, teacher + constant, labels, **kwargs), expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LOGITS, st.floats(-50, 50), st.floats(1, 20), st.floats(0.5, 5), st.integers(0, 3))
def test_zero_if_and_only_if_the_logits_agree_up_to_a_constant(student, constant, temperature, step, column):
    student = torch.tensor(student).clamp(-5, 5)
    same = distillation_loss(student, student + constant, temperature=temperature, alpha=1.0).item()
    assert same == pytest.approx(0, abs=1e-9)
    other = student.clone()
    other[0, column] += step
    assert distillation_loss(student, other, temperature=temperature, alpha=1.0).item() > 1e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher, labels = pair(dtype=torch.float32)
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
    loss = distillation_loss(student, teacher, labels, temperature=20.0, alpha=0.9)
    exact = loss_of_the_paper(student.detach().double(), teacher.double(), labels, 20.0, 0.9)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact, rel=1e-4)
    loss.backward()
    assert student.grad.dtype == dtype and student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_labels_may_be_any_integers(dtype):
    student, teacher, labels = pair()
    expected = distillation_loss(student, teacher, labels, temperature=2.0, alpha=0.5)
    got = distillation_loss(student, teacher, labels.to(dtype), temperature=2.0, alpha=0.5)
    torch.testing.assert_close(got, expected)


def test_class_156_of_bytes_is_not_taken_for_padding():
    student, teacher, _ = pair((2, 200))  # as a byte, -100 is 156
    labels = torch.tensor([156, 3])
    expected = distillation_loss(student, teacher, labels, temperature=1.0, alpha=0.5)
    got = distillation_loss(student, teacher, labels.to(torch.uint8), temperature=1.0, alpha=0.5)
    torch.testing.assert_close(got, expected)


# ---- sequences and padding


def padded(padding, fill=0.0):
    """A batch of two sequences of lengths 3 and 1 in ``3 + padding`` places, and the four positions that count."""
    student, teacher, labels = pair((2, 3 + padding, 5))
    labels[0, 3:], labels[1, 1:] = -100, -100
    counted = labels != -100
    student[~counted], teacher[~counted] = fill, fill
    return student, teacher, labels, counted


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("fill", [0.0, 1e4, math.nan, -math.inf])
def test_a_sequence_s_loss_is_that_of_its_valid_positions(padding, fill):
    student, teacher, labels, counted = padded(padding, fill)
    student.requires_grad_()
    loss = distillation_loss(student, teacher, labels, temperature=2.0, alpha=0.4)
    real = loss_of_the_paper(student.detach()[counted], teacher[counted], labels[counted], 2.0, 0.4)
    assert loss.item() == pytest.approx(real, rel=1e-10)
    loss.backward()
    assert (student.grad[~counted] == 0).all() and (student.grad[counted].abs().sum(-1) > 0).all()


def test_a_mask_counts_as_padding_does_and_combines_with_it():
    student, teacher, labels, counted = padded(2)
    kwargs = {"temperature": 2.0, "alpha": 1.0}
    expected = distillation_loss(student, teacher, labels, **kwargs)
    torch.testing.assert_close(distillation_loss(student, teacher, mask=counted, **kwargs), expected)
    mask = torch.ones_like(counted)
    mask[0, 0] = False
    both = distillation_loss(student, teacher, labels, mask=mask, **kwargs)
    kept = counted & mask
    torch.testing.assert_close(both, distillation_loss(student[kept], teacher[kept], **kwargs))


def test_a_label_out_of_range_in_a_sequence_with_padding():
    student, teacher, labels, _ = padded(2)
    labels[1, 0] = -1
    with pytest.raises(ValueError, match="labels hold -1; expected 0 to 4, .*, or -100"):
        distillation_loss(student, teacher, labels, temperature=2.0, alpha=0.4)


def test_an_example_without_a_label_learns_from_its_teacher_alone():
    student, teacher, labels = pair()
    labels[2] = -100
    got = distillation_loss(student, teacher, labels, temperature=2.0, alpha=0.4).item()
    soft = loss_of_the_paper(student, teacher, labels.clamp(min=0), 2.0, 1.0)
    hard = -sum(scipy_log_softmax(student[row].numpy())[labels[row]] for row in (0, 1, 3, 4, 5)) / 6
    assert got == pytest.approx(0.4 * soft + 0.6 * hard, rel=1e-10)


@pytest.mark.parametrize("fill", [0.0, math.nan, math.inf])
def test_nothing_but_padding_is_zero_with_a_zero_gradient(fill):
    student = torch.full((2, 3, 5), fill, requires_grad=True)
    labels = torch.full((2, 3), -100)
    loss = distillation_loss(student, torch.zeros(2, 3, 5), labels, temperature=2.0, alpha=0.5)
    loss.backward()
    assert loss.item() == 0 and torch.equal(student.grad, torch.zeros(2, 3, 5))


# ---- bad input


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match="alpha is .*; expected a number from 0"):
        distillation_loss(STUDENT, TEACHER, torch.tensor([0]), temperature=1.0, alpha=alpha)


def test_alpha_below_one_needs_labels():
    with pytest.raises(ValueError, match="alpha is 0.9 but there are no labels.*pass alpha=1"):
        distillation_loss(STUDENT, TEACHER, temperature=1.0, alpha=0.9)


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 3), (2, 4)), ((2, 3), (3, 3)), ((3,), (3,)), ((2, 1, 3), (2, 3))]
)
def test_shapes_have_to_agree(student, teacher):
    with pytest.raises(ValueError, match="student_logits are .* and teacher_logits .*; expected the same shape"):
        distillation_loss(torch.zeros(student), torch.zeros(teacher), temperature=1.0, alpha=1.0)


def test_logits_have_to_be_tensors():
    with pytest.raises(TypeError, match="teacher_logits is a list; expected a tensor"):
        distillation_loss(STUDENT, [[0.0, 1.0]], temperature=1.0, alpha=1.0)
    with pytest.raises(TypeError, match="logits is a ndarray; expected a tensor"):
        soften(np.zeros(3), 1.0)


@pytest.mark.parametrize("shape", [(2,), (1, 1), ()])
def test_labels_have_to_fit_the_logits(shape):
    with pytest.raises(ValueError, match=r"labels are .* and the logits \(1, 2\); expected \(N,\) and \(N, C\)"):
        distillation_loss(STUDENT, TEACHER, torch.zeros(shape).long(), temperature=1.0, alpha=0.5)
    with pytest.raises(ValueError, match=r"mask is .*; expected \(1,\)"):
        distillation_loss(STUDENT, TEACHER, mask=torch.zeros(shape).bool(), temperature=1.0, alpha=1.0)


@pytest.mark.parametrize("label", [-1, 2, 1000])
def test_labels_out_of_range(label):
    with pytest.raises(ValueError, match=f"labels hold {label}; expected 0 to 1"):
        distillation_loss(STUDENT, TEACHER, torch.tensor([label]), temperature=1.0, alpha=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_labels_of_another_type(dtype):
    with pytest.raises(TypeError, match=f"labels are {dtype}; expected class numbers"):
        distillation_loss(STUDENT, TEACHER, torch.ones(1, dtype=dtype), temperature=1.0, alpha=0.5)


def test_mask_of_another_type():
    with pytest.raises(TypeError, match="mask is torch.int64; expected torch.bool"):
        distillation_loss(STUDENT, TEACHER, mask=torch.ones(1).long(), temperature=1.0, alpha=1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("whose", [0, 1])
def test_logits_that_are_not_finite_make_a_loss_that_is_not(value, alpha, whose):
    *both, labels = pair((3, 4))
    both[whose][1, 2] = value
    assert not distillation_loss(*both, labels, temperature=2.0, alpha=alpha).isfinite()


def test_fit_says_so_and_leaves_the_student_as_it_was():
    inputs, labels = transfer_set().tensors
    student = mlp([6, 5, 3], seed=2)
    before = [parameter.detach().clone() for parameter in student.parameters()]
    data = TensorDataset(inputs, labels, torch.full((22, 3), math.nan))
    with pytest.raises(FloatingPointError, match="loss is nan in epoch 1"):
        fit(student, data, QUICK, loss=soft_target_loss(temperature=2.0, alpha=0.5), progress=False)
    assert all(map(torch.equal, before, student.parameters()))


class NoWaiting(TorchDispatchMode):
    """Raises for what would make the program wait for a GPU: a number or a count that Python needs to know."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in ("_local_scalar_dense", "nonzero", "masked_select", "equal"), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("temperature", [4.0, 1000.0])
def test_a_step_does_not_wait_for_a_gpu(temperature):
    student, teacher, labels = pair((2, 3, 5), dtype=torch.float32)
    student.requires_grad_()
    labels[0, 1:] = -100
    with NoWaiting():
        distillation_loss(student, teacher, labels, temperature=temperature, alpha=0.5).backward()
        distillation_loss(student[0], teacher[0], labels[1], temperature=temperature, alpha=0.5).backward()
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        student.sum().item()


# ---- digits at high temperatures


def exact_loss(student, teacher, temperature):
    """The soft term and its gradient without a difference of near numbers, in float64.

    KL(p, q) = log sum p exp(-c) with c = (v - z) / T less its mean under p; so it is log(1 + sum p (exp(-c) - 1 + c)).
    """
    z, v = student.detach().double().numpy(), teacher.double().numpy()
    p = scipy_softmax(v / temperature, axis=-1)
    c = (v - z) / temperature
    c = c - (p * c).sum(-1, keepdims=True)
    series = c**2 * (1 / 2 - c / 6 + c**2 / 24 - c**3 / 120 + c**4 / 720)
    kl = np.log1p((p * np.where(abs(c) < 0.01, series, np.expm1(-c) + c)).sum(-1, keepdims=True))
    gradient = temperature * p * np.expm1(-c - kl) / len(z)
    return temperature**2 * kl.mean(), gradient


@pytest.mark.parametrize("temperature", [0.5, 1, 4, 20, 21, 100, 300, 1e4, 1e5])
@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-4, 0.0])
@pytest.mark.parametrize("classes", [10, 1000])
def test_float32_keeps_its_digits_at_any_temperature(temperature, apart, classes):
    generator = torch.Generator().manual_seed(0)
    teacher = 3 * torch.randn(64, classes, generator=generator)
    student = (teacher + apart * torch.randn(64, classes, generator=generator)).requires_grad_()
    loss = distillation_loss(student, teacher, temperature=temperature, alpha=1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    expected, expected_gradient = exact_loss(student, teacher, temperature)
    ulp = 1.2e-7 * min(temperature, 20) ** 2  # one unit in the last place of a log-probability of -1, times T squared
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=2e-6, abs=ulp)
    assert loss.item() >= -ulp
    # the gradient is T (q - p) / N: below T = 20 it has the digits of p and q
    digits = 2.4e-7 * min(temperature, 20) * scipy_softmax(teacher.numpy() / temperature, axis=-1) / 64
    error = np.linalg.norm(gradient.numpy() - expected_gradient)
    assert error <= 2e-6 * np.linalg.norm(expected_gradient) + 2 * np.linalg.norm(digits)


# ---- distill


class Counted(nn.Module):
    """A model with dropout and batch norm that counts how many examples it was asked for, and in which mode."""

    def __init__(self, seed=7):
        super().__init__()
        self.body = mlp([6, 8, 3], dropout=0.5, seed=seed)
        self.norm = nn.BatchNorm1d(3)
        self.asked, self.modes = 0, set()

    def forward(self, inputs):
        self.asked += len(inputs)
        self.modes |= {module.training for module in self.modules()}
        return self.norm(self.body(inputs)) * 3


def transfer_set(count=22):
    generator = torch.Generator().manual_seed(3)
    return TensorDataset(torch.randn(count, 6, generator=generator), torch.arange(count) % 3)


QUICK = FitConfig(epochs=3, batch_size=8, learning_rate=1e-2)


def distilled(teacher, train, asking=False, **kwargs):
    """A student's history and weights: from answers kept before, or ``asking`` the teacher as the batches come."""
    student, settings = mlp([6, 5, 3], seed=2), {"temperature": 3.0, "alpha": 0.7}
    if asking:
        loss = soft_target_loss(**settings, teacher=teacher)
        history = fit(student, train, QUICK, loss=loss, progress=False, **kwargs)
    else:
        history = distill(student, teacher, train, QUICK, progress=False, **settings)
    return history, torch.cat([parameter.detach().flatten() for parameter in student.parameters()])


def shift(inputs, generator):
    return inputs + torch.randn(inputs.shape, generator=generator) * 0.0


def test_the_teacher_is_left_as_it_was():
    teacher = Counted()
    teacher.body[3].eval()  # half in training mode
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    modes = [module.training for module in teacher.modules()]
    for kwargs in ({}, {"asking": True}):
        distilled(teacher, transfer_set(), **kwargs)
        assert teacher.modes == {False}
        assert [module.training for module in teacher.modules()] == modes
        assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())


def test_the_teacher_is_left_as_it_was_when_training_fails():
    teacher = Counted()
    modes = [module.training for module in teacher.modules()]
    for kwargs in ({}, {"asking": True}):
        with pytest.raises(ValueError, match="labels hold 9"):
            distilled(teacher, TensorDataset(torch.zeros(4, 6), torch.full((4,), 9)), **kwargs)
        assert [module.training for module in teacher.modules()] == modes


def test_a_teacher_in_training_mode_teaches_the_same():
    training, evaluated = Counted().train(), Counted().eval()
    assert torch.equal(distilled(training, transfer_set())[1], distilled(evaluated, transfer_set())[1])
    assert training.training and not evaluated.training


def test_the_teacher_is_asked_once_for_each_example_when_the_inputs_stay_the_same():
    teacher = Counted()
    distilled(teacher, transfer_set(22))
    assert teacher.asked == 22


def test_the_teacher_is_asked_in_each_epoch_when_the_inputs_change():
    teacher = Counted()
    distilled(teacher, transfer_set(22), asking=True, augment=shift)
    assert teacher.asked == 3 * 22
    teacher.asked = 0
    distilled(teacher, DataLoader(transfer_set(22), batch_size=8), asking=True)
    assert teacher.asked == 3 * 22


def test_answers_kept_and_answers_as_they_come_give_the_same_student():
    kept, as_they_come = distilled(Counted(), transfer_set()), distilled(Counted(), transfer_set(), asking=True)
    torch.testing.assert_close(kept[1], as_they_come[1])
    assert kept[0].train_loss == pytest.approx(as_they_come[0].train_loss, rel=1e-5)
    in_order = DataLoader(with_teacher_logits(Counted(), transfer_set()), batch_size=8)
    student = mlp([6, 5, 3], seed=2)
    fit(student, in_order, QUICK, loss=soft_target_loss(temperature=3.0, alpha=0.7), progress=False)
    loaded = distilled(Counted(), DataLoader(transfer_set(), batch_size=8), asking=True)
    flat = torch.cat([parameter.detach().flatten() for parameter in student.parameters()])
    torch.testing.assert_close(flat, loaded[1])


def test_the_student_that_sees_an_augmented_picture_learns_the_teacher_s_answer_to_that_picture():
    asked, learnt = [], []
    teacher, student = nn.Linear(6, 3), nn.Linear(6, 3)
    teacher.register_forward_pre_hook(lambda module, args: asked.append(args[0].clone()))
    student.register_forward_pre_hook(lambda module, args: learnt.append(args[0].clone()))
    noise = lambda inputs, generator: inputs + torch.randn(inputs.shape, generator=generator)  # noqa: E731
    loss = soft_target_loss(temperature=1.0, alpha=1.0, teacher=teacher)
    fit(student, transfer_set(8), QUICK, loss=loss, augment=noise, progress=False)
    assert len(asked) == 3 and all(torch.equal(mine, its) for mine, its in zip(asked, learnt, strict=True))
    assert not torch.equal(asked[0].sort(0).values, asked[1].sort(0).values)  # anew in each epoch


def test_with_teacher_logits_takes_no_loader():
    with pytest.raises(TypeError, match="data is a DataLoader; expected a TensorDataset"):
        with_teacher_logits(nn.Identity(), DataLoader(transfer_set()))


def test_with_teacher_logits_adds_a_column_in_order():
    teacher, data = Counted(), transfer_set(5)
    more = with_teacher_logits(teacher, data)
    teacher.eval()
    assert len(more.tensors) == 3 and torch.equal(more.tensors[0], data.tensors[0])
    torch.testing.assert_close(more.tensors[2], teacher(data.tensors[0]).detach())
    assert not more.tensors[2].requires_grad


def test_soft_targets_alone_need_no_labels():
    inputs, labels = transfer_set().tensors
    student, other = mlp([6, 5, 3], seed=2), mlp([6, 5, 3], seed=2)
    kwargs = {"temperature": 3.0, "alpha": 1.0, "progress": False}
    distill(student, Counted(), TensorDataset(inputs), QUICK, **kwargs)
    distill(other, Counted(), TensorDataset(inputs, torch.full_like(labels, 99)), QUICK, **kwargs)
    for mine, its in zip(student.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, its)
    with pytest.raises(ValueError, match="transfer set holds no labels"):
        distill(student, Counted(), TensorDataset(inputs), QUICK, temperature=3.0, alpha=0.9, progress=False)


def test_nothing_of_a_dict_or_a_batch_that_ends_too_soon_is_taken_for_teacher_logits():
    loss = soft_target_loss(temperature=3.0, alpha=1.0)
    with pytest.raises(TypeError, match="the batch is a dict; .*a dict needs teacher="):
        loss(mlp([6, 3]), {"inputs": torch.zeros(2, 6), "labels": torch.zeros(2)})


class Tagger(nn.Module):
    """Tokens (N, L) to logits (N, L, V), which it gives as ``kind`` says."""

    def __init__(self, kind, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.kind, self.embed, self.head = kind, nn.Embedding(7, 4), nn.Linear(4, 7)

    def forward(self, input_ids):
        logits = self.head(self.embed(input_ids))
        return {"tensor": logits, "tuple": (logits, None), "object": SimpleNamespace(logits=logits)}[self.kind]


@pytest.mark.parametrize("kind", ["tensor", "tuple", "object"])
@pytest.mark.parametrize("alpha", [0.4, 1.0])
@pytest.mark.parametrize("form", ["kept", "asked", "dict"])
def test_sequences_leave_padding_out_whatever_a_model_gives(kind, alpha, form):
    student, teacher = Tagger(kind, 0), Tagger(kind, 1)
    tokens = torch.randint(7, (2, 5), generator=torch.Generator().manual_seed(0))
    labels = tokens.clone()
    labels[0, 3:] = -100
    z, v = (model.head(model.embed(tokens)).detach().double() for model in (student, teacher))
    counted, right = labels != -100, labels
    if form == "dict":  # as a language model's: logits at one place say the token at the next
        right = torch.cat([labels[:, 1:], torch.full((2, 1), -100)], dim=1)
        counted = right != -100
    expected = loss_of_the_paper(z[counted], v[counted], right[counted], 3.0, alpha)
    if form == "kept":
        data = with_teacher_logits(teacher, TensorDataset(tokens, labels))
        got = soft_target_loss(temperature=3.0, alpha=alpha)(student, data.tensors)
    else:
        batch = {"input_ids": tokens, "labels": labels} if form == "dict" else (tokens, labels)
        got = soft_target_loss(temperature=3.0, alpha=alpha, teacher=teacher)(student, batch)
    assert got.item() == pytest.approx(expected, rel=1e-5)
    got.backward()
    assert student.head.weight.grad.abs().sum() > 0 and teacher.head.weight.grad is None


def test_the_student_learns_its_teacher():
    teacher = mlp([6, 16, 3], seed=5)
    inputs = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    wanted = teacher(inputs).argmax(-1)
    student = mlp([6, 16, 3], seed=6)
    config = FitConfig(epochs=40, batch_size=20, learning_rate=1e-2)
    distill(student, teacher, TensorDataset(inputs), config, temperature=4.0, alpha=1.0, progress=False)
    before = (mlp([6, 16, 3], seed=6)(inputs).argmax(-1) == wanted).float().mean()
    after = (student(inputs).argmax(-1) == wanted).float().mean()
    assert before < 0.6 and after > 0.9


def test_distill_rejects_what_it_cannot_use_and_leaves_the_student_as_it_was():
    student = mlp([6, 5, 3], seed=2).train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    good = {"temperature": 3.0, "alpha": 0.7}
    for error, match, teacher, train, kwargs in [
        (ValueError, "temperature is 0", Counted(), transfer_set(), {**good, "temperature": 0}),
        (ValueError, "alpha is 2", Counted(), transfer_set(), {**good, "alpha": 2}),
        (ValueError, "data is empty", Counted(), TensorDataset(torch.zeros(0, 6), torch.zeros(0).long()), good),
        (TypeError, "data is a list", Counted(), [1, 2], good),
        (ValueError, "expected the same shape", mlp([6, 4]), transfer_set(), good),
    ]:
        with pytest.raises(error, match=match):
            distill(student, teacher, train, QUICK, progress=False, **kwargs)
        assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
        assert student.training
