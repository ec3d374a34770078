"""From scores to masks: the count asked for is the count pruned, whatever the scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from course_lib.pruning.masks import global_masks, local_masks, n_m_masks, sparsity_of

SCORES = {"a": torch.tensor([[1.0, 4.0], [6.0, 2.0]]), "b": torch.tensor([[3.0, 5.0]])}


def pruned(masks):
    return sum(int((~mask).sum()) for mask in masks.values())


def lists(masks):
    return {name: mask.int().tolist() for name, mask in masks.items()}


# ---- by hand


def test_global_takes_the_lowest_of_all():
    assert lists(global_masks(SCORES, 0.5)) == {"a": [[0, 1], [1, 0]], "b": [[0, 1]]}


def test_local_takes_the_lowest_of_each():
    assert lists(local_masks(SCORES, 0.5)) == {"a": [[0, 1], [1, 0]], "b": [[0, 1]]}
    assert lists(local_masks(SCORES, 0.25)) == {"a": [[0, 1], [1, 1]], "b": [[1, 1]]}  # round(0.5) is 0


def test_a_share_for_each_layer():
    assert lists(local_masks(SCORES, {"a": 0.75})) == {"a": [[0, 0], [1, 0]], "b": [[1, 1]]}
    assert lists(local_masks(SCORES, {"*": 0.5, "b": 1.0})) == {"a": [[0, 1], [1, 0]], "b": [[0, 0]]}  # the last counts


def test_two_of_four():
    scores = {"w": torch.tensor([[1.0, 9.0, 2.0, 8.0, 5.0, 5.0, 5.0, 5.0]])}
    assert n_m_masks(scores)["w"].int().tolist() == [[0, 1, 0, 1, 1, 1, 0, 0]]  # of equal ones the first stay
    assert n_m_masks(scores, 1, 4)["w"].int().tolist() == [[0, 1, 0, 0, 1, 0, 0, 0]]
    assert n_m_masks(scores, 4, 4)["w"].all() and not n_m_masks(scores, 0, 4)["w"].any()


def test_n_of_m_of_a_convolution_runs_along_the_input_channels():
    scores = torch.randn(3, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = n_m_masks({"w": scores})["w"]
    for place in range(9):
        along = mask.flatten(2)[..., place].unflatten(1, (2, 4))  # (3, 2, 4)
        assert (along.sum(-1) == 2).all()
    for output, row, column in ((0, 0, 0), (2, 1, 2)):
        group = scores[output, 4:8, row, column]
        assert mask[output, 4:8, row, column].nonzero().flatten().tolist() == sorted(group.topk(2).indices.tolist())


def test_extremes_and_tiny_tensors():
    assert pruned(global_masks(SCORES, 0)) == 0 and pruned(global_masks(SCORES, 1.0)) == 6
    one = {"w": torch.tensor([[2.0]])}
    assert lists(local_masks(one, 0.4)) == {"w": [[1]]} and lists(local_masks(one, 0.6)) == {"w": [[0]]}


def test_equal_scores_lose_exactly_as_many_as_asked():
    equal = {"a": torch.ones(3, 3), "b": torch.ones(1)}
    assert pruned(global_masks(equal, 0.3)) == 3 and pruned(local_masks(equal, 0.5)) == 4 + 0
    assert lists(global_masks(equal, 0.3))["a"] == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]  # the first ones


def test_other_types_of_scores():
    for score in (torch.tensor([[3, 1, 2, 0]]), torch.tensor([[3.0, 1, 2, 0]]).bfloat16(), SCORES["a"].double()):
        assert pruned(global_masks({"w": score}, 0.5)) == 2
    assert lists(global_masks({"w": nn.Parameter(torch.tensor([3.0, 1.0]))}, 0.5)) == {"w": [1, 0]}
    assert lists(global_masks({"w": torch.tensor([3.0, 1, 2, 0]).half()}, 0.5)) == {"w": [1, 0, 1, 0]}


def test_infinite_scores_are_protected():
    assert lists(global_masks({"w": torch.tensor([torch.inf, 0.0, 1.0])}, 2 / 3)) == {"w": [1, 0, 0]}


def test_sparsity():
    assert sparsity_of(global_masks(SCORES, 0.5)) == 0.5
    with pytest.raises(ValueError, match="masks are empty"):
        sparsity_of({})


# ---- against torch.nn.utils.prune


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.93, 1.0])
def test_the_same_as_torch_where_no_scores_are_equal(sparsity):
    torch.manual_seed(0)
    first, second = nn.Linear(40, 30), nn.Conv2d(4, 6, 3)
    scores = {"first": first.weight.detach().abs(), "second": second.weight.detach().abs()}
    together = global_masks(scores, sparsity)
    each = local_masks(scores, sparsity)
    prune.global_unstructured([(first, "weight"), (second, "weight")], prune.L1Unstructured, amount=sparsity)
    assert torch.equal(together["first"], first.weight_mask.bool())
    assert torch.equal(together["second"], second.weight_mask.bool())
    for layer, name in ((first, "first"), (second, "second")):
        prune.remove(layer, "weight")
        layer.weight.data = scores[name].clone()
        prune.l1_unstructured(layer, "weight", amount=sparsity)
        assert torch.equal(each[name], layer.weight_mask.bool())


# ---- properties


@st.composite
def some_scores(draw):
    """Up to three layers whose scores are often equal."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=3))
    values = st.integers(-2, 2)
    return {
        str(index): torch.tensor(
            draw(st.lists(values, min_size=rows * columns, max_size=rows * columns)), dtype=torch.float
        ).view(rows, columns)
        for index, (rows, columns) in enumerate(shapes)
    }


@settings(max_examples=150, deadline=None)
@given(scores=some_scores(), sparsity=st.floats(0, 1))
def test_the_exact_count_and_nothing_kept_below_what_is_pruned(scores, sparsity):
    masks = global_masks(scores, sparsity)
    assert pruned(masks) == round(sparsity * sum(score.numel() for score in scores.values()))
    kept = torch.cat([scores[name][mask] for name, mask in masks.items()])
    gone = torch.cat([scores[name][~mask] for name, mask in masks.items()])
    assert not len(kept) or not len(gone) or kept.min() >= gone.max()
    for name, mask in local_masks(scores, sparsity).items():
        assert int((~mask).sum()) == round(sparsity * mask.numel()) and mask.shape == scores[name].shape


@settings(max_examples=100, deadline=None)
@given(first=some_scores(), data=st.data(), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_rounds_are_monotone(first, data, shares):
    low, high = sorted(shares)
    second = {name: score[torch.randperm(len(score))] for name, score in first.items()}  # other scores
    for cut in (global_masks, local_masks):
        before = cut(first, low)
        after = cut(second, high, within=before)
        assert all(not (after[name] & ~before[name]).any() for name in first)  # nothing comes back
        assert cut is local_masks or pruned(after) == round(high * sum(score.numel() for score in first.values()))


# ---- bad input


@pytest.mark.parametrize("cut", [global_masks, local_masks])
@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan"), "half", True, None])
def test_a_share_outside_0_to_1(cut, sparsity):
    with pytest.raises(ValueError, match="sparsity.* is .*; expected a share of the weights, from 0 to 1"):
        cut(SCORES, sparsity)


@pytest.mark.parametrize("cut", [lambda s: global_masks(s, 0.5), lambda s: local_masks(s, 0.5), n_m_masks])
@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_scores_that_cannot_be_ordered(cut, bad):
    with pytest.raises(ValueError, match="the scores of w hold nan or -inf"):
        cut({"w": torch.tensor([[1.0, bad, 2.0, 3.0]])})
    with pytest.raises(ValueError, match="scores are empty"):
        cut({})
    with pytest.raises(TypeError, match="scores is a Tensor; expected a dict"):
        cut(torch.ones(2, 4))


@pytest.mark.parametrize(("n", "m"), [(3, 2), (-1, 4), (0, 0), (1.5, 4), (True, 4), (2, 4.0)])
def test_n_and_m_that_make_no_pattern(n, m):
    with pytest.raises(ValueError, match=f"n is {n!r} and m is {m!r}; expected whole numbers with 0 <= n <= m"):
        n_m_masks(SCORES, n, m)


def test_inputs_at_another_dimension():
    """A transposed convolution has (inputs, outputs, ...): the same masks as those of the weight turned round."""
    score = torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    turned = n_m_masks({"w": score.transpose(0, 1)}, 2, 4)["w"]
    mask = n_m_masks({"w": score}, 2, 4, axis=0)["w"]
    assert torch.equal(mask, turned.transpose(0, 1)) and (mask.view(2, 4, 3, 2, 2).sum(1) == 2).all()


def test_inputs_that_m_does_not_divide():
    with pytest.raises(ValueError, match=r"w has shape \(2, 6\); expected .* inputs a multiple of 4"):
        n_m_masks({"w": torch.ones(2, 6)})


def test_layers_and_masks_that_do_not_fit():
    with pytest.raises(ValueError, match="sparsity for 'c' matches none of the names; it has: a, b"):
        local_masks(SCORES, {"c": 0.5})
    masks = global_masks(SCORES, 0.5)
    with pytest.raises(ValueError, match="sparsity is 0.1, 1 weights of 6, but within prunes 3 already"):
        global_masks(SCORES, 0.1, within=masks)
    with pytest.raises(ValueError, match="within has no mask for b"):
        global_masks(SCORES, 0.8, within={"a": masks["a"]})
    with pytest.raises(ValueError, match=r"the mask of a has shape \(1, 2\); expected \(2, 2\)"):
        global_masks(SCORES, 0.8, within={"a": masks["b"], "b": masks["b"]})
    with pytest.raises(TypeError, match=r"the mask of a is torch.float32; expected a tensor of torch.bool"):
        global_masks(SCORES, 0.8, within={"a": masks["a"].float(), "b": masks["b"]})
