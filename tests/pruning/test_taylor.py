"""The loss change guessed from gradients: by hand, against the true change, torch.func and another library."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from course_lib.device import seeded
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.pruning.held import held_masks, hold_masks
from course_lib.pruning.leave_one_out import leave_one_out
from course_lib.pruning.masks import local_masks
from course_lib.pruning.taylor import fisher, taylor, unit_taylor

KINDS = ({}, {"absolute": "example"}, {"absolute": "none"}, {"order": 2}, {"order": 2, "absolute": "none"})


def squares(model: nn.Module, batch) -> torch.Tensor:
    """Half the squared error, a mean over the examples."""
    inputs, targets = batch
    return (model(inputs) - targets).square().sum(1).mean() / 2


def two_weights() -> tuple[nn.Module, TensorDataset]:
    """y = 2 a - b on three examples; the errors y - t are 1, -3, 0."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[2.0, -1.0]])
    inputs = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 1.0]])  # y = 2, 0, -1
    return model, TensorDataset(inputs, torch.tensor([[1.0], [3.0], [-1.0]]))


def random_data(count: int = 12, classes: int = 3, *shape: int, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    return TensorDataset(torch.randn(count, *(shape or (4,)), generator=generator), labels)


def small_net(seed: int = 0) -> nn.Module:
    """Conv, batch norm, ReLU, linear, in float64, with running statistics that are not the first ones."""
    with seeded(seed):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
        model(torch.randn(20, 1, 4, 4).double())
        nn.init.normal_(model[1].weight, 1, 0.3), nn.init.normal_(model[1].bias)
    return model


def small_data() -> TensorDataset:
    inputs, labels = random_data(12, 3, 1, 4, 4).tensors
    return TensorDataset(inputs.double(), labels)


# By hand


def test_first_order_by_hand():
    """Gradients of the examples: error times input, (1, 0), (-3, -6), (0, 0); their mean is (-2/3, -2)."""
    model, data = two_weights()
    signed = taylor(model, data, loss=squares, absolute="none")["0.weight"]
    torch.testing.assert_close(signed, torch.tensor([[2 / 3 * 2, 2.0 * -1]]))  # -g w
    torch.testing.assert_close(taylor(model, data, loss=squares)["0.weight"], torch.tensor([[4 / 3, 2.0]]))
    each = taylor(model, data, loss=squares, absolute="example")["0.weight"]
    torch.testing.assert_close(each, torch.tensor([[(2 + 6) / 3, 6 / 3]]))  # the mean of |g w|


def test_second_order_by_hand():
    """The mean squares are (1 + 9) / 3 and 36 / 3."""
    model, data = two_weights()
    signed = taylor(model, data, loss=squares, order=2, absolute="none")["0.weight"]
    torch.testing.assert_close(signed, torch.tensor([[4 / 3 + 10 / 3 * 4 / 2, -2 + 12 * 1 / 2]]))


def test_units_by_hand():
    """One unit: its gate z gives y z, with gradient error times y in each example: 2, 0, 0."""
    model, data = two_weights()
    assert unit_taylor(model, data, loss=squares)["0"].tolist() == pytest.approx([2 / 3])
    assert unit_taylor(model, data, loss=squares, absolute="none")["0"].tolist() == pytest.approx([-2 / 3])
    second = unit_taylor(model, data, loss=squares, order=2, absolute="none")["0"]
    assert second.tolist() == pytest.approx([-2 / 3 + 4 / 3 / 2])


def test_signs_cancel_in_the_mean_and_not_in_the_examples():
    """Two examples pull the unit in opposite directions: the mean change is 0, each one's is 1."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    model[0].weight.data = torch.ones(1, 1)
    data = TensorDataset(torch.ones(2, 1), torch.tensor([[0.0], [2.0]]))  # errors 1 and -1
    assert unit_taylor(model, data, loss=squares, absolute="mean")["0"].item() == 0
    assert unit_taylor(model, data, loss=squares)["0"].item() == 1


# The true change of the loss


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_tiny_weights_have_the_change_that_the_first_order_says(seed):
    """The rest of the expansion shrinks with the square of the weight: so does the error of the guess."""
    with seeded(seed):
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()  # no kinks
    inputs, labels = random_data(seed=seed).tensors
    data, errors = TensorDataset(inputs.double(), labels), []
    for scale in (1e-3, 1e-4):
        model[0].weight.data = model[0].weight.data / model[0].weight.data.abs().max() * scale
        guess = taylor(model, data, "0", absolute="none")["0.weight"]
        errors.append((guess - leave_one_out(model, data, "0")["0.weight"]).abs().max().item())
    assert errors[0] < 1e-5 and errors[1] < errors[0] / 50


def test_second_order_is_exact_where_the_loss_is_a_parabola_and_fisher_is_the_curvature():
    """With errors of ±1, the mean square of (error · input) is the mean of input²: the true second derivative."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False)).double()
    inputs = torch.randn(20, 2).double()
    signs = torch.tensor([1.0, -1.0]).double().repeat(10).unsqueeze(1)
    data = TensorDataset(inputs, model(inputs).detach() - signs)
    guess = taylor(model, data, loss=squares, order=2, absolute="none")
    torch.testing.assert_close(guess, leave_one_out(model, data, loss=squares))


@pytest.mark.parametrize("after", [None, {"0": "0"}, {"0": "2"}])
def test_gradients_at_the_gates_are_finite_differences(after):
    """A gate behind the normalisation, behind the layer, behind the ReLU: what a slightly closed gate changes."""
    model, data = small_net().eval(), small_data()
    place = {None: 1, "0": 0, "2": 2}[(after or {}).get("0")]
    inputs, labels = data.tensors
    found = unit_taylor(model, data, "0", absolute="none", after=after)["0"]
    for unit in range(4):
        losses = []
        for value in (1 + 1e-5, 1 - 1e-5):
            gate = torch.ones(4, 1, 1).double()
            gate[unit] = value
            with torch.no_grad():
                losses.append(cross_entropy(model[place + 1 :](gate * model[: place + 1](inputs)), labels).item())
        assert found[unit].item() == pytest.approx((losses[1] - losses[0]) / 2e-5, abs=1e-8)


# Independent implementations


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_every_kind_is_that_of_gradients_by_torch_func(batch_size):
    model, data = small_net(), small_data()
    model.eval()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(parameters, x, y):
        return cross_entropy(functional_call(model, (parameters, buffers), (x.unsqueeze(0),)), y.unsqueeze(0))

    single = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, *data.tensors)  # (N, ...) each
    model.train()
    for settings_ in KINDS:
        found = taylor(model, data, batch_size=batch_size, **settings_)
        assert list(found) == ["0.weight", "4.weight"]
        for name, score in found.items():
            g, w = single[name], parameters[name]
            change = -g.mean(0) * w
            if settings_.get("order") == 2:
                change = change + g.square().mean(0) * w.square() / 2
            if settings_.get("absolute") == "example":
                change = (g * w).abs().mean(0)
            torch.testing.assert_close(score, change if settings_.get("absolute") == "none" else change.abs())


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_units_are_those_of_one_example_at_a_time(batch_size):
    """The gate's gradient is the sum of output times its gradient, behind the batch normalisation."""
    model, data = small_net().eval(), small_data()
    rows = []
    for x, y in zip(*data.tensors, strict=True):
        h = model[:2](x.unsqueeze(0)).detach().requires_grad_(True)
        (g,) = torch.autograd.grad(cross_entropy(model[2:](h), y.unsqueeze(0)), h)
        rows.append((g * h.detach()).sum((0, 2, 3)))
    z = torch.stack(rows)  # (N, units)
    second = -z.mean(0) + z.square().mean(0) / 2
    options = {"targets": "0", "batch_size": batch_size}
    torch.testing.assert_close(unit_taylor(model, data, **options)["0"], z.abs().mean(0))
    torch.testing.assert_close(unit_taylor(model, data, absolute="mean", **options)["0"], z.mean(0).abs())
    torch.testing.assert_close(unit_taylor(model, data, order=2, **options)["0"], second.abs())
    torch.testing.assert_close(unit_taylor(model, data, order=2, absolute="none", **options)["0"], second)


@pytest.mark.parametrize("multivariable", [False, True])
def test_torch_pruning_agrees_on_the_filters(multivariable):
    """Its score of a filter is |Σ g w| or Σ |g w| over the filter's weights; without bias the sum is the gate's."""
    peer = pytest.importorskip("torch_pruning")
    model, data = SmallConvNet((4, 8)).eval(), random_data(10, 10, 1, 8, 8)
    graph = peer.DependencyGraph().build_dependency(model, torch.randn(1, 1, 8, 8))
    cross_entropy(model(data.tensors[0]), data.tensors[1]).backward()
    importance = peer.importance.TaylorImportance(group_reduction="first", normalizer=None, multivariable=multivariable)
    for name in ("blocks.0.0", "blocks.1.0"):
        layer = model.get_submodule(name)
        theirs = importance(
            graph.get_pruning_group(layer, peer.prune_conv_out_channels, list(range(layer.out_channels)))
        )
        weights = taylor(model, data, name, absolute="none" if multivariable else "mean")[f"{name}.weight"]
        ours = weights.flatten(1).sum(1).abs()
        torch.testing.assert_close(ours, theirs)
        if multivariable:  # no bias: all that the layer gives is in its weights
            gate = unit_taylor(model, data, name, absolute="mean", after={name: name})[name]
            torch.testing.assert_close(gate, theirs)


# Properties


@pytest.mark.parametrize("score", [taylor, unit_taylor])
def test_a_loader_and_any_batch_size_give_the_same(score):
    model, data = small_net(), small_data()
    whole = score(model, data, batch_size=100)
    for other in (score(model, data, batch_size=5), score(model, DataLoader(data, batch_size=5))):
        torch.testing.assert_close(other, whole)
    torch.testing.assert_close(score(model, DataLoader(data, batch_size=5), order=2), score(model, data, order=2))


@pytest.mark.parametrize("score", [taylor, unit_taylor])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_as_it_was(score, kind):
    model, data = small_net(), small_data()
    model.add_module("dropout", nn.Dropout(0.5)), model[2].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.full_like(model[4].weight, 7.0)
    values = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    first = score(model, data, **kind)
    second = score(model, data, **kind)
    assert all(torch.equal(first[name], second[name]) for name in first)  # no dropout: the same twice
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not model[0].weight.requires_grad and model[4].weight.requires_grad
    assert model[0].weight.grad is None and (model[4].weight.grad == 7).all()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_frozen_weight_is_scored_like_any_other():
    model, data = small_net(), small_data()
    free = taylor(model, data)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    frozen, units = taylor(model, data), unit_taylor(model, data)
    torch.testing.assert_close(frozen, free)
    assert units["0"].max() > 0 and not any(parameter.requires_grad for parameter in model.parameters())


def test_a_shared_weight_counts_all_its_uses():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    model[2].weight = model[0].weight
    data = random_data(12, 3, 3)
    data = TensorDataset(data.tensors[0].double(), data.tensors[1])
    scores = taylor(model, data, absolute="none")
    assert list(scores) == ["0.weight"]
    weight = model[0].weight
    (gradient,) = torch.autograd.grad(cross_entropy(model(data.tensors[0]), data.tensors[1]), weight)
    torch.testing.assert_close(scores["0.weight"], (-gradient * weight).detach())


def test_a_layer_that_is_called_twice_has_one_gate_for_both_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, inputs):
            return self.outer(torch.tanh(self.inner(torch.tanh(self.inner(inputs)))))

    torch.manual_seed(0)
    model, data = Twice().double(), random_data(10, 2, 3)
    data = TensorDataset(data.tensors[0].double(), data.tensors[1])
    z = torch.ones(3, requires_grad=True, dtype=torch.float64)
    inner, outer = model.inner, model.outer
    answer = outer(torch.tanh(z * inner(torch.tanh(z * inner(data.tensors[0])))))
    (g,) = torch.autograd.grad(cross_entropy(answer, data.tensors[1]), z)
    torch.testing.assert_close(unit_taylor(model, data, "inner", absolute="none")["inner"], -g)


def test_weights_that_the_loss_does_not_use_score_zero():
    model = mlp([4, 5, 3])
    model.unused = nn.Linear(2, 2)
    model.forward = lambda inputs: model[3](model[2](model[1](inputs)))
    scores = taylor(model, random_data())
    assert scores["unused.weight"].abs().max() == 0 and scores["1.weight"].max() > 0


def test_inside_no_grad_and_under_held_masks():
    model, data = mlp([4, 5, 3]), random_data()
    masks = local_masks({"1.weight": model[1].weight.detach().abs()}, 0.5)
    hold_masks(model, masks)
    with torch.no_grad():
        scores = taylor(model, data)
    assert (scores["1.weight"][~masks["1.weight"]] == 0).all() and scores["1.weight"].max() > 0
    assert all(torch.equal(mask, masks[name]) for name, mask in held_masks(model).items())


def test_half_precision_gives_scores_in_float32():
    model, data = mlp([4, 5, 3]).to(torch.bfloat16), random_data()
    data = TensorDataset(data.tensors[0].to(torch.bfloat16), data.tensors[1])
    assert taylor(model, data, order=2)["1.weight"].dtype == torch.float32
    assert unit_taylor(model, data)["1"].dtype == torch.float32


# Bad input


@pytest.mark.parametrize("score", [taylor, unit_taylor])
def test_arguments_out_of_range(score):
    model, data = mlp([4, 5, 3]), random_data()
    for wrong, message in (
        ({"order": 3}, "order is 3; expected 1, or 2"),
        ({"order": True}, "order is True"),
        ({"absolute": "sum"}, "absolute is 'sum'; expected 'mean', 'example' or 'none'"),
        ({"order": 2, "absolute": "example"}, "absolute is 'example' and order 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"targets": "9"}, "target '9' matches no layer of Sequential"),
    ):
        with pytest.raises(ValueError, match=message):
            score(model, data, **wrong)


@pytest.mark.parametrize("score", [taylor, unit_taylor])
def test_data_and_losses_that_will_not_do(score):
    model, data = mlp([4, 5, 3]), random_data()
    empty = TensorDataset(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    modes = [module.training for module in model.modules()]
    for broken, loss, message in (
        (empty, None, "data is empty"),
        (DataLoader(empty), None, "data is empty"),
        (data, lambda model, batch: model(batch[0]).sum(1), r"loss gives \(12,\); expected a scalar"),
        (data, lambda model, batch: model(batch[0]).mean().item(), "loss gives float; expected a scalar"),
        (data, lambda model, batch: model(batch[0]).mean() * math.nan, "the loss is nan; expected a finite number"),
        (data, lambda model, batch: model(batch[0]).mean().detach(), "the loss has no gradient"),
    ):
        with pytest.raises(ValueError, match=message):
            score(model, broken, **({"loss": loss} if loss else {}))
        assert [module.training for module in model.modules()] == modes
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(TypeError, match="data is a list; expected a TensorDataset or a DataLoader"):
        score(model, [])
    with pytest.raises(TypeError, match="model is a list"):
        score([], data)


@pytest.mark.parametrize("score", [taylor, unit_taylor])
def test_a_model_with_nan_or_without_layers(score):
    model, data = mlp([4, 5, 3]), random_data()
    model[3].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"the weights of 3(\.weight)? hold 1 numbers that are not finite"):
        score(model, data)
    with pytest.raises(ValueError, match="Sequential has no layer of the types"):
        score(nn.Sequential(nn.ReLU()), data)


def test_an_error_half_way_leaves_frozen_weights_frozen():
    model, data = mlp([4, 5, 3]), random_data()
    model[1].weight.requires_grad_(False)
    calls = []

    def fails(model, batch):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("stop here")
        return model(batch[0]).mean()

    with pytest.raises(RuntimeError, match="stop here"):
        taylor(model, data, loss=fails, batch_size=1)
    assert not model[1].weight.requires_grad and model.training


# Fisher


def test_fisher_is_the_mean_square_of_single_gradients():
    """Against the two weights by hand, and against gradients by torch.func."""
    model, data = two_weights()
    torch.testing.assert_close(fisher(model, data, loss=squares)["0.weight"], torch.tensor([[10 / 3, 12.0]]))
    model, data = small_net().eval(), small_data()
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters, x, y):
        return cross_entropy(functional_call(model, parameters, (x.unsqueeze(0),)), y.unsqueeze(0))

    single = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, *data.tensors)
    for name, information in fisher(model, data).items():
        torch.testing.assert_close(information, single[name].square().mean(0))
