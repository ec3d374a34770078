"""Vision models: sizes counted by hand, seeds, shapes, errors."""

import pytest
import torch
from torch import nn

from course_lib.models.vision import SmallConvNet, hinton_big, hinton_small, lenet_300_100, mlp, resnet_small


def size(model, weights_only=False):
    return sum(p.numel() for p in model.parameters() if p.dim() > 1 or not weights_only)


def test_sizes_by_hand():
    assert size(mlp([2, 3, 4])) == 2 * 3 + 3 + 3 * 4 + 4
    assert size(lenet_300_100(), weights_only=True) == 784 * 300 + 300 * 100 + 100 * 10 == 266_200  # Frankle and Carbin
    assert size(lenet_300_100()) == 266_200 + 300 + 100 + 10
    assert size(hinton_big()) == 784 * 1200 + 1200 * 1200 + 1200 * 10 + 1200 + 1200 + 10
    assert size(hinton_small()) == 784 * 800 + 800 * 800 + 800 * 10 + 800 + 800 + 10
    # convolutions without bias, two numbers a channel for batch norm, a linear layer on 2 x 2 places
    assert size(SmallConvNet((4, 8), in_channels=3, num_classes=5)) == (
        3 * 4 * 9 + 2 * 4 + 4 * 8 * 9 + 2 * 8 + 4 * 8 * 5 + 5
    )


def test_resnet_18_is_torchvision_s_but_for_its_ends():
    torchvision = pytest.importorskip("torchvision")
    official = size(torchvision.models.resnet18(num_classes=10))
    assert size(resnet_small(in_channels=3)) == official - 3 * 64 * 49 + 3 * 64 * 9


def test_an_mlp_is_a_formula():
    model = mlp([4, 5, 3])
    inputs = torch.randn(7, 1, 2, 2)
    first, second = model[1], model[3]
    hidden = (inputs.reshape(7, 4) @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(model(inputs), hidden @ second.weight.T + second.bias)


def kinds(model):
    return [type(layer).__name__ for layer in model]


def test_where_dropout_goes():
    assert kinds(mlp([4, 5, 6, 3])) == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    full = ["Flatten", "Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert kinds(hinton_big()) == full
    assert [layer.p for layer in hinton_big() if isinstance(layer, nn.Dropout)] == [0.2, 0.5, 0.5]
    assert kinds(hinton_small()) == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert kinds(mlp([4, 3], dropout=0.5)) == ["Flatten", "Linear"]  # no hidden unit to silence


BUILDERS = [
    lambda seed: mlp([64, 5, 3], seed=seed),
    lambda seed: hinton_big(in_features=64, seed=seed),
    lambda seed: hinton_small(in_features=64, seed=seed),
    lambda seed: lenet_300_100(in_features=64, seed=seed),
    lambda seed: SmallConvNet((4,), seed=seed),
    lambda seed: resnet_small(blocks=(1, 1, 1, 1), seed=seed),
]


@pytest.mark.parametrize("build", BUILDERS)
def test_a_seed_gives_its_weights_and_leaves_the_global_generator_alone(build):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = build(3), build(3), build(4)
    assert torch.equal(torch.rand(3), expected)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two, _ in pairs)
    assert not all(torch.equal(one, three) for one, _, three in pairs)


@pytest.mark.parametrize("build", BUILDERS)
def test_every_model_takes_the_digits_and_trains(build):
    model = build(0)
    outputs = model(torch.randn(4, 1, 8, 8))
    outputs.square().sum().backward()
    assert outputs.shape[0] == 4 and outputs.dim() == 2
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 28), (3, 32)])
def test_shapes(channels, side):
    images = torch.randn(2, channels, side, side)
    assert SmallConvNet(in_channels=channels, num_classes=7)(images).shape == (2, 7)
    assert resnet_small(blocks=(1, 1, 1, 1), in_channels=channels, num_classes=7).eval()(images).shape == (2, 7)


def test_resnet_keeps_the_size_of_small_pictures_until_its_second_stage():
    model = resnet_small(blocks=(1, 1, 1, 1)).eval()
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(1, 1, 8, 8))
    assert shapes == [(64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)]


@pytest.mark.parametrize("sizes", [[], [5], [5, 0], [5, -1, 2]])
def test_sizes_out_of_range(sizes):
    with pytest.raises(ValueError, match="sizes is .*; expected at least inputs and outputs"):
        mlp(sizes)


def test_other_settings_out_of_range():
    with pytest.raises(ValueError, match="dropout probability"):
        mlp([2, 2, 2], dropout=1.5)
    with pytest.raises(ValueError, match="channels is"):
        SmallConvNet(())
    with pytest.raises(ValueError, match="channels is"):
        SmallConvNet((4, 0))
    for blocks in ((1, 1), (1, 1, 1, 0)):
        with pytest.raises(ValueError, match="blocks is .*; expected four numbers"):
            resnet_small(blocks=blocks)


@pytest.mark.parametrize("error", [ImportError, RuntimeError, AttributeError])
def test_a_broken_torchvision_breaks_the_resnet_alone(broken_torchvision, error):
    with broken_torchvision(error):
        with pytest.raises(ImportError, match="resnet_small needs a torchvision that fits torch .*nms"):
            resnet_small()
        assert SmallConvNet()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
