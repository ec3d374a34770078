"""Where a sparse layout begins to pay, in time and in bytes: dense, CSR and COO with more and more zeros.

Before anything is timed, all three layouts have to give the same answers.
"""

import statistics

import torch

from benchmarks.interleave import Row, calling, interleave, spread
from course_lib.device import seeded
from course_lib.measure import bytes_in_memory
from course_lib.storage.crossover import begins_to_pay, sparse_candidates

TITLE = "Where sparse layouts begin to pay"
NOTE = (
    "A linear layer with random zeros, forward, without gradients: `nn.Linear` beside `SparseLinear` in CSR (indices "
    "of 4 bytes) and COO (8 bytes). The columns hold the layout's median time over that of the dense layer at each "
    "density (share of weights that are not zero): below 1 the layout is faster. *Faster below* is the largest of "
    "these densities from which on down it is faster at all of them, *smaller below* the same for bytes in memory; a "
    "dash: at none. *Spread* is the largest of all spreads of that row."
)
LAYOUTS = ("csr", "coo")
DENSITIES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
SIZES = (512, 1024, 2048)
BATCHES = (1, 64)


def check_same(size: int, batch: int, density: float) -> None:
    """Assert that all layouts give the same answers."""
    inputs = example(size, batch)
    with torch.no_grad():
        answers = {name: layer(inputs) for name, layer in sparse_candidates((size, size), density, LAYOUTS).items()}
    for answer in answers.values():
        torch.testing.assert_close(answer, answers["dense"], rtol=1e-4, atol=1e-4)


def example(size: int, batch: int) -> torch.Tensor:
    """Random inputs (batch, size)."""
    with seeded(1):
        return torch.randn(batch, size)


def case(size: int, batch: int, *, densities: tuple[float, ...], rounds: int) -> list[Row]:
    """A row for each layout: its time over the dense one at each density, and where it begins to pay."""
    inputs = example(size, batch)
    times: dict[float, dict[str, list[float]]] = {}
    sizes: dict[float, dict[str, int]] = {}
    for density in densities:
        layers = sparse_candidates((size, size), density, LAYOUTS)
        # A few calls in a row, so that the weights are in the processor's cache as they are in use.
        calls = {name: calling(layer, inputs, times=3) for name, layer in layers.items()}
        times[density] = interleave(calls, rounds=rounds)
        sizes[density] = {name: bytes_in_memory(layer) for name, layer in layers.items()}
    return [row(f"{size} × {size}, batch {batch}", layout, times, sizes) for layout in LAYOUTS]


def row(what: str, layout: str, times: dict, sizes: dict) -> Row:
    """The row of one layout, from the times and the bytes by density and layout."""
    median = {density: {name: statistics.median(v) for name, v in by.items()} for density, by in times.items()}
    faster = begins_to_pay({d: by[layout] for d, by in median.items()}, {d: by["dense"] for d, by in median.items()})
    smaller = begins_to_pay({d: by[layout] for d, by in sizes.items()}, {d: by["dense"] for d, by in sizes.items()})
    ratios = {f"density {density:g}": by[layout] / by["dense"] for density, by in median.items()}
    return {
        "what": what,
        "layout": layout.upper(),
        "faster below": "—" if faster is None else faster,
        "smaller below": "—" if smaller is None else smaller,
        **ratios,
        "spread": max(spread(values) for by in times.values() for values in (by[layout], by["dense"])),
    }


def run(*, quick: bool = False) -> list[Row]:
    """All sizes and batches, after the check that the layouts give the same answers."""
    check_same(128, 4, 0.2)
    densities = (1.0, 0.1, 0.01) if quick else DENSITIES
    sizes = SIZES[:1] if quick else SIZES
    rows = []
    for size in sizes:
        for batch in BATCHES:
            rows += case(size, batch, densities=densities, rounds=3 if quick else 15)
    return rows
