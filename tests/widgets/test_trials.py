"""What the sparsity widget shows, in numbers: by hand, and as PyTorch's own pruning has it."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import TensorDataset

from course_lib.models.vision import mlp
from course_lib.widgets.trials import SPARSITIES, Trials, is_two_of_four, masked_bytes
from tests.widgets.rows import DATA, WEIGHT, Rows


def sizes(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().abs() for name, value in model.named_parameters() if value.dim() == 2}


def trials(model: nn.Module | None = None, **options) -> Trials:
    model = model or Rows()
    return Trials(model, DATA, {"size": sizes(model)}, **options)


@pytest.mark.parametrize(
    ("scope", "sparsity", "kept", "accuracy"),
    [
        ("global", 0.0, [[1, 1, 1, 1], [1, 1, 1, 1]], 1.0),
        ("global", 0.5, [[0, 1, 1, 0], [1, 0, 0, 1]], 1.0),
        ("global", 0.75, [[0, 1, 1, 0], [0, 0, 0, 0]], 0.5),  # the logits of pictures 0 and 3 are 0, 0: class 0
        ("local", 0.75, [[0, 0, 1, 0], [1, 0, 0, 0]], 0.75),  # only picture 3 is lost: 0, 0
        ("local", 1.0, [[0, 0, 0, 0], [0, 0, 0, 0]], 0.5),
        ("2:4", 0.9, [[0, 1, 1, 0], [1, 0, 0, 1]], 1.0),  # always a half
    ],
)
def test_masks_and_accuracy_by_hand(scope: str, sparsity: float, kept: list, accuracy: float) -> None:
    outcome = trials().outcome("size", scope, sparsity)
    assert [mask.int().tolist() for mask in outcome.masks.values()] == [[row] for row in kept]
    assert (outcome.accuracy, outcome.full_accuracy) == (accuracy, 1.0)
    assert outcome.sparsity == (0.5 if scope == "2:4" else sparsity)


def test_bytes_by_hand() -> None:
    # COO: 4 + 2 · 8 bytes a value. CSR: 4 + 8, and for each layer 2 starts of 8. 2:4: for each layer 2 · 4, and 4 bits.
    assert trials().outcome("size", "global", 0.25).bytes == {"dense": 32, "coo": 120, "csr": 104}
    assert trials().outcome("size", "global", 0.5).bytes == {"dense": 32, "coo": 80, "csr": 80, "2:4": 18}
    assert trials().bytes_before == {"dense": 32, "coo": 160, "csr": 128, "2:4": 18}
    two = {"a": torch.ones(2, 4, dtype=torch.bool), "b": torch.zeros(3, 5, dtype=torch.bool)}
    assert masked_bytes(two) == {"dense": 32 + 60, "coo": 160, "csr": 120 + 4 * 8}


@pytest.mark.parametrize(
    ("rows", "fits"),
    [
        ([[1, 0, 1, 0, 0, 1, 1, 0]], True),
        ([[1, 0, 0, 0, 0, 0, 0, 0]], True),
        ([[0, 1, 1, 1, 0, 0, 0, 0]], False),  # half or less, and not 2 of every 4
        ([[1, 0, 1, 0], [1, 1, 1, 0]], False),
        ([[1, 0, 0]], False),
    ],
)
def test_is_two_of_four(rows: list, fits: bool) -> None:
    assert is_two_of_four(torch.tensor(rows, dtype=torch.bool)) is fits


def test_two_of_four_looks_along_the_inputs_of_a_convolution() -> None:
    along_inputs = torch.zeros(1, 4, 2, 2, dtype=torch.bool)
    along_inputs[:, :2] = True  # two of four inputs, at each place of the kernel
    assert is_two_of_four(along_inputs)
    along_inputs[0, 2, 1, 1] = True
    assert not is_two_of_four(along_inputs)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SPARSITIES), st.integers(0, 3))
def test_accuracy_as_with_the_pruning_of_pytorch(sparsity: float, seed: int) -> None:
    model = mlp([64, 32, 10], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    data = TensorDataset(torch.randn(300, 64, generator=generator), torch.randint(10, (300,), generator=generator))
    scores = sizes(model)
    found = Trials(model, data, {"size": scores}, [sparsity]).accuracy("size", "global", sparsity)
    pruned = copy.deepcopy(model)
    count = round(sparsity * sum(score.numel() for score in scores.values()))
    prune.global_unstructured([(pruned[1], "weight"), (pruned[3], "weight")], prune.L1Unstructured, amount=count)
    assert found == pytest.approx(float((pruned(data.tensors[0]).argmax(-1) == data.tensors[1]).float().mean()))


def test_the_model_and_its_scores_are_left_alone() -> None:
    model = mlp([4, 8, 2], dropout=0.5).train()
    model[1].weight.grad = torch.ones_like(model[1].weight)
    before = copy.deepcopy(model.state_dict())
    scores = sizes(model)
    kept = copy.deepcopy(scores)
    own = Trials(model, DATA, {"size": scores})
    for scope in own.scopes:
        own.curve("size", scope)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(scores, kept, rtol=0, atol=0)
    assert model.training and model[1].weight.grad.eq(1).all()


def test_training_the_model_on_does_not_reach_the_trials() -> None:
    model = Rows()
    own = trials(model)
    model.b.weight.data.zero_()
    assert own.accuracy("size", "global", 0.0) == 1.0


def test_a_curve_has_a_point_for_each_position_and_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = trials(sparsities=[0.0, 0.75, 1.0])
    first = own.curve("size", "local")
    assert first == ([0.0, 0.75, 1.0], [1.0, 0.75, 0.5])
    assert own.curve("size", "2:4") == ([0.5], [1.0])
    monkeypatch.setattr("course_lib.widgets.trials.evaluate", None)
    assert own.curve("size", "local") == first


def test_positions_are_finer_at_the_high_end() -> None:
    steps = [after - before for before, after in zip(SPARSITIES, SPARSITIES[1:], strict=False)]
    assert (SPARSITIES[0], SPARSITIES[-1]) == (0.0, 1.0) and 0.5 in SPARSITIES
    assert max(steps[-8:]) < 0.011 < min(steps[:5])


def test_two_of_four_is_no_choice_where_four_does_not_divide_the_inputs() -> None:
    model = nn.Linear(6, 2)
    own = Trials(model, TensorDataset(torch.zeros(1, 6), torch.zeros(1).long()), {"a": {"weight": torch.rand(2, 6)}})
    assert own.scopes == ("global", "local")
    assert list(own.bytes_before) == ["dense", "coo", "csr"]
    with pytest.raises(ValueError, match="scope is '2:4'; expected one of .*multiple of 4"):
        own.masks("a", "2:4", 0.5)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "scores are not understood"),
        ({"a.weight": WEIGHT}, "scores are not understood"),  # the scores of one criterion, without its name
        ({"a": {}}, r"scores 'a' are of \[\]; expected one or more"),
        (
            {"a": {"a.weight": WEIGHT[:1]}, "b": {}},
            r"scores 'b' are of \[\]; expected one or more, and the same for all",
        ),
        ({"a": {"weight": WEIGHT}}, r"scores 'a' are of 'weight'; expected weights among \['a.weight', 'b.weight'\]"),
        ({"a": {"a.weight": WEIGHT}}, r"have shape \(2, 4\); expected \(1, 4\)"),
        ({"a": {"a.weight": WEIGHT[:1] * math.nan}}, "hold nan"),
    ],
)
def test_bad_scores(scores: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trials(Rows(), DATA, scores).accuracy("a", "global", 0.5)


def test_a_bias_is_no_matrix() -> None:
    model = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="of two or more dimensions"):
        Trials(model, DATA, {"a": {"bias": torch.rand(2)}})


@pytest.mark.parametrize("sparsities", [[], [0.5, 0.2], [0.1, 0.1], [-0.1, 0.5], [0.5, 1.5], [math.nan]])
def test_bad_sparsities(sparsities: list[float]) -> None:
    with pytest.raises(ValueError, match="sparsities are .*; expected rising shares of the weights, from 0 to 1"):
        trials(sparsities=sparsities)


def test_other_bad_input() -> None:
    with pytest.raises(TypeError, match="model is a str"):
        Trials("model", DATA, {"a": {"a.weight": WEIGHT[:1]}})
    with pytest.raises(TypeError, match="data is a list"):
        Trials(Rows(), [1], {"a": {"a.weight": WEIGHT[:1]}})
    with pytest.raises(ValueError, match="criterion is 'b'; expected one of"):
        trials().masks("b", "global", 0.5)
    with pytest.raises(ValueError, match="scope is 'layer'; expected one of"):
        trials().masks("size", "layer", 0.5)
    with pytest.raises(ValueError, match="sparsity is 2"):
        trials().masks("size", "global", 2)
