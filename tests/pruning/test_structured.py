"""Units removed for real: by hand, against the model with zeros, against Torch-Pruning, and after a reload."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from course_lib.measure import count_parameters
from course_lib.models.vision import SmallConvNet, mlp, resnet_small
from course_lib.pruning.criteria import unit_norm
from course_lib.pruning.held import apply_masks, hold_masks, release_masks
from course_lib.pruning.structured import groups, lowest_units, rebuild, remove_units, structure_of


def state(model):
    """What must not change when something fails: the parameter objects and all values."""
    return [id(p) for p in model.parameters()], copy.deepcopy(model.state_dict()), str(model), set(vars(model))


def assert_unchanged(model, before):
    ids, values, text, names = before
    assert [id(p) for p in model.parameters()] == ids
    assert str(model) == text and set(vars(model)) == names
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_neuron_by_hand():
    model = mlp([2, 3, 2])
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        model[1].bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
        model[3].weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        model[3].bias.zero_()
    assert remove_units(model, {"1": [1]}, torch.zeros(1, 2)) is model
    assert model[1].weight.tolist() == [[1.0, 0.0], [1.0, 1.0]] and model[1].bias.tolist() == [0.0, 1.0]
    assert model[3].weight.tolist() == [[1.0, 3.0], [4.0, 6.0]]
    assert (model[1].out_features, model[3].in_features, model[3].out_features) == (2, 2, 2)
    assert model(torch.tensor([[1.0, 5.0]])).tolist() == [[1 + 3 * 7.0, 4 + 6 * 7.0]]  # h = (1, 7)


def test_parameter_counts_by_hand():
    model = SmallConvNet((16, 32))
    remove_units(model, {"blocks.0.0": range(8), "blocks.1.0": range(4)}, torch.zeros(1, 1, 8, 8))
    # 3 x 3 kernels, scale and shift of both normalisations, then 4 places of 28 channels for 10 classes
    assert count_parameters(model) == 8 * 9 + 2 * 8 + 28 * 8 * 9 + 2 * 28 + 10 * 4 * 28 + 10
    assert model.classifier.in_features == 4 * 28
    assert model.blocks[1][1].running_var.shape == (28,)


def test_the_residual_stream_is_one_group():
    model, example = resnet_small(blocks=(1, 1, 1, 1)).eval(), torch.zeros(1, 1, 8, 8)
    tied = {group.layers: group for group in groups(model, example)}
    assert ("conv1", "layer1.0.conv2") in tied
    assert ("layer2.0.conv2", "layer2.0.downsample.0") in tied
    assert ("layer2.0.conv1",) in tied
    assert tied[("fc",)].output and "output" in tied[("fc",)].fixed
    assert sum(group.fixed is None for group in tied.values()) == len(tied) - 1
    assert all(group.decisions == 64 for layers, group in tied.items() if layers[0].startswith("layer1"))
    remove_units(model, {"layer1.0.conv2": [3, 5]}, example)
    assert model.conv1.weight.shape == (62, 1, 3, 3) and model.bn1.num_features == 62
    assert model.layer1[0].conv1.weight.shape == (64, 62, 3, 3)
    assert model.layer1[0].conv2.weight.shape == (62, 64, 3, 3)
    assert model.layer2[0].downsample[0].weight.shape == (128, 62, 1, 1)
    assert model.layer2[0].conv1.in_channels == 62


# --- choosing -------------------------------------------------------------------------------------------------------


def test_lowest_by_hand():
    scores = {"a": torch.tensor([3.0, 1.0, 2.0, 1.0]), "b": torch.tensor([5.0, 4.0])}
    assert lowest_units(scores, 0.5) == {"a": [1, 3], "b": [1]}
    assert lowest_units(scores, 0.25) == {"a": [1], "b": []}  # of equal scores the first; round(0.5) is 0
    assert lowest_units(scores, {"b": 0.5}) == {"b": [1]}
    assert lowest_units(scores, {"*": 0.0, "a": 0.75}) == {"a": [1, 2, 3], "b": []}


def test_tied_scores_are_summed():
    model, example = resnet_small(blocks=(1, 1, 1, 1)), torch.zeros(1, 1, 8, 8)
    scores = {"conv1": torch.arange(64.0), "layer1.0.conv2": torch.arange(64.0).flip(0) * 2, "fc": torch.ones(10)}
    # unit j has j + 2 (63 - j) = 126 - j: the last are the lowest
    assert lowest_units(scores, 0.05, tied=groups(model, example)) == {"conv1": [61, 62, 63]}
