"""Where gates stand, and that they go again."""

import pytest
import torch
from torch import nn

from course_lib.gates import find_gates, gated, unit_layers
from course_lib.models.vision import SmallConvNet, mlp


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def gates_of(model: nn.Module, inputs: torch.Tensor, targets=None, after=None):
    return find_gates(model, unit_layers(model, targets), after, lambda: model(inputs))


class Shared(nn.Module):
    """Two layers before one ReLU module that is called twice, and a layer that is never called."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.unused = (nn.Linear(3, 3) for _ in range(3))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs):
        return self.relu(self.second(self.relu(self.first(inputs))))


def test_behind_the_batch_normalisation_if_there_is_one():
    model = SmallConvNet((4, 8)).eval()
    gates = gates_of(model, torch.randn(2, 1, 8, 8))
    assert gates["blocks.0.0"].module is model.blocks[0][1] and gates["blocks.1.0"].module is model.blocks[1][1]
    assert gates["classifier"].module is model.classifier
    assert [(gate.axis, gate.units) for gate in gates.values()] == [(-3, 4), (-3, 8), (-1, 10)]
    assert hooks(model) == 0


def test_the_normalisation_has_to_take_the_layers_own_output():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    assert gates_of(model, torch.randn(2, 3))["0"].module is model[0]


def test_gates_multiply_units():
    model, inputs = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten()), torch.ones(2, 1, 1, 1)
    model[0].weight.data = torch.tensor([2.0, 3.0]).view(2, 1, 1, 1)
    gates = gates_of(model, inputs)
    with gated(gates, {"0": torch.tensor([1.0, 0.0])}):
        assert model(inputs).tolist() == [[2.0, 0.0], [2.0, 0.0]]
    with gated(gates, {"0": torch.tensor([[1.0, 0.0], [0.5, 2.0]])}):  # a row for each example
        assert model(inputs).tolist() == [[2.0, 0.0], [1.0, 6.0]]
    assert model(inputs).tolist() == [[2.0, 3.0], [2.0, 3.0]] and hooks(model) == 0


def test_open_gates_change_no_bit_even_before_a_layer_that_works_in_place():
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(inplace=True), nn.ConvTranspose1d(3, 2, 3))
    inputs = torch.randn(4, 2, 9)
    gates = gates_of(model, inputs)
    assert [gate.axis for gate in gates.values()] == [-2, -2]
    with gated(gates, {name: torch.ones(gate.units) for name, gate in gates.items()}):
        watched = model(inputs)
    assert torch.equal(watched, model(inputs))


def test_neurons_of_a_sequence_lie_in_the_last_dimension():
    model, inputs = nn.Sequential(nn.Linear(3, 4)), torch.randn(2, 5, 3)
    with gated(gates_of(model, inputs), {"0": torch.tensor([0.0, 1.0, 1.0, 1.0])}):
        assert (model(inputs)[..., 0] == 0).all() and (model(inputs)[..., 1:] != 0).all()


def test_hooks_go_when_something_fails():
    model, inputs = mlp([4, 5, 3]), torch.randn(2, 4)
    gates = gates_of(model, inputs)
    with pytest.raises(RuntimeError, match="stop here"), gated(gates, {"1": torch.ones(5), "3": torch.ones(3)}):
        raise RuntimeError("stop here")
    with pytest.raises(RuntimeError, match="shapes cannot"):
        gates_of(model, torch.randn(2, 7))
    assert hooks(model) == 0


def test_a_layer_that_is_never_called():
    with pytest.raises(ValueError, match="layer 'unused' was not called in a forward pass of Shared"):
        gates_of(Shared(), torch.randn(2, 3))


def test_a_module_that_belongs_to_two_layers():
    with pytest.raises(ValueError, match="after layer 'first' is called 2 times in a forward pass, the layer 1; expec"):
        gates_of(Shared(), torch.randn(2, 3), ["first", "second"], {"first": "relu"})


def test_a_module_that_gives_no_channel_for_each_unit():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 3))
    with pytest.raises(ValueError, match=r"after layer '0' gives \(2, 18\); expected 2 channels at dimension -3"):
        gates_of(model, torch.randn(2, 1, 5, 5), None, {"0": "1"})


def test_examples_that_are_not_in_the_first_dimension():
    model, inputs = nn.Sequential(nn.Flatten(0, 1), nn.Linear(3, 4)), torch.randn(2, 5, 3)
    gates = gates_of(model, inputs)
    message = r"a layer gives \(10, 4\) for a batch of 2: .*pass order=1 and absolute='mean' or 'none'"
    with pytest.raises(ValueError, match=message), gated(gates, {"1": torch.ones(2, 4)}):
        model(inputs)
    with gated(gates, {"1": torch.ones(4)}):
        model(inputs)


def test_a_pattern_in_after_is_no_name():
    with pytest.raises(ValueError, match=r"layer in after 'fir\*' matches none of the names; near it: first"):
        gates_of(Shared(), torch.randn(2, 3), ["first"], {"fir*": "relu"})
