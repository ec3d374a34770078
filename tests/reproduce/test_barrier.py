"""The error barrier and the new statistics of batch norm, by hand; the residual network's shapes."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from reproduce.barrier import between, error_barrier, refresh_batch_norm
from reproduce.ledger import rank_correlation
from reproduce.small_resnet import small_resnet


def two_units(order):
    """Class 0 for a positive input, class 1 for a negative one: one hidden unit for each, in either order."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]])[order])
        model[2].weight.copy_(torch.eye(2)[:, order])
    return model


@pytest.fixture
def signs():
    return TensorDataset(torch.tensor([[1.0], [2.0], [-1.0], [-2.0]]), torch.tensor([0, 0, 1, 1]))


def test_barrier_between_two_orders_of_the_same_units(signs):
    one, other = two_units([0, 1]), two_units([1, 0])
    ends = [one.state_dict(), other.state_dict()]
    # half-way all first weights are 0: every answer is class 0, which is wrong for two of four
    assert error_barrier(one, *ends, signs, signs, points=3) == pytest.approx(50)
    assert error_barrier(one, ends[0], ends[0], signs, signs) == 0


def test_barrier_is_measured_above_the_line_between_the_ends(signs):
    good, bad = two_units([0, 1]), two_units([0, 1])
    nn.init.zeros_(bad[2].weight)  # always class 0: two of four wrong
    # 0 errors until the far end, which is wrong by 50 points: never above the line
    assert error_barrier(good, good.state_dict(), bad.state_dict(), signs, signs) == 0


def test_barrier_leaves_the_model_as_it_was(signs):
    one, other = two_units([0, 1]), two_units([1, 0]).state_dict()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    error_barrier(one, before, other, signs, signs)
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


def test_between_by_hand():
    assert between(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0]), 0.25).tolist() == [1.5, 1.0]
    assert between(torch.tensor(7), torch.tensor(9), 0.5) == 7  # a counter of batches


def test_statistics_are_averages_over_the_batches():
    model = nn.Sequential(nn.BatchNorm1d(1))
    model(torch.full((4, 1), 100.0))  # to be forgotten
    refresh_batch_norm(model, TensorDataset(torch.tensor([[0.0], [2.0], [4.0], [8.0]])), batch_size=2)
    assert model[0].running_mean.item() == pytest.approx((1 + 6) / 2)
    assert model[0].running_var.item() == pytest.approx((2 + 8) / 2)
    assert model[0].momentum == 0.1 and not model.training


def test_a_network_without_batch_norm_is_left_alone():
    model = nn.Linear(1, 1).train()
    refresh_batch_norm(model, TensorDataset(torch.zeros(2, 1)))
    assert model.training


def test_rank_correlation_by_hand_and_beside_scipy():
    assert rank_correlation([1, 2, 3], [10, 30, 20]) == pytest.approx(0.5)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) == 0
    stats = pytest.importorskip("scipy.stats")
    first, second = [0.0, 0.0, 0.2, 1.5, 0.2, 3.0], [0.1, -0.2, 0.1, 4.0, 0.3, 0.3]
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)


@pytest.mark.parametrize("blocks", [1, 2])
def test_residual_network(blocks):
    model, same, other = (small_resnet((2, 4, 6), blocks=blocks, seed=seed) for seed in (3, 3, 4))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len([layer for layer in convolutions if layer.kernel_size == (3, 3)]) == 1 + 6 * blocks
    assert model(torch.randn(5, 1, 14, 14)).shape == (5, 10)
    assert model[-4](torch.randn(1, 6 if blocks > 1 else 4, 8, 8)).shape[2:] == ((8, 8) if blocks > 1 else (4, 4))
    weights = [network[0].weight for network in (model, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
