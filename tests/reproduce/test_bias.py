"""The best shift of a bias: by hand, and against trying them all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduce.bias import best_shift, errors_after


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
