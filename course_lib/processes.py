"""Several processes at one training run, through Accelerate: what they share, and where they have to agree.

Every process holds the whole model and takes its part of every batch. The gradients are added up after each step, so
the step is that of the whole batch, and all processes keep the same weights. The model itself is not wrapped: a loss
may look into it, or run a part of it only, with several processes as with one.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib.evaluation import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator


class Processes:
    """All processes of a run as one of them sees them; with no accelerator, or one process, nothing is to be done."""

    def __init__(self, accelerator: "Accelerator | None" = None) -> None:
        self.accelerator = accelerator
        self.rank, self.world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)

    def part(self, batch: Batch, count: Callable[[Batch], int]) -> tuple[Batch, float]:
        """This process's part of ``batch``, and its weight: how often the mean of the parts has to count it.

        A process that is left without examples takes the first one with weight zero, so that all meet at the gradient.

        Args:
            count: how many labels of a batch the loss is a mean over.
        """
        if self.world == 1:
            return batch, 1.0
        mine = _sliced(batch, slice(self.rank, None, self.world))
        if len(next(iter(mine.values())) if isinstance(mine, Mapping) else mine[0]) == 0:
            return _sliced(batch, slice(0, 1)), 0.0
        return mine, count(mine) * self.world / max(count(batch), 1)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the processes."""
        if self.world > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            self._average(gradients)

    def average_buffers(self, model: nn.Module) -> None:
        """Replace what modules gather in training (the statistics of batch norm) by its mean over the processes."""
        if self.world > 1:
            self._average([buffer for buffer in model.buffers() if buffer.is_floating_point()])

    def mean(self, value: Tensor) -> Tensor:
        """The mean of ``value`` over the processes."""
        return self.accelerator.reduce(value, "mean") if self.world > 1 else value

    def start_alike(self, model: nn.Module) -> None:
        """Give ``model`` the weights and buffers that it has in the first process."""
        if self.world > 1:
            from accelerate.utils import broadcast

            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data.copy_(broadcast(tensor.data))

    def agree(self, value: Any) -> Any:
        """What ``value`` is in the first process."""
        if self.world == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.world > 1:
            self.accelerator.wait_for_everyone()

    def _average(self, tensors: list[Tensor]) -> None:
        """In place, in one message for each number format."""
        for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
            kind = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = self.mean(torch.cat([tensor.flatten() for tensor in kind]))
            parts = flat.split([tensor.numel() for tensor in kind])
            for tensor, values in zip(kind, parts, strict=True):
                tensor.copy_(values.view_as(tensor))


def _sliced(batch: Batch, part: slice) -> Batch:
    if isinstance(batch, Mapping):
        return {name: value[part] for name, value in batch.items()}
    return tuple(value[part] for value in batch)
