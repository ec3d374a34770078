"""Which channels go together: the bookkeeping of structured pruning.

Each unit of a layer makes one channel of the layer's output. Labels say for a tensor which channel each of its elements
belongs to: a tensor of int64 numbers with the same axes, of size 1 along those where the label does not change. The
output (N, 64, 28, 28) of a convolution has labels of shape (1, 64, 1, 1); flattened to (N, 50176) it has labels
(1, 50176), each number 784 times. A tensor whose channels nobody may remove, such as a picture, has no labels (none).

Two things can be said about labels: that they are tied (where one channel goes, the other goes too), and that they are
fixed (they stay, for a reason).
"""

from dataclasses import dataclass

import torch
from torch import Size, Tensor

Labels = Tensor | None


@dataclass(frozen=True)
class Fixed:
    """Channels that stay, why, and whether it is because they are the network's output."""

    labels: Tensor  # (F,)
    reason: str
    output: bool = False


class Channels:
    """Gives out labels, and remembers which are tied and which are fixed."""

    def __init__(self) -> None:
        self.count = 0
        self.fixed: list[Fixed] = []
        self._ties: list[tuple[Tensor, Tensor]] = []

    def fresh(self, number: int) -> Tensor:
        """Labels that nobody has yet: (number,)."""
        self.count += number
        return torch.arange(self.count - number, self.count)

    def tie(self, one: Tensor, other: Tensor) -> None:
        """What stands at the same place goes together; the shapes are broadcast."""
        if one is not other:
            one, other = torch.broadcast_tensors(one, other)
            self._ties.append((one.reshape(-1), other.reshape(-1)))

    def tie_rows(self, labels: Tensor, rows: int) -> None:
        """Cut ``labels`` (C,) into rows of equal length, and tie what stands at the same place of each."""
        table = labels.view(rows, -1)
        self.tie(table[:1], table)

    def fix(self, labels: Labels, reason: str, *, output: bool = False) -> None:
        """These stay. Nothing happens without labels."""
        if labels is not None:
            self.fixed.append(Fixed(labels.reshape(-1), reason, output))

    def decisions(self) -> Tensor:
        """For each label the lowest label that it is tied to, over any number of steps: (count,)."""
        lowest = torch.arange(self.count)
        if not self._ties:
            return lowest
        one, other = (torch.cat(side) for side in zip(*self._ties, strict=True))
        both = torch.cat([one, other])
        while True:
            shared = torch.minimum(lowest[one], lowest[other]).repeat(2)
            lower = lowest.scatter_reduce(0, both, shared, "amin")
            lower = lower[lower]  # a label takes what its lowest one has found meanwhile
            if torch.equal(lower, lowest):
                return lowest
            lowest = lower


def spread(labels: Tensor, shape: Size) -> Tensor:
    """One label for each element of a tensor of that shape; no memory is copied."""
    return labels.expand(shape)


def gather(labels: Tensor) -> Tensor:
    """The opposite of ``spread``: size 1 along each axis on which nothing changes."""
    for axis in range(labels.dim()):
        if labels.shape[axis] > 1:
            first = labels.narrow(axis, 0, 1)
            if labels.stride(axis) == 0 or torch.equal(labels, first.expand_as(labels)):
                labels = first
    return labels


def varying(labels: Tensor) -> list[int]:
    """The axes along which the label changes."""
    return [axis for axis, size in enumerate(labels.shape) if size > 1]


def padded(labels: Tensor, dims: int) -> Tensor:
    """With axes of size 1 in front, as broadcasting adds them."""
    return labels.reshape((1,) * (dims - labels.dim()) + labels.shape)


def along(labels: Labels, axis: int, size: int) -> Tensor | None:
    """The labels along ``axis`` (size,) if they change on no other; else none."""
    if labels is None or labels.numel() != size or labels.shape[axis] != size:
        return None
    return labels.reshape(-1)
