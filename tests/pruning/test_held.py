"""Masks hold against everything that trains and saves a model, and come off again."""

import copy
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset

from course_lib.layers import prunable_weights
from course_lib.measure import count_nonzero
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.pruning.held import apply_masks, held_masks, hold_masks, release_masks
from course_lib.pruning.masks import global_masks
from course_lib.training import FitConfig, fit

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 3


def some_masks(model, sparsity=0.5, targets=None):
    weights = prunable_weights(model, targets)
    return global_masks({name: weight.detach().abs() for name, weight in weights.items()}, sparsity)


def step(model, optimizer):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()


def largest_pruned(model, masks):
    """The largest pruned weight, as it lies in the parameters now."""
    parameters = dict(model.named_parameters())
    return max(float(parameters[name].detach()[~mask].abs().max()) for name, mask in masks.items())


def hooks(model):
    modules = list(model.modules())
    tables = ("_forward_pre_hooks", "_state_dict_pre_hooks", "_load_state_dict_post_hooks")
    on_parameters = [len(parameter._backward_hooks or {}) for parameter in model.parameters()]
    return sum(len(getattr(module, table)) for module in modules for table in tables) + sum(on_parameters)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, weight_decay=0.1),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1, weight_decay=0.1),
}


def test_by_hand():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[2.0, 3.0]])
    assert apply_masks(model, {"weight": torch.tensor([[True, False]])}) is model
    assert model.weight.tolist() == [[2.0, 0.0]]
    model(torch.tensor([[1.0, 10.0]])).backward()
    assert model.weight.grad.tolist() == [[1.0, 10.0]]  # applied only: the next step would bring the weight back
    assert held_masks(model) == {}


# ---- held


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_an_optimizer_made_afterwards_never_moves_a_pruned_weight(make):
    model = mlp([6, 8, 3])
    masks = some_masks(model)
    optimizer = make(hold_masks(model, masks).parameters())
    kept = model[1].weight.detach().clone()
    for _ in range(5):
        step(model, optimizer)
        assert largest_pruned(model, masks) == 0
        assert float(model[1].weight.grad[~masks["1.weight"]].abs().max()) == 0
    assert (model[1].weight != kept)[masks["1.weight"]].all()  # the others are trained


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_an_optimizer_with_momentum_from_before(make):
    model = mlp([6, 8, 3])
    optimizer, control = make(model.parameters()), copy.deepcopy(model)
    for _ in range(3):
        step(model, optimizer)
    masks = some_masks(model)
    hold_masks(model, masks)
    step(model, optimizer)
    assert not any(value[~masks[name]].any() for name, value in model.state_dict().items() if name in masks)
    step(model, optimizer)
    model(X)
    assert largest_pruned(model, masks) == 0
    hold_masks(model, masks, optimizer=optimizer)
    step(model, optimizer)
    assert largest_pruned(model, masks) == 0  # right after the step
    assert count_nonzero(model) < count_nonzero(control)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_an_optimizer_that_is_passed_forgets_the_pruned_weights(make):
    """Released, and without a gradient: what is left to move them is momentum."""
    model = mlp([6, 8, 3])
    optimizer = make(model.parameters())
    for _ in range(3):
        step(model, optimizer)
    masks = some_masks(model)
    hold_masks(model, masks, optimizer=optimizer)
    release_masks(model)
    for parameter in model.parameters():
        parameter.grad.zero_()
    kept = model[1].weight.detach().clone()
    optimizer.step()
    assert largest_pruned(model, masks) == 0
    assert (model[1].weight != kept)[masks["1.weight"]].any()  # the others are moved by it


def test_without_holding_momentum_brings_the_weights_back():
    model = mlp([6, 8, 3])
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    step(model, optimizer)
    masks = some_masks(model)
    apply_masks(model, masks)
    step(model, optimizer)
    assert largest_pruned(model, masks) > 0


def test_a_step_is_that_of_torchs_own_pruning():
    ours, theirs = mlp([6, 8, 3]), mlp([6, 8, 3])
    masks = some_masks(ours)
    hold_masks(ours, masks)
    for name, layer in (("1.weight", theirs[1]), ("3.weight", theirs[3])):
        prune.custom_from_mask(layer, "weight", masks[name].float())
    optimizers = [OPTIMIZERS["sgd"](model.parameters()) for model in (ours, theirs)]
    for _ in range(4):
        step(ours, optimizers[0])
        step(theirs, optimizers[1])
    assert torch.equal(ours(X), theirs(X))


def test_two_calls_before_one_backward_pass():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    (model(X).sum() + model(2 * X).sum()).backward()
    assert model[1].weight.grad is not None


def test_held_through_fit_and_its_checkpoints(tmp_path):
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    masks = held_masks(model)
    config = FitConfig(epochs=3, batch_size=4, optimizer="sgd", weight_decay=0.01, learning_rate=0.1)
    fit(model, TensorDataset(X, Y), config, checkpoint_dir=tmp_path, progress=False)
    assert largest_pruned(model, masks) == 0
    saved = load_file(sorted(tmp_path.glob("epoch-*.safetensors"))[-1])
    assert all(not saved[f"value/model/tensors/{name}"][~mask].any() for name, mask in masks.items())


# ---- what it costs


class Written(TorchDispatchMode):
    """Keeps the names of all operations that write into a tensor."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation._schema.is_mutable:
            self.names.append(operation.name())
        return operation(*args, **(kwargs or {}))


def test_neither_a_call_nor_reading_the_state_dict_writes_into_the_weights():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    step(model, OPTIMIZERS["sgd"](model.parameters()))
    model(X)  # after a step somebody has to look
    with Written() as written:
        model(X)
        state = model.state_dict()
    assert written.names == []
    assert all(state[name].data_ptr() == value.data_ptr() for name, value in model.named_parameters())
    with Written() as written:
        step(model, OPTIMIZERS["sgd"](model.parameters()))
        model(X)
    assert any("mul_" in name for name in written.names)  # it would be seen


def test_a_state_dict_masks_what_an_older_optimizer_has_moved_and_leaves_it_there():
    model = mlp([6, 8, 3])
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    step(model, optimizer)
    masks = some_masks(model)
    hold_masks(model, masks)
    step(model, optimizer)
    moved = model[1].weight.detach().clone()
    assert moved[~masks["1.weight"]].any()
    state = nn.Sequential(model).state_dict()
    assert not state["0.1.weight"][~masks["1.weight"]].any()
    assert torch.equal(state["0.1.weight"][masks["1.weight"]], moved[masks["1.weight"]])
    assert torch.equal(model[1].weight, moved)


def test_writing_into_the_weights_is_undone_at_the_next_call():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    model(X)
    model[1].load_state_dict(mlp([6, 8, 3], seed=1)[1].state_dict())  # past the hooks of the whole model
    assert largest_pruned(model, held_masks(model)) > 0
    model(X)
    assert largest_pruned(model, held_masks(model)) == 0


def test_a_masked_model_can_be_exported():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3]))).eval()
    exported = torch.export.export(model, (X,)).module()
    torch.testing.assert_close(exported(X), model(X))


# ---- saved, loaded, copied


def test_the_state_dict_is_that_of_the_plain_model(tmp_path):
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    plain = mlp([6, 8, 3], seed=1)
    assert list(model.state_dict()) == list(plain.state_dict())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    save_file(held_masks(model), tmp_path / "masks.safetensors")
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(plain(X), model(X))
    hold_masks(plain, load_file(tmp_path / "masks.safetensors"))
    step(plain, OPTIMIZERS["adam"](plain.parameters()))
    assert largest_pruned(plain, held_masks(model)) == 0


def test_dense_weights_loaded_into_a_masked_model_are_masked():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    dense = mlp([6, 8, 3], seed=1).state_dict()
    dense["1.weight"][0, 0] = torch.nan
    masks = held_masks(model)
    masks["1.weight"][0, 0] = False
    hold_masks(model, masks)
    model.load_state_dict(dense)
    assert largest_pruned(model, masks) == 0
    assert torch.equal(model[3].weight[masks["3.weight"]], dense["3.weight"][masks["3.weight"]])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_holds_its_own(duplicate):
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    masks, before = held_masks(model), copy.deepcopy(model.state_dict())
    other = duplicate(model)
    optimizer = OPTIMIZERS["sgd"](other.parameters())
    for _ in range(3):
        step(other, optimizer)
        assert largest_pruned(other, masks) == 0
        assert float(other[1].weight.grad[~masks["1.weight"]].abs().max()) == 0
    release_masks(other)
    assert hooks(other) == 0 and held_masks(model).keys() == masks.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_holds_its_own_before_its_first_call(duplicate):
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    other = duplicate(model)
    other[1].weight.sum().backward()
    assert torch.equal(other[1].weight.grad, held_masks(model)["1.weight"].float()) and model[1].weight.grad is None


def test_another_dtype():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3]))).double()
    model(X.double()).sum().backward()
    assert largest_pruned(model, held_masks(model)) == 0
    assert not model[1].weight.grad[~held_masks(model)["1.weight"]].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_smaller_dtype_after_the_first_backward_pass(dtype):
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    step(model, OPTIMIZERS["sgd"](model.parameters()))
    once = hooks(model)
    model.to(dtype)
    model(X.to(dtype)).float().sum().backward()
    assert model[1].weight.grad.dtype == dtype and hooks(model) == once
    assert not model[1].weight.grad[~held_masks(model)["1.weight"]].any()


def test_a_call_with_other_weights_leaves_the_hooks_as_they_were():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    mask, once = held_masks(model)["1.weight"], hooks(model)
    answer = model(X)
    for _ in range(3):
        others = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
        torch.func.functional_call(model, others, (X,)).sum().backward()
        assert not others["1.weight"].grad[~mask].any()
    answer.sum().backward()  # the model's own weights are still held
    assert not model[1].weight.grad[~mask].any() and model[1].weight.grad.any()
    model(X)
    assert hooks(model) == once
    release_masks(model)
    assert hooks(model) == 0


def test_a_weight_that_was_taken_out_and_put_back():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    first, other = model[1].weight, nn.Parameter(torch.randn(8, 6))
    for weight in (other, first):
        model[1].weight = weight
        model(X).sum().backward()
        assert not weight.grad[~held_masks(model)["1.weight"]].any()
    release_masks(model)
    assert hooks(model) == 0 and not other._backward_hooks


def test_a_gradient_from_before_is_masked_too():
    model = mlp([6, 8, 3])
    model(X).sum().backward()
    masks = some_masks(model)
    hold_masks(model, masks)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    model(X).sum().backward()  # added to the one from before
    optimizer.step()
    assert largest_pruned(model, masks) == 0
    table = nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([0, 1, 1])).sum().backward()
    mask = torch.arange(15).view(5, 3) % 2 == 0
    hold_masks(table, {"weight": mask})
    assert torch.equal(table.weight.grad.to_dense(), mask * torch.tensor([[1.0], [2], [0], [0], [0]]))


def test_an_optimizer_that_accelerate_has_wrapped():
    accelerate = pytest.importorskip("accelerate")
    model = mlp([6, 8, 3])
    optimizer = accelerate.Accelerator(cpu=True).prepare(OPTIMIZERS["sgd"](model.parameters()))
    step(model, optimizer)
    masks = some_masks(model)
    hold_masks(model, masks, optimizer=optimizer)
    step(model, optimizer)
    assert largest_pruned(model, masks) == 0


# ---- off again


def test_masks_come_off_without_a_trace():
    model = mlp([6, 8, 3])
    masks = some_masks(model)
    release_masks(hold_masks(model, masks))
    assert hooks(model) == 0 and held_masks(model) == {} and largest_pruned(model, masks) == 0
    step(model, OPTIMIZERS["adam"](model.parameters()))
    assert largest_pruned(model, masks) > 0
    assert release_masks(model) is model  # nothing to take off


def test_pruned_values_come_back():
    model = mlp([6, 8, 3])
    before, masks = copy.deepcopy(model.state_dict()), some_masks(model)
    hold_masks(model, masks)
    release_masks(model, restore=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    hold_masks(model, masks)
    step(model, OPTIMIZERS["adam"](model.parameters()))
    trained = model[1].weight.detach().clone()
    release_masks(model, restore=True)
    mask = masks["1.weight"]
    assert torch.equal(model[1].weight[~mask], before["1.weight"][~mask])
    assert torch.equal(model[1].weight[mask], trained[mask])


def test_new_masks_replace_the_old_ones():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    once = hooks(model)
    hold_masks(model, some_masks(mlp([6, 8, 3]), 0.8))
    assert hooks(model) == once and sum(int(mask.sum()) for mask in held_masks(model).values()) == 14


def test_held_masks_are_copies():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    held_masks(model)["1.weight"].fill_(True)
    assert not held_masks(model)["1.weight"].all()


# ---- shared and frozen weights, other models


def test_a_frozen_weight_is_pruned_and_stays_frozen():
    model = mlp([6, 8, 3])
    model[1].weight.requires_grad_(False)
    masks = some_masks(model)
    hold_masks(model, masks)
    step(model, OPTIMIZERS["sgd"](p for p in model.parameters() if p.requires_grad))
    assert largest_pruned(model, masks) == 0 and not model[1].weight.requires_grad
    model[1].weight.requires_grad_(True)  # thawed later: its gradient is masked from the next call on
    step(model, OPTIMIZERS["sgd"](model.parameters()))
    assert largest_pruned(model, masks) == 0


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids):
        return self.output(self.embedding(ids))


def test_a_shared_weight_is_pruned_in_both_places():
    model = Tied()
    masks = some_masks(model, targets="output")
    hold_masks(model, masks)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    model(torch.arange(5)).pow(2).sum().backward()
    optimizer.step()
    assert model.output.weight is model.embedding.weight and largest_pruned(model, masks) == 0
    with pytest.raises(ValueError, match="near it: .*embedding.weight|has: embedding.weight"):
        hold_masks(model, {"output.weight": masks["embedding.weight"]})


def test_attention_whose_weights_are_read_without_a_call_of_their_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    masks = some_masks(layer)
    hold_masks(layer, masks)
    optimizer = OPTIMIZERS["sgd"](layer.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        layer(torch.randn(2, 5, 8)).pow(2).sum().backward()
        optimizer.step()
    assert largest_pruned(layer, masks) == 0 and set(masks) == {
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.weight",
    }


def test_a_masked_model_inside_another():
    inner = SmallConvNet((4, 8))
    masks = some_masks(inner)
    outer = nn.Sequential(hold_masks(inner, masks), nn.ReLU())
    outer(torch.randn(2, 1, 8, 8)).sum().backward()
    OPTIMIZERS["sgd"](outer.parameters()).step()
    assert not outer.state_dict()["0.classifier.weight"][~masks["classifier.weight"]].any()


# ---- bad input


def test_masks_that_do_not_fit_leave_the_model_as_it_was():
    model = mlp([6, 8, 3])
    before, masks = copy.deepcopy(model.state_dict()), some_masks(model)
    for bad, error, message in (
        ({}, ValueError, "masks are empty"),
        ({**masks, "2.weight": masks["1.weight"]}, ValueError, "matches none of the names; near it: .*1.weight"),
        ({**masks, "3.weight": masks["1.weight"]}, ValueError, "mask of 3.weight has shape"),
        ({**masks, "3.weight": masks["3.weight"].float()}, TypeError, "expected a tensor of torch.bool"),
        ({**masks, "3.weight": [True]}, TypeError, "mask of 3.weight is list"),
    ):
        for function in (apply_masks, hold_masks):
            with pytest.raises(error, match=message):
                function(model, bad)
    with pytest.raises(TypeError, match="model is a list"):
        hold_masks([], masks)
    with pytest.raises(ValueError, match=r"mask '\*.weight': .* matches none of the names; near it: .*1.weight"):
        hold_masks(model, {"*.weight": masks["1.weight"]})
    with pytest.raises(TypeError, match="optimizer is a str; expected a torch.optim.Optimizer"):
        hold_masks(model, masks, optimizer="adam")
    assert hooks(model) == 0 and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_parameter_that_was_replaced_by_a_smaller_one():
    model = hold_masks(mlp([6, 8, 3]), some_masks(mlp([6, 8, 3])))
    model[1] = nn.Linear(6, 4)
    with pytest.raises(ValueError, match=r"1.weight has changed since its mask was put on; call release_masks"):
        model(X)
    release_masks(model, restore=True)
    assert hooks(model) == 0 and model[1].weight.shape == (4, 6)
