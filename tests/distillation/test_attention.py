"""Attention transfer: maps by hand, the loss against einsum in float64, training by name."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from course_lib.distillation.attention import attention_map, attention_transfer_loss, soft_and_attention_loss
from course_lib.distillation.hinton import distill, distillation_loss, with_teacher_logits
from course_lib.distillation.hints import with_features
from course_lib.evaluation import predict_logits
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.training import FitConfig, fit

QUICK = FitConfig(epochs=2, batch_size=16)


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def pictures(rows=48):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(rows, 1, 8, 8, generator=generator), torch.arange(rows) % 3)


def test_map_by_hand():
    # two channels on a grid of 1 x 2: means of squares (9 + 7)/2 = 8 and (4 + 8)/2 = 6, of length 10
    features = torch.tensor([[[[3.0, 2.0]], [[math.sqrt(7), -math.sqrt(8)]]]])
    torch.testing.assert_close(attention_map(features), torch.tensor([[0.8, 0.6]]))


def test_loss_by_hand():
    # all the strength at one place against all of it at another: (1, 0) - (0, 1) has length sqrt 2
    here, there = torch.tensor([[[[5.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    torch.testing.assert_close(attention_transfer_loss(here, there), torch.tensor(math.sqrt(2)))


def test_loss_against_float64():
    student, teacher = torch.randn(6, 3, 4, 5), torch.randn(6, 7, 4, 5)
    maps = []
    for features in (student.double(), teacher.double()):
        strength = torch.einsum("nchw,nchw->nhw", features, features).reshape(6, -1) / features.shape[1]
        maps.append(strength / strength.square().sum(1, keepdim=True).sqrt())
    expected = (maps[0] - maps[1]).square().sum(1).sqrt().mean()
    torch.testing.assert_close(attention_transfer_loss(student, teacher).double(), expected)


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), channels=st.integers(1, 6))
def test_neither_scale_nor_sign_nor_number_of_channels_matters(seed, scale, channels):
    features = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    repeated = torch.cat([features] * channels, dim=1) * -scale
    torch.testing.assert_close(attention_map(repeated), attention_map(features), rtol=1e-4, atol=1e-6)
    assert attention_transfer_loss(repeated, features) < 1e-3


def test_gradient_into_the_student_only_and_finite_where_they_agree():
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    teacher = student.detach().clone().requires_grad_()
    attention_transfer_loss(student, teacher).backward()
    assert torch.isfinite(student.grad).all() and teacher.grad is None


def test_features_of_zeros():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer_loss(student, torch.randn(2, 3, 4, 4))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


def test_grids_have_to_agree():
    large, small = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    with pytest.raises(ValueError, match=r"\(8, 8\) in the student and \(4, 4\) in the teacher.*or pool the larger"):
        attention_transfer_loss(large, small)


def test_fully_connected_features_have_no_map():
    with pytest.raises(ValueError, match=r"features are \(2, 3\); expected \(N, C, H, W\)"):
        attention_map(torch.zeros(2, 3))


def attentively(student, teacher, train, config, layers, beta, **kwargs):
    """``layers`` is student's layer -> teacher's layer."""
    shown = with_features(teacher, with_teacher_logits(teacher, train), list(layers.values()), progress=False)
    loss = soft_and_attention_loss(list(layers), temperature=4.0, alpha=0.9, beta=beta)
    return fit(student, shown, config, loss=loss, progress=False, **kwargs)


BOTH = {"blocks.0": "blocks.0", "blocks.1": "blocks.1"}


def test_the_training_loss_is_the_sum_of_both():
    # no step is made at a learning rate of almost 0, so the first loss is that of the student at its start
    student, teacher = SmallConvNet((4, 6), num_classes=3), SmallConvNet((8, 8), num_classes=3, seed=1).eval()
    train = pictures()
    inputs, labels = train.tensors
    with torch.no_grad():
        start = copy.deepcopy(student).train()
        soft = distillation_loss(start(inputs), teacher(inputs), labels, temperature=4.0, alpha=0.9)
        first = attention_transfer_loss(start.blocks[0](inputs), teacher.blocks[0](inputs))
        second = attention_transfer_loss(start.blocks[:2](inputs), teacher.blocks[:2](inputs))
    config = FitConfig(epochs=1, batch_size=48, learning_rate=1e-9)
    history = attentively(student, teacher, train, config, BOTH, beta=3.0)
    assert history.train_loss[0] == pytest.approx((soft + 3 * (first + second)).item(), rel=1e-5)


def test_beta_zero_is_distillation():
    teacher, train = SmallConvNet((8, 8), num_classes=3, seed=1), pictures()
    joint, plain = (SmallConvNet((4, 6), num_classes=3) for _ in range(2))
    attentively(joint, teacher, train, QUICK, {"blocks.0": "blocks.0"}, beta=0.0)
    distill(plain, teacher, train, QUICK, temperature=4.0, alpha=0.9, progress=False)
    torch.testing.assert_close(predict_logits(joint, train), predict_logits(plain, train))


def test_training_brings_the_maps_together_and_leaves_the_teacher():
    teacher, train = SmallConvNet((8, 8), num_classes=3, seed=1).train(), pictures()
    before, config = copy.deepcopy(teacher.state_dict()), FitConfig(epochs=30, batch_size=16, learning_rate=0.01)
    left = {}
    for beta in (0.0, 10.0):
        student = SmallConvNet((4, 6), num_classes=3)
        attentively(student, teacher, train, config, BOTH, beta, validation=train)
        inputs = train.tensors[0]
        with torch.no_grad():
            teacher.eval()
            left[beta] = attention_transfer_loss(student.blocks[0](inputs), teacher.blocks[0](inputs)).item()
            teacher.train()
        assert hooks(student) == hooks(teacher) == 0
    assert left[10.0] < 0.8 * left[0.0]
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_checkpoint_of_other_layers_is_refused(tmp_path):
    teacher, train = SmallConvNet((8, 8), num_classes=3, seed=1), pictures()
    run = [teacher, train, QUICK]
    first, again = (SmallConvNet((4, 6), num_classes=3) for _ in range(2))
    attentively(first, *run, {"blocks.0": "blocks.0"}, 1.0, checkpoint_dir=tmp_path)
    history = attentively(again, *run, {"blocks.0": "blocks.0"}, 1.0, checkpoint_dir=tmp_path)  # nothing is left to do
    assert len(history.train_loss) == 2 and torch.equal(first.classifier.weight, again.classifier.weight)
    with pytest.raises(ValueError, match="loss.layers"):
        attentively(again, *run, {"blocks.0.0": "blocks.0"}, 1.0, checkpoint_dir=tmp_path)


@pytest.mark.parametrize(
    ("layers", "beta", "message"),
    [
        ({"blocks.0": "blocks.0"}, -1.0, "beta"),
        ({"block.0": "blocks.0"}, 1.0, "near it: .*blocks.0"),
        ({"blocks.0": "block.0"}, 1.0, "near it: .*blocks.0"),
        ({"blocks.0": "blocks.1"}, 1.0, "choose layers where they agree"),
        ({"classifier": "classifier"}, 1.0, "places in a picture"),
    ],
)
def test_bad_input_leaves_the_student_as_it_was(layers, beta, message):
    student, teacher = SmallConvNet((4, 6), num_classes=3), SmallConvNet((8, 8), num_classes=3)
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(ValueError, match=message):
        attentively(student, teacher, pictures(), QUICK, layers, beta)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert hooks(student) == hooks(teacher) == 0


def test_no_layers():
    with pytest.raises(ValueError, match="layers is empty; expected the name of at least one layer"):
        soft_and_attention_loss([], temperature=4.0, alpha=0.9, beta=1.0)


def test_a_model_without_pictures():
    with pytest.raises(ValueError, match="places in a picture"):
        attentively(mlp([64, 5, 3]), mlp([64, 5, 3]), pictures(), QUICK, {"1": "1"}, 1.0)
