"""Latency and peak memory: by hand, against the allocator's own record, and with what is put back."""

import time

import pytest
import torch
from torch import nn

from course_lib.measure import latencies, latency, peak_memory, work
from course_lib.models.vision import mlp


class Recorder(nn.Module):
    """Notes how it is called: in which mode, and with or without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.seen = []

    def forward(self, x):
        self.seen.append((self.training, self.dropout.training, torch.is_grad_enabled()))
        return x


# Latency


def test_median_spread_and_minimum_by_hand(monkeypatch):
    ticks = iter([0, 9, 10, 12, 20, 21, 30, 33, 40, 44, 50, 150])  # one warm-up of 9 s, then 2, 1, 3, 4, 100
    monkeypatch.setattr(work.time, "perf_counter", lambda: next(ticks))
    measured = latency(lambda: None, repeats=5, warmup=1)
    assert (measured.median, measured.spread, measured.minimum, measured.repeats) == (3, 4 - 2, 1, 5)
    assert str(measured) == "3 s (spread 2 s, 5 runs)"


def test_calls_take_turns():
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    measured = latencies(calls, repeats=7, warmup=1)
    assert "".join(order) == "aaabbb" * 2 + "aabb" * 3  # five turns, one run to warm up in each
    assert [(name, latency.repeats) for name, latency in measured.items()] == [("a", 7), ("b", 7)]


def test_runs_that_warm_up_do_not_count(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(work.time, "perf_counter", lambda: clock[0])
    lengths = iter([50, 1, 50, 2, 60, 3, 60, 4])  # in each of two turns: warm up, then once, for either call

    def call():
        clock[0] += next(lengths)

    measured = latencies({"a": call, "b": call}, repeats=2, warmup=1)
    assert (measured["a"].median, measured["b"].median) == (2, 3)
    assert next(lengths, None) is None


def test_a_sleep_takes_as_long_as_it_sleeps():
    measured = latency(time.sleep, 0.01, repeats=3, warmup=0)
    assert 0.0099 < measured.minimum <= measured.median


def test_a_model_is_timed_in_eval_mode_without_gradients_and_put_back():
    model = Recorder()
    latency(model, torch.randn(1), repeats=2, warmup=1)
    assert model.seen == [(False, False, False)] * 3
    assert model.training and model.dropout.training


def test_a_function_is_timed_as_it_is():
    seen = []
    latency(lambda: seen.append(torch.is_grad_enabled()), repeats=2, warmup=0)
    assert seen == [True, True]


def test_a_model_that_fails_is_put_back():
    model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(RuntimeError):
        latency(model, torch.randn(2, 5))
    assert model.training and torch.is_grad_enabled()


def test_latency_refuses():
    with pytest.raises(ValueError, match="repeats is 1"):
        latency(time.time, repeats=1)
    with pytest.raises(ValueError, match="warmup -1"):
        latency(time.time, warmup=-1)
    with pytest.raises(ValueError, match="calls is empty"):
        latencies({})
    with pytest.raises(TypeError, match="call is a int; expected a model or a function"):
        latency(3)


# Peak memory


def test_peak_of_a_function_by_hand():
    def call():
        a = torch.ones(1000)  # 4,000 B alive
        b = torch.ones(2000)  # 12,000 B
        del a  # 8,000 B
        c = b[:500] + 1  # a view costs nothing; 2,000 B more
        c.mul_(2)  # in place: nothing new
        return b.double()  # 16,000 B more: 26,000 B

    assert peak_memory(call) == 26_000


def test_peak_of_a_network_by_hand():
    x = torch.randn(1, 4)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert peak_memory(net, x) == 8 * 4 + 8 * 4  # before and after the ReLU
    net[1].inplace = True
    assert peak_memory(net, x) == 8 * 4 + 2 * 4  # the hidden layer and the output
    assert net.training


def test_gradients_keep_every_layer_alive():
    chain = nn.Sequential(*[nn.Sigmoid() for _ in range(5)])
    x = torch.randn(100, requires_grad=True)
    assert peak_memory(chain, x) == 2 * 400  # a model is called without gradients
    assert peak_memory(lambda: chain(x)) == 5 * 400


def test_what_was_there_before_does_not_count():
    held = [torch.ones(1000)]

    def call():
        held[0].add_(1)
        held.clear()
        return torch.ones(10)

    assert peak_memory(call) == 40


def test_nothing_allocated_is_zero():
    assert peak_memory(lambda: None) == 0


def test_sparse_results_count():
    dense = torch.eye(4)
    assert peak_memory(dense.to_sparse) >= 4 * 4 + 2 * 4 * 8


def profiled_peak(call) -> int:
    """The same from PyTorch's profiler, which hears every allocation on the CPU."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


@torch.no_grad()
def test_against_the_allocators_record():
    model, x = mlp([64, 300, 100, 10]).eval(), torch.randn(32, 64)
    assert peak_memory(model, x) == profiled_peak(lambda: model(x)) == 2 * 32 * 300 * 4


def test_peak_memory_says_where_it_cannot_look():
    with pytest.raises(ValueError, match="device is 'meta'; peak memory can be measured on 'cpu' and 'cuda'"):
        peak_memory(torch.relu, torch.zeros(1, device="meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu():
    net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 128)).cuda()
    x = torch.randn(64, 256, device="cuda")
    peak_memory(net, x)  # the first call takes a workspace that stays
    assert peak_memory(net, x) == 2 * 64 * 512 * 4
    big = torch.randn(4096, 4096, device="cuda")
    assert latency(torch.mm, big, big, repeats=5).median > 2 * 4096**3 / 2e15  # no GPU does 2 petaflops in fp32
