"""Devices by name, seeds that leave no trace, modes and places that are restored."""

import copy
import random

import numpy
import pytest
import torch
from torch import nn

from course_lib.device import (
    autocast_dtype,
    copy_of_state,
    device_of,
    evaluating,
    pick_device,
    placed,
    put_back,
    scale,
    seeded,
    trained_state,
    undone_on_error,
    weights_of,
)


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


@pytest.mark.parametrize("draw", [lambda: numpy.random.rand(3).tolist(), lambda: [random.random() for _ in range(3)]])
def test_seeded_covers_numpy_and_python(draw):
    numpy.random.seed(5), random.seed(5)
    expected = draw(), draw()
    numpy.random.seed(5), random.seed(5)
    first = draw()
    with seeded(-1):
        inside = draw()
    second = draw()
    with seeded(-1):
        again = draw()
    with seeded(1):
        other = draw()
    assert (first, second) == expected and inside == again and inside not in (first, other)


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


# ---- what training changes, copied and put back


class Net(nn.Module):
    """A frozen layer, a trained one, an expanded buffer, one that comes later, one that grows, and extra state."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(3, 3).requires_grad_(False)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("scale", torch.tensor([2.0]).expand(3))
        self.register_buffer("later", None)
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.calls = {"count": 0}

    def get_extra_state(self):
        return self.calls

    def set_extra_state(self, state):
        self.calls = dict(state)

    def forward(self, inputs):
        self.calls["count"] += 1
        self.seen = torch.cat([self.seen, inputs.detach().mean().view(1)])
        self.later = inputs.detach().sum()
        return self.norm(self.base(inputs)) * self.scale


def everything(model):
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    return buffers | {name: value.detach().clone() for name, value in model.named_parameters()}, copy.deepcopy(
        model.calls
    )


def same(one, other):
    if one[0].keys() != other[0].keys() or one[1] != other[1]:
        return False
    return all(torch.equal(value, other[0][name]) for name, value in one[0].items())


def step(model):
    model.zero_grad()
    model(torch.randn(4, 3)).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 1


def test_an_error_undoes_weights_buffers_extra_state_modes_and_gradients_and_is_the_one_that_is_seen():
    model = Net()
    model.norm.eval()
    model.norm.weight.grad = torch.ones(3)
    scale, before = model.scale, everything(model)
    with pytest.raises(OSError, match="the first error"), undone_on_error(model):
        model.train()
        step(model)
        model.scale = model.scale + 1
        model.norm.bias = nn.Parameter(torch.ones(3))
        assert not same(everything(model), before)
        raise OSError("the first error")
    assert same(everything(model), before) and model.later is None and model.scale is scale
    assert model.training and not model.norm.training
    assert model.norm.weight.grad.tolist() == [1, 1, 1] and model.norm.bias.grad is None


def test_without_an_error_and_after_an_interruption_the_changes_stay():
    for error in (None, KeyboardInterrupt):
        model = Net()
        before = everything(model)
        try:
            with undone_on_error(model):
                step(model)
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert not same(everything(model), before)


def test_frozen_parameters_are_not_copied_unless_that_is_asked_for():
    model = Net()
    assert set(trained_state(model)["tensors"]) == {
        *("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
        *("scale", "seen"),
    }
    before = everything(model)
    with pytest.raises(KeyError), undone_on_error(model, frozen=True):
        with torch.no_grad():
            model.base.weight.zero_()
        raise KeyError
    assert same(everything(model), before)


def test_a_copy_is_put_back_into_another_model_of_the_same_kind():
    model, other = Net(), Net()
    step(model)
    kept, before = copy_of_state(model, "cpu"), everything(model)
    step(model)
    other.base.load_state_dict(model.base.state_dict())
    other.later = torch.zeros(())
    put_back(other, kept)
    assert same(everything(other), before)
    put_back(model, kept)
    assert same(everything(model), before)
    with pytest.raises(ValueError, match=r"weight is \(2, 2\) in the model, \(3, 3\) in what is put back"):
        put_back(nn.Linear(2, 2), copy_of_state(nn.Linear(3, 3)))


def test_weights_of_keeps_what_is_no_tensor():
    model = Net()
    kept = weights_of(model)
    step(model)
    assert kept["_extra_state"] == {"count": 0} and kept["norm.weight"].tolist() == [1, 1, 1]
