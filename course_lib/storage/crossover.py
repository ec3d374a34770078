"""From which density on a sparse layer is smaller, and from which it is faster: two different densities, measured.

What is smaller follows from the layout (``sparse.layout_bytes``). What is faster depends on the machine, the library,
the size of the matrix and the number of inputs at a time. A dense product runs at nearly the full speed of the
processor; a sparse one fetches every value and every input from another place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from course_lib.device import seeded
from course_lib.measure import bytes_in_memory, latencies
from course_lib.storage.linear import SparseLinear

DENSITIES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Crossover:
    """Where one layout begins to pay, for one size of matrix and one number of inputs.

    Attributes:
        layout: ``coo`` or ``csr``.
        faster_below, smaller_below: the largest measured density from which on down the layout is faster, or smaller,
            than dense at every measured density; None: at no density that was measured.
        seconds, bytes: of the layout, by density.
        dense_seconds: by density, timed in turns with those of the layout.
        dense_bytes: of the dense layer.
    """

    layout: Literal["coo", "csr"]
    faster_below: float | None
    smaller_below: float | None
    seconds: Mapping[float, float]
    bytes: Mapping[float, int]
    dense_seconds: Mapping[float, float]
    dense_bytes: int


def crossover(
    shape: tuple[int, int],
    *,
    layouts: Sequence[Literal["coo", "csr"]] = ("csr", "coo"),
    batch: int = 64,
    densities: Sequence[float] = DENSITIES,
    repeats: int = 20,
    seed: int = 0,
) -> dict[str, Crossover]:
    """Time a linear layer (out, in) = ``shape`` as dense and in ``layouts``, in turns, with random zeros.

    Args:
        batch: inputs at a time.
        densities: shares of the weights that are not zero.
        repeats: how often each is timed; medians are compared.
        seed: of the weights, the zeros and the inputs.

    Raises:
        ValueError: no density, one outside of 0 to 1, or what ``SparseLinear`` and ``latencies`` refuse.
    """
    if not densities or not all(0 <= density <= 1 for density in densities):
        raise ValueError(f"densities is {list(densities)}; expected one or more shares from 0 to 1")
    seconds: dict[str, dict[float, float]] = {name: {} for name in ("dense", *layouts)}
    sizes: dict[str, dict[float, int]] = {name: {} for name in ("dense", *layouts)}
    for density in densities:
        layers = sparse_candidates(shape, density, layouts, seed=seed)
        with seeded(seed):
            inputs = torch.randn(batch, shape[1])
        for name, measured in latencies(layers, inputs, repeats=repeats).items():
            seconds[name][density] = measured.median
            sizes[name][density] = bytes_in_memory(layers[name])
    return {
        name: Crossover(
            layout=name,
            faster_below=begins_to_pay(seconds[name], seconds["dense"]),
            smaller_below=begins_to_pay(sizes[name], sizes["dense"]),
            seconds=seconds[name],
            bytes=sizes[name],
            dense_seconds=seconds["dense"],
            dense_bytes=sizes["dense"][densities[0]],
        )
        for name in layouts
    }


def sparse_candidates(
    shape: tuple[int, int], density: float, layouts: Sequence[Literal["coo", "csr"]], *, seed: int = 0
) -> dict[str, nn.Module]:
    """One linear layer (out, in) = ``shape`` with exactly ``round(density · out · in)`` weights, in each layout.

    Returns:
        ``dense`` first, then the others by the names of their layouts.
    """
    with seeded(seed):
        linear = nn.Linear(shape[1], shape[0]).requires_grad_(False)
        order = torch.randperm(linear.weight.numel())
    linear.weight.view(-1)[order[round(density * len(order)) :]] = 0
    return {"dense": linear} | {layout: SparseLinear.from_linear(linear, layout) for layout in layouts}


def begins_to_pay(costs: Mapping[float, float], dense: Mapping[float, float]) -> float | None:
    """The largest density from which on down ``costs``, by density, are below those of ``dense``; None: nowhere."""
    found = None
    for density in sorted(costs):
        if costs[density] >= dense[density]:
            break
        found = density
    return found
