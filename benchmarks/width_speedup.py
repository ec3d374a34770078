"""What narrower networks gain: the speed-up that is measured beside the one that the FLOPs promise.

Filters and neurons are really removed, the same share of every group of layers, from a width of 1.0 down to 0.1.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.interleave import Row, calling, interleave, spread
from course_lib.measure import flops
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.pruning.criteria import unit_norm
from course_lib.pruning.structured import groups, lowest_units, remove_units

TITLE = "Speed-up obtained over speed-up promised"
NOTE = (
    "A network of width 0.5 keeps half of the units of every group of layers, those with the largest L1 norm; the "
    "outputs stay. Promised is the FLOPs of the whole network over those of the narrow one, obtained is the time over "
    "the time (medians). Their ratio falls where a layer is too small to keep the processor busy, and where the time "
    "goes into what FLOPs do not count: reading activations, normalisation, the call itself."
)
WIDTHS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class Case:
    """A network, the shape of one input, and how many calls are timed together for batches of 1 and of 32."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    calls: tuple[int, int]


def resnet() -> nn.Module:
    """torchvision's ResNet-18."""
    from torchvision.models import resnet18

    return resnet18()


CASES = (
    Case("ResNet-18, 3 × 224 × 224", resnet, (3, 224, 224), (1, 1)),
    Case("convolutions 64-128-256, 1 × 28 × 28", lambda: SmallConvNet((64, 128, 256)), (1, 28, 28), (20, 2)),
    Case("perceptron 784-1200-1200-10", lambda: mlp([784, 1200, 1200, 10]), (784,), (100, 20)),
)


def narrowed(model: nn.Module, width: float, example: Tensor) -> nn.Module:
    """A copy of ``model`` with a share ``width`` of its units."""
    small = copy.deepcopy(model).eval()
    return remove_units(small, lowest_units(unit_norm(small), 1 - width, tied=groups(small, example)), example)


def rows_of(case: str, work: Mapping[float, float], times: Mapping[float, Sequence[float]]) -> list[Row]:
    """Three rows with a column for each width, from the FLOPs and the seconds at each."""
    widest = max(work)
    promised = {width: work[widest] / value for width, value in work.items()}
    obtained = {width: median(times[widest]) / median(values) for width, values in times.items()}
    noise = max(spread(values) for values in times.values())
    ratios = {width: obtained[width] / promised[width] for width in work}
    shown = (("promised", promised), ("obtained", obtained), ("obtained / promised", ratios))
    return [
        {"case": case, "speed-up": name} | {f"{width:g}": value for width, value in values.items()} | {"spread": noise}
        for name, values in shown
    ]


def run(*, quick: bool = False) -> list[Row]:
    """Every network at every width, one input at a time and 32 together."""
    rows = []
    widths = (1.0, 0.5, 0.1) if quick else WIDTHS
    for case in CASES:
        example = torch.zeros(1, *case.shape)
        model = case.build().eval()
        models = {width: narrowed(model, width, example) for width in widths}
        work = {width: flops(small, example) for width, small in models.items()}
        for batch, calls in zip((1,) if quick else (1, 32), case.calls, strict=False):
            inputs = torch.randn(batch, *case.shape, generator=torch.Generator().manual_seed(0))
            candidates = {str(width): calling(small, inputs, calls) for width, small in models.items()}
            times = interleave(candidates, rounds=3 if quick else 15, warmup=2)
            seconds = {width: times[str(width)] for width in widths}
            rows += rows_of(f"{case.name}, batch {batch}", work, seconds)
    return rows
