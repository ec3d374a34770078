"""One operation as the code called it, and what its rule may say about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from course_lib.pruning.graph.channels import Axes, Channels
from course_lib.pruning.graph.sizes import Number

if TYPE_CHECKING:
    from course_lib.pruning.graph.follow import Pass


class Call:
    """An operation.

    Attributes:
        name: "add", also for ``add_``, ``+`` and ``+=``.
        args, named: as the code wrote them; a size that counts channels is a ``Number``.
        tensors, axes: the tensors among them, in order, and their channels.
        output: what it gives; shapes only.
    """

    __slots__ = ("args", "axes", "name", "named", "output", "run", "tensors")

    def __init__(self, run: Pass, name: str, args: tuple, named: dict, tensors: list[Tensor], axes: list[Axes]) -> None:
        self.run, self.name, self.args, self.named, self.tensors, self.axes = run, name, args, named, tensors, axes
        self.output: object = None

    @property
    def channels(self) -> Channels:
        """Where ties are written down."""
        return self.run.channels

    def arg(self, place: int, name: str, default: object = None) -> object:
        """An argument by place or by name."""
        return self.args[place] if len(self.args) > place else self.named.get(name, default)

    def of(self, tensor: Tensor | None) -> Axes:
        """The channels of a tensor; none at all without a tensor."""
        return () if tensor is None else self.run.axes_of(tensor)

    def fix(self, numbers: Tensor | None, why: str = "") -> None:
        """These channels stay, because of this operation."""
        if numbers is not None:
            self.channels.fix(numbers, f"{self.run.where()} needs all of them{why}")

    def tie(self, one: Tensor | None, other: Tensor | None) -> Tensor | None:
        """Two axes that have to lose the same channels: what goes on along them. Without numbers, nothing may go."""
        if one is None or other is None:
            self.fix(one if other is None else other, ": it meets channels that stay")
            return None
        if one.shape != other.shape:
            raise RuntimeError(f"{len(one)} channels meet {len(other)}")
        self.channels.tie(one, other)
        return one

    def expect(self, numbers: Tensor | None, size: object) -> None:
        """The code writes ``size`` where these channels are."""
        why = f"{self.run.where()} needs all of them: the code writes their number, {size}"
        if isinstance(size, Number):
            self.channels.expect(numbers, size.amount, why)
        else:
            self.channels.fix(numbers, why)

    def note(self, weight: Tensor | None, attribute: str, numbers: Tensor | None, place: int | None = None) -> bool:
        """The layer keeps the number of these channels in an attribute; whether it does.

        The layer is the one that ``weight`` belongs to, or the one that is being called.
        """
        if numbers is None:
            return False
        owners = self.run.owners.get(id(weight), [(self.run.running[-1], "weight")])
        found = False
        for name, key in owners:
            if key == "weight" and _kept(self.run.modules[name], attribute, place) == numbers.numel():
                known = self.run.sizes.setdefault((name, attribute, place), numbers)
                self.channels.tie(known, numbers)
                found = True
        return found


def _kept(module: nn.Module, attribute: str, place: int | None) -> object:
    value = getattr(module, attribute, None)
    if place is None or not isinstance(value, (tuple, list)):
        return value.value if isinstance(value, Number) else value
    return value[place] if place < len(value) else None
