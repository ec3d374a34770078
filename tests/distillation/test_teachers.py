"""Several teachers: means by hand, against float64 definitions, and what the loss says of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax as scipy_softmax
from torch import nn
from torch.utils.data import TensorDataset

from course_lib.distillation.hinton import distillation_loss, soften, with_teacher_logits
from course_lib.distillation.teachers import (
    Ensemble,
    average_logits,
    average_probabilities,
    pair_teacher_logits,
    several_teachers_loss,
)
from course_lib.models.vision import mlp

# log 1, log 3 is the distribution (1/4, 3/4); two equal logits are (1/2, 1/2)
FIRST = torch.tensor([[0.0, math.log(3.0)]])
SECOND = torch.zeros(1, 2)


def logits_of(teachers=3, rows=5, classes=4, spread=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, classes, generator=generator) * spread for _ in range(teachers)]


def geometric_by_definition(logits, weights, temperature):
    """exp(sum_k w_k log p_k), divided by its sum: in float64, from probabilities."""
    logs = sum(
        weight * torch.from_numpy(scipy_log_softmax(z.double().numpy() / temperature, axis=-1))
        for weight, z in zip(weights, logits, strict=True)
    )
    return logs.exp() / logs.exp().sum(-1, keepdim=True)


def test_arithmetic_mean_by_hand():
    torch.testing.assert_close(average_probabilities([FIRST, SECOND]), torch.tensor([[3 / 8, 5 / 8]]))


def test_arithmetic_mean_with_weights_by_hand():
    # 3/4 of (1/4, 3/4) and 1/4 of (1/2, 1/2)
    got = average_probabilities([FIRST, SECOND], weights=[3, 1])
    torch.testing.assert_close(got, torch.tensor([[5 / 16, 11 / 16]]))


def test_geometric_mean_by_hand():
    # sqrt(1/4 * 1/2) : sqrt(3/4 * 1/2) = 1 : sqrt 3
    got = soften(average_logits([FIRST, SECOND]), 1.0)
    torch.testing.assert_close(got, torch.tensor([[1.0, math.sqrt(3)]]) / (1 + math.sqrt(3)))


def test_temperature_by_hand():
    # logits 0 and 2 log 3 at T = 2 are the distribution (1/4, 3/4)
    got = average_probabilities([2 * FIRST, SECOND], temperature=2.0)
    torch.testing.assert_close(got, torch.tensor([[3 / 8, 5 / 8]]))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("weights", [None, [1, 2, 5]])
def test_means_are_those_of_the_definition(temperature, weights):
    logits = logits_of()
    shares = [1 / 3] * 3 if weights is None else [weight / 8 for weight in weights]
    arithmetic = sum(
        share * torch.from_numpy(scipy_softmax(z.double().numpy() / temperature, axis=-1))
        for share, z in zip(shares, logits, strict=True)
    )
    torch.testing.assert_close(
        average_probabilities(logits, weights, temperature).double(), arithmetic, rtol=1e-5, atol=1e-7
    )
    geometric = geometric_by_definition(logits, shares, temperature)
    got = soften(average_logits(logits, weights), temperature).double()
    torch.testing.assert_close(got, geometric, rtol=1e-4, atol=1e-7)


def test_arithmetic_and_geometric_mean_differ():
    logits = logits_of()
    difference = average_probabilities(logits) - soften(average_logits(logits), 1.0)
    assert difference.abs().max() > 0.05


def test_small_probabilities_keep_their_digits():
    # exp(-80) is lost in float32 beside 1, not in the log space of the ensemble
    teachers = [nn.Identity(), nn.Identity()]
    got = Ensemble(teachers)(torch.tensor([[0.0, -80.0]]))
    torch.testing.assert_close(got, torch.tensor([[0.0, -80.0]]))


@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50))
def test_a_teacher_s_constant_changes_no_mean(seed, shift):
    first, second = logits_of(teachers=2, seed=seed)
    torch.testing.assert_close(
        average_probabilities([first, second + shift]), average_probabilities([first, second]), rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(
        soften(average_logits([first, second + shift]), 1.0),
        soften(average_logits([first, second]), 1.0),
        rtol=1e-3,
        atol=1e-5,
    )


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.2, 50))
def test_a_mean_lies_between_its_teachers_and_sums_to_one(seed, temperature):
    logits = logits_of(teachers=3, seed=seed)
    each = torch.stack([soften(z, temperature) for z in logits])
    got = average_probabilities(logits, [1, 2, 3], temperature)
    torch.testing.assert_close(got.sum(-1), torch.ones(5))
    assert (got <= each.max(0).values + 1e-6).all() and (got >= each.min(0).values - 1e-6).all()


def test_zero_weight_silences_a_teacher():
    logits = logits_of(teachers=2)
    torch.testing.assert_close(average_probabilities(logits, [1, 0]), soften(logits[0], 1.0))
    torch.testing.assert_close(average_logits(logits, [0, 2]), logits[1])


def test_sequences_keep_their_shape():
    logits = [torch.randn(2, 3, 4), torch.randn(2, 3, 4)]
    assert average_probabilities(logits).shape == average_logits(logits).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("logits", "weights", "temperature", "error", "message"),
    [
        ([], None, 1.0, ValueError, "at least one teacher"),
        (torch.zeros(2, 3), None, 1.0, TypeError, "logits is a Tensor; expected a list with one tensor"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], None, 1.0, ValueError, r"logits\[1\] has shape \(2, 4\)"),
        ([torch.zeros(2, 3, dtype=torch.int64)], None, 1.0, TypeError, r"logits\[0\] is torch.int64; expected"),
        ([FIRST, SECOND], [1.0], 1.0, ValueError, r"weights are \[1.0\]; expected 2 numbers"),
        ([FIRST, SECOND], [1.0, -1.0], 1.0, ValueError, "none below 0"),
        ([FIRST, SECOND], [0.0, 0.0], 1.0, ValueError, "not all 0"),
        ([FIRST, SECOND], [1.0, math.nan], 1.0, ValueError, "finite numbers"),
        ([FIRST, SECOND], None, 0.0, ValueError, "temperature"),
        ([FIRST, SECOND], None, math.inf, ValueError, "temperature"),
    ],
)
def test_bad_input(logits, weights, temperature, error, message):
    with pytest.raises(error, match=message):
        average_probabilities(logits, weights, temperature)


# Ensemble


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_ensemble_softens_to_the_mean_of_softened_distributions(temperature):
    teachers = [mlp([6, 8, 4], seed=seed) for seed in range(3)]
    inputs = torch.randn(5, 6) * 5
    logits = [teacher(inputs) for teacher in teachers]
    arithmetic = Ensemble(teachers, weights=[1, 1, 2], temperature=temperature)
    torch.testing.assert_close(
        soften(arithmetic(inputs), temperature), average_probabilities(logits, [1, 1, 2], temperature)
    )
    geometric = Ensemble(teachers, "geometric", weights=[1, 1, 2])
    torch.testing.assert_close(geometric(inputs), average_logits(logits, [1, 1, 2]))


def test_ensemble_of_one_is_the_teacher():
    teacher, inputs = mlp([6, 8, 4]), torch.randn(5, 6)
    torch.testing.assert_close(Ensemble([teacher], "geometric")(inputs), teacher(inputs))
    torch.testing.assert_close(soften(Ensemble([teacher])(inputs), 1.0), soften(teacher(inputs), 1.0))


@pytest.mark.parametrize("training", [True, False])
def test_ensemble_as_a_teacher_is_left_as_it_was(training):
    teachers = [mlp([6, 8, 4], dropout=0.5, seed=seed).train(training) for seed in range(2)]
    ensemble = Ensemble(teachers)
    assert ensemble.training is training
    before = [parameter.clone() for parameter in ensemble.parameters()]
    data = TensorDataset(torch.randn(30, 6), torch.zeros(30, dtype=torch.int64))
    first, second = (with_teacher_logits(ensemble, data).tensors[2] for _ in range(2))
    assert torch.equal(first, second), "dropout was active in the teacher's answers"
    assert all(module.training is training for module in ensemble.modules())
    assert all(torch.equal(old, new) for old, new in zip(before, ensemble.parameters(), strict=True))
    assert not first.requires_grad


@pytest.mark.parametrize(
    ("teachers", "mean", "error", "message"),
    [
        ([], "arithmetic", ValueError, "teachers is empty; expected at least one"),
        (nn.Sequential(nn.Linear(2, 2)), "arithmetic", TypeError, "teachers is a Sequential; expected a list"),
        ([torch.zeros(2)], "arithmetic", TypeError, "list of modules"),
        ([nn.Identity()], "harmonic", ValueError, "mean is 'harmonic'; expected 'arithmetic' or 'geometric'"),
    ],
)
def test_ensemble_bad_input(teachers, mean, error, message):
    with pytest.raises(error, match=message):
        Ensemble(teachers, mean)


# a loss for each teacher


def test_several_teachers_loss_by_hand():
    # the student says (1/2, 1/2): KL to the second teacher is 0, to the first 1/4 log 1/2 + 3/4 log 3/2
    divergence = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    loss = several_teachers_loss(torch.zeros(1, 2), [FIRST, SECOND], weights=[1, 3], temperature=1.0, alpha=1.0)
    assert loss.item() == pytest.approx(divergence / 4, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_its_gradient_is_that_of_the_arithmetic_mean_and_its_value_is_not(temperature):
    logits, weights = logits_of(teachers=3), [1, 2, 5]
    student = torch.randn(5, 4, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0])
    several = several_teachers_loss(student, logits, labels, weights=weights, temperature=temperature, alpha=0.7)
    mean = temperature * average_probabilities(logits, weights, temperature).log()
    one = distillation_loss(student, mean, labels, temperature=temperature, alpha=0.7)
    for_several, for_one = (torch.autograd.grad(loss, student)[0] for loss in (several, one))
    torch.testing.assert_close(for_several, for_one, rtol=1e-4, atol=1e-6)
    # the difference is how far the teachers are from their mean: alpha T^2 sum_k w_k KL(p_k || a)
    apart = sum(
        weight / 8 * distillation_loss(mean, z, temperature=temperature, alpha=1.0)
        for weight, z in zip(weights, logits, strict=True)
    )
    torch.testing.assert_close(several - one, 0.7 * apart, rtol=1e-4, atol=1e-6)
    assert apart > 0.01


def test_several_teachers_loss_bad_input():
    with pytest.raises(ValueError, match="expected 2 numbers"):
        several_teachers_loss(SECOND, [FIRST, SECOND], weights=[1], temperature=1.0, alpha=1.0)
    with pytest.raises(ValueError, match="labels"):
        several_teachers_loss(SECOND, [FIRST], temperature=1.0, alpha=0.5)


# a teacher of another modality


def paired(rows=40):
    pictures = torch.randn(rows, 1, 4, 4)
    labels = torch.arange(rows) % 3
    return TensorDataset(pictures, labels), TensorDataset(pictures.sum(-1).flatten(1), labels)  # rows' sums: (N, 4)


def test_pairs_hold_the_student_s_input_and_the_teacher_s_answer():
    teacher_data, student_data = paired()
    teacher = mlp([16, 8, 3], dropout=0.5).train()
    pairs = pair_teacher_logits(teacher, teacher_data, student_data)
    inputs, labels, logits = pairs.tensors
    assert torch.equal(inputs, student_data.tensors[0]) and torch.equal(labels, student_data.tensors[1])
    assert all(module.training for module in teacher.modules())
    with torch.no_grad():
        torch.testing.assert_close(logits, teacher.eval()(teacher_data.tensors[0]))
    assert not logits.requires_grad


def test_pairs_from_inputs_alone():
    teacher_data, student_data = paired()
    teacher = mlp([16, 8, 3])
    from_tensor = pair_teacher_logits(teacher, teacher_data.tensors[0], student_data)
    torch.testing.assert_close(
        from_tensor.tensors[2], pair_teacher_logits(teacher, teacher_data, student_data).tensors[2]
    )


def test_shuffled_pairs_are_noticed():
    teacher_data, student_data = paired()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = TensorDataset(*(tensor[order] for tensor in teacher_data.tensors))
    with pytest.raises(ValueError, match="not in the same order"):
        pair_teacher_logits(mlp([16, 8, 3]), shuffled, student_data)


def test_pairs_bad_input():
    teacher_data, student_data = paired()
    fewer = TensorDataset(*(tensor[:30] for tensor in teacher_data.tensors))
    with pytest.raises(ValueError, match="30 rows and student_data has 40"):
        pair_teacher_logits(mlp([16, 8, 3]), fewer, student_data)
    with pytest.raises(TypeError, match="teacher_data is a list; expected a tensor or a TensorDataset"):
        pair_teacher_logits(mlp([16, 8, 3]), [1, 2], student_data)
    with pytest.raises(TypeError, match="student_data is a Tensor; expected a TensorDataset of inputs and labels"):
        pair_teacher_logits(mlp([16, 8, 3]), teacher_data, torch.zeros(40, 4))
    with pytest.raises(ValueError, match="student_data holds no labels; expected a TensorDataset of inputs"):
        pair_teacher_logits(mlp([16, 8, 3]), teacher_data, TensorDataset(torch.zeros(40, 4)))
