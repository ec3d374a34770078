"""Layers are found by name, pattern or type, and nothing that was asked for is silently left out."""

import pytest
import torch
from torch import nn

from course_lib.layers import find_layers, match_names, near_names, prunable_weights
from course_lib.models.vision import SmallConvNet, mlp


class Tied(nn.Module):
    """An embedding whose weight is the output layer's too."""

    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Embedding(5, 3), nn.Linear(3, 5)
        self.output.weight = self.embedding.weight


def test_without_targets_all_layers_with_weights():
    assert list(find_layers(SmallConvNet((4, 8)))) == ["blocks.0.0", "blocks.1.0", "classifier"]
    assert list(prunable_weights(mlp([4, 5, 3]))) == ["1.weight", "3.weight"]


def test_names_patterns_and_types_in_the_order_of_the_model():
    model = SmallConvNet((4, 8))
    assert list(find_layers(model, "classifier")) == ["classifier"]
    assert list(find_layers(model, ["classifier", "blocks.*"])) == ["blocks.0.0", "blocks.1.0", "classifier"]
    assert list(find_layers(model, nn.Conv2d)) == ["blocks.0.0", "blocks.1.0"]
    assert list(find_layers(model, [nn.Linear, "blocks.1.0"])) == ["blocks.1.0", "classifier"]
    assert list(find_layers(model, nn.BatchNorm2d)) == ["blocks.0.1", "blocks.1.1"]  # a type means just what it says
    assert list(find_layers(nn.Linear(2, 3))) == [""]
    assert list(prunable_weights(nn.Linear(2, 3))) == ["weight"]


def test_a_pattern_means_layers_with_weights_only():
    assert list(find_layers(mlp([4, 5, 3]), "*")) == ["1", "3"]


def test_attention_and_embeddings():
    block = nn.TransformerEncoderLayer(8, 2, 16)
    expected = ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"]
    assert list(prunable_weights(block)) == expected
    assert list(prunable_weights(Tied(), nn.Embedding)) == ["embedding.weight"]


def test_a_shared_weight_is_there_once_under_its_first_name():
    model = Tied()
    assert list(prunable_weights(model)) == ["embedding.weight"]  # the linear layer's
    assert prunable_weights(model)["embedding.weight"] is model.output.weight


def test_a_frozen_weight_is_a_weight():
    model = mlp([4, 5, 3])
    model[1].weight.requires_grad_(False)
    assert list(prunable_weights(model)) == ["1.weight", "3.weight"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("clasifier", "target 'clasifier' matches no layer of SmallConvNet; near it: classifier"),
        (["classifier", "blocks"], "target 'blocks' matches no layer .*; near it: .*blocks.0.0"),
        ("conv*", "target 'conv\\*' matches no layer"),
        (nn.LSTM, "target LSTM matches no layer .*; it has: blocks.0.0, blocks.1.0, classifier$"),
        ("", "target '' matches no layer"),
    ],
)
def test_a_target_that_matches_nothing(targets, message):
    with pytest.raises(ValueError, match=message):
        find_layers(SmallConvNet((4, 8)), targets)


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="Sequential has no layer of the types Linear, ConvNd, MultiheadAttention"):
        find_layers(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="layer '0' is a BatchNorm1d: it has no weights of its own"):
        prunable_weights(nn.Sequential(nn.BatchNorm1d(3)), "0")
    with pytest.raises(ValueError, match="weight has no shape yet; call the model once"):
        prunable_weights(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(TypeError, match="model is a list"):
        find_layers([])
    with pytest.raises(TypeError, match="a target is 3; expected the name of a layer"):
        find_layers(mlp([4, 3]), [3])
    with pytest.raises(TypeError, match="a target is Linear"):
        find_layers(mlp([4, 3]), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="targets are empty; expected at least one"):
        find_layers(mlp([4, 3]), [])
    with pytest.raises(TypeError, match="a target is <class 'torch.Tensor'>"):
        find_layers(mlp([4, 3]), torch.Tensor)


def test_names_by_pattern():
    names = ["encoder.0.weight", "encoder.1.weight", "head.weight"]
    assert match_names(names, "encoder.*", argument="x") == names[:2]
    assert match_names(names, "head.weight", argument="x") == ["head.weight"]
    assert match_names(["a[0].weight"], "a[0].weight", argument="x") == ["a[0].weight"]  # a name before a pattern
    with pytest.raises(ValueError, match="share for 'encodr.0.weight' matches none of the names; near it: encoder.0"):
        match_names(names, "encodr.0.weight", argument="share for")
    assert near_names("x", []) == "it has none"
