"""Whole numbers that depend on how many channels there are.

Code reads a size from one tensor and uses it for another, as in ``x.view(n, 2, x.shape[1] // 2, h, w)`` or
``h / h.size(-1)``. So while a network is followed, the size of an axis that may lose channels is a ``Number``: it
remembers the channels that it counts. It may be added to others, and multiplied and divided by plain numbers. With
everything else that is done to it, a comparison, a root, a range, it becomes a plain number, and its channels stay.
"""

import builtins
import math
import operator
from collections.abc import Callable
from fractions import Fraction

from course_lib.pruning.graph.channels import Amount, Attribute, Channels


class Number:
    """A whole number ``value`` = a constant + a count of channels.

    Args:
        value: what it is now.
        amount: the channels that it counts.
        where: says, when it is used in another way, where that was.
    """

    __slots__ = ("_channels", "_where", "amount", "value")

    def __init__(self, value: int, amount: Amount, channels: Channels, where: Callable[[], str]) -> None:
        self.value, self.amount, self._channels, self._where = value, amount, channels, where

    def plain(self) -> int:
        """The plain number; its channels stay from now on."""
        reason = f"{self._where()} needs all of them: it uses their number, {self.value}"
        for _, source in self.amount:
            if not isinstance(source, Attribute):
                self._channels.fix(source, reason)
            elif source.pinned is None:
                source.pinned = self._where()
        return self.value

    def _made(self, value: int, amount: Amount) -> "Number":
        return Number(value, amount, self._channels, self._where)

    def __add__(self, other: object) -> object:
        if isinstance(other, Number):
            return self._made(self.value + other.value, [*self.amount, *other.amount])
        return self._made(self.value + other, self.amount) if type(other) is int else self.plain() + other

    def __mul__(self, other: object) -> object:
        if type(other) is int and other != 0:
            return self._made(self.value * other, [(share * other, source) for share, source in self.amount])
        return self.plain() * other

    def __floordiv__(self, other: object) -> object:
        if type(other) is int and other != 0 and self.value % other == 0:
            return self._made(self.value // other, [(share * Fraction(1, other), s) for share, s in self.amount])
        return self.plain() // other

    def __sub__(self, other: object) -> object:
        return self + -other

    def __rsub__(self, other: object) -> object:
        return -self + other

    def __neg__(self) -> "Number":
        return self * -1

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Number) and other.value == self.value:  # true as long as both change alike
            self._channels.expect_equal(
                self.amount, other.amount, f"{self._where()} compares their number with another"
            )
            return True
        return self.plain() == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.plain())

    def __repr__(self) -> str:
        return str(self.value)

    def __format__(self, how: str) -> str:
        return format(self.value, how)


def _as_plain(function: Callable, *, reflected: bool = False) -> Callable:
    """A method that does with the plain number what ``function`` does."""

    def method(self: Number, *others: object) -> object:
        values = (self.plain(), *map(plain, others))
        return function(*(reversed(values) if reflected else values))

    return method


for _name in "index float bool abs round trunc floor ceil".split():
    _function = getattr(operator, _name, None) or getattr(math, _name, None) or getattr(builtins, _name)
    setattr(Number, f"__{_name}__", _as_plain(_function))
Number.__int__ = _as_plain(int)
for _name in "lt le gt ge".split():
    setattr(Number, f"__{_name}__", _as_plain(getattr(operator, _name)))
for _name in "truediv mod pow".split():
    setattr(Number, f"__{_name}__", _as_plain(getattr(operator, _name)))
    setattr(Number, f"__r{_name}__", _as_plain(getattr(operator, _name), reflected=True))
Number.__rfloordiv__ = _as_plain(operator.floordiv, reflected=True)
Number.__divmod__ = _as_plain(divmod)


class Sizes(tuple):
    """What ``tensor.shape`` gives where some sizes are ``Number``."""

    def numel(self) -> object:
        """Their product, as of a ``torch.Size``."""
        product = 1
        for size in self:
            product = size * product
        return product


def plain(value: object) -> object:
    """``value`` with a plain number in the place of every ``Number``; the channels that they count stay."""
    if isinstance(value, Number):
        return value.plain()
    if isinstance(value, (tuple, list)) and any(isinstance(each, (Number, tuple, list, slice)) for each in value):
        return [plain(each) for each in value] if isinstance(value, list) else tuple(plain(each) for each in value)
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    return value


def value_of(value: object) -> object:
    """The same, for who takes care of the channels himself."""
    if isinstance(value, Number):
        return value.value
    if isinstance(value, (tuple, list)) and any(isinstance(each, (Number, tuple, list, slice)) for each in value):
        return [value_of(each) for each in value] if isinstance(value, list) else tuple(map(value_of, value))
    if isinstance(value, slice):
        return slice(value_of(value.start), value_of(value.stop), value_of(value.step))
    return value
