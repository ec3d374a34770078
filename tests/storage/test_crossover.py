"""Where a sparse layout begins to pay: the rule by hand, and what is measured with times that are given."""

import pytest
import torch
from torch import nn

from course_lib.storage import crossover as module
from course_lib.storage.crossover import begins_to_pay, crossover, sparse_candidates
from course_lib.table import Latency


def test_the_rule_by_hand():
    dense = {1.0: 10, 0.5: 10, 0.1: 10, 0.01: 10}
    assert begins_to_pay({1.0: 90, 0.5: 40, 0.1: 9, 0.01: 2}, dense) == 0.1
    assert begins_to_pay({1.0: 90, 0.5: 9, 0.1: 11, 0.01: 2}, dense) == 0.01  # at 0.5 by luck: 0.1 is slower
    assert begins_to_pay({1.0: 90, 0.5: 40, 0.1: 12, 0.01: 10}, dense) is None  # as fast is not faster
    assert begins_to_pay({0.01: 2, 1.0: 3}, dense) == 1.0  # in any order


def test_candidates_hold_the_same_weights_and_the_exact_number():
    layers = sparse_candidates((30, 20), 0.25, ["csr", "coo"], seed=3)
    assert list(layers) == ["dense", "csr", "coo"]
    assert layers["dense"].weight.count_nonzero() == len(layers["csr"].values) == 150
    for layout in ("csr", "coo"):
        assert torch.equal(layers[layout].weight, layers["dense"].weight)
    again = sparse_candidates((30, 20), 0.25, ["csr"], seed=3)
    assert torch.equal(again["dense"].weight, layers["dense"].weight)


def test_times_are_compared_density_by_density(monkeypatch):
    """Dense takes 1 s, CSR 5 s times the density, COO 20 s times the density."""
    asked = []

    def times(layers: dict[str, nn.Module], inputs: torch.Tensor, *, repeats: int) -> dict[str, Latency]:
        asked.append((tuple(inputs.shape), repeats))
        density = layers["dense"].weight.count_nonzero().item() / layers["dense"].weight.numel()
        seconds = {"dense": 1.0, "csr": 5 * density, "coo": 20 * density}
        return {name: Latency(seconds[name], 0.0, seconds[name], repeats) for name in layers}

    monkeypatch.setattr(module, "latencies", times)
    found = crossover((100, 50), batch=7, densities=(0.1, 0.5, 0.2, 0.04), repeats=5)
    assert asked == [((7, 50), 5)] * 4
    assert (found["csr"].faster_below, found["coo"].faster_below) == (0.1, 0.04)
    assert (found["csr"].smaller_below, found["coo"].smaller_below) == (0.2, 0.1)  # 8 bytes an entry, and 20
    assert found["csr"].seconds == {density: 5 * density for density in (0.1, 0.5, 0.2, 0.04)}
    assert found["coo"].bytes[0.1] == 500 * 20 + 400 and found["coo"].dense_bytes == 5000 * 4 + 400
    assert found["csr"].dense_seconds == dict.fromkeys((0.1, 0.5, 0.2, 0.04), 1.0)


def test_measured_for_real():
    found = crossover((64, 64), layouts=["csr"], batch=2, densities=[1.0, 0.0], repeats=2)["csr"]
    assert found.smaller_below == 0.0 and all(seconds > 0 for seconds in found.seconds.values())


@pytest.mark.parametrize("densities", [[], [0.5, 1.5], [-0.1], [float("nan")]])
def test_densities_that_cannot_be(densities):
    with pytest.raises(ValueError, match="expected one or more shares from 0 to 1"):
        crossover((4, 4), densities=densities)


def test_an_unknown_layout():
    with pytest.raises(ValueError, match="layout is 'bsr'"):
        crossover((4, 4), layouts=["bsr"])
