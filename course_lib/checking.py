"""The checks that many functions share, so that one mistake is reported in the same words everywhere.

Each names the argument, what came, and what is expected. A check that one function alone needs stands in that function,
and what PyTorch already reports clearly is not checked again.
"""

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

SHOWN = 8  # names listed in an error


def check_type(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise a ``TypeError`` unless ``value`` is of this kind; ``expected`` is what the message calls it: "a tensor"."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {type(value).__name__}; expected {expected}")


def check_number(
    name: str,
    value: object,
    *,
    whole: bool = False,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise unless ``value`` is a finite number, or a whole one, within the limits that are given.

    Raises:
        TypeError: it is no number (a bool is none), or no whole one.
        ValueError: it lies outside of the limits, or is nan or infinite.
    """
    known = not isinstance(value, bool) and isinstance(value, Integral if whole else Real)
    if known and math.isfinite(value):
        inside = (least is None or value >= least) and (above is None or value > above)
        if inside and (most is None or value <= most) and (below is None or value < below):
            return
    limits = [(least, "of at least"), (above, "above"), (most, "of at most"), (below, "below")]
    words = [f"{words} {limit}" for limit, words in limits if limit is not None]
    expected = f"a {'whole' if whole else 'finite'} number {' and '.join(words)}".rstrip()
    if least is not None and most is not None:
        expected = f"a {'whole ' if whole else ''}number from {least} to {most}"
    if known:
        raise ValueError(f"{name} is {value}; expected {expected}")
    raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; expected {expected}")


def check_share(name: str, share: object) -> None:
    """Raise a ``ValueError`` unless ``share`` is a number from 0 to 1."""
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= share <= 1:
        raise ValueError(f"{name} is {share!r}; expected a share of the weights, from 0 to 1")


def check_choice(name: str, value: object, known: Collection[object]) -> None:
    """Raise a ``ValueError`` unless ``value`` is one of the ``known``."""
    if value not in known:
        names = [repr(choice) for choice in known]
        raise ValueError(f"{name} is {value!r}; expected {', '.join([*names[:-2], ' or '.join(names[-2:])])}")


def check_finite(tensors: Mapping[str, Tensor], what: str = "the weights of ") -> None:
    """Raise a ``ValueError`` that names the first of ``tensors`` with a number that is nan or infinite."""
    for name, tensor in tensors.items():
        count = int((~torch.isfinite(tensor)).sum())
        if count:
            raise ValueError(f"{what}{name} hold {count} numbers that are not finite (nan or infinite)")


def near_names(name: str, names: Sequence[str]) -> str:
    """The end of an error message: the ``names`` most like ``name``, or the first ones if none is."""
    near = difflib.get_close_matches(str(name), names, n=SHOWN, cutoff=0.5)
    inside = [known for known in names if known.startswith(f"{name}.")][:SHOWN]
    if near or inside:
        return f"near it: {', '.join(dict.fromkeys(near + inside))}"
    more = ", ..." if len(names) > SHOWN else ""
    return f"it has: {', '.join(names[:SHOWN])}{more}" if names else "it has none"
