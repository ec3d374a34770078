"""Layers are found by name, pattern or type, and replaced; nothing that was asked for is silently left out."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from course_lib.layers import find_layer, find_layers, match_names, prunable_weights, replace_layers
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
    assert list(prunable_weights(model, "output")) == ["embedding.weight"]
    with pytest.raises(ValueError, match="Tied has no weights but those of embeddings; name them in targets"):
        prunable_weights(model)
    assert prunable_weights(model, "output")["embedding.weight"] is model.output.weight


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


# Replacing


class Scaled(nn.Module):
    """A wrapper that holds the layer it stands for."""

    def __init__(self, inner: nn.Module, factor: float):
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, inputs):
        return self.factor * self.inner(inputs)


def shared() -> nn.ModuleDict:
    """One linear layer that stands at three places, and another that stands at one."""
    layer = nn.Linear(3, 3)
    return nn.ModuleDict({"a": layer, "b": nn.Sequential(nn.Linear(3, 3), layer), "c": nn.Sequential(layer)})


def test_replaced_by_hand_and_given_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 1)))
    before, x = list(model.modules()), torch.randn(3, 2)
    expected = model(x)
    old = replace_layers(model, {"1": nn.Identity(), "2.0": nn.Flatten()})
    assert old == {"1": before[2], "2.0": before[4]}
    assert torch.equal(model(x), model[0](x)) and list(model._modules) == ["0", "1", "2"]
    new = replace_layers(model, old)
    assert list(model.modules()) == before and torch.equal(model(x), expected)
    assert [type(layer) for layer in new.values()] == [nn.Identity, nn.Flatten]


def test_a_wrapper_around_the_old_layer():
    model = mlp([4, 5, 3])
    before, x = list(model.modules()), torch.randn(3, 4)
    first = model[1](x)
    old = replace_layers(model, {name: Scaled(layer, 2.0) for name, layer in find_layers(model, "1").items()})
    assert torch.equal(model[1](x), 2 * first) and find_layer(model, "1.inner") is before[2]
    replace_layers(model, old)
    assert list(model.modules()) == before


@pytest.mark.parametrize("name", ["a", "b.1", "c.0"])
def test_a_layer_at_several_places_is_replaced_at_all_of_them(name):
    model, new = shared(), nn.Linear(3, 3)
    layer, other = model["a"], model["b"][0]
    old = replace_layers(model, {name: new})
    assert old == {name: layer}
    assert model["a"] is model["b"][1] is model["c"][0] is new and model["b"][0] is other
    replace_layers(model, old)
    assert model["a"] is model["b"][1] is model["c"][0] is layer


@pytest.mark.parametrize("training", [True, False])
def test_the_new_layer_is_in_the_mode_of_the_old_one(training):
    model = mlp([4, 5, 3]).train(training)
    new = Scaled(nn.Dropout(), 1.0).train(not training)
    old = replace_layers(model, {"1": new})
    assert new.training == new.inner.training == training
    model.train(not training)
    replace_layers(model, old)
    assert all(module.training != training for module in model.modules())


def test_modes_within_a_layer_stay_as_they_are():
    block = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    block[0].eval()
    model = nn.Sequential(block)
    replace_layers(model, replace_layers(model, {"0": nn.Identity()}))
    assert (block.training, block[0].training, block[1].training) == (True, False, True)


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        (lambda m: {"": nn.ReLU()}, ValueError, "model is a ModuleDict, the layer itself, and cannot be"),
        (lambda m: {}, ValueError, "new is empty"),
        (
            lambda m: {"a": nn.ReLU(), "b.2": nn.ReLU()},
            ValueError,
            "no layer named 'b.2' in ModuleDict; near it: .*b.0",
        ),
        (
            lambda m: {"a": nn.ReLU(), "b.0": nn.ReLU},
            TypeError,
            "the new layer 'b.0' is a type; expected a torch.nn.Mo",
        ),
        (lambda m: {"b": nn.ReLU(), "b.0": nn.ReLU()}, ValueError, "layers b, b.0 are not apart"),
        (lambda m: {"a": nn.ReLU(), "c.0": nn.ReLU()}, ValueError, "layers a, c.0 are not apart"),
        (lambda m: {"a": m["b"]}, ValueError, "is given twice or in the model already"),
        (lambda m: dict.fromkeys(["a", "b.0"], nn.ReLU()), ValueError, "is given twice or in the model already"),
    ],
)
def test_what_cannot_be_replaced(new, error, message):
    model = shared().eval()
    new, before, state = new(model), list(model.modules()), copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        replace_layers(model, new)
    assert list(model.modules()) == before and not any(module.training for module in before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


# ---- weights that are computed, embeddings, types that are not known


COMPUTED = {
    "weight norm": lambda layer: nn.utils.parametrizations.weight_norm(layer),
    "weight norm, the older way": lambda layer: nn.utils.weight_norm(layer),
    "spectral norm": lambda layer: nn.utils.parametrizations.spectral_norm(layer),
    "orthogonal": lambda layer: nn.utils.parametrizations.orthogonal(layer),
    "torch's own pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED.keys())
@pytest.mark.parametrize("targets", [None, "0", nn.Linear])
def test_a_weight_that_is_computed_is_refused_by_its_name(compute, targets):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    compute(model[0])
    with pytest.raises(ValueError, match="the weight of layer '0' is computed from other parameters; make it a plain"):
        prunable_weights(model, targets)
    assert list(prunable_weights(model, "2")) == ["2.weight"]


def test_a_plain_weight_again_after_what_the_message_says():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert list(prunable_weights(nn.Sequential(layer))) == ["0.weight"]
    pruned = prune.remove(prune.l1_unstructured(nn.Linear(4, 5), "weight", 0.5), "weight")
    assert list(prunable_weights(nn.Sequential(pruned))) == ["0.weight"]


def test_embeddings_are_left_alone_unless_they_are_named():
    model = nn.ModuleDict({"words": nn.Embedding(9, 4), "hidden": nn.Linear(4, 4), "output": nn.Linear(4, 9)})
    model["output"].weight = model["words"].weight
    assert list(prunable_weights(model)) == ["hidden.weight"]
    assert list(prunable_weights(model, ["hidden", "output"])) == ["hidden.weight", "words.weight"]
    assert list(prunable_weights(model, nn.Embedding)) == ["words.weight"]


def test_a_model_whose_weights_lie_in_unknown_layers_says_so():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=50, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    with pytest.raises(
        ValueError, match=r"GPT2LMHeadModel has 1,536 of its weights .* \(1,536 of them in Conv1D\), and 0"
    ):
        prunable_weights(model)
    found = prunable_weights(model, type(model.transformer.h[0].mlp.c_fc))
    assert sum(weight.numel() for weight in found.values()) == 2 * 12 * 8 * 8 and len(found) == 8
    few = nn.Sequential(nn.Linear(8, 8), Table(2, 8))  # a position embedding, a class token
    assert list(prunable_weights(few)) == ["0.weight"]


class Table(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(shape))
