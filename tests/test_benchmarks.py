"""The helper of the benchmarks, with a clock of its own, and the page. Nothing here is timed."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import (
    fit_loop,
    global_mask,
    import_time,
    kd_step,
    lessons,
    masked_forward,
    page,
    sparse_crossover,
    structured_resnet,
    widget,
)
from benchmarks import width_speedup as narrow
from benchmarks.__main__ import NAMES
from benchmarks.interleave import calling, compare, interleave, missing, spread


class Clock:
    """A clock that moves only when a candidate says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float):
        def candidate(_: object) -> None:
            self.now += seconds

        return candidate


def test_each_candidate_has_its_own_time_in_every_round() -> None:
    clock = Clock()
    times = interleave({"a": clock.takes(1.0), "b": clock.takes(3.0)}, rounds=4, warmup=2, clock=clock)
    assert times == {"a": [1.0] * 4, "b": [3.0] * 4}


def test_they_take_turns_and_nobody_is_always_first() -> None:
    order: list[str] = []
    candidates = {name: lambda _, name=name: order.append(name) for name in "abc"}
    interleave(candidates, rounds=6, warmup=0)
    rounds = ["".join(order[i : i + 3]) for i in range(0, 18, 3)]
    assert all(sorted(round_) == ["a", "b", "c"] for round_ in rounds)
    assert {round_[0] for round_ in rounds} == {"a", "b", "c"}
    assert len({round_[:2] for round_ in rounds}) > 3  # and nobody always follows the same one


def test_preparing_is_not_timed_and_is_done_for_each_call() -> None:
    clock, given = Clock(), []

    def prepare() -> int:
        clock.now += 100.0
        return len(given)

    def candidate(state: object) -> None:
        given.append(state)
        clock.now += 1.0

    assert interleave({"a": candidate}, rounds=3, warmup=1, prepare=prepare, clock=clock) == {"a": [1.0] * 3}
    assert given == [0, 1, 2, 3]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"warmup": -1}, {"candidates": {}}])
def test_nothing_to_time(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected at least one candidate"):
        interleave(**{"candidates": {"a": lambda _: None}, **wrong})


def test_spread_by_hand() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)  # quartiles 2 and 4, median 3
    assert spread([7.0, 7.0]) == 0
    with pytest.raises(ValueError, match="at least two"):
        spread([1.0])


def test_compare_by_hand() -> None:
    rows = compare({"a": [0.002, 0.004, 0.003], "b": [0.006, 0.009, 0.005]}, base="a", each=2)
    a, b = rows
    assert (a["what"], a["ratio of medians"], a["ratio of minima"]) == ("a", 1, 1)
    assert b["median ms"] == pytest.approx(3.0)  # 6 ms for two
    assert b["minimum ms"] == pytest.approx(2.5)
    assert b["ratio of medians"] == pytest.approx(2.0)
    assert b["ratio of minima"] == pytest.approx(2.5)
    assert compare({"a": [2.0, 4.0]}, base="a", unit="s")[0]["median s"] == 3.0
    rows = compare({"a": [1, 2], "b": [2, 3], "c": [3, 4]}, base="a", aims={"b": 2.0})
    assert [row.get("met") for row in rows] == [None, True, None]
    (_, late) = compare({"a": [1.0, 1.0], "b": [1.06, 1.0]}, base="a", aims={"b": 0.99})
    assert (late["aim"], late["met"]) == ("≤ 0.99", False)
    with pytest.raises(ValueError, match="'c'.* is none of"):
        compare({"a": [1.0, 2.0]}, base="a", aims={"c": 1.0})
    with pytest.raises(ValueError, match="base is 'c'"):
        compare({"a": [1.0, 2.0]}, base="c")
    with pytest.raises(ValueError, match="unit is 'h'"):
        compare({"a": [1.0, 2.0]}, base="a", unit="h")


def test_a_candidate_calls_without_gradients() -> None:
    seen = []
    calling(lambda x: seen.append((x, torch.is_grad_enabled())), 7, times=3)(None)
    assert seen == [(7, False)] * 3


def test_a_peer_that_is_not_installed_is_named() -> None:
    assert missing("torch") == []
    assert missing("no_such_peer") == [{"what": "no_such_peer: not measured, not installed"}]


@pytest.mark.parametrize(("seconds", "met"), [(40.0, True), (75.0, True), (75.1, False)])
def test_a_lesson_may_take_a_quarter_more_than_its_budget(seconds: float, met: bool) -> None:
    assert (
        lessons.judge("00", lessons.budget_seconds("# T\n\nRuns in about 60 s on 2 CPU cores."), seconds)["met"] is met
    )


def test_a_lesson_without_a_budget() -> None:
    with pytest.raises(ValueError, match="no budget line"):
        lessons.budget_seconds("# A lesson")


def test_a_widget_is_judged_by_its_median() -> None:
    assert widget.judge("a move", [10.0, 20.0, 900.0])["met"] is True
    assert widget.judge("a move", [10.0, 200.0, 900.0])["met"] is False


def test_the_losses_that_are_compared_are_the_same() -> None:
    kd_step.check_same(6, 5)
    assert {"by hand", "course_lib"} <= set(kd_step.losses())


def test_the_loops_that_are_compared_arrive_at_the_same_weights() -> None:
    fit_loop.check_same(fit_loop.CASES[0])


def test_the_masks_that_are_compared_are_the_same() -> None:
    global_mask.check_same(40)
    model = global_mask.network(3)
    assert torch.equal(global_mask.sort(model), torch.cat([layer.weight.abs().flatten() for layer in model]).msort())


def test_growth_by_hand() -> None:
    small = [{"what": global_mask.BASE, "minimum ms": 10.0}, {"what": global_mask.OURS, "minimum ms": 1.0}]
    large = [{"what": global_mask.BASE, "minimum ms": 110.0}, {"what": global_mask.OURS, "minimum ms": 12.0}]
    sort, ours = global_mask.with_growth(large, small)
    assert (sort["growth"], ours["growth"], ours["aim"], ours["met"]) == (11.0, 12.0, "growth ≤ 11.0", False)


def test_the_masked_networks_that_are_compared_give_the_same_answers() -> None:
    pytest.importorskip("torchvision", exc_type=ImportError)
    models = masked_forward.networks()
    masked_forward.check_same(models, torch.randn(2, 3, 64, 64))
    zeros = {name: int((model.conv1.weight == 0).sum()) for name, model in models.items()}
    assert len(set(zeros.values())) == 1 and zeros[masked_forward.BASE] > 0


@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_the_layouts_that_are_compared_give_the_same_answers(density: float) -> None:
    sparse_crossover.check_same(16, 3, density)


def test_a_row_of_the_crossover_by_hand() -> None:
    times = {0.5: {"dense": [1.0, 1.0], "csr": [2.0, 4.0]}, 0.1: {"dense": [2.0, 2.0], "csr": [1.0, 1.0]}}
    sizes = {0.5: {"dense": 10, "csr": 9}, 0.1: {"dense": 10, "csr": 2}}
    row = sparse_crossover.row("a case", "csr", times, sizes)
    assert (row["layout"], row["faster below"], row["smaller below"]) == ("CSR", 0.1, 0.5)
    assert (row["density 0.5"], row["density 0.1"]) == (3.0, 0.5)
    assert row["spread"] == pytest.approx(1 / 3)  # quartiles 2.5 and 3.5, median 3


def test_the_removals_that_are_compared_leave_the_same_network() -> None:
    pytest.importorskip("torch_pruning")
    model = structured_resnet.network()
    pruned = structured_resnet.check_same(model, {"conv1": [0, 5], "layer3.0.conv1": [1]}, torch.zeros(1, 3, 32, 32))
    assert set(pruned) == {"Torch-Pruning", "course_lib"}
    assert all(each.layer1[0].conv2.out_channels == 62 for each in pruned.values())
    rows = structured_resnet.judged(
        compare({"Torch-Pruning": [2.0, 2.0], "course_lib": [2.1, 2.2]}, base="Torch-Pruning"), 1.0
    )
    assert [row.get("met") for row in rows] == [None, False]


def test_width_by_hand() -> None:
    case = narrow.CASES[2]
    model, example = case.build(), torch.zeros(1, *case.shape)
    small = narrow.narrowed(model, 0.1, example)
    assert [layer.out_features for layer in small if hasattr(layer, "out_features")] == [120, 120, 10]
    assert model[1].out_features == 1200
    rows = narrow.rows_of("net", {1.0: 800.0, 0.5: 200.0}, {1.0: [2.0, 4.0, 6.0], 0.5: [2.0, 2.0, 2.0]})
    assert [(row["1"], row["0.5"]) for row in rows] == [(1, 4), (1, 2), (1, 0.5)]
    assert rows[0]["spread"] == pytest.approx(0.5)  # quartiles 3 and 5, median 4


def test_import_is_timed_in_a_fresh_python() -> None:
    assert 0 <= import_time.seconds_to_import("math") < 1
    with pytest.raises(subprocess.CalledProcessError):
        import_time.seconds_to_import("no_such_module")


def test_table_by_hand() -> None:
    rows = [{"what": "a", "ms": 1234.5, "met": True}, {"what": "b", "ms": 0.01234, "note": "x", "met": False}]
    assert page.table(rows) == (
        "| what | ms | met | note |\n| --- | ---: | --- | --- |\n| a | 1,234 | yes |  |\n| b | 0.0123 | **no** | x |"
    )


def test_records_name_no_machine_and_no_path() -> None:
    import getpass
    import platform
    from pathlib import Path

    text = json.dumps([page.machine(), page.versions()])
    assert platform.node() not in text
    assert str(Path.home()) not in text and f'"{getpass.getuser()}"' not in text
    assert set(page.machine()) == {"system", "processor", "cores", "threads", "load"}


def test_the_page_is_drawn_from_the_results() -> None:
    files = [page.RESULTS / f"{name}.json" for name in NAMES]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    assert records and page.PAGE.read_text(encoding="utf-8") == page.page(records)


def test_an_unknown_benchmark_is_named() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "kd"], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"unknown: kd; expected any of {', '.join(NAMES)}" in done.stderr
