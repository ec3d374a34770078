"""A residual network and pictures small enough that a CPU trains one on the other in half a second an epoch."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.utils.data import TensorDataset

from course_lib.data.images import fraction
from course_lib.device import seeded
from reproduce.mnist import mnist


class Block(nn.Module):
    """Two 3 × 3 convolutions with batch norm, beside a shortcut (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``(N, inputs, H, W)`` -> ``(N, outputs, H / stride, W / stride)``."""
        y = self.second_norm(self.second(self.first_norm(self.first(x)).relu()))
        return (y + self.shortcut(x)).relu()


def small_resnet(widths: Sequence[int] = (8, 16, 32), *, blocks: int = 1, seed: int = 0) -> nn.Sequential:
    """A convolution, ``blocks`` residual blocks at each width, pooling and a linear layer.

    Shapes: ``(N, 1, H, W)`` -> ``(N, 10)``.
    """
    with seeded(seed):
        layers = [nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        inputs = widths[0]
        for place, width in enumerate(widths):
            for number in range(blocks):
                layers.append(Block(inputs, width, stride=2 if place and not number else 1))
                inputs = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


@cache
def half_size(cases: int) -> tuple[TensorDataset, TensorDataset]:
    """``cases`` training pictures of MNIST and all test pictures, 14 × 14: the mean of each 2 × 2 pixels."""
    train = fraction(mnist().train, cases / len(mnist().train), seed=0)
    return _halved(train), _halved(mnist().test)


def _halved(data: TensorDataset) -> TensorDataset:
    images, labels = data.tensors
    return TensorDataset(torch.cat([avg_pool2d(part, 2) for part in images.split(1000)]), labels)
