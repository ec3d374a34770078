"""Criteria that look at the weights alone: numbers by hand, another library, and properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.models.vision import SmallConvNet, mlp
from course_lib.pruning.criteria import magnitude, normalise_layers, random_scores, unit_norm, unit_random


def linear(rows: list[list[float]]) -> nn.Sequential:
    """A network of one linear layer with these weights, a row for each unit."""
    model = nn.Sequential(nn.Linear(len(rows[0]), len(rows), bias=False))
    model[0].weight.data = torch.tensor(rows)
    return model


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# By hand


def test_magnitude_by_hand():
    scores = magnitude(linear([[1.0, -3.0], [0.0, -0.5]]))
    assert list(scores) == ["0.weight"]
    assert scores["0.weight"].tolist() == [[1.0, 3.0], [0.0, 0.5]]
    assert not scores["0.weight"].requires_grad


@pytest.mark.parametrize(
    ("p", "expected"), [(1, [7.0, 2.0]), (2, [5.0, 2.0]), (math.inf, [4.0, 2.0]), (0.5, [7 + 2 * math.sqrt(12), 2.0])]
)
def test_unit_norm_by_hand(p, expected):
    norms = unit_norm(linear([[3.0, -4.0], [0.0, 2.0]]), p=p)
    torch.testing.assert_close(norms, {"0": torch.tensor(expected)})


def test_norm_of_a_filter_sums_over_its_kernels():
    model = nn.Sequential(nn.Conv2d(2, 2, 2, bias=False))
    model[0].weight.data = torch.tensor([1.0] * 8 + [-2.0] * 8).view(2, 2, 2, 2)
    assert unit_norm(model)["0"].tolist() == [8.0, 16.0]  # Li et al.: the sum over all kernels of a filter


def test_norm_of_zeros_is_zero_for_every_p():
    for p in (0.5, 1, 2, math.inf):
        assert unit_norm(linear([[0.0, 0.0], [1.0, 1.0]]), p=p)["0"][0] == 0


def test_a_large_p_does_not_underflow():
    norm = unit_norm(linear([[1e-3, 1e-3]]), p=30)["0"]
    torch.testing.assert_close(norm, torch.tensor([1e-3 * 2 ** (1 / 30)]))


def test_layers_are_normalised_by_hand():
    scores = normalise_layers({"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([[30.0, 40.0]]), "c": torch.zeros(2)})
    assert scores["a"].tolist() == pytest.approx([0.6, 0.8])
    assert scores["b"][0].tolist() == pytest.approx([0.6, 0.8])
    assert scores["c"].tolist() == [0, 0]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_convolution_has_its_units_in_its_second_dimension(groups):
    """Set one unit's weights by their effect: the outputs that change are those of the unit whose norm changes."""
    layer = nn.ConvTranspose2d(4, 4, 2, groups=groups, bias=False)
    model, inputs = nn.Sequential(layer), torch.randn(1, 4, 3, 3)
    with torch.no_grad():
        before, norms = model(inputs), unit_norm(model)["0"]
        layer.weight[0, 0] *= 2  # into the first unit of the first group
        (changed,) = (model(inputs) - before).abs().amax((0, 2, 3)).nonzero()
        (by_norm,) = (unit_norm(model)["0"] - norms).abs().nonzero()
    assert changed.tolist() == by_norm.tolist() == [0]
    with torch.no_grad():
        before, norms = model(inputs), unit_norm(model)["0"]
        layer.weight[3, -1] *= 2
        (changed,) = (model(inputs) - before).abs().amax((0, 2, 3)).nonzero()
        (by_norm,) = (unit_norm(model)["0"] - norms).abs().nonzero()
    assert changed.tolist() == by_norm.tolist()


# Another library


@pytest.mark.parametrize("p", [1, 2])
def test_torch_pruning_orders_the_filters_alike(p):
    peer = pytest.importorskip("torch_pruning")
    model = SmallConvNet((8, 16)).eval()
    graph = peer.DependencyGraph().build_dependency(model, torch.randn(1, 1, 8, 8))
    importance = peer.importance.MagnitudeImportance(p=p, group_reduction="first", normalizer=None)
    for name in ("blocks.0.0", "blocks.1.0"):
        layer = model.get_submodule(name)
        group = graph.get_pruning_group(layer, peer.prune_conv_out_channels, list(range(layer.out_channels)))
        theirs = importance(group)  # without the root: the norm to the power of p
        torch.testing.assert_close(unit_norm(model, name, p=p)[name] ** p, theirs.detach())


@given(st.floats(0.3, 20), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_unit_norm_is_that_of_torch(p, units, inputs, seed):
    model = nn.Sequential(nn.Linear(inputs, units)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(units, inputs, generator=torch.Generator().manual_seed(seed)))
    torch.testing.assert_close(unit_norm(model, p=p)["0"], torch.linalg.vector_norm(model[0].weight, p, dim=1))


# Properties


def test_random_scores_follow_the_seed():
    model = mlp([4, 5, 3])
    same, again, other = (random_scores(model, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(same[name], again[name]) and not torch.equal(same[name], other[name]) for name in same)
    assert [tuple(score.shape) for score in same.values()] == [(5, 4), (3, 5)]
    units, units_again = (unit_random(model, seed=1) for _ in range(2))
    assert [len(score) for score in units.values()] == [5, 3]
    assert all(torch.equal(units[name], units_again[name]) for name in units)


def test_random_scores_do_not_follow_the_initial_weights_of_the_same_seed():
    for seed in range(3):
        model = mlp([64, 32, 10], seed=seed)
        for name, score in random_scores(model, seed=seed).items():
            both = torch.stack([score.flatten(), model.get_parameter(name).detach().flatten()])
            assert torch.corrcoef(both)[0, 1].abs() < 0.2
        units = unit_random(model, seed=seed)["1"]
        assert torch.corrcoef(torch.stack([units, model[1].weight[0, :32].detach()]))[0, 1].abs() < 0.6


def test_the_generators_of_others_stay_as_they_are():
    model = mlp([4, 5, 3])
    state = torch.get_rng_state()
    random_scores(model, seed=1), unit_random(model, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


@given(st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_normalised_scores_do_not_know_the_scale_of_their_layer(scale):
    scores = {"a": torch.tensor([3.0, 4.0, 1.0])}
    scaled = {"a": scale * scores["a"]}
    torch.testing.assert_close(normalise_layers(scaled), normalise_layers(scores))


def test_scores_change_nothing_and_share_no_memory():
    model = SmallConvNet((4, 8))
    before = values(model)
    for scores in (magnitude(model), random_scores(model, seed=0), unit_norm(model), unit_random(model, seed=0)):
        for score in scores.values():
            score.add_(1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_found_by_name_pattern_and_type():
    model = SmallConvNet((4, 8))
    assert list(magnitude(model, "classifier")) == ["classifier.weight"]
    assert list(unit_norm(model, "blocks.*")) == ["blocks.0.0", "blocks.1.0"]
    assert list(unit_random(model, nn.Linear, seed=0)) == ["classifier"]


def test_a_shared_weight_is_scored_once_and_a_frozen_one_like_any_other():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert list(magnitude(model)) == ["0.weight"]
    model[0].weight.requires_grad_(False)
    assert list(magnitude(model)) == ["0.weight"] and not model[0].weight.requires_grad


def test_the_projections_inside_an_attention_layer_are_no_units():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    assert list(unit_norm(model)) == ["linear1", "linear2"]
    assert list(unit_norm(model, "self_attn.out_proj")) == ["self_attn.out_proj"]


# Bad input


@pytest.mark.parametrize("p", [0, -1, -math.inf, math.nan])
def test_p_is_above_0(p):
    with pytest.raises(ValueError, match=r"p is (0|-1|-inf|nan); expected a number above 0"):
        unit_norm(mlp([4, 3]), p=p)


@pytest.mark.parametrize("p", ["2", None, True])
def test_p_is_a_number(p):
    with pytest.raises(TypeError, match="p is .*; expected a number above 0"):
        unit_norm(mlp([4, 3]), p=p)


def test_p_so_small_that_the_norm_overflows():
    with pytest.raises(ValueError, match="p is 0.001: so small that the norm overflows"):
        unit_norm(mlp([40, 30]), p=0.001)


@pytest.mark.parametrize("score", [magnitude, unit_norm])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite(score, bad):
    model = mlp([4, 5, 3])
    model[3].weight.data[0, 1:3] = bad
    with pytest.raises(ValueError, match=r"the weights of 3(\.weight)? hold 2 numbers that are not finite"):
        score(model)


def test_scores_that_are_not_finite():
    with pytest.raises(ValueError, match="the scores of a hold 1 numbers that are not finite"):
        normalise_layers({"a": torch.tensor([1.0, math.nan])})


@pytest.mark.parametrize("score", [magnitude, unit_norm])
def test_targets_that_match_nothing(score):
    with pytest.raises(
        ValueError, match=r"target 'block\.0\.0' matches no layer of SmallConvNet; near it: blocks\.0\.0"
    ):
        score(SmallConvNet(), "block.0.0")
    with pytest.raises(ValueError, match="target Conv1d matches no layer"):
        score(SmallConvNet(), ["classifier", nn.Conv1d])


@pytest.mark.parametrize("score", [magnitude, unit_norm])
def test_nothing_to_prune(score):
    with pytest.raises(ValueError, match="Sequential has no layer of the types"):
        score(nn.Sequential(nn.ReLU()))
    with pytest.raises(TypeError, match="model is a list"):
        score([])


def test_units_are_those_of_linear_layers_and_convolutions():
    with pytest.raises(ValueError, match=r"layer 'blocks\.0\.1' is a BatchNorm2d; expected a linear layer or a convol"):
        unit_norm(SmallConvNet(), "blocks.0.1")
    with pytest.raises(ValueError, match="0.weight has no shape yet"):
        unit_norm(nn.Sequential(nn.LazyLinear(3)))
