"""FitNets: the loss by hand, its gradient in closed form, what each stage may change."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from course_lib.activations import layer_outputs
from course_lib.distillation.hinton import distill
from course_lib.distillation.hints import distill_with_hints, fit_hints, hint_loss, regressor_for
from course_lib.evaluation import predict_logits
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.training import FitConfig

QUICK = FitConfig(epochs=2, batch_size=16)


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def data(rows=48, shape=(1, 8, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(rows, *shape, generator=generator), torch.arange(rows) % 3)


def same(before, after):
    return [torch.equal(before[name], after[name]) for name in before]


# the loss


def test_loss_by_hand():
    # rows (1, 2) and (0, 0) against zeros: squares sum to 5 and 0; half of their mean over two rows
    guided = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert hint_loss(guided, torch.zeros(2, 2)).item() == 0.5 * (5 + 0) / 2


def test_loss_with_a_regressor_by_hand():
    # r(v) = 2 v1 + 1 = 7; the hint is 4: half of 3 squared
    regressor = nn.Linear(1, 1)
    regressor.weight.data.fill_(2.0)
    regressor.bias.data.fill_(1.0)
    loss = hint_loss(torch.tensor([[3.0]]), torch.tensor([[4.0]]), regressor)
    assert loss.item() == 4.5


def test_loss_of_pictures_sums_over_channels_rows_and_columns():
    assert hint_loss(torch.ones(7, 2, 3, 5), torch.zeros(7, 2, 3, 5)).item() == 0.5 * 2 * 3 * 5


def test_gradient_is_the_closed_form():
    # L = 1/(2N) sum_n ||u - (W v + b)||^2: dL/dv = -(u - r) W / N, dL/dW = -(u - r)^T v / N, dL/db = -sum (u - r) / N
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    u = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    regressor = regressor_for((6, 3), (6, 5)).double()
    residual = (u - regressor(v)).detach()
    got = torch.autograd.grad(hint_loss(v, u, regressor), [v, regressor.weight, regressor.bias])
    torch.testing.assert_close(got[0], -residual @ regressor.weight / 6)
    torch.testing.assert_close(got[1], -residual.T @ v / 6)
    torch.testing.assert_close(got[2], -residual.sum(0) / 6)


def test_no_gradient_into_the_teacher():
    hint = torch.randn(2, 3, requires_grad=True)
    guided = torch.randn(2, 3, requires_grad=True)
    hint_loss(guided, hint).backward()
    assert hint.grad is None and guided.grad is not None


def test_loss_of_different_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\) and the teacher's \(2, 4\).*regressor_for"):
        hint_loss(torch.zeros(2, 3), torch.zeros(2, 4))


# the regressor


@pytest.mark.parametrize(
    ("guided", "hint", "kind"),
    [
        ((8, 3), (8, 5), nn.Linear),
        ((8, 7, 3), (8, 7, 5), nn.Linear),
        ((8, 3, 4, 4), (8, 5, 4, 4), nn.Conv2d),
    ],
)
def test_regressor_by_shape(guided, hint, kind):
    regressor = regressor_for(guided, hint)
    assert type(regressor) is kind
    assert regressor(torch.randn(guided)).shape == hint


def test_a_1x1_convolution_is_one_linear_map_at_every_place():
    regressor = regressor_for((2, 3, 4, 4), (2, 5, 4, 4))
    features = torch.randn(2, 3, 4, 4)
    by_einsum = torch.einsum("oc,nchw->nohw", regressor.weight[:, :, 0, 0], features)
    torch.testing.assert_close(regressor(features), by_einsum + regressor.bias[:, None, None])


def test_different_grids_are_pooled_only_when_asked():
    with pytest.raises(ValueError, match=r"8x8 in the student, 4x4 in the teacher.*pool=True"):
        regressor_for((2, 3, 8, 8), (2, 5, 4, 4))
    pooled = regressor_for((2, 3, 8, 8), (2, 5, 4, 4), pool=True)
    assert pooled(torch.randn(2, 3, 8, 8)).shape == (2, 5, 4, 4)


def test_regressor_s_seed():
    first, again, other = (regressor_for((1, 3), (1, 5), seed=seed).weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("guided", "hint", "message"),
    [
        ((2, 3), (2, 5, 4, 4), "same kind"),
        ((2,), (2,), r"expected two shapes \(N, D\)"),
        ((2, 7, 3), (2, 6, 5), "lengths L differ, 7 and 6"),
    ],
)
def test_shapes_that_no_regressor_connects(guided, hint, message):
    with pytest.raises(ValueError, match=message):
        regressor_for(guided, hint)


# stage 1


def test_stage_1_trains_the_student_up_to_its_guided_layer_only():
    student, teacher = SmallConvNet((4, 6), num_classes=3), SmallConvNet((8, 8), num_classes=3, seed=1)
    before = copy.deepcopy(student.state_dict())
    fitted = fit_hints(student, teacher, data(), QUICK, guided_layer="blocks.0", hint_layer="blocks.0", progress=False)
    assert isinstance(fitted.regressor, nn.Conv2d) and len(fitted.history.train_loss) == 2
    for name, value in student.state_dict().items():
        assert torch.equal(before[name], value) == (not name.startswith("blocks.0")), name
    assert hooks(student) == hooks(teacher) == 0


def test_stage_1_leaves_the_teacher_as_it_was():
    teacher = mlp([64, 10, 3], dropout=0.5).train()
    before = copy.deepcopy(teacher.state_dict())
    fit_hints(mlp([64, 6, 3]), teacher, data(), QUICK, guided_layer="2", hint_layer="2", progress=False)
    assert all(same(before, teacher.state_dict()))
    assert all(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_stage_1_learns_a_hint_that_can_be_learnt():
    # before its ReLU the teacher's layer is linear in the inputs, so a student's linear layer can give it exactly
    teacher, student, train = mlp([64, 6, 3], seed=1), mlp([64, 6, 3], seed=2), data()
    config = FitConfig(epochs=200, batch_size=48, learning_rate=0.01)
    fitted = fit_hints(student, teacher, train, config, guided_layer="1", hint_layer="1", progress=False)
    hints, guided = (layer_outputs(model, train, ["1"])["1"] for model in (teacher, student))
    nothing_learnt = hint_loss(hints.mean(0).expand_as(hints), hints)
    assert hint_loss(guided, hints, fitted.regressor) < 0.01 * nothing_learnt


def test_stage_1_is_repeatable_and_takes_a_regressor_of_one_s_own():
    def run(regressor=None):
        student = mlp([64, 6, 3])
        fit_hints(
            student, mlp([64, 10, 3], seed=1), data(), QUICK, guided_layer="1", hint_layer="1",
            regressor=regressor, progress=False,
        )  # fmt: skip
        return student.state_dict()

    assert all(same(run(), run()))
    own = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 10))
    before = copy.deepcopy(own.state_dict())
    run(own)
    assert not any(same(before, own.state_dict())), "the regressor was not trained"


# both at once


def test_beta_zero_is_distillation():
    teacher, train, config = mlp([64, 10, 3], seed=1), data(), FitConfig(epochs=3, batch_size=16)
    joint, plain = mlp([64, 6, 3]), mlp([64, 6, 3])
    distill_with_hints(
        joint, teacher, train, config, guided_layer="2", hint_layer="2",
        beta=0.0, temperature=4.0, alpha=0.9, progress=False,
    )  # fmt: skip
    distill(plain, teacher, train, config, temperature=4.0, alpha=0.9, progress=False)
    torch.testing.assert_close(predict_logits(joint, train), predict_logits(plain, train))


def test_beta_pulls_the_student_to_the_hints():
    teacher, train = mlp([64, 10, 3], seed=1), data()
    left = {}
    for beta in (0.0, 1.0):
        student = mlp([64, 6, 3])
        fitted = distill_with_hints(
            student, teacher, train, FitConfig(epochs=40, batch_size=16, learning_rate=0.01),
            guided_layer="2", hint_layer="2",
            beta=beta, temperature=4.0, alpha=0.9, validation=train, progress=False,
        )  # fmt: skip
        hints, guided = (layer_outputs(model, train, ["2"])["2"] for model in (teacher, student))
        left[beta] = hint_loss(guided, hints, fitted.regressor).item()
        assert len(fitted.history.validation_accuracy) == 40
        assert hooks(student) == 0
    assert left[1.0] < 0.5 * left[0.0]


def test_the_regressor_stays_out_of_the_student():
    student = mlp([64, 6, 3])
    names = list(student.state_dict())
    distill_with_hints(
        student, mlp([64, 10, 3]), data(), QUICK, guided_layer="2", hint_layer="2",
        beta=0.1, temperature=4.0, alpha=0.9, progress=False,
    )  # fmt: skip
    assert list(student.state_dict()) == names


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf")])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match="beta"):
        distill_with_hints(
            mlp([64, 6, 3]), mlp([64, 10, 3]), data(), QUICK, guided_layer="2", hint_layer="2",
            beta=beta, temperature=4.0, alpha=0.9, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(("guided", "hint", "bad"), [("22", "2", "'22'"), ("2", "fc", "'fc'")])
def test_an_unknown_layer_leaves_both_as_they_were(guided, hint, bad):
    student, teacher = mlp([64, 6, 3]), mlp([64, 10, 3])
    before = copy.deepcopy(student.state_dict()), copy.deepcopy(teacher.state_dict())
    with pytest.raises(ValueError, match=f"no layer named {bad} in Sequential"):
        fit_hints(student, teacher, data(), QUICK, guided_layer=guided, hint_layer=hint, progress=False)
    assert all(same(before[0], student.state_dict()) + same(before[1], teacher.state_dict()))
    assert hooks(student) == hooks(teacher) == 0


def test_a_failed_call_leaves_no_hook():
    student, teacher = SmallConvNet((4,)), SmallConvNet((4, 8))
    with pytest.raises(ValueError, match="pool=True"):
        fit_hints(student, teacher, data(), QUICK, guided_layer="blocks.0", hint_layer="blocks.1", progress=False)
    assert hooks(student) == hooks(teacher) == 0


def test_a_copy_of_its_teacher_has_nothing_to_learn_from_a_hint_before_a_relu_in_place():
    teacher = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    data = TensorDataset(torch.randn(50, 4), torch.randint(3, (50,)))
    where = {"guided_layer": "0", "hint_layer": "0", "regressor": nn.Identity(), "progress": False}
    config = FitConfig(epochs=1, batch_size=20, learning_rate=1e-6)
    found = fit_hints(copy.deepcopy(teacher), teacher, data, config, **where)
    assert found.history.train_loss == pytest.approx([0.0], abs=1e-8)
    both = {"temperature": 2.0, "alpha": 1.0, "beta": 1.0}
    found = distill_with_hints(copy.deepcopy(teacher), teacher, data, config, **both, **where)
    assert found.history.train_loss == pytest.approx([0.0], abs=1e-6)
