"""Times of several ways to do one thing, taken in turns, so that a slow minute of the machine is slow for all of them.

    times = interleave({"ours": ours, "by hand": by_hand}, rounds=15)
    rows = compare(times, base="by hand", aims={"ours": 1.05})

The median says what to expect, the minimum what the code costs where nothing else runs. The two ratios should agree;
where they do not, the machine was too busy for the numbers to mean much.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor, nn

Row = dict[str, object]


def interleave(
    candidates: Mapping[str, Callable[[object], object]],
    *,
    rounds: int = 15,
    warmup: int = 1,
    prepare: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; every round runs all of them, each time in another order.

    A candidate is called with what ``prepare`` gives, which is made anew before every call and not timed.
    ``warmup`` rounds come first and are not counted.
    Raises ValueError for no candidate, no round, or a negative number of warm-up rounds.
    """
    if not candidates or rounds < 1 or warmup < 0:
        raise ValueError(
            f"there are {len(candidates)} candidates, rounds is {rounds}, warmup is {warmup}; "
            "expected at least one candidate, at least one round, and a warmup of 0 or more"
        )
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        first = turn % len(names)  # nobody always runs first, or always after the same one
        order = names[first:] + names[:first]
        for name in order if turn % 2 == 0 else reversed(order):
            state = prepare()
            start = clock()
            candidates[name](state)
            seconds = clock() - start
            if turn >= 0:
                times[name].append(seconds)
    return times


def spread(values: Sequence[float]) -> float:
    """Half of the values lie within this share of the median: (third quartile - first quartile) / median.

    Raises ValueError for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"there are {len(values)} values; expected at least two")
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / median


def compare(
    times: Mapping[str, Sequence[float]],
    *,
    base: str,
    aims: Mapping[str, float] | None = None,
    unit: str = "ms",
    each: int = 1,
) -> list[Row]:
    """A row for each candidate: median, minimum and spread, and the ratios to the candidate ``base``.

    ``aims`` says, for some candidates, what the ratio of the minima should be at most. ``unit`` is ``s``, ``ms`` or
    ``µs``; ``each`` is how often a candidate did its work in one timed call.
    Raises ValueError for a ``base``, a candidate in ``aims`` or a ``unit`` that is not known.
    """
    scales, aims = {"s": 1.0, "ms": 1e3, "µs": 1e6}, aims or {}
    if unknown := {base, *aims} - set(times):
        raise ValueError(f"base is {base!r}, aims are for {list(aims)}; {unknown} is none of {list(times)}")
    if unit not in scales:
        raise ValueError(f"unit is {unit!r}; expected one of {list(scales)}")
    scale, rows = scales[unit] / each, []
    for name, values in times.items():
        ratio = min(values) / min(times[base])
        row = {
            "what": name,
            f"median {unit}": statistics.median(values) * scale,
            f"minimum {unit}": min(values) * scale,
            "spread": spread(values),
            "ratio of medians": statistics.median(values) / statistics.median(times[base]),
            "ratio of minima": ratio,
        }
        rows.append(row | ({"aim": f"≤ {aims[name]:g}", "met": ratio <= aims[name]} if name in aims else {}))
    return rows


def calling(model: nn.Module, inputs: Tensor, times: int = 1) -> Callable[[object], None]:
    """A candidate that calls ``model`` several times in a row, without gradients."""

    @torch.no_grad()
    def call(_: object) -> None:
        for _ in range(times):
            model(inputs)

    return call


def missing(module: str) -> list[Row]:
    """A row that says that a library to compare with is not installed; no row if it is."""
    return [] if find_spec(module) else [{"what": f"{module}: not measured, not installed"}]
