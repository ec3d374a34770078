"""A failed check says what is probably wrong, in one line, in any Jupyter."""

import math

import numpy as np
import pytest
import torch

from classroom.checks import CheckFailed, expect, expect_dict, expect_refusal, expect_that, gradient


def message(*args, **options) -> str:
    with pytest.raises(CheckFailed) as failure:
        expect("it", *args, **options)
    return str(failure.value)


@pytest.mark.parametrize(
    "answer", [[1.0, 2.0], (1, 2), np.array([1, 2]), torch.tensor([1.0, 2.0], dtype=torch.float64)]
)
def test_numbers_of_any_kind_are_compared(answer):
    expect("it", answer, [1.0, 2.0])


def test_a_known_mistake_is_named():
    wrong = {"it is halved": 0.5, "it is doubled": 2.0, "it overflowed": math.nan}
    assert message(2.0, 1.0, because=wrong) == "it: it is doubled"
    assert message(math.nan, 1.0, because=wrong) == "it: it overflowed"
    assert message([math.nan, 1.0], [1.0, 1.0], because=wrong) == "it: it overflowed"
    assert message(3.0, 1.0, because=wrong) == "it: got 3; expected 1"


def test_the_right_answer_passes_even_if_a_mistake_would_give_it_too():
    expect("it", 1.0, 1.0, because={"unlikely": 1.0})


def test_unknown_mistakes_are_described():
    assert "shape is (3,); expected (2,)" in message([1, 2, 3], [1, 2])
    assert "nan or an inf" in message([math.inf, 1], [1, 1])
    assert "Is there a return" in message(None, 1.0)
    assert "is a dict" in message({}, 1.0)
    assert "is a str" in message("one", 1.0)
    assert "expected numbers, an array or a dense tensor" in message(torch.eye(2).to_sparse(), np.eye(2))
    assert "shape is (1, 2); expected (2,)" in message([[1, 2]], [1, 2])


def test_tolerance():
    expect("it", 1.00005, 1.0)
    assert message(1.001, 1.0)
    expect("it", 1.001, 1.0, rtol=0.01)


def test_nan_is_right_only_where_it_is_expected():
    expect("it", [math.nan, 1.0], [math.nan, 1.0])
    assert message([1.0, math.nan], [math.nan, 1.0])


def test_dicts_are_compared_key_by_key():
    want = {"a": [1, 0], "b": [[2.0]]}

    def told(got, **options) -> str:
        with pytest.raises(CheckFailed) as failure:
            expect_dict("it", got, want, **options)
        return str(failure.value)

    expect_dict("it", {"b": torch.tensor([[2.0]]), "a": torch.tensor([True, False])}, want)
    mistakes = {
        "upside down": {"a": [0, 1], "b": [[2.0]]},
        "b is lost": {"a": [1, 0]},
        "it overflowed": {**want, "b": math.nan},
    }
    assert told({"a": [0, 1], "b": [[2.0]]}, because=mistakes) == "it: upside down"
    assert told({"a": np.array([1, 0])}, because=mistakes) == "it: b is lost"
    assert told({"a": [1, 0], "b": [[math.nan]]}, because=mistakes) == "it: it overflowed"
    assert told({"a": [1, 1], "b": [[2.0]]}, because=mistakes) == "it, a: got [1., 1.]; expected [1., 0.]"
    assert told({"a": [1, 0]}) == "it: the answer has the keys a; expected the keys a, b"
    assert told({}) == "it: the answer has no keys; expected the keys a, b"
    assert "it, b: the answer is None" in told({"a": [1, 0], "b": None})
    assert "Is there a return" in told(None)
    assert "is a list; expected a dict" in told([1, 0])


def test_conditions_and_refusals():
    expect_that(True, "fine")
    with pytest.raises(CheckFailed, match="not fine"):
        expect_that(False, "not fine")

    def refuse(error):
        raise error("no")

    expect_refusal("it", lambda: refuse(ValueError))
    with pytest.raises(CheckFailed, match="was accepted"):
        expect_refusal("it", lambda: 1)
    with pytest.raises(CheckFailed, match="raised TypeError"):
        expect_refusal("it", lambda: refuse(TypeError))
    with pytest.raises(NotImplementedError):  # an unwritten answer does not count as a refusal
        expect_refusal("it", lambda: refuse(NotImplementedError))


def test_gradient():
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert torch.equal(gradient(lambda a, b: (a * b).sum(), x, y), y)
    assert torch.equal(gradient(lambda a, b: (a * b.detach()).sum(), x, y, wrt=1), torch.zeros(2))
    assert not x.requires_grad
    for broken in (lambda a, b: (a * b).sum().item(), lambda a, b: a * b, lambda a, b: torch.tensor(1.0)):
        with pytest.raises(CheckFailed, match="gradients flow through"):
            gradient(broken, x, y)


def test_a_notebook_shows_the_message_alone():
    assert CheckFailed("it is doubled")._render_traceback_() == ["Not yet. it is doubled"]
