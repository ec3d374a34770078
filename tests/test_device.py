"""Devices by name, seeds that leave no trace, modes and places that are restored."""

import pytest
import torch
from torch import nn

from course_lib.device import autocast_dtype, device_of, evaluating, pick_device, placed, scale, seeded


def test_the_cpu_when_there_is_nothing_faster(monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (True, False, "cuda")]
)
def test_cuda_before_mps_before_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == torch.device(expected)


def test_the_environment_overrides_and_the_argument_overrides_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")
    monkeypatch.setenv("COURSE_DEVICE", "no such thing")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "cpu and more"])
def test_a_device_that_is_not_there_is_named(monkeypatch, name):
    monkeypatch.setenv("COURSE_DEVICE", name)
    with pytest.raises(ValueError, match=f"device '{name}' cannot be used.*COURSE_DEVICE"):
        pick_device()


def test_mixed_precision_only_on_a_gpu_that_has_it(monkeypatch):
    assert autocast_dtype(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert autocast_dtype(torch.device("cuda")) is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert autocast_dtype(torch.device("cuda")) is None


def test_scale(monkeypatch):
    monkeypatch.delenv("COURSE_SCALE", raising=False)
    assert scale() == "quick"
    monkeypatch.setenv("COURSE_SCALE", "full")
    assert scale() == "full"
    monkeypatch.setenv("COURSE_SCALE", "huge")
    with pytest.raises(ValueError, match="COURSE_SCALE is 'huge'; expected 'quick' or 'full'"):
        scale()


def test_seeded_repeats_inside_and_leaves_no_trace_outside():
    torch.manual_seed(5)
    expected = torch.rand(3), torch.rand(3)
    torch.manual_seed(5)
    first = torch.rand(3)
    with seeded(1):
        inside = torch.rand(3)
    second = torch.rand(3)
    with seeded(1):
        again = torch.rand(3)
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1])
    assert torch.equal(inside, again) and not torch.equal(inside, first)


def test_seeded_leaves_no_trace_after_an_error():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(KeyError), seeded(1):
        torch.rand(7)
        raise KeyError
    assert torch.equal(torch.rand(3), expected)


def test_evaluating_restores_the_mode_of_each_module_even_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Dropout()))
    model[1].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == modes == [True, True, False, True, True]


def test_placed_brings_the_model_back_even_after_an_error(monkeypatch):
    model, places = nn.Linear(2, 2), []
    monkeypatch.setattr(model, "to", places.append)
    with pytest.raises(KeyError), placed(model, torch.device("meta")):
        raise KeyError
    assert places == [torch.device("meta"), torch.device("cpu")]


def test_placed_brings_back_what_was_moved_before_the_memory_ran_out(monkeypatch):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    move = nn.Sequential.to

    def fails_half_way(self, device):
        monkeypatch.setattr(nn.Sequential, "to", move)
        self[0].to(torch.float64)  # in place of a device that this machine may not have
        raise MemoryError

    monkeypatch.setattr(nn.Sequential, "to", fails_half_way)
    monkeypatch.setattr("course_lib.device.device_of", lambda model: torch.float32)
    with pytest.raises(MemoryError), placed(model, torch.device("cuda")):
        pass
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_device_of():
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    only_buffers = nn.BatchNorm1d(2, affine=False, device="meta")
    assert device_of(only_buffers) == torch.device("meta")
    assert device_of(nn.ReLU()) == torch.device("cpu")
