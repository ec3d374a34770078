"""How channels are followed: operation by operation, each against a network with silent units."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from benchmarks.zoo import expected
from course_lib.models.encoder import Encoder
from course_lib.models.vision import mlp
from course_lib.pruning.criteria import unit_norm
from course_lib.pruning.graph import groups
from course_lib.pruning.structured import lowest_units, remove_units


class Net(nn.Module):
    """Layers by name, and a forward pass given as a function of them and the input."""

    def __init__(self, path, **layers):
        super().__init__()
        self.path = path
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, inputs):
        return self.path(self, inputs)


def shuffle(x):
    n, channels, height, width = x.size()
    return x.view(n, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(n, channels, height, width)


def gate(x):
    one, other = x.chunk(2, dim=1)
    return one * torch.sigmoid(other)


def conv(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


PICTURES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
TOKENS = torch.arange(6).view(2, 3)
# Each: the forward pass, its layers, and the units that go together: the first is removed, all of them are silenced.
FOLLOWED = {
    "view": (lambda m, x: m.b(m.a(x).view(x.size(0), -1)), {"a": conv(3, 6), "b": nn.Linear(96, 2)}, {"a": [1]}),
    "reshape": (lambda m, x: m.b(m.a(x).reshape((2, -1))), {"a": conv(3, 6), "b": nn.Linear(96, 2)}, {"a": [5]}),
    "flatten": (lambda m, x: m.b(torch.flatten(m.a(x), 1)), {"a": conv(3, 6), "b": nn.Linear(96, 2)}, {"a": [0]}),
    "flatten by name": (
        lambda m, x: m.b(torch.flatten(input=m.a(x), start_dim=1)),
        {"a": conv(3, 6), "b": nn.Linear(96, 2)},
        {"a": [0]},
    ),
    "channels last": (
        lambda m, x: m.c(m.b(m.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)).mean((2, 3)),
        {"a": conv(3, 6), "b": nn.Linear(6, 5), "c": conv(5, 2)},
        {"a": [3], "b": [4]},
    ),
    "mean and squeeze": (
        lambda m, x: m.b(m.a(x).mean([2, 3], keepdim=True).squeeze(-1).squeeze(-1)),
        {"a": conv(3, 6), "b": nn.Linear(6, 2)},
        {"a": [2]},
    ),
    "shuffle": (
        lambda m, x: m.b(shuffle(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(6, 2)},
        {"a": [1, 4]},  # one in each half
    ),
    "gate": (lambda m, x: m.b(gate(m.a(x))).mean((2, 3)), {"a": conv(3, 6), "b": conv(3, 2)}, {"a": [2, 5]}),
    "the first half": (
        lambda m, x: m.b(m.a(x).chunk(2, dim=1)[0]).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(3, 2)},
        {"a": [2, 5]},  # with one channel less, the halves are cut elsewhere
    ),
    "two places": (
        lambda m, x: m.b(m.a(x)[:, :, 0, 1:].flatten(1)),
        {"a": conv(3, 6), "b": nn.Linear(18, 2)},
        {"a": [2]},
    ),
    "one above the other": (
        lambda m, x: m.c(torch.cat([m.a(x), m.b(x)], dim=2)).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(3, 6), "c": conv(6, 2)},
        {"a": [2], "b": [2]},
    ),
    "joined twice": (
        lambda m, x: m.b(torch.cat((y := m.a(x), y), dim=1)).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(12, 2)},
        {"a": [2]},
    ),
    "attention to channels": (
        lambda m, x: m.d((y := m.a(x)) * torch.sigmoid(m.c(F.relu(m.b(F.adaptive_avg_pool2d(y, 1)))))).mean((2, 3)),
        {"a": conv(3, 6), "b": nn.Conv2d(6, 4, 1), "c": nn.Conv2d(4, 6, 1), "d": conv(6, 2)},
        {"a": [2], "c": [2]},
    ),
    "expand": (
        lambda m, x: m.b(m.a(x).mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(6, 2)},
        {"a": [2]},
    ),
    "a number": (lambda m, x: m.b(2 * m.a(x) / 3).mean((2, 3)), {"a": conv(3, 6), "b": conv(6, 2)}, {"a": [2]}),
    "pictures made larger": (
        lambda m, x: m.b(F.interpolate(F.pad(m.a(x), (1, 1, 1, 1)), scale_factor=2)).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(6, 2)},
        {"a": [0]},
    ),
    "transposed": (
        lambda m, x: m.c(m.b(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "b": nn.ConvTranspose2d(6, 5, 2, stride=2), "c": conv(5, 2)},
        {"a": [0], "b": [3]},
    ),
    "transposed, in groups": (
        lambda m, x: m.c(m.b(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "b": nn.ConvTranspose2d(6, 4, 2, groups=2), "c": conv(4, 2)},
        {"a": [0, 3], "b": [1, 3]},
    ),
    "in groups": (
        lambda m, x: m.c(m.b(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(6, 4, groups=2), "c": conv(4, 2)},
        {"a": [0, 3], "b": [1, 3]},
    ),
    "depthwise, two filters a channel": (
        lambda m, x: m.c(m.b(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(6, 12, groups=6), "c": conv(12, 2)},
        {"a": [4], "b": [8, 9]},
    ),
    "transposed, depthwise": (
        lambda m, x: m.c(m.b(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "b": nn.ConvTranspose2d(6, 12, 2, groups=6), "c": conv(12, 2)},
        {"a": [4], "b": [8, 9]},
    ),
    "one slope a channel": (
        lambda m, x: m.b(m.p(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "p": nn.PReLU(6), "b": conv(6, 2)},
        {"a": [4]},
    ),
    "one slope for all": (
        lambda m, x: m.b(m.p(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "p": nn.PReLU(), "b": conv(6, 2)},
        {"a": [4]},
    ),
    "instance norm": (
        lambda m, x: m.b(m.n(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "n": nn.InstanceNorm2d(6), "b": conv(6, 2)},
        {"a": [4]},
    ),
    "a group for each channel": (
        lambda m, x: m.b(m.n(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "n": nn.GroupNorm(6, 6), "b": conv(6, 2)},
        {"a": [4]},
    ),
    "norm over places": (
        lambda m, x: m.b(m.n(m.a(x))).mean((2, 3)),
        {"a": conv(3, 6), "n": nn.LayerNorm((4, 4)), "b": conv(6, 2)},
        {"a": [4]},
    ),
    "softmax over places": (
        lambda m, x: m.b((y := m.a(x)) * torch.softmax(y, dim=3)).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(6, 2)},
        {"a": [4]},
    ),
    "called twice": (
        lambda m, x: m.c(F.relu(m.b(F.relu(m.b(m.a(x)))))).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(6, 6), "c": conv(6, 2)},
        {"a": [4], "b": [4]},
    ),
    "products of pictures": (
        lambda m, x: m.b((y := m.a(x)) @ y.transpose(2, 3)).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(6, 2)},
        {"a": [1]},
    ),
    "products over channels": (
        lambda m, x: m.b(m.a(x).flatten(2).transpose(1, 2) @ torch.relu(m.c(x).flatten(2))).flatten(1).sum(1),
        {"a": conv(3, 6), "c": conv(3, 6), "b": nn.Linear(16, 2)},
        {"a": [1], "c": [1]},
    ),
    "split by a part of its size": (
        lambda m, x: m.b((p := torch.split(y := m.a(x), y.size(1) // 2, dim=1))[0] * p[1]).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(3, 2)},
        {"a": [1, 4]},
    ),
    "parts in a list": (
        lambda m, x: m.b(sum(list(m.a(x).chunk(3, dim=1)))).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(2, 2)},
        {"a": [1, 3, 5]},
    ),
    "places one by one": (
        lambda m, x: m.b(sum(part.mean(-1) for part in list(m.a(x).unbind(2)))),
        {"a": conv(3, 6), "b": nn.Linear(6, 2)},
        {"a": [1]},
    ),
    "linear units as pictures": (
        lambda m, x: m.b(m.a(x.flatten(1)).view(x.size(0), -1, 4, 4)).mean((2, 3)),
        {"a": nn.Linear(48, 96), "b": conv(6, 2)},
        {"a": list(range(16, 32))},
    ),
    "gated linear units": (
        lambda m, x: m.b(F.glu(m.a(x), 1)).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(3, 2)},
        {"a": [1, 4]},
    ),
    "a new tensor of its size": (
        lambda m, x: m.b(torch.cat([y := m.a(x), y.new_zeros(len(x), y.shape[1], 4, 4)], 2)).mean((2, 3)),
        {"a": conv(3, 6), "b": conv(6, 2)},
        {"a": [1]},
    ),
    "sequence": (
        lambda m, x: m.b(F.max_pool1d(F.gelu(m.a(x.flatten(2))), 2)).mean(-1),
        {"a": nn.Conv1d(3, 6, 3), "b": nn.Conv1d(6, 2, 1)},
        {"a": [5]},
    ),
    "volume": (
        lambda m, x: m.b(m.d(m.a(x.unsqueeze(2)))).mean((2, 3, 4)),
        {"a": nn.Conv3d(3, 6, 1), "d": nn.Dropout3d(), "b": nn.Conv3d(6, 2, 1)},
        {"a": [5]},
    ),
}


INDEPENDENT = ("channels last", "transposed", "transposed, in groups", "in groups")  # one unit of each layer is removed


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed(name):
    path, layers, units = FOLLOWED[name]
    model = Net(path, **copy.deepcopy(layers)).eval()
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for layer, gone in units.items():
            into = getattr(silent, layer)
            if isinstance(
                into, nn.ConvTranspose2d
            ):  # (in, out / groups, kernel): unit u is u % (out / groups) of a group
                each, inside = into.weight.shape[1], into.in_channels // into.groups
                for unit in gone:
                    into.weight[unit // each * inside : (unit // each + 1) * inside, unit % each] = 0
            else:
                into.weight[gone] = 0
            into.bias[gone] = 0
    full = model(PICTURES)
    named = units if name in INDEPENDENT else list(units)[:1]
    remove_units(model, {layer: units[layer][:1] for layer in named}, PICTURES)
    for layer, gone in units.items():
        left = getattr(model, layer)
        before = layers[layer]
        sizes = ("out_features",) if isinstance(left, nn.Linear) else ("out_channels",)
        assert all(getattr(left, size) == getattr(before, size) - len(gone) for size in sizes)
    assert_close(model(PICTURES), silent(PICTURES))
    assert not torch.allclose(model(PICTURES), full)


FIXED = {
    "a size in the code": (lambda m, x: m.b(m.a(x).view(-1, 96)), nn.Linear(96, 2), "the operation 'view'"),
    "the same by reshape": (lambda m, x: m.b(m.a(x).reshape(2, 96)), nn.Linear(96, 2), "the operation 'reshape'"),
    "unflatten": (
        lambda m, x: m.b(m.a(x).unflatten(1, (2, 3)).flatten(2)).flatten(1),
        nn.Linear(48, 2),
        "the operation 'unflatten'",
    ),
    "expand": (lambda m, x: m.b(m.a(x).mean((2, 3)).expand(2, 6)), nn.Linear(6, 2), "the operation 'expand'"),
    "some channels": (lambda m, x: m.b(m.a(x)[:, :4]), conv(4, 2), "the operation 'getitem'"),
    "channels in another order": (lambda m, x: m.b(m.a(x)[:, [5, 4, 3, 2, 1, 0]]), conv(6, 2), "'getitem'"),
    "unequal parts": (lambda m, x: m.b(m.a(x).chunk(4, dim=1)[0]), conv(2, 2), "the operation 'chunk'"),
    "softmax over channels": (lambda m, x: m.b(m.a(x).softmax(1)), conv(6, 2), "the operation 'softmax'"),
    "mean over channels": (lambda m, x: m.b(m.a(x).mean(1, keepdim=True)), conv(1, 2), "the operation 'mean'"),
    "mean of all": (lambda m, x: m.b(x) * m.a(x).mean(), conv(3, 2), "the operation 'mean'"),
    "products over channels and places": (
        lambda m, x: m.b(torch.einsum("nchw,cd->ndhw", m.a(x), torch.ones(6, 3))),
        conv(3, 2),
        "the operation 'einsum'",
    ),
    "its input again": (lambda m, x: m.b(m.a(x)[:, :] + x.repeat(1, 2, 1, 1)), conv(6, 2), "the operation 'add'"),
    "channels onto pictures": (
        lambda m, x: m.b(F.pixel_shuffle(m.a(x)[:, :, :, :].repeat(1, 2, 1, 1), 2)),
        conv(3, 2),
        "'repeat'",
    ),
    "a tensor of the code": (lambda m, x: m.b(m.a(x) * torch.ones(6, 1, 1)), conv(6, 2), "the operation 'mul'"),
}


@pytest.mark.parametrize("name", FIXED)
def test_fixed(name):
    path, last, reason = FIXED[name]
    model = Net(path, a=conv(3, 6), b=last)
    names = set(vars(model))
    group = next(group for group in groups(model, PICTURES) if "a" in group.layers)
    assert reason in group.fixed and not group.output
    with pytest.raises(ValueError, match="units of layer 'a' cannot be removed: .*needs all of them"):
        remove_units(model, {"a": [0]}, PICTURES)
    assert set(vars(model)) == names  # nothing is left on the model
    model(PICTURES)


def test_a_sum_with_the_picture_in_a_part_of_its_channels():
    model = Net(lambda m, x: m.c(torch.cat([m.a(x), x], dim=1) + m.b(x)), a=conv(3, 6), b=conv(3, 9), c=conv(9, 2))
    with pytest.raises(ValueError, match="units of layer 'b' cannot be removed: the operation 'cat' puts it beside"):
        remove_units(model, {"b": [7]}, PICTURES)
    remove_units(model, {"b": [5]}, PICTURES)
    assert (model.a.out_channels, model.b.out_channels, model.c.in_channels) == (5, 8, 8)
    model(PICTURES)


def test_words_in_and_words_out_with_one_matrix():
    torch.manual_seed(0)
    model, words = Net(lambda m, x: F.linear(m.b(m.a(x)), m.a.weight), a=nn.Embedding(9, 6), b=nn.Linear(6, 6)), TOKENS
    tied = {group.layers: group.fixed for group in groups(model, words)}
    assert tied == {("a", "b"): None}
    wanted = expected(copy.deepcopy(model), words, {"b": [2, 3]})
    remove_units(model, {"b": [2, 3]}, words)
    assert model.a.weight.shape == (9, 4) and model.b.weight.shape == (4, 4)
    assert_close(model(words), wanted)


def test_pooling_that_also_says_where():
    model = Net(lambda m, x: m.b(m.p(m.a(x))[0]), a=conv(3, 6), p=nn.MaxPool2d(2, return_indices=True), b=conv(6, 2))
    assert groups(model, PICTURES)[0].fixed == "layer 'p' needs all of them"


def test_one_channel_that_meets_many_stays():
    model = Net(lambda m, x: m.c(m.a(x) * torch.sigmoid(m.b(x))), a=conv(3, 6), b=conv(3, 1), c=conv(6, 2))
    tied = {group.layers: group.fixed for group in groups(model, PICTURES)}
    assert tied[("a",)] is None and "it spreads one over many" in tied[("b",)]


def test_layers_that_pytorch_computes_as_a_whole():
    model = Net(lambda m, x: m.b(m.t(m.a(x.flatten(2).transpose(1, 2)))[0]), a=nn.Linear(3, 6), t=nn.LSTM(6, 4))
    model.b = nn.Linear(4, 2)
    assert groups(model, PICTURES)[0].fixed.startswith("layer 't' needs all of them")
    with pytest.raises(ValueError, match="no layer with scores can lose units: a: layer 't' needs all of them"):
        lowest_units(unit_norm(model), 0.5, tied=groups(model, PICTURES))


def test_pytorchs_attention_loses_the_same_of_each_head():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=True)
    model = Net(lambda m, x: m.b(m.t(y := m.a(x.flatten(2).transpose(1, 2)), y, y)[0] + y), a=nn.Linear(3, 12))
    model.t, model.b = attention, nn.Linear(12, 2)
    nn.init.normal_(attention.in_proj_bias)
    wanted, full = expected(copy.deepcopy(model), PICTURES, {"a": [1]}), model(PICTURES)
    remove_units(model, {"a": [1]}, PICTURES)  # and with it 5 and 9, the same of the other heads
    assert (attention.embed_dim, attention.head_dim, attention.out_proj.in_features) == (9, 3, 9)
    assert attention.in_proj_weight.shape == (27, 9) and model.a.out_features == 9
    assert_close(model(PICTURES), wanted)
    assert not torch.allclose(model(PICTURES), full)


def test_a_norm_over_channels_takes_its_mean_over_those_that_are_left():
    model = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    inputs, left = torch.randn(5, 3), [0, 1, 3, 5]
    by_hand = F.layer_norm(model[0](inputs)[:, left], (4,)) @ model[2].weight[:, left].T + model[2].bias
    remove_units(model, {"0": [2, 4]}, inputs)
    assert model[1].normalized_shape == (4,)
    assert_close(model(inputs), by_hand)


def test_groups_of_a_group_norm_stay_equally_large():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(2, 6), nn.Conv2d(6, 2, 1))
    remove_units(model, {"0": [0]}, PICTURES)
    assert (model[0].out_channels, model[1].num_channels, model[1].num_groups) == (4, 4, 2)
    assert model(PICTURES).shape == (2, 2, 4, 4)


def test_an_embedding_and_the_stream_of_an_encoder():
    model = Encoder(20, 3, width=8, layers=2, heads=2, hidden=12).eval()
    tokens = torch.randint(2, 20, (2, 5))
    tied = {group.layers[0]: group for group in groups(model, tokens)}
    stream = ("token", "position", *(f"blocks.{i}.{part}" for i in (0, 1) for part in ("attention.output", "down")))
    assert tied["token"].layers == stream and tied["token"].fixed is None
    assert "unflatten" in tied["blocks.0.attention.query"].fixed  # heads are removed otherwise
    silent = copy.deepcopy(model)
    silent.blocks[1].down.weight.data[:, [3, 4]] = 0
    remove_units(model, {"blocks.1.up": [3, 4]}, tokens)
    assert_close(model(tokens), silent(tokens))
    remove_units(model, {"blocks.0.down": [7]}, tokens)
    assert model.token.weight.shape == (20, 7) and model.token.embedding_dim == 7
    assert model.blocks[1].attention.query.weight.shape == (8, 7) and model.classifier.in_features == 7
    assert model.embedding_norm.normalized_shape == (7,) and model(tokens).shape == (2, 3)


class TwoModes(nn.Module):
    """While it trains, a second head reads the features."""

    def __init__(self):
        super().__init__()
        self.features, self.head, self.extra = nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, inputs):
        features = torch.relu(self.features(inputs))
        return (self.head(features), self.extra(features)) if self.training else self.head(features)


@pytest.mark.parametrize("training", [True, False])
def test_a_head_that_only_training_has(training):
    model = TwoModes().train(training)
    remove_units(model, {"features": [0, 2]}, torch.zeros(1, 3))
    assert model.head.in_features == model.extra.in_features == 4
    assert model.training is training and model.features.training is training
    assert [part.shape for part in model.train()(torch.zeros(1, 3))] == [(1, 2), (1, 2)]


def test_optional_arguments_and_examples_of_several_kinds():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, inputs, scale=None, *, twice=False):
            hidden = self.a(inputs) if scale is None else self.a(inputs) * scale
            return self.b(hidden + hidden if twice else hidden)

    inputs, scale = torch.randn(4, 3), torch.randn(4, 1)
    for example in (inputs, (inputs,), (inputs, scale), {"inputs": inputs, "scale": scale, "twice": True}):
        model = Scaled()
        remove_units(model, {"a": [0]}, example)
        assert model.b.in_features == 5
        assert [group.decisions for group in groups(model, example)] == [5, 2]


def test_what_a_forward_pass_writes_on_the_model_is_not_a_stand_in():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.last = nn.Linear(3, 6), nn.Linear(6, 2), "nothing yet"

        def forward(self, inputs):
            self.last = self.a(inputs)
            self.other = self.b(self.last) + torch.ones(2)
            return self.other

    model = nn.Sequential(Remembers(), nn.Linear(2, 2))
    remove_units(model, {"0.a": [0]}, torch.zeros(1, 3))
    assert model[0].last == "nothing yet" and not hasattr(model[0], "other")


def test_a_path_that_depends_on_the_input():
    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.out = mlp([3, 6, 4]), nn.Linear(4, 2)

        def forward(self, inputs):
            hidden = self.part(inputs)
            return self.out(hidden if hidden.sum() > 0 else -hidden)

    model = Choosy()
    with pytest.raises(
        ValueError, match="Choosy cannot be followed: the operation 'bool' looks at the numbers in a tensor"
    ):
        remove_units(model, {"part.1": [0]}, torch.zeros(1, 3))
    remove_units(model.part, {"1": [0]}, torch.zeros(1, 3))  # what can be traced can be pruned
    assert model.part[3].in_features == 5 and model(torch.zeros(1, 3)).shape == (1, 2)
