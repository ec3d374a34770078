"""A pruned network heals: on the labels, and from the network that it was."""

import copy

import pytest

from course_lib.data.images import load_images
from course_lib.distillation.hinton import soft_target_loss, with_teacher_logits
from course_lib.evaluation import evaluate
from course_lib.measure import count_parameters
from course_lib.models.vision import SmallConvNet
from course_lib.pruning.criteria import unit_norm
from course_lib.pruning.structured import groups, lowest_units, remove_units
from course_lib.training import FitConfig, fit

CONFIG = FitConfig(epochs=4, learning_rate=3e-3)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.fixture(scope="module")
def trained(digits):
    model = SmallConvNet((12, 24))
    fit(model, digits.train, CONFIG, device="cpu", progress=False)
    return model


@pytest.fixture
def pruned(trained, digits):
    model, example = copy.deepcopy(trained), digits.test.tensors[0][:1]
    remove_units(model, lowest_units(unit_norm(model), 0.5, tied=groups(model, example)), example)
    return model


def test_half_of_the_filters_are_gone_and_it_shows(trained, pruned, digits):
    assert [block[0].out_channels for block in pruned.blocks] == [6, 12]
    assert count_parameters(pruned) < 0.4 * count_parameters(trained)
    assert evaluate(pruned, digits.test).accuracy < evaluate(trained, digits.test).accuracy - 0.1


def test_it_heals_on_labels(trained, pruned, digits):
    fit(pruned, digits.train, CONFIG, device="cpu", progress=False)
    assert evaluate(pruned, digits.test).accuracy > evaluate(trained, digits.test).accuracy - 0.04


def test_it_heals_from_the_network_that_it_was(trained, pruned, digits):
    before = copy.deepcopy(trained.state_dict())
    data, loss = with_teacher_logits(trained, digits.train, device="cpu"), soft_target_loss(temperature=4, alpha=1)
    fit(pruned, data, CONFIG, loss=loss, device="cpu", progress=False)
    assert evaluate(pruned, digits.test).accuracy > evaluate(trained, digits.test).accuracy - 0.04
    assert all(value.equal(before[name]) for name, value in trained.state_dict().items())
