"""Models for small pictures: multilayer perceptrons, a convolutional network, a ResNet.

Every builder takes a ``seed``: the same seed gives the same initial weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.device import seeded


def mlp(sizes: Sequence[int], *, dropout: float = 0.0, input_dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    """A multilayer perceptron with ReLU between its layers; it flattens its input.

    Args:
        sizes: inputs, hidden units of each layer, outputs; ``[64, 32, 10]`` has one hidden layer.
        dropout: probability that a hidden unit is silenced during training.
        input_dropout: the same for inputs.

    Shapes: ``(N, ...)`` with ``sizes[0]`` numbers an example -> ``(N, sizes[-1])``.

    Raises:
        ValueError: fewer than two sizes, or one below 1.
    """
    if len(sizes) < 2 or any(size < 1 for size in sizes):
        raise ValueError(f"sizes is {list(sizes)}; expected at least inputs and outputs, each 1 or more")
    layers: list[nn.Module] = [nn.Flatten()]
    if input_dropout:
        layers.append(nn.Dropout(input_dropout))
    with seeded(seed):
        for index, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
            if index:
                layers += [nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
            layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


def hinton_big(*, in_features: int = 784, num_classes: int = 10, seed: int = 0) -> nn.Sequential:
    """The large net of Hinton et al. 2015, section 3: two layers of 1,200 units with dropout."""
    return mlp([in_features, 1200, 1200, num_classes], dropout=0.5, input_dropout=0.2, seed=seed)


def hinton_small(*, in_features: int = 784, num_classes: int = 10, seed: int = 0) -> nn.Sequential:
    """The small net of Hinton et al. 2015, section 3: two layers of 800 units, no regularisation."""
    return mlp([in_features, 800, 800, num_classes], seed=seed)


def lenet_300_100(*, in_features: int = 784, num_classes: int = 10, seed: int = 0) -> nn.Sequential:
    """LeNet-300-100, the perceptron of Han et al. 2015 and Frankle and Carbin 2019: 266,200 weights on MNIST."""
    return mlp([in_features, 300, 100, num_classes], seed=seed)


class SmallConvNet(nn.Module):
    """Blocks of 3 × 3 convolution, batch norm, ReLU and 2 × 2 max pooling, then one linear layer.

    Args:
        channels: output channels of each block.
        in_channels: 1 for grey pictures, 3 for colour.

    Shapes: ``(N, in_channels, H, W)`` -> ``(N, num_classes)``, for any H and W of at least ``2 ** len(channels)``.

    Raises:
        ValueError: no channels, or a number below 1.
    """

    def __init__(
        self, channels: Sequence[int] = (16, 32), *, in_channels: int = 1, num_classes: int = 10, seed: int = 0
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(f"channels is {list(channels)}; expected one or more sizes, each 1 or more")
        blocks = []
        with seeded(seed):
            for inputs, outputs in zip([in_channels, *channels], channels, strict=False):
                convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
                blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)))
            self.blocks = nn.Sequential(*blocks)
            self.pool = nn.AdaptiveAvgPool2d(2)
            self.classifier = nn.Linear(4 * channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of ``images``."""
        features = self.pool(self.blocks(images))  # (N, channels[-1], 2, 2)
        return self.classifier(features.flatten(1))  # (N, 4 · channels[-1]) -> (N, num_classes)


def resnet_small(
    *, blocks: Sequence[int] = (2, 2, 2, 2), in_channels: int = 1, num_classes: int = 10, seed: int = 0
) -> nn.Module:
    """torchvision's ResNet-18 fitted to small pictures: first convolution 3 × 3 with stride 1, no pooling after it.

    ``blocks`` is the number of residual blocks at each of the four widths 64, 128, 256, 512.

    Shapes: ``(N, in_channels, H, W)`` -> ``(N, num_classes)``, for H and W of at least 8.

    Raises:
        ValueError: ``blocks`` is not four numbers, each 1 or more.
        ImportError: there is no working torchvision.
    """
    if len(blocks) != 4 or min(blocks) < 1:
        raise ValueError(f"blocks is {list(blocks)}; expected four numbers, each 1 or more")
    try:
        from torchvision.models.resnet import BasicBlock, ResNet
    except (ImportError, RuntimeError, AttributeError, OSError) as error:  # one built for another torch raises any
        raise ImportError(f"resnet_small needs a torchvision that fits torch {torch.__version__} ({error})") from error
    with seeded(seed):
        model = ResNet(BasicBlock, list(blocks), num_classes=num_classes)
        model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as in the other layers
        model.maxpool = nn.Identity()
    return model
