"""Units removed for real: by hand, against a model with zeros, against Torch-Pruning, and what is refused."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.testing import assert_close

from benchmarks.zoo import expected
from course_lib.measure import count_parameters, flops
from course_lib.models.vision import SmallConvNet, mlp, resnet_small
from course_lib.pruning.criteria import magnitude, unit_norm
from course_lib.pruning.held import hold_masks, release_masks
from course_lib.pruning.masks import global_masks
from course_lib.pruning.structured import groups, lowest_units, remove_units


def randomise_norms(model, seed=0):
    """Statistics and scales of batch normalisation as after a training, so that a mistake shows in the outputs."""
    generator = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low in ((norm.weight, 0.5), (norm.bias, -1), (norm.running_mean, -1), (norm.running_var, 0.5)):
                tensor.data.uniform_(low, 1.5, generator=generator)
    return model.eval()


def snapshot(model):
    """What an error must not change: the parameter objects, the values, the sizes, the modes, the attributes."""
    values = {name: value.clone() for name, value in model.state_dict().items()}
    return (
        [id(p) for p in model.parameters()],
        values,
        str(model),
        set(vars(model)),
        [m.training for m in model.modules()],
    )


def assert_unchanged(model, before):
    ids, values, text, names, modes = snapshot(model)
    assert (ids, text, names, modes) == (before[0], *before[2:])
    assert values.keys() == before[1].keys()
    assert all(torch.equal(value, before[1][name]) for name, value in values.items())


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


def test_parameters_and_work_by_hand():
    model = SmallConvNet((16, 32))
    remove_units(model, {"blocks.0.0": range(8), "blocks.1.0": torch.arange(4)}, torch.zeros(1, 1, 8, 8))
    # 3 x 3 kernels, scale and shift of both normalisations, then 4 places of 28 channels for 10 classes
    assert count_parameters(model) == 8 * 9 + 2 * 8 + 28 * 8 * 9 + 2 * 28 + 10 * 4 * 28 + 10
    assert flops(model, torch.zeros(1, 1, 8, 8)) == 2 * (64 * 8 * 9 + 16 * 28 * 8 * 9 + 10 * 4 * 28)
    assert model.blocks[1][1].running_var.shape == (28,) and model.blocks[1][1].num_features == 28


def test_which_channels_stay():
    model = randomise_norms(SmallConvNet((6, 5)))
    before = copy.deepcopy(model)
    remove_units(model, {"blocks.1.0": [0, 3]}, torch.zeros(1, 1, 8, 8))
    left = [1, 2, 4]
    assert torch.equal(model.blocks[1][0].weight, before.blocks[1][0].weight[left])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(model.blocks[1][1], name), getattr(before.blocks[1][1], name)[left])
    columns = [4 * channel + place for channel in left for place in range(4)]  # (C, 2, 2) flattened
    assert torch.equal(model.classifier.weight, before.classifier.weight[:, columns])


def test_the_residual_stream_is_one_group():
    model, example = resnet_small(blocks=(2, 1, 1, 1)).eval(), torch.zeros(1, 1, 8, 8)
    tied = {group.layers: group for group in groups(model, example)}
    assert ("conv1", "layer1.0.conv2", "layer1.1.conv2") in tied
    assert ("layer2.0.conv2", "layer2.0.downsample.0") in tied and ("layer2.0.conv1",) in tied
    assert tied[("fc",)].output and tied[("fc",)].fixed == "they are the network's output"
    assert [group.layers for group in tied.values() if group.fixed] == [("fc",)]
    stream = tied[("conv1", "layer1.0.conv2", "layer1.1.conv2")]
    assert stream.decisions == 64 and all(torch.equal(u, torch.arange(64)) for u in stream.units.values())
    remove_units(model, {"layer1.0.conv2": [3, 5]}, example)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["conv1.weight"] == (62, 1, 3, 3) and shapes["bn1.weight"] == (62,)
    assert shapes["layer1.0.conv1.weight"] == (64, 62, 3, 3) and shapes["layer1.1.conv2.weight"] == (62, 64, 3, 3)
    assert shapes["layer2.0.downsample.0.weight"] == (128, 62, 1, 1) and model.layer2[0].conv1.in_channels == 62


# --- against a model with zeros -------------------------------------------------------------------------------------

RESIDUAL = {"conv1": ("bn1", "layer1.0.bn2"), "layer1.0.conv1": ("layer1.0.bn1",), "layer2.0.conv1": ("layer2.0.bn1",)}
RESIDUAL |= {"layer3.0.conv2": ("layer3.0.bn2", "layer3.0.downsample.1"), "layer4.0.conv1": ("layer4.0.bn1",)}


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_smaller_resnet_computes_what_one_with_silent_channels_does(name):
    model = randomise_norms(resnet_small(blocks=(1, 1, 1, 1)))
    pictures, gone = torch.randn(3, 1, 16, 16), [0, 7, 8, 40]
    silent = copy.deepcopy(model)
    for norm in RESIDUAL[name]:  # scale and shift 0: the channel gives 0, whatever comes in
        silent.get_submodule(norm).weight.data[gone] = 0
        silent.get_submodule(norm).bias.data[gone] = 0
    full = model(pictures)
    remove_units(model, {name: gone}, pictures[:1])
    assert_close(model(pictures), silent(pictures))
    assert not torch.allclose(model(pictures), full, atol=1e-3)  # the channels had something to say


class Joined(nn.Module):
    """Two branches side by side, the picture beside them, a sum, a depthwise convolution, places flattened."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.mix, self.skip = nn.Conv2d(11, 6, 1), nn.Conv2d(4, 6, 1, bias=False)
        self.depthwise, self.norm = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6)
        self.hidden, self.out = nn.Linear(6 * 9, 7), nn.Linear(7, 3)
        self.kept = dict.fromkeys(("left", "right", "sum", "depthwise", "hidden"), 1.0)

    def forward(self, pictures):
        left = torch.relu(self.left(pictures)) * self.kept["left"]
        right = torch.relu(self.right(pictures)) * self.kept["right"]
        together = self.mix(torch.cat([left, pictures, right], dim=1)) + self.skip(right)
        together = together * self.kept["sum"]
        features = torch.relu(self.norm(self.depthwise(together))) * self.kept["depthwise"]
        features = nn.functional.adaptive_avg_pool2d(features, 3).flatten(1)
        return self.out(torch.tanh(self.hidden(features)) * self.kept["hidden"])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_units_of_a_joined_network(data):
    torch.manual_seed(0)
    model = randomise_norms(Joined())
    silent = copy.deepcopy(model)
    sizes = {"left": 5, "right": 4, "skip": 6, "hidden": 7}
    units = {n: sorted(data.draw(st.sets(st.integers(0, s - 1), max_size=s - 1), label=n)) for n, s in sizes.items()}
    masks = {name: torch.ones(size) for name, size in sizes.items()}
    for name, gone in units.items():
        masks[name][gone] = 0
    pictures = torch.randn(2, 2, 6, 6)
    silent.kept = {name: mask.view(1, -1, 1, 1) for name, mask in masks.items()} | {"hidden": masks["hidden"]}
    silent.kept["sum"] = silent.kept["depthwise"] = silent.kept["skip"]
    remove_units(model, units, pictures)
    assert_close(model(pictures), silent(pictures))
    assert model.mix.in_channels == 11 - len(units["left"]) - len(units["right"])
    assert model.depthwise.groups == model.depthwise.in_channels == model.norm.num_features == 6 - len(units["skip"])
    assert model.hidden.weight.shape == (7 - len(units["hidden"]), 9 * (6 - len(units["skip"])))


def test_removing_twice_is_removing_at_once():
    pictures = torch.randn(2, 1, 8, 8)
    once, twice = SmallConvNet((8, 8)).eval(), SmallConvNet((8, 8)).eval()
    remove_units(once, {"blocks.0.0": [1, 4, 6], "blocks.1.0": [0]}, pictures)
    remove_units(twice, {"blocks.0.0": [4]}, pictures)
    remove_units(twice, {"blocks.1.0": [0], "blocks.0.0": [1, 5]}, pictures)  # 6 has become 5
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), twice.state_dict().values(), strict=True))


# --- against Torch-Pruning ------------------------------------------------------------------------------------------

TORCHVISION = ["resnet18", "resnext50_32x4d", "mobilenet_v2", "densenet121", "googlenet", "efficientnet_b0"]


def build(name, classes=10):
    models = pytest.importorskip("torchvision.models")
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    if name == "densenet121":  # the same blocks, fewer of them: the peer takes seconds for all
        return models.DenseNet(growth_rate=8, block_config=(2, 3), num_init_features=16, num_classes=classes)
    return models.get_model(name, weights=None, num_classes=classes, **options)


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_same_weights_are_left_as_in_torch_pruning(name):
    peer = pytest.importorskip("torch_pruning")
    model, example = build(name).eval(), torch.randn(1, 3, 64, 64)
    other = copy.deepcopy(model)
    units = lowest_units(unit_norm(model), 0.4, tied=groups(model, example))
    remove_units(model, units, example)
    graph = peer.DependencyGraph().build_dependency(other, example)
    layers = dict(other.named_modules())
    for layer, gone in units.items():
        linear = isinstance(layers[layer], nn.Linear)
        cut = peer.prune_linear_out_channels if linear else peer.prune_conv_out_channels
        graph.get_pruning_group(layers[layer], cut, gone).prune()
    theirs = other.state_dict()
    assert count_parameters(model) < 0.6 * count_parameters(build(name))
    for key, value in model.state_dict().items():
        assert torch.equal(value, theirs[key]), key
    assert torch.equal(model(example), other(example))


def test_shapes_of_vgg_without_its_memory():
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = models.vgg11_bn()
    remove_units(model, {"features.25": range(100), "classifier.0": range(96)}, torch.empty(1, 3, 224, 224))
    assert model.features[26].num_features == 412
    assert model.classifier[0].weight.shape == (4000, 412 * 49) and model.classifier[3].in_features == 4000


# --- choosing -------------------------------------------------------------------------------------------------------


def test_lowest_by_hand():
    scores = {"a": torch.tensor([3.0, 1.0, 2.0, 1.0]), "b": torch.tensor([5.0, 4.0])}
    assert lowest_units(scores, 0.5) == {"a": [1, 3], "b": [1]}
    assert lowest_units(scores, 0.25) == {"a": [1], "b": []}  # of equal scores the first; round(0.5) is 0
    assert lowest_units(scores, {"b": 0.5}) == {"b": [1]}
    assert lowest_units(scores, {"*": 0.0, "a": 0.75}) == {"a": [1, 2, 3], "b": []}


def test_scores_of_tied_layers_are_summed():
    model, example = resnet_small(blocks=(1, 1, 1, 1)), torch.zeros(1, 1, 8, 8)
    scores = {"layer1.0.conv2": 2 * torch.arange(64.0).flip(0), "conv1": torch.arange(64.0), "fc": torch.ones(10)}
    # unit j has j + 2 (63 - j) = 126 - j: the last are the lowest
    assert lowest_units(scores, 0.05, tied=groups(model, example)) == {"conv1": [61, 62, 63]}


def test_units_that_share_a_decision_go_together():
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 4, 1, groups=2), nn.Flatten(), nn.Linear(16, 2))
    tied = groups(model, torch.zeros(1, 1, 2, 2))
    assert [(group.layers, group.decisions) for group in tied] == [(("0",), 3), (("1",), 2), (("3",), 2)]
    assert tied[0].units["0"].tolist() == [0, 1, 2, 0, 1, 2]
    scores = {"0": torch.tensor([0.0, 3, 2, 9, 1, 1]), "1": torch.ones(4)}  # sums 9, 4, 3
    assert lowest_units(scores, {"0": 0.34}, tied=tied) == {"0": [2, 5]}
    remove_units(model, {"0": [2]}, torch.zeros(1, 1, 2, 2))
    assert model[0].out_channels == 4 and model[1].weight.shape == (4, 2, 1, 1) and model[1].groups == 2


@pytest.mark.parametrize(
    ("scores", "share", "message"),
    [
        ({}, 0.5, "scores is empty"),
        ({"a": torch.ones(2, 2)}, 0.5, r"shape \(2, 2\)"),
        ({"a": torch.tensor([1.0, float("nan")])}, 0.5, "not all finite"),
        ({"a": torch.ones(4)}, 1.0, "all; expected one to be left"),
        ({"a": torch.ones(4)}, 0.9, "0.9 of the 4 units of layer 'a' is all"),
        ({"a": torch.ones(4)}, 1.5, "share of layer 'a' is 1.5"),
        ({"a": torch.ones(4)}, -0.1, "is -0.1"),
        ({"a": torch.ones(4)}, float("nan"), "is nan"),
        ({"conv1": torch.ones(4)}, {"convl": 0.5}, "near it: conv1"),
    ],
)
def test_nothing_to_choose(scores, share, message):
    with pytest.raises(ValueError, match=message):
        lowest_units(scores, share)


def test_scores_that_do_not_fit_the_groups():
    model = mlp([4, 6, 5, 3])
    tied = groups(model, torch.zeros(1, 4))
    with pytest.raises(ValueError, match="5 scores for the 6 units of layer '1'"):
        lowest_units({"1": torch.ones(5)}, 0.5, tied=tied)
    with pytest.raises(ValueError, match="no layer with scores can lose units: 9: it is in no group"):
        lowest_units({"9": torch.ones(5)}, 0.5, tied=tied)
    with pytest.raises(ValueError, match="units of layer '5' cannot be removed: they are the network's output"):
        lowest_units(unit_norm(model), {"*": 0.2, "5": 0.5}, tied=tied)
    assert set(lowest_units(unit_norm(model), {"*": 0.2}, tied=tied)) == {"1", "3"}
    resnet = resnet_small(blocks=(1, 1, 1, 1))
    scores = {"conv1": torch.ones(64), "layer1.0.conv2": torch.ones(64)}
    with pytest.raises(ValueError, match="conv1, layer1.0.conv2 are pruned together"):
        lowest_units(scores, {"conv1": 0.5, "layer1.*": 0.25}, tied=groups(resnet, torch.zeros(1, 1, 8, 8)))


# --- what comes of the model ----------------------------------------------------------------------------------------


def test_the_smaller_model_trains_and_a_frozen_weight_stays_frozen():
    model = SmallConvNet((6, 5)).train()
    model.blocks[0][0].weight.requires_grad_(False)
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    remove_units(model, {"blocks.0.0": [0, 1]}, torch.zeros(1, 1, 8, 8))
    assert model.training and not model.blocks[0][0].weight.requires_grad
    assert model.blocks[1][0].weight.requires_grad and model.blocks[1][0].weight.grad is None
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    same = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert same == ["blocks.0.0.weight"]


def test_nothing_to_remove_changes_nothing():
    model = SmallConvNet((4, 4))
    before = snapshot(model)
    remove_units(model, {}, torch.zeros(1, 1, 8, 8))
    remove_units(model, {"blocks.0.0": []}, torch.zeros(1, 1, 8, 8))
    assert_unchanged(model, before)


def test_layers_that_do_not_depend_on_it_keep_their_parameters():
    model = mlp([4, 6, 5, 5, 3])
    ids = {name: id(value) for name, value in model.named_parameters()}
    remove_units(model, {"1": [0]}, torch.zeros(1, 4))
    new = [name for name, value in model.named_parameters() if id(value) != ids[name]]
    assert new == ["1.weight", "1.bias", "3.weight"]


def test_outputs_can_be_removed_if_asked_for():
    model = mlp([4, 6, 3])
    before = model[3].weight.detach().clone()
    with pytest.raises(ValueError, match="units of layer '3' cannot be removed: they are the network's output"):
        remove_units(model, {"3": [1]}, torch.zeros(1, 4))
    remove_units(model, {"3": [1]}, torch.zeros(1, 4), allow_outputs=True)
    assert torch.equal(model[3].weight, before[[0, 2]])


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "error", "message"),
    [
        ({"blocks.0.3": [0]}, ValueError, "is a MaxPool2d; expected a layer with units"),
        ({"blocks.0.1": [0]}, ValueError, "is a BatchNorm2d; expected a layer with units"),
        ({"blocks.0.9": [0]}, ValueError, "no layer named 'blocks.0.9' in SmallConvNet; near it: .*blocks.0.0"),
        ({"blocks.0.0": range(6)}, ValueError, "every unit of layer 'blocks.0.0' would be removed"),
        ({"blocks.0.0": [6]}, ValueError, "hold 6; expected numbers from 0 to 5"),
        ({"blocks.0.0": [-1]}, ValueError, "hold -1; expected numbers from 0 to 5"),
        ({"blocks.0.0": [2, 3, 2]}, ValueError, "hold 2 twice"),
        ({"blocks.0.0": [0.5]}, TypeError, "hold 0.5; expected whole numbers"),
        ({"blocks.0.0": [True]}, TypeError, "hold True"),
        ({"blocks.0.0": "12"}, TypeError, "are '12'; expected a list"),
        ({"blocks.0.0": 3}, TypeError, "are 3; expected a list"),
        ({"blocks.0.0": [0], "classifier": [0]}, ValueError, "units of layer 'classifier' cannot be removed"),
    ],
)
def test_refused_and_unchanged(units, error, message):
    model = SmallConvNet((6, 5)).train()
    before = snapshot(model)
    with pytest.raises(error, match=message):
        remove_units(model, units, torch.zeros(1, 1, 8, 8))
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(1, 3, 8, 8), "layer 'blocks.0.0' cannot be run on the shape of the example"),
        (torch.zeros(1, 1, 2, 2), "cannot be run on the shape of the example"),
        ((), "example is a tuple; expected a tensor"),
        (None, "example is a NoneType"),
        ({"pictures": torch.zeros(1, 1, 8, 8)}, "does not fit SmallConvNet.forward"),
    ],
)
def test_an_example_that_does_not_fit(example, message):
    model = SmallConvNet((6, 5))
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        remove_units(model, {"blocks.0.0": [0]}, example)
    assert_unchanged(model, before)


def test_all_of_a_tied_layer():
    """The sum has four channels from each side; taking all of one side takes all of the other."""
    model = resnet_small(blocks=(1, 1, 1, 1))
    before = snapshot(model)
    with pytest.raises(ValueError, match="every unit of layer 'conv1' would be removed"):
        remove_units(model, {"conv1": range(32), "layer1.0.conv2": range(32, 64)}, torch.zeros(1, 1, 8, 8))
    assert_unchanged(model, before)


def test_a_shared_weight_is_cut_once_and_stays_shared():
    model = mlp([4, 5, 5, 5, 3])
    model[5].weight = model[3].weight
    inputs = torch.randn(6, 4)
    wanted = expected(copy.deepcopy(model), inputs, {"1": [0]})
    remove_units(model, {"1": [0]}, inputs)
    assert model[5].weight is model[3].weight and model[3].weight.shape == (4, 4)
    assert [layer.in_features for layer in (model[3], model[5], model[7])] == [4, 4, 4]
    assert_close(model(inputs), wanted)


def test_weights_of_pytorchs_own_pruning_are_cut_with_their_masks():
    model, again, inputs = mlp([4, 6, 3]), mlp([4, 6, 3]), torch.randn(5, 4)
    for each in (model, again):
        prune.l1_unstructured(each[3], "weight", 0.5)
        prune.l1_unstructured(each[1], "weight", 0.5)
    wanted = expected(again, inputs, {"1": [0, 3]})
    remove_units(model, {"1": [0, 3]}, inputs)
    assert model[3].weight_mask.shape == model[3].weight.shape == (3, 4) and model[1].weight_orig.shape == (4, 4)
    assert_close(model(inputs), wanted)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_normalised_weights_lose_units_and_no_inputs(wrap):
    model, inputs = mlp([4, 6, 3]), torch.randn(5, 4)
    wrap(model[1])
    with torch.no_grad():
        model[3].weight[:, [0, 3]] = 0
    wanted = model(inputs)
    remove_units(model, {"1": [0, 3]}, inputs)
    assert model[1].out_features == 4 and model[1].weight.shape == (4, 4)
    assert_close(model(inputs), wanted)
    model = mlp([4, 6, 3])
    wrap(model[3])
    before = snapshot(model)
    with pytest.raises(ValueError, match="it takes the norm of the weights over them"):
        remove_units(model, {"1": [0]}, inputs)
    assert_unchanged(model, before)


def test_masks_come_off_first():
    model = mlp([4, 6, 3])
    hold_masks(model, global_masks(magnitude(model), 0.5))
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"holds masks; .* release_masks\(model\)"):
        remove_units(model, {"1": [0]}, torch.zeros(1, 4))
    assert_unchanged(model, before)
    remove_units(release_masks(model), {"1": [0]}, torch.zeros(1, 4))


def test_nothing_to_prune_in_the_model():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.ReLU())
    before = snapshot(model)
    with pytest.raises(ValueError, match="runs no linear layer and no convolution"):
        groups(model, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="no layer named 'fc'"):
        remove_units(model, {"fc": [0]}, torch.zeros(2, 4))
    assert_unchanged(model, before)
    for broken in (None, 3, torch.zeros(2)):
        with pytest.raises(TypeError, match="expected a torch.nn.Module"):
            remove_units(broken, {"fc": [0]}, torch.zeros(2, 4))


def test_a_lazy_layer():
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="0.weight has no shape yet"):
        remove_units(model, {"2": [0]}, torch.zeros(1, 3))
