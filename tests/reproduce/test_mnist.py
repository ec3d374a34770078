"""The data and the limit on the norms, by hand."""

import pytest
import torch
from torch import nn

from course_lib.data.files import DataFileError
from course_lib.data.images import load_images
from reproduce.mnist import all_training_cases, limit_norms


def test_norms_are_limited_by_hand():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))  # norms 5 and 0.5
        model[0].bias.fill_(9.0)
        model[2].weight.fill_(100.0)
    limit_norms(model, 2.0)
    torch.testing.assert_close(model[0].weight.data, torch.tensor([[1.2, 1.6], [0.3, 0.4]]))  # norms 2 and 0.5
    assert (model[0].bias == 9).all() and (model[2].weight == 100).all()  # biases and the output are left alone


def test_a_silent_unit_stays_silent():
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    nn.init.zeros_(model[0].weight)
    limit_norms(model, 2.0)
    assert (model[0].weight == 0).all()


def test_all_training_cases_are_the_two_splits_in_order():
    try:
        data = load_images("mnist", download=False)
    except DataFileError as error:
        pytest.skip(f"MNIST is not here: {error}")
    cases = all_training_cases()
    assert len(cases) == 60_000
    assert torch.equal(cases.tensors[1][:55_000], data.train.tensors[1])
    assert torch.equal(cases.tensors[0][55_000:], data.validation.tensors[0])
