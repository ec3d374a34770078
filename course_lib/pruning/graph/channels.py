"""Which channels go together: the bookkeeping of structured pruning.

A unit of a layer makes one channel. Every axis of every tensor that may lose channels has their numbers: a tensor of
int64 with one number for each place along the axis. The output (N, 64, 28, 28) of a convolution has numbers for axis 1;
flattened to (N, 50176) it has 50176 of them, each of the 64 numbers 784 times. Parameters have numbers too: the weight
(out, in) of a linear layer has numbers for both axes. An axis that may lose nothing, such as that of the examples, has
None.

Three things can be said about channels: that they are tied (where one goes, the other goes too), that they are fixed
(they stay, for a reason), and how many of them the code expects at some place, where the code computes that number from
other channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

Axes = tuple[Tensor | None, ...]  # for each axis of a tensor the numbers of its channels (size,), or None


@dataclass(eq=False)
class Attribute:
    """A whole number that a module keeps in an attribute, and where the code uses it as a number of channels.

    Attributes:
        uses: channels whose number has to be ``share`` times the attribute, with that share.
        pinned: why it has to keep its value; None as long as it may change with its channels.
    """

    module: str
    name: str
    uses: list[tuple[Tensor, Fraction]]
    pinned: str | None = None


Amount = Sequence[tuple[Fraction, Tensor | Attribute]]  # a number of channels: so many times the channels of a tensor


@dataclass(frozen=True)
class Verdict:
    """What may go, decision by decision: a decision is a set of channels that are tied.

    Attributes:
        decision: for each channel the number of its decision (count,).
        reason: for each decision the place in ``reasons`` of why it is fixed, or -1 (count,).
        output: whether it is fixed because it is the network's output (count,).
    """

    decision: Tensor
    reason: Tensor
    output: Tensor
    reasons: Sequence[str]

    def why_fixed(self, removed: Tensor, *, allow_outputs: bool = False) -> str | None:
        """The first reason against removing some decisions, or None; ``removed`` says which, as an index."""
        found = self.reason[removed]
        if bool((found >= 0).any()):
            return self.reasons[int(found[found >= 0].min())]
        if not allow_outputs and bool(self.output[removed].any()):
            return "they are the network's output"
        return None


class Channels:
    """Gives out numbers for channels, and remembers what is said about them."""

    def __init__(self) -> None:
        self.count = 0
        self.attributes: list[Attribute] = []
        self._ties: list[tuple[Tensor, Tensor]] = []
        self._fixed: list[tuple[Tensor, str]] = []
        self._outputs: list[Tensor] = []
        self._expected: list[tuple[Amount, str]] = []

    def fresh(self, number: int) -> Tensor:
        """New channels: (number,)."""
        self.count += number
        return torch.arange(self.count - number, self.count)

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Channels at the same place go together; the shapes are broadcast."""
        if one is not other:
            if one.shape != other.shape:
                one, other = torch.broadcast_tensors(one, other)
            self._ties.append((one.reshape(-1), other.reshape(-1)))

    def tie_rows(self, numbers: Tensor, rows: int) -> None:
        """Cut ``numbers`` (C,) into rows of equal length; channels at the same place of each row go together."""
        table = numbers.view(rows, -1)
        self.tie(table[:1], table)

    def fix(self, numbers: Tensor | None, reason: str) -> None:
        """These stay. Nothing happens for None."""
        if numbers is not None:
            self._fixed.append((numbers.reshape(-1), reason))

    def fix_output(self, numbers: Tensor | None) -> None:
        """These are the network's output: they stay, unless somebody asks for smaller outputs."""
        if numbers is not None:
            self._outputs.append(numbers.reshape(-1))

    def expect(self, numbers: Tensor | None, amount: Amount, reason: str) -> None:
        """The code expects ``amount`` channels where ``numbers`` are; None: where none may go."""
        if len(amount) == 1 and isinstance(amount[0][1], Attribute):
            share, attribute = amount[0]
            attribute.uses.append((torch.empty(0, dtype=torch.int64) if numbers is None else numbers, share))
        elif not (len(amount) == 1 and amount[0][0] == 1 and amount[0][1] is numbers):
            self.expect_equal(amount, [] if numbers is None else [(Fraction(1), numbers)], reason)

    def expect_equal(self, one: Amount, other: Amount, reason: str) -> None:
        """Two amounts of channels have to stay equal, and attributes in them as they are."""
        terms = [*one, *((-share, source) for share, source in other)]
        for _, source in terms:
            if isinstance(source, Attribute) and source.pinned is None:
                source.pinned = reason
        self._expected.append(([term for term in terms if isinstance(term[1], Tensor)], reason))

    def verdict(self, sizes: dict[tuple[str, str, int | None], Tensor]) -> Verdict:
        """Put together everything that was said.

        Args:
            sizes: (module, attribute, place) -> the channels whose number a layer keeps there. Attributes that the code
                uses as a number of channels, and that may change, are added.
        """
        for attribute in self.attributes:
            self._settle(attribute, sizes)
        decision = self._connected()
        for terms, why in self._expected:
            if terms:
                self.fix(_unequal(decision, terms), why)
        reason = torch.full((self.count,), -1)
        texts = list(dict.fromkeys(text for _, text in self._fixed))
        places = {text: place for place, text in enumerate(texts)}
        for numbers, text in reversed(self._fixed):  # the first reason is the one that is kept
            reason[decision[numbers]] = places[text]
        output = torch.zeros(self.count, dtype=torch.bool)
        for numbers in self._outputs:
            output[decision[numbers]] = True
        return Verdict(decision, reason, output, texts)

    def _settle(self, attribute: Attribute, sizes: dict[tuple[str, str, int | None], Tensor]) -> None:
        """An attribute changes with its channels if all its uses agree; otherwise these channels stay."""
        place = (attribute.module, attribute.name, None)
        uses = [(sizes[place], Fraction(1))] if place in sizes else []
        uses += attribute.uses
        what = f"{attribute.name!r} of {attribute.module!r}" if attribute.module else f"{attribute.name!r} of the model"
        for numbers, share in uses:
            if attribute.pinned is not None:
                self.fix(numbers, f"{attribute.pinned} needs all of them: {what} says how many there are")
            else:
                first, first_share = uses[0]
                why = f"{what} says how many there are, and that number is also used for others"
                self._expected.append(([(Fraction(1), numbers), (-share / first_share, first)], why))
                sizes.setdefault(place, first)

    def _connected(self) -> Tensor:
        """For each channel the lowest channel that it is tied to, over any number of steps: (count,)."""
        lowest = torch.arange(self.count)
        if not self._ties:
            return lowest
        one, other = (torch.cat(side) for side in zip(*self._ties, strict=True))
        both = torch.cat([one, other])
        while True:
            shared = torch.minimum(lowest[one], lowest[other]).repeat(2)
            lower = lowest.scatter_reduce(0, both, shared, "amin")
            lower = lower[lower]  # a channel takes what its lowest one has found meanwhile
            if torch.equal(lower, lowest):
                return lowest
            lowest = lower


def _unequal(decision: Tensor, terms: Sequence[tuple[Fraction, Tensor]]) -> Tensor:
    """The decisions that would change the sum of the ``terms``, each a share of a number of channels."""
    involved, place = torch.cat([decision[source] for _, source in terms]).unique(return_inverse=True)
    shares = torch.cat([torch.full((len(source),), float(share), dtype=torch.float64) for share, source in terms])
    change = torch.zeros(len(involved), dtype=torch.float64).index_add_(0, place, shares)
    return involved[change.abs() > 1e-6]
