"""FitNets: the loss by hand, its gradient in closed form, what each stage may change."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from course_lib.activations import layer_outputs
from course_lib.distillation.hinton import distill, with_teacher_logits
from course_lib.distillation.hints import (
    GuidedStudent,
    hint_loss,
    regressor_for,
    soft_and_hint_loss,
    stage_1_loss,
    with_features,
)
from course_lib.evaluation import evaluate, predict_logits
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.training import FitConfig, fit

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


def test_different_grids_need_a_regressor_of_one_s_own():
    with pytest.raises(ValueError, match=r"8x8 in the student, 4x4 in the teacher.*or pool in front of it"):
        regressor_for((2, 3, 8, 8), (2, 5, 4, 4))
    features, convolution = torch.randn(2, 3, 8, 8), regressor_for((2, 3, 4, 4), (2, 5, 4, 4))
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(4), convolution)
    by_hand = convolution(features.reshape(2, 3, 4, 2, 4, 2).mean((3, 5)))
    torch.testing.assert_close(hint_loss(features, by_hand, pooled), torch.tensor(0.0))


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


# the teacher's column


def test_with_features_adds_columns_in_order_and_leaves_the_teacher_as_it_was():
    teacher = mlp([64, 10, 3], dropout=0.5).train()
    before, train = copy.deepcopy(teacher.state_dict()), data()
    shown = with_features(teacher, train, ["2", "1"], progress=False)
    assert len(shown.tensors) == 4 and shown.tensors[0] is train.tensors[0] and shown.tensors[1] is train.tensors[1]
    assert all(same(before, teacher.state_dict())) and all(module.training for module in teacher.modules())
    linear = nn.functional.linear(train.tensors[0].flatten(1), teacher[1].weight, teacher[1].bias).detach()
    torch.testing.assert_close(shown.tensors[3], linear)
    torch.testing.assert_close(shown.tensors[2], linear.relu())
    assert not shown.tensors[2].requires_grad and hooks(teacher) == 0


# stage 1


def stage_1(student, teacher, train, config, guided_layer, hint_layer, regressor=None):
    """Train up to the guided layer on the hints; the history, and the regressor."""
    shown = with_features(teacher, train, [hint_layer], progress=False)
    guided = layer_outputs(student, train.tensors[0][:1], [guided_layer], progress=False)[guided_layer]
    regressor = regressor or regressor_for(guided.shape, shown.tensors[-1].shape, seed=config.seed)
    learner = GuidedStudent(student, guided_layer, regressor)
    return fit(learner, shown, config, loss=stage_1_loss, progress=False), regressor


def jointly(student, teacher, train, config, regressor, beta=1.0, temperature=4.0, alpha=0.9, layer="2", **kwargs):
    """Both losses at once, with the same layer in the student and in the teacher; the history."""
    shown = with_features(teacher, with_teacher_logits(teacher, train), [layer], progress=False)
    loss = soft_and_hint_loss(temperature=temperature, alpha=alpha, beta=beta)
    return fit(GuidedStudent(student, layer, regressor), shown, config, loss=loss, progress=False, **kwargs)


def test_stage_1_is_gradient_descent_on_the_hint_loss():
    # one step of SGD by hand, with the gradient of the closed form
    student, teacher, train = mlp([64, 6, 3], seed=2).double(), mlp([64, 5, 3], seed=1).double(), data()
    train = TensorDataset(train.tensors[0].double(), train.tensors[1])
    regressor = regressor_for((1, 6), (1, 5)).double()
    x, u = train.tensors[0].flatten(1), teacher[1](train.tensors[0].flatten(1)).detach()
    W, b, R, c = (p.detach().clone() for p in (*student[1].parameters(), *regressor.parameters()))
    residual = ((x @ W.T + b) @ R.T + c - u) / 48
    config = FitConfig(epochs=1, batch_size=48, learning_rate=0.1, optimizer="sgd", momentum=0.0)
    stage_1(student, teacher, train, config, "1", "1", regressor)
    torch.testing.assert_close(student[1].weight.detach(), W - 0.1 * (residual @ R).T @ x, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(regressor.weight.detach(), R - 0.1 * residual.T @ (x @ W.T + b), rtol=1e-5, atol=1e-7)


def test_stage_1_trains_the_student_up_to_its_guided_layer_only():
    student, teacher = SmallConvNet((4, 6), num_classes=3), SmallConvNet((8, 8), num_classes=3, seed=1)
    before = copy.deepcopy(student.state_dict())
    history, regressor = stage_1(student, teacher, data(), QUICK, "blocks.0", "blocks.0")
    assert isinstance(regressor, nn.Conv2d) and len(history.train_loss) == 2
    for name, value in student.state_dict().items():
        assert torch.equal(before[name], value) == (not name.startswith("blocks.0")), name
    assert hooks(student) == hooks(teacher) == 0


def test_stage_1_learns_a_hint_that_can_be_learnt():
    # before its ReLU the teacher's layer is linear in the inputs, so a student's linear layer can give it exactly
    teacher, student, train = mlp([64, 6, 3], seed=1), mlp([64, 6, 3], seed=2), data()
    config = FitConfig(epochs=200, batch_size=48, learning_rate=0.01)
    _, regressor = stage_1(student, teacher, train, config, "1", "1")
    hints, guided = (layer_outputs(model, train, ["1"])["1"] for model in (teacher, student))
    nothing_learnt = hint_loss(hints.mean(0).expand_as(hints), hints)
    assert hint_loss(guided, hints, regressor) < 0.01 * nothing_learnt


def test_stage_1_is_repeatable_and_takes_a_regressor_of_one_s_own():
    def run(regressor=None):
        student = mlp([64, 6, 3])
        stage_1(student, mlp([64, 10, 3], seed=1), data(), QUICK, "1", "1", regressor)
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
    jointly(joint, teacher, train, config, regressor_for((1, 6), (1, 10)), beta=0.0)
    distill(plain, teacher, train, config, temperature=4.0, alpha=0.9, progress=False)
    torch.testing.assert_close(predict_logits(joint, train), predict_logits(plain, train))


def test_beta_pulls_the_student_to_the_hints():
    teacher, train = mlp([64, 10, 3], seed=1), data()
    config, left = FitConfig(epochs=40, batch_size=16, learning_rate=0.01), {}
    for beta in (0.0, 1.0):
        student, regressor = mlp([64, 6, 3]), regressor_for((1, 6), (1, 10))
        history = jointly(student, teacher, train, config, regressor, beta, validation=train)
        hints, guided = (layer_outputs(model, train, ["2"])["2"] for model in (teacher, student))
        left[beta] = hint_loss(guided, hints, regressor).item()
        assert len(history.validation_accuracy) == 40
        assert history.validation_accuracy[-1] == evaluate(student, train).accuracy
        assert hooks(student) == 0
    assert left[1.0] < 0.5 * left[0.0]


def test_the_regressor_stays_out_of_the_student():
    student = mlp([64, 6, 3])
    names = list(student.state_dict())
    jointly(student, mlp([64, 10, 3]), data(), QUICK, regressor_for((1, 6), (1, 10)))
    assert list(student.state_dict()) == names


def test_it_goes_on_from_a_checkpoint_to_the_numbers_of_an_unbroken_run(tmp_path):
    def run(folder=None, stop_at=None):
        steps, student = [], mlp([64, 6, 3])

        def stop(model):
            steps.append(1)
            if len(steps) == stop_at:
                raise KeyError("stop")

        kwargs = {"after_step": stop, "checkpoint_dir": folder}
        try:
            jointly(student, mlp([64, 10, 3], seed=1), data(), QUICK, regressor_for((1, 6), (1, 10)), **kwargs)
        except KeyError:
            pass
        return student.state_dict(), len(steps)

    unbroken, steps = run()
    assert steps == 6 and run(tmp_path, stop_at=5)[1] == 5
    resumed, steps = run(tmp_path)
    assert steps == 3 and all(same(unbroken, resumed))


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf")])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match="beta"):
        soft_and_hint_loss(temperature=4.0, alpha=0.9, beta=beta)


def test_an_unknown_layer():
    with pytest.raises(ValueError, match="no layer named '22' in Sequential"):
        GuidedStudent(mlp([64, 6, 3]), "22", nn.Identity())
    with pytest.raises(ValueError, match="no layer named 'fc' in Sequential"):
        with_features(mlp([64, 10, 3]), data(), ["fc"], progress=False)


def test_a_failed_call_leaves_the_student_as_it_was_and_no_hook():
    student, teacher = mlp([64, 6, 3]), mlp([64, 10, 3])
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(ValueError, match=r"\(16, 6\) and the teacher's \(16, 10\)"):
        stage_1(student, teacher, data(), QUICK, "2", "2", nn.Identity())
    with pytest.raises(ValueError, match=r"\(16, 6\) and the teacher's \(16, 10\)"):
        jointly(student, teacher, data(), QUICK, nn.Identity())
    assert all(same(before, student.state_dict()))
    assert hooks(student) == hooks(teacher) == 0


def test_a_copy_of_its_teacher_has_nothing_to_learn_from_a_hint_before_a_relu_in_place():
    teacher = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    data = TensorDataset(torch.randn(50, 4), torch.randint(3, (50,)))
    config = FitConfig(epochs=1, batch_size=20, learning_rate=1e-6)
    history, _ = stage_1(copy.deepcopy(teacher), teacher, data, config, "0", "0", nn.Identity())
    assert history.train_loss == pytest.approx([0.0], abs=1e-8)
    both = {"temperature": 2.0, "alpha": 1.0, "beta": 1.0, "layer": "0"}
    history = jointly(copy.deepcopy(teacher), teacher, data, config, nn.Identity(), **both)
    assert history.train_loss == pytest.approx([0.0], abs=1e-6)
