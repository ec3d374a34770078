"""The tools of the MNIST experiments: the limit on the norms by hand, the best shift against trying them all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.data.files import DataFileError
from course_lib.data.images import load_images
from reproduce.mnist import all_training_cases, best_shift, errors_after, limit_norms


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


def test_best_shift_by_hand():
    logits = torch.tensor([[5.0, 2.0], [4.0, 3.5], [1.0, 0.0]])
    labels = torch.tensor([1, 1, 0])  # class 1 needs a shift above 3, above 0.5; class 0 one below 1
    # from 0.5 to 1 one is wrong; above 3 one is wrong too: the shift nearest to 0 wins
    assert best_shift(logits, labels, [1]) == pytest.approx(0.75)
    assert errors_after(logits, labels, [1], 0.75).tolist() == [True, False, False]


def test_no_shift_where_none_helps():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    assert best_shift(logits, torch.tensor([0, 1]), [1]) == 0.0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([[3], [7, 8], [0, 1, 2]]))
def test_best_shift_is_as_good_as_trying_them_all(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(40, 10, generator=generator)
    labels = torch.randint(0, 10, (40,), generator=generator)
    shifts = torch.arange(-15, 15, 0.01)  # (S,)
    moved = torch.zeros(10).index_fill_(0, torch.tensor(classes), 1.0)
    tried = (logits + shifts[:, None, None] * moved).argmax(-1) != labels  # (S, N, C) -> (S, N)
    found = errors_after(logits, labels, classes, best_shift(logits, labels, classes))
    assert found.sum() <= tried.sum(1).min()


def test_all_training_cases_are_the_two_splits_in_order():
    try:
        data = load_images("mnist", download=False)
    except DataFileError as error:
        pytest.skip(f"MNIST is not here: {error}")
    cases = all_training_cases()
    assert len(cases) == 60_000
    assert torch.equal(cases.tensors[1][:55_000], data.train.tensors[1])
    assert torch.equal(cases.tensors[0][55_000:], data.validation.tensors[0])
