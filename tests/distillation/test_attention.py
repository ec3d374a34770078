"""Attention transfer: maps by hand, the loss against einsum in float64, training by name."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from course_lib.distillation.attention import attention_map, attention_transfer_loss, distill_with_attention
from course_lib.distillation.hinton import distill
from course_lib.evaluation import predict_logits
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.training import FitConfig

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


def test_grids_are_pooled_only_when_asked():
    large, small = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    with pytest.raises(ValueError, match=r"\(8, 8\) in the student and \(4, 4\) in the teacher.*pool=True"):
        attention_transfer_loss(large, small)
    by_hand = attention_transfer_loss(large.reshape(2, 3, 4, 2, 4, 2).mean((3, 5)), small)
    torch.testing.assert_close(attention_transfer_loss(large, small, pool=True), by_hand)


def test_fully_connected_features_have_no_map():
    with pytest.raises(ValueError, match=r"features are \(2, 3\); expected \(N, C, H, W\)"):
        attention_map(torch.zeros(2, 3))


def test_beta_zero_is_distillation():
    teacher, train = SmallConvNet((8, 8), num_classes=3, seed=1), pictures()
    joint, plain = (SmallConvNet((4, 6), num_classes=3) for _ in range(2))
    distill_with_attention(
        joint, teacher, train, QUICK, layers={"blocks.0": "blocks.0"},
        beta=0.0, temperature=4.0, alpha=0.9, progress=False,
    )  # fmt: skip
    distill(plain, teacher, train, QUICK, temperature=4.0, alpha=0.9, progress=False)
    torch.testing.assert_close(predict_logits(joint, train), predict_logits(plain, train))


def test_training_brings_the_maps_together_and_leaves_the_teacher():
    teacher, train = SmallConvNet((8, 8), num_classes=3, seed=1).train(), pictures()
    before = copy.deepcopy(teacher.state_dict())
    left = {}
    for beta in (0.0, 10.0):
        student = SmallConvNet((4, 6), num_classes=3)
        distill_with_attention(
            student, teacher, train, FitConfig(epochs=30, batch_size=16, learning_rate=0.01),
            layers={"blocks.0": "blocks.0", "blocks.1": "blocks.1"},
            beta=beta, temperature=4.0, alpha=0.9, validation=train, progress=False,
        )  # fmt: skip
        inputs = train.tensors[0]
        with torch.no_grad():
            teacher.eval()
            left[beta] = attention_transfer_loss(student.blocks[0](inputs), teacher.blocks[0](inputs)).item()
            teacher.train()
        assert hooks(student) == hooks(teacher) == 0
    assert left[10.0] < 0.8 * left[0.0]
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("layers", "beta", "message"),
    [
        ({}, 1.0, "at least one pair"),
        ({"blocks.0": "blocks.0"}, -1.0, "beta"),
        ({"block.0": "blocks.0"}, 1.0, "near it: .*blocks.0"),
        ({"blocks.0": "block.0"}, 1.0, "near it: .*blocks.0"),
        ({"blocks.0": "blocks.1"}, 1.0, "pool=True"),
        ({"classifier": "classifier"}, 1.0, "places in a picture"),
    ],
)
def test_bad_input_leaves_the_student_as_it_was(layers, beta, message):
    student, teacher = SmallConvNet((4, 6), num_classes=3), SmallConvNet((8, 8), num_classes=3)
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(ValueError, match=message):
        distill_with_attention(
            student, teacher, pictures(), QUICK, layers=layers, beta=beta, temperature=4.0, alpha=0.9, progress=False
        )
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert hooks(student) == hooks(teacher) == 0


def test_a_model_without_pictures():
    with pytest.raises(ValueError, match="places in a picture"):
        distill_with_attention(
            mlp([64, 5, 3]), mlp([64, 5, 3]), pictures(), QUICK,
            layers={"1": "1"}, beta=1.0, temperature=4.0, alpha=0.9, progress=False,
        )  # fmt: skip
