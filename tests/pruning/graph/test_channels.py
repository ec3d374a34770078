"""The bookkeeping: ties over any number of steps, and numbers that have to stay equal."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.pruning.graph.channels import Channels


def test_ties_by_hand():
    channels = Channels()
    a, b, c = channels.fresh(3), channels.fresh(3), channels.fresh(2)
    assert (a.tolist(), b.tolist(), c.tolist(), channels.count) == ([0, 1, 2], [3, 4, 5], [6, 7], 8)
    assert channels.verdict({}).decision.tolist() == list(range(8))
    channels.tie(b, a)
    channels.tie(c, b[1:])
    assert channels.verdict({}).decision.tolist() == [0, 1, 2, 0, 1, 2, 1, 2]
    channels.tie_rows(channels.fresh(4), 2)
    assert channels.verdict({}).decision[8:].tolist() == [8, 9, 8, 9]


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
    assert channels.verdict({}).decision.tolist() == [min(group) for group in groups]
