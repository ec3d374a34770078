"""The sensitivity curve: by hand, against pruning with masks, and what it leaves behind."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.evaluation import evaluate
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.pruning.criteria import magnitude, random_scores, unit_norm
from course_lib.pruning.held import apply_masks
from course_lib.pruning.masks import local_masks
from course_lib.pruning.sensitivity import sensitivity_curve


def random_data(count: int = 40, *shape: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(
        torch.randn(count, *shape, generator=generator), torch.randint(3, (count,), generator=generator)
    )


def test_by_hand():
    """Class 0 wins by the larger weight: with the smaller one gone the answers stay, with both gone they are a tie."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[0].weight.data, model[1].weight.data = torch.diag(torch.tensor([3.0, 1.0])), torch.eye(2)
    data = TensorDataset(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    curves = sensitivity_curve(model, data, [0, 0.75, 1])
    assert list(curves) == ["0.weight", "1.weight"]
    assert [point.errors for point in curves["0.weight"]] == [0, 1, 1]  # 0.75: the 3 alone is left
    assert curves["0.weight"][2].loss == pytest.approx(math.log(2))  # nothing is left: both classes are as likely


def test_each_point_is_that_of_a_copy_with_one_layer_pruned():
    model, data, sparsities = mlp([4, 8, 6, 3]), random_data(40, 4), [0, 0.3, 0.5, 0.9]
    for scores in (None, random_scores(model, seed=3)):
        curves = sensitivity_curve(model, data, sparsities, scores=scores)
        assert list(curves) == ["1.weight", "3.weight", "5.weight"]
        for name, points in curves.items():
            for sparsity, point in zip(sparsities, points, strict=True):
                one = local_masks({name: (scores or magnitude(model))[name]}, sparsity)
                assert evaluate(apply_masks(copy.deepcopy(model), one), data) == point


def test_filters_of_one_layer_at_a_time():
    model, data = SmallConvNet((4, 8), num_classes=3), random_data(40, 1, 8, 8)
    curves = sensitivity_curve(model, data, [0, 0.5, 1], scores=unit_norm(model, "blocks.*"))
    assert list(curves) == ["blocks.0.0", "blocks.1.0"]
    without = copy.deepcopy(model)
    for unit in unit_norm(model)["blocks.0.0"].argsort()[:2]:
        without.blocks[1][0].weight.data[:, unit] = 0  # the next layer no longer hears the two smallest filters
    assert curves["blocks.0.0"][1].loss == pytest.approx(evaluate(without, data).loss, abs=1e-5)
    assert curves["blocks.0.0"][0] == evaluate(model, data)


def test_targets_and_a_loader():
    model, data = SmallConvNet((4, 8), num_classes=3), random_data(40, 1, 8, 8)
    curves = sensitivity_curve(model, DataLoader(data, batch_size=7), [0.5], targets=nn.Conv2d)
    assert list(curves) == ["blocks.0.0.weight", "blocks.1.0.weight"]
    assert curves["blocks.0.0.weight"][0].errors == sensitivity_curve(model, data, [0.5])["blocks.0.0.weight"][0].errors


@pytest.mark.parametrize("of", ["weights", "units", "both"])
def test_the_model_is_left_as_it_was_to_the_bit(of):
    model, data = SmallConvNet((4, 8), num_classes=3), random_data(40, 1, 8, 8)
    model.blocks[1].eval()
    values, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    scores = {"weights": magnitude(model), "units": unit_norm(model)}
    scores["both"] = {**scores["weights"], **scores["units"]}
    sensitivity_curve(model, data, [0.5, 1], scores=scores[of])
    with pytest.raises(TypeError, match="labels are torch.float32"):
        sensitivity_curve(model, TensorDataset(data.tensors[0], torch.zeros(40)), [0.5], scores=scores[of])
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_bad_input():
    model, data = mlp([4, 5, 3]), random_data(10, 4)
    for wrong, message in (
        ({"sparsities": []}, "sparsities are empty"),
        ({"sparsities": [0.5, 1.5]}, "1.5; expected a share of the weights, from 0 to 1"),
        ({"data": TensorDataset(torch.zeros(0, 4), torch.zeros(0))}, "data is empty"),
        ({"targets": "conv"}, "target 'conv' matches no layer"),
        ({"scores": magnitude(model), "targets": "1"}, "scores and targets are both given"),
        (
            {"scores": {"2.weight": torch.ones(5, 4)}},
            r"scores for '2\.weight': Sequential has none of that name; near it: .*1\.weight",
        ),
        ({"scores": {"1.weight": torch.ones(4, 5)}}, r"the scores of 1\.weight have shape \(4, 5\); expected \(5, 4\)"),
        ({"scores": {"1": torch.ones(4)}}, r"the scores of 1 have shape \(4,\); expected \(5,\)"),
        ({"scores": {"2": torch.ones(4)}}, "target '2' matches no layer of Sequential"),
        ({"scores": {"1.weight": torch.full((5, 4), math.nan)}}, r"the scores of 1\.weight hold nan"),
    ):
        with pytest.raises(ValueError, match=message):
            sensitivity_curve(**{"model": model, "data": data, "sparsities": [0.5], **wrong})
    with pytest.raises(ValueError, match="there is nothing to work on"):
        sensitivity_curve(nn.Sequential(nn.ReLU()), data, [0.5])
