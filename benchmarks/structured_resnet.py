"""Half of the filters of torchvision's ResNet-18 removed, beside Torch-Pruning: the same filters, chosen beforehand.

Both have to leave the same weights, bit for bit, before they are timed. Aims: removing takes no longer, and the network
that is left is at most 5% slower than theirs.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from benchmarks.interleave import Row, compare, interleave
from course_lib.measure import count_parameters
from course_lib.pruning.criteria import unit_norm
from course_lib.pruning.structured import groups, lowest_units, remove_units

TITLE = "Structured pruning of a ResNet-18"
NOTE = (
    "Half of the filters of every group of layers, those with the smallest L1 norm. Timed are finding what depends on "
    "what and removing it, from the whole network each time; then the forward pass of what is left. Torch-Pruning runs "
    "the network to find its dependencies, so a small example helps it; here only the example's shape counts."
)
BASE = "Torch-Pruning"
AIMS = {"removing": 1.0, "forward": 1.05}

Units = Mapping[str, Sequence[int]]


def network() -> nn.Module:
    """The dense network, always with the same weights."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18().eval()


def ours(model: nn.Module, units: Units, example: Tensor) -> None:
    """course_lib's removal, in place."""
    remove_units(model, units, example)


def torch_pruning() -> Callable[[nn.Module, Units, Tensor], None] | None:
    """Torch-Pruning's removal in place, none if it is not installed."""
    try:
        import torch_pruning as peer
    except ImportError:
        return None

    def call(model: nn.Module, units: Units, example: Tensor) -> None:
        graph = peer.DependencyGraph().build_dependency(model, example)
        layers = dict(model.named_modules())
        for name, gone in units.items():
            graph.get_pruning_group(layers[name], peer.prune_conv_out_channels, gone).prune()

    return call


def removals() -> dict[str, Callable[[nn.Module, Units, Tensor], None]]:
    """The candidates by name, those that are installed."""
    peer = torch_pruning()
    return {**({BASE: peer} if peer else {}), "course_lib": ours}


def check_same(model: nn.Module, units: Units, example: Tensor) -> dict[str, nn.Module]:
    """The pruned network of each candidate, after asserting that they are equal."""
    pruned = {name: copy.deepcopy(model) for name in removals()}
    for name, remove in removals().items():
        remove(pruned[name], units, example)
    states = [each.state_dict() for each in pruned.values()]
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(value, states[0][key]) for key, value in state.items())
    return pruned


def judged(rows: list[Row], aim: float) -> list[Row]:
    """``rows`` with the aim for course_lib."""
    return [
        row | ({"aim": f"≤ {aim}", "met": row["ratio of minima"] <= aim} if row["what"] != BASE else {}) for row in rows
    ]


def removing(model: nn.Module, units: Units, size: int, rounds: int) -> list[Row]:
    """Time of the removal with an example of ``size`` × ``size``."""
    example = torch.randn(1, 3, size, size)
    candidates = {
        name: lambda fresh, remove=remove: remove(fresh, units, example) for name, remove in removals().items()
    }
    times = interleave(candidates, rounds=rounds, warmup=2, prepare=lambda: copy.deepcopy(model))
    case = f"removing, example 1 × 3 × {size} × {size}"
    return [{"case": case, **row} for row in judged(compare(times, base=BASE), AIMS["removing"])]


def forward(models: Mapping[str, nn.Module], batch: int, rounds: int) -> list[Row]:
    """Time of a forward pass of each network."""
    pictures = torch.randn(batch, 3, 224, 224)

    def timed(model: nn.Module) -> Callable[[object], None]:
        def call(_: object) -> None:
            with torch.no_grad():
                model(pictures)

        return call

    times = interleave({name: timed(model) for name, model in models.items()}, rounds=rounds, warmup=2)
    rows = judged(compare(times, base=BASE), AIMS["forward"])
    return [
        {"case": f"forward, batch {batch}", **row, "parameters": count_parameters(models[row["what"]])} for row in rows
    ]


def run(*, quick: bool = False) -> list[Row]:
    """All cases, after the check that they are the same."""
    if BASE not in removals():
        return [{"what": f"not measured: {BASE} is not installed"}]
    model, example = network(), torch.randn(1, 3, 224, 224)
    units = lowest_units(unit_norm(model), 0.5, tied=groups(model, example))
    pruned = check_same(model, units, example)
    rows = [row for size in (224, 64, 32) for row in removing(model, units, size, 3 if quick else 15)]
    for batch in (1,) if quick else (1, 32):
        rows += forward(pruned, batch, 3 if quick else 15)
    return rows
