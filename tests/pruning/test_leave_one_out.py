"""Leave one out: by hand, against copies of the model, and what it leaves behind."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from course_lib.device import seeded
from course_lib.evaluation import evaluate
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.pruning.leave_one_out import leave_one_out


def squares(model: nn.Module, batch) -> torch.Tensor:
    """Half the squared error, a mean over the examples."""
    inputs, targets = batch
    return (model(inputs) - targets).square().sum(1).mean() / 2


def random_data(*shape: int, count: int = 20, classes: int = 3) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (count,), generator=generator)
    return TensorDataset(torch.randn(count, *shape, generator=generator), labels)


def used(model: nn.Module, *shape: int) -> nn.Module:
    """The model after a few batches in training mode: its batch norms have seen something, and are not symmetric."""
    with seeded(0):
        for _ in range(3):
            model(torch.randn(16, *shape))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.uniform_(module.bias, 0.5, 1.5)
    return model


# By hand


def test_weights_by_hand():
    """y = 2 a - b on (1, 1), wanted 0: the loss is 1/2. Without the 2 it is 1/2 again, without the -1 it is 2."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[2.0, -1.0]])
    changes = leave_one_out(model, TensorDataset(torch.ones(1, 2), torch.zeros(1, 1)), loss=squares)
    assert changes["0.weight"].tolist() == [[0.0, 1.5]]


def test_units_by_hand_with_a_sign():
    """Two neurons give 3 and -1, and 3 is wanted: without the first the loss rises, without the second it falls."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    model[0].weight.data, model[1].weight.data = torch.tensor([[3.0], [-1.0]]), torch.ones(1, 2)
    changes = leave_one_out(
        model, TensorDataset(torch.ones(1, 1), torch.tensor([[3.0]])), "0", of="units", loss=squares
    )
    assert changes["0"].tolist() == [8.0 - 0.5, 0.0 - 0.5]


def test_copies_are_worth_nothing_alone():
    """Two equal neurons where one would do: closing either changes nothing behind a saturated answer."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False), nn.Hardtanh())
    model[0].weight.data, model[1].weight.data = torch.ones(2, 1), torch.full((1, 2), 5.0)
    changes = leave_one_out(model, TensorDataset(torch.ones(1, 1), torch.ones(1, 1)), "0", of="units", loss=squares)
    assert changes["0"].tolist() == [0.0, 0.0]


# Against copies with the part really gone


def test_weights_against_copies():
    model, data = mlp([4, 5, 3]), random_data(4)
    before = evaluate(model, data).loss
    for name, changes in leave_one_out(model, data).items():
        for place in [(0, 0), (2, 3), (1, 1)]:
            without = copy.deepcopy(model)
            without.get_parameter(name).data[place] = 0
            assert changes[place].item() == pytest.approx(evaluate(without, data).loss - before, abs=1e-6)


def test_filters_against_smaller_networks():
    """A filter goes with its batch norm channel, and with the input that the next layer had for it."""
    model = used(SmallConvNet((3, 4), num_classes=3), 1, 8, 8)
    data = random_data(1, 8, 8)
    changes, before = leave_one_out(model, data, "blocks.0.0", of="units")["blocks.0.0"], evaluate(model, data).loss
    for unit in range(3):
        rest = [index for index in range(3) if index != unit]
        smaller = SmallConvNet((2, 4), num_classes=3)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
            state[f"blocks.0.{name}"] = state[f"blocks.0.{name}"][rest]
        state["blocks.1.0.weight"] = state["blocks.1.0.weight"][:, rest]
        smaller.load_state_dict(state)
        assert changes[unit].item() == pytest.approx(evaluate(smaller, data).loss - before, abs=1e-6)


def test_the_gate_behind_the_layer_is_another_thing():
    """Zeros into a batch norm come out as a constant: that is not removal, and can be asked for by name."""
    model = used(SmallConvNet((3, 4), num_classes=3), 1, 8, 8).eval()
    data, name = random_data(1, 8, 8), "blocks.0.0"
    at_layer = leave_one_out(model, data, name, of="units", after={name: name})[name]
    without = copy.deepcopy(model)
    without.blocks[0][0].weight.data[1] = 0
    change = evaluate(without, data).loss - evaluate(model, data).loss
    assert at_layer[1].item() == pytest.approx(change, abs=1e-6)
    assert (at_layer - leave_one_out(model, data, name, of="units")[name]).abs().max() > 1e-3


def test_neurons_against_zeros_in_the_next_layer():
    model, data = mlp([4, 5, 6, 3]), random_data(4)
    changes = leave_one_out(model, data, ["1", "3"], of="units")
    assert [len(change) for change in changes.values()] == [5, 6]
    for name, following in (("1", 3), ("3", 5)):
        without = copy.deepcopy(model)
        without[following].weight.data[:, 2] = 0
        change = evaluate(without, data).loss - evaluate(model, data).loss
        assert changes[name][2].item() == pytest.approx(change, abs=1e-6)


def test_a_residual_network():
    pytest.importorskip("torchvision")
    from course_lib.models.vision import resnet_small

    model = resnet_small(blocks=(1, 1, 1, 1), num_classes=3).eval()
    data = random_data(1, 8, 8, count=4)
    names = {"layer1.0.conv1": "layer1.0.bn1"}
    changes = leave_one_out(model, data, list(names), of="units")["layer1.0.conv1"]
    by_name = leave_one_out(model, data, list(names), of="units", after=names)["layer1.0.conv1"]
    assert len(changes) == 64 and torch.equal(changes, by_name)


# Properties


@pytest.mark.parametrize("of", ["weights", "units"])
def test_the_model_is_left_as_it_was_to_the_bit(of):
    model = used(SmallConvNet((2, 3), num_classes=3), 1, 8, 8)
    model.blocks[0].eval()
    values = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    data = random_data(1, 8, 8)
    first, second = (leave_one_out(model, data, of=of) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("of", ["weights", "units"])
def test_an_error_half_way_leaves_the_model_as_it_was(of):
    model, calls = mlp([4, 5, 3]), []
    values = {name: value.clone() for name, value in model.state_dict().items()}

    def fails(model, batch):
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("stop here")
        return cross_entropy(model(batch[0]), batch[1])

    with pytest.raises(RuntimeError, match="stop here"):
        leave_one_out(model, random_data(4), of=of, loss=fails)
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("of", ["weights", "units"])
def test_batches_do_not_matter_and_a_shuffled_loader_is_read_once(of):
    model, data = mlp([4, 5, 3]).double(), random_data(4)
    data = TensorDataset(data.tensors[0].double(), data.tensors[1])
    whole = leave_one_out(model, data, of=of)
    loader = DataLoader(data, batch_size=3, shuffle=True)
    for other in (leave_one_out(model, data, of=of, batch_size=7), leave_one_out(model, loader, of=of)):
        torch.testing.assert_close(other, whole, rtol=1e-5, atol=1e-12)


def test_zeros_cost_no_pass_and_a_shared_weight_is_there_once():
    model, passes = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), []
    model[1].weight = model[0].weight
    model[0].weight.data[0] = 0

    def counts(model, batch):
        passes.append(1)
        return cross_entropy(model(batch[0]), batch[1])

    changes = leave_one_out(model, random_data(3), loss=counts)
    assert list(changes) == ["0.weight"] and len(passes) == 1 + 6
    assert (changes["0.weight"][0] == 0).all() and (changes["0.weight"][1:] != 0).all()


def test_weights_that_do_not_lie_in_a_row():
    """channels_last and transposed weights have gaps in memory: still one weight at a time, and put back."""
    model = used(SmallConvNet((2, 3), num_classes=3), 1, 8, 8)
    data = random_data(1, 8, 8)
    plain = leave_one_out(model, data)
    model.to(memory_format=torch.channels_last)
    model.classifier.weight.data = model.classifier.weight.data.t().contiguous().t()
    torch.testing.assert_close(leave_one_out(model, data), plain, atol=1e-6, rtol=1e-3)


# Bad input


def test_bad_arguments():
    model, data = mlp([4, 5, 3]), random_data(4)
    empty = TensorDataset(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    for wrong, message in (
        ({"of": "layers"}, "of is 'layers'; expected 'weights' or 'units'"),
        ({"after": {"1": "2"}}, "after is for units"),
        ({"data": empty}, "data is empty"),
        ({"targets": "conv"}, "target 'conv' matches no layer of Sequential"),
        ({"loss": lambda model, batch: torch.tensor(math.nan)}, "the loss is nan; expected a finite number"),
        ({"of": "units", "after": {"7": "2"}}, "layer in after '7' matches none"),
        ({"of": "units", "after": {"1": "x"}}, "no layer named 'x' in Sequential"),
        ({"of": "units", "after": {"1": "3"}}, r"gives \(20, 3\); expected 5 channels at dimension -1"),
    ):
        with pytest.raises(ValueError, match=message):
            leave_one_out(**{"model": model, "data": data, **wrong})
    model[3].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"the weights of 3\.weight hold 1 numbers that are not finite"):
        leave_one_out(model, data)
    with pytest.raises(ValueError, match="there is nothing to work on"):
        leave_one_out(nn.Sequential(nn.ReLU()), data)
