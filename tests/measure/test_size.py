"""Parameters and bytes: numbers worked out by hand, then other ways to count."""

import os
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from course_lib.measure import (
    bytes_in_memory,
    bytes_on_disk,
    compression_ratio,
    count_nonzero,
    count_parameters,
)
from course_lib.models.vision import SmallConvNet, mlp


def tiny() -> nn.Sequential:
    """3 inputs, 4 hidden units, 2 outputs: 3·4 + 4 + 4·2 + 2 = 26 parameters."""
    return mlp([3, 4, 2])


class Tied(nn.Module):
    """An embedding of 5 words by 3 numbers whose weight is the output layer's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5)
        self.out.weight = self.embed.weight


class Holder(nn.Module):
    """A module with nothing but one buffer."""

    def __init__(self, tensor: torch.Tensor, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("kept", tensor, persistent=persistent)


def test_tiny_network_by_hand():
    assert count_parameters(tiny()) == 26
    assert bytes_in_memory(tiny()) == 26 * 4
    assert bytes_in_memory(tiny().half()) == 26 * 2


def test_a_shared_weight_counts_once():
    assert count_parameters(Tied()) == 5 * 3 + 5
    assert count_nonzero(Tied()) <= 5 * 3 + 5
    assert bytes_in_memory(Tied()) == (5 * 3 + 5) * 4
    untied = Tied()
    untied.out.weight = nn.Parameter(untied.embed.weight.detach().clone())
    assert bytes_on_disk(untied) - bytes_on_disk(Tied()) >= 5 * 3 * 4


def test_two_views_of_one_storage_count_once_in_memory():
    whole = torch.zeros(10)
    model = nn.Module()
    model.register_buffer("left", whole[:6])
    model.register_buffer("right", whole[4:])
    assert bytes_in_memory(model) == 40
    assert bytes_on_disk(model) > 6 * 4 + 6 * 4  # on disk each is written in full


def test_frozen_parameters_can_be_left_out():
    model = tiny()
    model[1].requires_grad_(False)  # Flatten, Linear(3, 4), ReLU, Linear(4, 2)
    assert count_parameters(model, trainable_only=True) == 10
    assert count_parameters(model) == 26


def test_nonzero_by_hand():
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[1].weight[0] = 0.0  # three weights
        model[3].bias[1] = -0.0  # minus zero is zero
    assert count_nonzero(model) == 22


def test_buffers_are_memory_but_not_parameters():
    layer = nn.BatchNorm1d(3)  # weight, bias, running mean and variance: 4 · 3 floats; one int64 counter
    assert count_parameters(layer) == 6
    assert bytes_in_memory(layer) == 4 * 3 * 4 + 8


def test_a_buffer_that_is_not_saved_is_not_on_disk():
    held, saved = Holder(torch.zeros(1000), persistent=False), Holder(torch.zeros(1000))
    assert bytes_in_memory(held) == bytes_in_memory(saved) == 4000
    assert bytes_on_disk(held) < 100 < 4000 < bytes_on_disk(saved)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_tensors_count_values_and_indices():
    dense = torch.zeros(100, 10)
    dense[3, 4] = dense[50, 9] = 1.0
    coo = Holder(dense.to_sparse())
    assert bytes_in_memory(coo) == 2 * 4 + 2 * 2 * 8  # two values; two indices of two int64 each
    pointers, columns = torch.zeros(101, dtype=torch.int64), torch.tensor([4, 9])
    pointers[4:], pointers[51:] = 1, 2
    csr = Holder(torch.sparse_csr_tensor(pointers, columns, torch.ones(2), (100, 10), check_invariants=True))
    torch.testing.assert_close(csr.kept.to_dense(), dense)
    assert bytes_in_memory(csr) == 2 * 4 + 2 * 8 + 101 * 8  # values; columns; one row pointer more than rows
    assert 40 < bytes_on_disk(coo) < 1000 < bytes_on_disk(csr) < bytes_on_disk(Holder(dense))
    assert count_nonzero(nn.ParameterList([nn.Parameter(dense.to_sparse())])) == 2


class Quantized(torch.Tensor):
    """Looks like 32-bit numbers, holds bytes and a scale; torchao's tensors are made like this."""

    @staticmethod
    def __new__(cls, levels, scale):
        return torch.Tensor._make_wrapper_subclass(cls, levels.shape, dtype=torch.float32)

    def __init__(self, levels, scale):
        self.levels, self.scale = levels, scale

    def __tensor_flatten__(self):
        return ["levels", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        assert func is torch.ops.aten.detach.default, "nothing here should compute with it"
        return args[0]


def test_a_tensor_subclass_counts_what_it_holds():
    model = Holder(Quantized(torch.zeros(1000, dtype=torch.int8), torch.ones(1)))
    assert bytes_in_memory(model) == 1000 + 4
    assert 1004 < bytes_on_disk(model) < 2000


@pytest.mark.parametrize("model", [tiny(), SmallConvNet(), nn.LSTM(3, 4)], ids=lambda m: type(m).__name__)
def test_against_the_state_dict_and_a_file(model, tmp_path):
    state = model.state_dict()
    assert bytes_in_memory(model) == sum(t.numel() * t.element_size() for t in state.values())
    save_file(state, tmp_path / "peer.safetensors")
    assert bytes_on_disk(model) == os.path.getsize(tmp_path / "peer.safetensors")


def test_nothing_is_left_on_disk_and_the_model_is_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = Tied()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bytes_on_disk(model)
    assert list(tmp_path.iterdir()) == []
    assert model.out.weight is model.embed.weight
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5))
def test_any_perceptron(sizes):
    model = mlp(sizes)
    formula = sum(n_in * n_out + n_out for n_in, n_out in zip(sizes, sizes[1:], strict=False))
    assert count_parameters(model) == formula
    assert bytes_in_memory(model) == 4 * formula
    assert bytes_on_disk(model) >= 4 * formula


def test_an_empty_model_is_nothing():
    assert (count_parameters(nn.ReLU()), count_nonzero(nn.ReLU()), bytes_in_memory(nn.ReLU())) == (0, 0, 0)


def test_compression_ratio():
    assert compression_ratio(100, 25) == 4.0
    assert compression_ratio(1, 2) == 0.5


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (-1, 1), (float("nan"), 1), (1, float("inf"))])
def test_compression_ratio_refuses(pair):
    with pytest.raises(ValueError, match="expected a finite number above 0"):
        compression_ratio(*pair)


@pytest.mark.parametrize("measure", [count_parameters, count_nonzero, bytes_in_memory, bytes_on_disk])
def test_only_models_are_measured(measure):
    with pytest.raises(TypeError, match="model is a dict; expected a torch.nn.Module"):
        measure({})


def test_a_state_that_is_no_tensor_is_named():
    class Odd(nn.Module):
        def get_extra_state(self):
            return "text"

    with pytest.raises(ValueError, match="'_extra_state' of type str"):
        bytes_on_disk(Odd())
