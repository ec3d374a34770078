"""The bookkeeping: ties over any number of steps, labels spread and gathered."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.pruning.channels import Channels, along, gather, spread, varying


def test_ties_by_hand():
    channels = Channels()
    a, b, c = channels.fresh(3), channels.fresh(3), channels.fresh(2)
    assert (a.tolist(), b.tolist(), c.tolist(), channels.count) == ([0, 1, 2], [3, 4, 5], [6, 7], 8)
    assert channels.decisions().tolist() == list(range(8))
    channels.tie(b, a)
    channels.tie(c, b[1:])
    assert channels.decisions().tolist() == [0, 1, 2, 0, 1, 2, 1, 2]
    channels.tie_rows(channels.fresh(4), 2)
    assert channels.decisions()[8:].tolist() == [8, 9, 8, 9]


@given(st.integers(1, 30), st.data())
def test_ties_are_connected_components(count, data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=40))
    channels = Channels()
    channels.fresh(count)
    for one, other in pairs:
        channels.tie(torch.tensor([one]), torch.tensor([other]))
    groups = [{index} for index in range(count)]  # by hand: join the two sets of each pair
    for one, other in pairs:
        joined = groups[one] | groups[other]
        for index in joined:
            groups[index] = joined
    assert channels.decisions().tolist() == [min(group) for group in groups]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_gather_undoes_spread(sizes, data):
    constant = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    small = [1 if flat else size for flat, size in zip(constant, sizes, strict=True)]
    labels = torch.randperm(torch.tensor(small).prod().item()).view(small)
    for full in (spread(labels, torch.Size(sizes)), spread(labels, torch.Size(sizes)).clone()):
        assert torch.equal(gather(full), labels)
    assert varying(labels) == [axis for axis, size in enumerate(small) if size > 1]


def test_along_one_axis():
    labels = torch.arange(4).view(1, 4, 1)
    assert along(labels, 1, 4).tolist() == [0, 1, 2, 3]
    assert along(labels, 2, 4) is None and along(labels, 1, 8) is None and along(None, 1, 4) is None
    assert along(torch.arange(4).view(2, 2), 1, 2) is None  # changes along the other axis as well
