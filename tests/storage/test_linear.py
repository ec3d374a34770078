"""Layers with a sparse weight: the same answers and gradients as dense ones, fewer bytes, saved and loaded."""

import copy
import io
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from course_lib.device import seeded
from course_lib.layers import prunable_weights
from course_lib.measure import bytes_in_memory, bytes_on_disk, count_nonzero, count_parameters, flops
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.pruning.held import apply_masks, hold_masks, release_masks
from course_lib.pruning.masks import global_masks, n_m_masks
from course_lib.storage.linear import SparseLinear, TwoFourLinear, to_dense, to_sparse
from course_lib.storage.sparse import layout_bytes
from course_lib.training import FitConfig, fit

LAYOUTS = ["coo", "csr"]


def pruned(sizes=(12, 16, 8, 4), sparsity=0.8, seed=0) -> nn.Sequential:
    model = mlp(sizes, seed=seed)
    return apply_masks(model, global_masks({n: w.abs() for n, w in prunable_weights(model).items()}, sparsity))


def random_linear(inputs, outputs, density, *, bias=True, seed=0) -> nn.Linear:
    with seeded(seed):
        linear = nn.Linear(inputs, outputs, bias=bias)
        with torch.no_grad():
            linear.weight.mul_(torch.rand_like(linear.weight) < density)
    return linear


# By hand


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layer_by_hand(layout):
    linear = nn.Linear(3, 2)
    linear.weight.data = torch.tensor([[0.0, 2, 0], [3, 0, -1]])
    linear.bias.data = torch.tensor([10.0, 20])
    layer = SparseLinear.from_linear(linear, layout)
    assert layer(torch.tensor([[1.0, 2, 3]])).tolist() == [[14, 20]]
    assert layer.values.tolist() == [2, 3, -1]
    if layout == "coo":
        assert layer.indices.tolist() == [[0, 1, 1], [1, 0, 2]]
    else:
        assert (layer.row_starts.tolist(), layer.columns.tolist()) == ([0, 1, 3], [1, 0, 2])
    assert torch.equal(layer.weight, linear.weight)
    assert str(layer) == f"SparseLinear(in_features=3, out_features=2, bias=True, layout='{layout}', entries=3)"


@pytest.mark.parametrize(("layout", "index_bytes"), [("coo", 8), ("csr", 4)])
def test_bytes_and_work_are_those_of_the_formula(layout, index_bytes):
    linear = random_linear(300, 200, 0.05)
    layer, count = SparseLinear.from_linear(linear, layout), int(linear.weight.count_nonzero())
    expected = layout_bytes((200, 300), count, layout, index_bytes=index_bytes) + 200 * 4  # the bias
    assert bytes_in_memory(layer) == expected
    assert expected < bytes_on_disk(layer) < expected + 600  # the head of the file
    assert bytes_on_disk(layer) < bytes_on_disk(linear) / 2
    assert count_parameters(layer) == count_nonzero(layer) == count + 200
    assert flops(layer, torch.randn(7, 300)) == 2 * 7 * count
    assert flops(linear, torch.randn(7, 300)) == 2 * 7 * 300 * 200


# Against the dense layer


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(LAYOUTS), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.0, 0.2, 1.0]), st.booleans(),
    st.sampled_from([(), (1,), (5,), (2, 3), (0,)]),
)  # fmt: skip
def test_answers_and_gradients_are_those_of_the_dense_layer(layout, inputs, outputs, density, bias, lead):
    linear = random_linear(inputs, outputs, density, bias=bias).double()
    layer = SparseLinear.from_linear(linear, layout)
    x = torch.linspace(-1, 2, inputs * torch.Size(lead).numel(), dtype=torch.float64).view(*lead, inputs)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    answer, expected = layer(ours), linear(theirs)
    torch.testing.assert_close(answer, expected)
    assert answer.is_contiguous() and answer.dtype == torch.float64
    answer.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(layer.values.grad, linear.weight.grad[linear.weight != 0])
    if bias:
        torch.testing.assert_close(layer.bias.grad, linear.bias.grad)


@pytest.mark.parametrize("layout", [*LAYOUTS, "2:4"])
def test_a_model_there_and_back(layout):
    model = apply_masks(mlp([12, 16, 8, 4]), n_m_masks(dict(prunable_weights(mlp([12, 16, 8, 4])))))
    x = torch.randn(5, 12)
    before, state, expected = model, copy.deepcopy(model.state_dict()), model(x)
    kind = TwoFourLinear if layout == "2:4" else SparseLinear
    assert to_sparse(model, layout) is before
    assert [type(layer) for layer in model if not isinstance(layer, (nn.ReLU, nn.Flatten))] == [kind] * 3
    torch.testing.assert_close(model(x), expected)
    assert to_dense(model) is before
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_trained_stays_trained_and_what_is_frozen_frozen(layout):
    model = pruned()
    model[1].weight.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    to_sparse(model.eval(), layout)
    assert (model[1].values.requires_grad, model[3].values.requires_grad) == (False, True)
    assert not any(module.training for module in model.modules())
    to_dense(model)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert not any(module.training for module in model.modules())


def test_training_moves_the_values_and_no_zero():
    model = to_sparse(pruned(), "csr")
    zeros = [layer.weight == 0 for layer in (model[1], model[3], model[5])]
    before = model[1].values.clone()
    with seeded(0):
        data = torch.utils.data.TensorDataset(torch.randn(32, 12), torch.randint(4, (32,)))
    fit(model, data, FitConfig(epochs=2, weight_decay=0.1), progress=False)
    assert not torch.equal(model[1].values, before)
    for zero, layer in zip(zeros, (model[1], model[3], model[5]), strict=True):
        assert torch.equal(layer.weight == 0, zero)


# Where somebody reads the weight


def two_four(model: nn.Module) -> nn.Module:
    """``model`` with the linear layers that can be stored pruned to 2:4."""
    weights = {f"{n}.weight": m.weight.abs() for n, m in model.named_modules() if type(m) is nn.Linear}
    return apply_masks(model, n_m_masks(weights))


@pytest.mark.parametrize("layout", [*LAYOUTS, "2:4"])
@pytest.mark.parametrize("grad", [True, False])
def test_an_encoder_layer_that_hands_its_weights_to_a_routine_in_eval_mode(layout, grad, monkeypatch):
    routine, calls = torch._transformer_encoder_layer_fwd, []
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: calls.append(args) or routine(*args))
    with seeded(0):
        dense = two_four(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval()
        x = torch.randn(3, 5, 8)
    stored = to_sparse(copy.deepcopy(dense), layout)
    assert {type(stored.linear1), type(stored.linear2)} <= {SparseLinear, TwoFourLinear}
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(stored(x), dense(x))
    assert len(calls) == (0 if grad else 2)
    padded = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
    both = [nn.TransformerEncoder(m, 1, enable_nested_tensor=False).eval() for m in (stored, dense)]
    with torch.no_grad():
        ours, theirs = (encoder(x, src_key_padding_mask=padded) for encoder in both)
    torch.testing.assert_close(ours[~padded], theirs[~padded])


@pytest.mark.parametrize("layout", [*LAYOUTS, "2:4"])
def test_swin_which_reads_the_weights_of_its_attention(layout):
    swin = pytest.importorskip("torchvision.models.swin_transformer").SwinTransformer
    with seeded(0):
        dense = swin([2, 2], 16, [2, 2], [2, 2], [4, 4], num_classes=4).eval()
        x = torch.randn(2, 3, 32, 32)
    stored = to_sparse(copy.deepcopy(two_four(dense)), layout)
    assert not any(type(module) is nn.Linear for module in stored.modules())
    torch.testing.assert_close(stored(x), dense(x))


class Reader(nn.Module):
    """Computes with the weight of a layer, and does not call it."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.fc = layer

    def forward(self, inputs):
        return F.linear(inputs, self.fc.weight, self.fc.bias) + self.fc.weight.sum()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_of_a_weight_that_is_read_reaches_the_values(layout):
    dense, x = Reader(random_linear(6, 5, 0.4)), torch.randn(3, 6)
    stored = to_sparse(copy.deepcopy(dense), layout)
    torch.testing.assert_close(stored(x), dense(x))
    stored(x).square().sum().backward()
    dense(x).square().sum().backward()
    torch.testing.assert_close(stored.fc.values.grad, dense.fc.weight.grad[dense.fc.weight != 0])
    assert "weight" not in stored.fc.state_dict() and "fc.weight" not in dict(stored.named_parameters())


# Saved and loaded


@pytest.mark.parametrize("layout", [*LAYOUTS, "2:4"])
def test_through_safetensors_into_a_fresh_model(layout, tmp_path):
    model = mlp([12, 16, 8, 4], seed=1)
    apply_masks(model, n_m_masks({name: weight.abs() for name, weight in prunable_weights(model).items()}))
    to_sparse(model, layout)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    empty = apply_masks(mlp([12, 16, 8, 4]), {n: w != w for n, w in prunable_weights(mlp([12, 16, 8, 4])).items()})
    fresh = to_sparse(empty, layout)
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = torch.randn(3, 12)
    assert torch.equal(fresh(x), model(x))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copied_and_pickled(layout):
    model, x = to_sparse(pruned(), layout), torch.randn(3, 12)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def broken(layout: str, **changes) -> tuple[SparseLinear, dict]:
    layer = SparseLinear.from_linear(random_linear(3, 2, 1.0), layout)
    return layer, layer.state_dict() | changes


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("coo", {"indices": torch.zeros(2, 5, dtype=torch.int64)}, "values, indices: "),
        ("coo", {"indices": torch.full((2, 6), 2)}, "size is 2 but found index 2"),
        ("coo", {"indices": torch.full((2, 6), -1)}, "found negative index -1"),
        ("csr", {"columns": torch.full((6,), 3, dtype=torch.int32)}, "values, row_starts, columns: .*< ncols"),
        ("csr", {"columns": torch.zeros(5, dtype=torch.int32)}, r"nnz \(=6\)"),
        ("csr", {"row_starts": torch.tensor([0, 3, 7])}, "== nnz"),
        ("csr", {"row_starts": torch.tensor([0, 7, 6])}, "columns: .*0 <= "),
        ("csr", {"row_starts": torch.tensor([0, 6])}, r"rows \+ 1 \(=3\)"),
        ("coo", {"indices": torch.zeros(2, 6, dtype=torch.int64)}, "uncoalesced"),  # six values at one place
        ("csr", {"columns": torch.zeros(6, dtype=torch.int32)}, "sorted and distinct"),
        ("csr", {"values": torch.zeros(4)}, r"nnz \(=4\)"),
    ],
)
def test_entries_that_no_matrix_has_are_refused(layout, changes, message):
    layer, state = broken(layout, **changes)
    weight = layer.weight
    with pytest.raises(RuntimeError, match=message):  # PyTorch's own error of load_state_dict
        layer.load_state_dict(state)
    assert torch.equal(layer.weight, weight)


def test_a_missing_part_is_named():
    layer, state = broken("csr")
    for name in ("values", "columns", "row_starts"):
        with pytest.raises(RuntimeError, match=f'Missing key.*"{name}"'):
            layer.load_state_dict({key: value for key, value in state.items() if key != name})


# Odd models and bad input


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_left_and_nothing_zero(layout):
    for density in (0.0, 1.0):
        linear = random_linear(5, 3, density)
        x = torch.randn(4, 5)
        torch.testing.assert_close(SparseLinear.from_linear(linear, layout)(x), linear(x))


def test_targets_leave_the_others_dense():
    model = to_sparse(pruned(), "csr", ["1", "5"])
    assert [type(model[i]).__name__ for i in (1, 3, 5)] == ["SparseLinear", "Linear", "SparseLinear"]
    assert [type(m).__name__ for m in to_sparse(SmallConvNet(), "csr").children()][-1] == "SparseLinear"


def test_a_layer_used_twice_is_replaced_twice():
    shared = random_linear(4, 4, 0.3)
    model = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))
    expected = model(torch.eye(4))
    to_sparse(model, "csr")
    assert model[0] is model[2][0] and isinstance(model[0], SparseLinear)
    torch.testing.assert_close(model(torch.eye(4)), expected)


def test_released_masks_stay_zero_in_the_sparse_model():
    model = mlp([12, 16, 4])
    hold_masks(model, global_masks({n: w.abs() for n, w in prunable_weights(model).items()}, 0.75))
    with pytest.raises(ValueError, match=r"layer '1' or its weight has hooks.*held masks with release_masks"):
        to_sparse(model, "csr")
    to_sparse(release_masks(model), "csr")
    assert len(model[1].values) + len(model[3].values) == 64


def tied() -> nn.Module:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "out": nn.Linear(3, 5)})
    model["out"].weight = model["embed"].weight
    return model


def with_hooked_weight() -> nn.Module:
    from torch.nn.utils import prune

    model = mlp([4, 3, 2])
    prune.l1_unstructured(model[1], "weight", 0.5)
    return model


def watched() -> nn.Module:
    model = pruned()
    model[3].register_forward_hook(lambda module, inputs, output: None)
    return model


@pytest.mark.parametrize(
    ("make", "layout", "targets", "message"),
    [
        (pruned, "bsr", None, "layout is 'bsr'; expected 'coo', 'csr' or '2:4'"),
        (pruned, "csr", "7", "target '7' matches no layer"),
        (SmallConvNet, "csr", nn.Conv2d, "layer 'blocks.0.0' is a Conv2d; expected nn.Linear"),
        (nn.ReLU, "csr", None, "ReLU has no layer of the types Linear"),
        (lambda: nn.Linear(2, 2), "csr", None, "model is a Linear, the layer itself"),
        (tied, "csr", "out", "layers 'out' and 'embed' share a weight"),
        (with_hooked_weight, "csr", None, "layer '1' has no parameter 'weight'"),
        (lambda: nn.MultiheadAttention(4, 2), "csr", "out_proj", "NonDynamicallyQuantizableLinear; expected nn.Linear"),
        (lambda: nn.MultiheadAttention(4, 2), "csr", None, "has no layer of the type nn.Linear itself"),
        (pruned, "2:4", None, "layer '1' cannot be stored: matrix is not 2:4"),
        (watched, "csr", None, "layer '3' or its weight has hooks, which a stored layer would lose"),
    ],
)
def test_what_cannot_be_sparse_is_said_and_nothing_changes(make, layout, targets, message):
    model = make()
    modules, state = list(model.modules()), copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        to_sparse(model, layout, targets)
    assert list(model.modules()) == modules
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_attention_keeps_its_own_linear():
    model = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2))
    to_sparse(model, "csr")
    assert isinstance(model[0], SparseLinear) and not isinstance(model[1].out_proj, SparseLinear)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SparseLinear(2, 2, "2:4"), ValueError, "layout is '2:4'; expected 'coo' or 'csr'"),
        (lambda: SparseLinear.from_linear(nn.ReLU()), TypeError, "linear is a ReLU; expected an nn.Linear"),
        (lambda: SparseLinear(3, 2)(torch.ones(1, 2)), ValueError, r"inputs is \(1, 2\); expected \(..., 3\)"),
        (lambda: to_dense(mlp([2, 2])), ValueError, "has no layer of the types StoredLinear"),
        (lambda: to_dense(SparseLinear(3, 2)), ValueError, "model is a SparseLinear, the layer itself"),
        (lambda: to_sparse({}), TypeError, "model is a dict; expected a torch.nn.Module"),
    ],
)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_numbers_of_half_the_bytes_are_kept_as_they_are():
    layer = SparseLinear.from_linear(random_linear(6, 5, 0.4).to(torch.bfloat16), "coo")
    assert layer.values.dtype == torch.bfloat16 and layer.indices.dtype == torch.int64
    dense = F.linear(torch.ones(2, 6, dtype=torch.bfloat16), layer.weight, layer.bias)
    torch.testing.assert_close(layer(torch.ones(2, 6, dtype=torch.bfloat16)), dense, rtol=0.02, atol=0.02)


def test_nobody_is_warned():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layout in LAYOUTS:
            SparseLinear.from_linear(random_linear(3, 3, 0.5), layout)(torch.ones(1, 3))
