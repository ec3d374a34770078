"""A size read from one tensor and used on another is a dependence; and looking at a model does not change it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from benchmarks.zoo import expected
from course_lib.pruning.criteria import unit_norm
from course_lib.pruning.graph import groups, rebuild, structure_of
from course_lib.pruning.structured import lowest_units, remove_units
from tests.pruning.graph.test_follow import PICTURES, Net, conv

ROWS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))


def attention(x, qkv, out, heads):
    """As vision transformers and small GPTs write it."""
    n, places, width = x.shape
    q, k, v = (part.view(n, places, heads, width // heads).transpose(1, 2) for part in qkv(x).chunk(3, dim=-1))
    mixed = F.softmax(q @ k.transpose(-2, -1) / (width // heads) ** 0.5, dim=-1) @ v
    return out(mixed.transpose(1, 2).reshape(n, places, width))


def heads(rows):
    """(N, L, C) -> (N, H, L, C / 2)."""
    return rows.view(3, 5, -1, rows.shape[-1] // 2).transpose(1, 2)


# Each: the forward pass, what reads the units of ``a``, and why they stay.
STAY = {
    "attention": (lambda m, x: m.b((y := m.a(x)) + attention(y, m.q, m.o, 2)), "uses their number"),
    "divided by it": (lambda m, x: m.b((h := m.a(x)) / h.size(-1)), "it uses their number, 6"),
    "times a root of it": (lambda m, x: m.b((h := m.a(x)) * h.shape[-1] ** -0.5), "uses their number"),
    "a bound": (lambda m, x: m.b((h := m.a(x)).clamp(max=h.shape[-1] / 100)), "uses their number"),
    "the size of a head": (
        lambda m, x: m.b(F.scaled_dot_product_attention(*[heads(m.a(x))] * 3).transpose(1, 2).flatten(2)),
        "it divides by the root of their number",
    ),
    "that many of another": (lambda m, x: m.b(m.a(x)) + m.c(x)[..., : m.a(x).shape[-1]][..., :2], "uses their number"),
    "a range": (lambda m, x: m.b(sum(m.a(x) * i for i in range(m.a(x).shape[-1]))), "uses their number"),
    "a comparison": (lambda m, x: m.b(m.a(x) if m.a(x).shape[-1] > 4 else -m.a(x)), "uses their number"),
    "the size of others": (
        lambda m, x: m.b(m.a(x)) + m.c(x).reshape(3, 5, m.a(x).shape[-1])[..., :2],
        "the code writes their number, 6",
    ),
    "elements": (lambda m, x: m.b((h := m.a(x)) / h.numel()), "uses their number"),
}


def net(path):
    torch.manual_seed(0)
    layers = {
        "a": nn.Linear(8, 6),
        "b": nn.Linear(6, 2),
        "c": nn.Linear(8, 6),
        "q": nn.Linear(6, 18),
        "o": nn.Linear(6, 6),
    }
    return Net(path, **layers).eval()


@pytest.mark.parametrize("name", STAY)
def test_a_dependence_through_a_number(name):
    path, why = STAY[name]
    model = net(path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"units of layer 'a' cannot be removed: .*{why}"):
        remove_units(model, {"a": [0]}, ROWS)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


GO = {
    "its own size": lambda m, x: m.b((h := m.a(x)).view(3, 5, h.shape[-1])),
    "twice its size": lambda m, x: m.q(torch.cat([h := m.a(x), h], -1).view(3, 5, 2 * h.size(-1))),
    "at most its size": lambda m, x: m.b(m.a(x)[..., :6]),
    "its size twice": lambda m, x: m.b(m.a(x).view(15, m.a(x).shape[-1])),
    "equal sizes": lambda m, x: m.b(m.a(x) + m.o(m.a(x)) if (h := m.a(x)).shape == m.o(h).shape else h),
    "products of sizes": lambda m, x: m.b((h := m.a(x)).reshape(-1).view(h.shape[0] * h.shape[1], h.shape[2])),
}


@pytest.mark.parametrize("name", GO)
def test_a_size_that_follows(name):
    model = net(GO[name])
    model.q = nn.Linear(12, 2)
    wanted = expected(copy.deepcopy(model), ROWS, {"a": [1, 4]})
    remove_units(model, {"a": [1, 4]}, ROWS)
    assert model.a.out_features == 4
    assert_close(model(ROWS), wanted)


class Pictures(nn.Module):
    """Keeps the number of its channels and writes it into a view, as torchvision's ViT and generators do."""

    def __init__(self, scaled=False):
        super().__init__()
        self.channels, self.scaled = 6, scaled
        self.a, self.b = nn.Linear(8, 6 * 16), nn.Conv2d(6, 2, 3)
        self.scale, self.place = nn.Parameter(torch.randn(6, 1, 1)), nn.Parameter(torch.randn(1, 6, 4, 4))
        self.start = nn.Parameter(torch.randn(1, 6, 1, 1))

    def forward(self, rows):
        pictures = self.a(rows).view(-1, self.channels, 4, 4) * self.scale + self.place
        pictures = torch.cat([self.start.expand(len(pictures), -1, -1, 4), pictures], dim=2)
        return self.b(pictures / self.channels if self.scaled else pictures)


def test_a_number_that_a_module_keeps_and_parameters_outside_of_layers():
    torch.manual_seed(0)
    model = Pictures()
    rows = ROWS[:, 0]
    wanted = expected(copy.deepcopy(model), rows, {"a": [0, 33]})
    remove_units(model, {"a": [0, 33]}, rows)  # in channels 0 and 2
    assert model.channels == 4 and model.a.out_features == 64 and model.b.in_channels == 4
    assert [tuple(p.shape) for p in (model.scale, model.place, model.start)] == [(4, 1, 1), (1, 4, 4, 4), (1, 4, 1, 1)]
    assert_close(model(rows), wanted)
    again = rebuild(Pictures(), structure_of(model))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(rows), model(rows))
    with pytest.raises(ValueError, match="'channels' of the model says how many there are"):
        remove_units(Pictures(scaled=True), {"a": [0]}, rows)


# --- layers that are not PyTorch's own ------------------------------------------------------------------------------


class NormAct(nn.BatchNorm2d):
    """As in timm: a batch normalisation with a forward pass of its own, that ends in an activation."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x):
        torch._assert(x.ndim == 4, f"expected 4 axes, not {x.ndim}")
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        training = self.training or self.running_mean is None and self.running_var is None
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training, 0.1, self.eps)
        return self.act(self.drop(x))


class ByHand(nn.Module):
    """A layer norm over channels without a module of PyTorch."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(channels)), nn.Parameter(torch.rand(channels))

    def forward(self, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias).permute(0, 3, 1, 2)


@pytest.mark.parametrize("norm", [NormAct, ByHand])
def test_norms_that_are_not_pytorchs_own(norm):
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 8), norm(8), conv(8, 8, groups=8), norm(8), conv(8, 2)).eval()
    wanted = expected(copy.deepcopy(model), PICTURES, {"0": [1, 5]})
    if norm is ByHand:  # its mean is over the channels that are left
        wanted = None
    units = lowest_units(unit_norm(model), 0.25, tied=groups(model, PICTURES))
    assert {name: len(gone) for name, gone in units.items()} == {"0": 2}
    remove_units(model, {"0": [1, 5]}, PICTURES)
    assert model[1].weight.shape == (6,) and model[2].groups == 6 and model[4].in_channels == 6
    if wanted is not None:
        assert_close(model(PICTURES), wanted)
        assert model[1].num_features == 6
    else:
        assert model(PICTURES).shape == (2, 2, 4, 4)


# --- nothing is changed by looking ----------------------------------------------------------------------------------


class Remembers(nn.Module):
    """Caches what it computed, counts its calls in several places."""

    def __init__(self):
        super().__init__()
        self.p, self.a, self.b = nn.Parameter(torch.randn(6)), nn.Linear(8, 6), nn.Linear(6, 2)
        self.cache, self.seen, self.calls = {}, [], {"n": [0]}
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        if "k" not in self.cache:
            self.cache["k"] = self.p * 2
        self.count += 1
        self.calls["n"][0] += 1
        hidden = self.a(x) * self.cache["k"]
        self.seen.append(hidden)
        self.mean.mul_(0.9).add_(hidden.mean((0, 1)) * 0.1)
        return self.b(hidden)


def test_looking_does_not_change_the_model():
    model = Remembers()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(2):
        assert [group.fixed is None for group in groups(model, ROWS)] == [True, False]
    assert model.cache == {} and model.seen == [] and model.calls == {"n": [0]}
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    wanted = expected(copy.deepcopy(model), ROWS, {"a": [0, 3]})
    remove_units(model, {"a": [0, 3]}, ROWS)
    assert model.count == 0 and model.cache == {} and model.p.shape == model.mean.shape == (4,)
    assert_close(model(ROWS), wanted)
    assert model.count == 1 and model.cache["k"].shape == (4,)


def test_what_would_be_left_is_run_before_anything_is_changed(monkeypatch):
    monkeypatch.setattr("course_lib.pruning.graph.call.Call.expect", lambda *_: None)  # as if it were overlooked
    model = net(lambda m, x: m.b(m.a(x).view(3, 5, 6)))
    ids, text = [id(p) for p in model.parameters()], str(model)
    with pytest.raises(ValueError, match="what would be left does not run: the operation 'view'.*shape"):
        remove_units(model, {"a": [0]}, ROWS)
    model.path = lambda m, x: m.a(x)
    with pytest.raises(ValueError, match="they are the network's output"):
        remove_units(model, {"a": [0]}, ROWS)
    assert [id(p) for p in model.parameters()] == ids and str(model) == text


# --- what cannot be done is said ------------------------------------------------------------------------------------


def test_little_of_what_was_asked_is_said_with_the_reasons():
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 30), nn.LSTM(30, 4))
    with pytest.warns(UserWarning, match="1 of 2 layers are left as they are. 2: layer '3' needs all of them"):
        units = lowest_units(unit_norm(model), 0.5, tied=groups(model, ROWS))
    assert list(units) == ["0"]
    only = nn.Sequential(nn.Linear(8, 8), nn.LSTM(8, 8))
    with pytest.raises(ValueError, match="no layer with scores can lose units: 0: layer '1' needs all of them"):
        lowest_units(unit_norm(only), 0.5, tied=groups(only, ROWS))


def test_scores_of_a_layer_in_no_group_are_left_alone_with_a_word():
    model = Net(lambda m, x: m.b(m.a(x)), a=nn.Linear(8, 6), b=nn.Linear(6, 2), c=nn.Linear(3, 3))
    with pytest.warns(UserWarning, match="c: it is in no group, since the forward pass does not run it by itself"):
        assert list(lowest_units(unit_norm(model), 0.5, tied=groups(model, ROWS))) == ["a"]


@pytest.mark.filterwarnings("ignore:.*are left as they are")
def test_the_recipe_on_a_swin_transformer():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    sizes = {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    model, pictures = models.SwinTransformer(**sizes, num_classes=3).eval(), torch.randn(2, 3, 32, 32)
    units = lowest_units(unit_norm(model), 0.5, tied=groups(model, pictures))
    assert units["features.1.0.mlp.0"] and len(units) == 4
    wanted = expected(copy.deepcopy(model), pictures, units)
    remove_units(model, units, pictures)
    assert_close(model(pictures), wanted)
