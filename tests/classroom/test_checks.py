"""A failed check says what is probably wrong, in one line, in any Jupyter."""

import math

import numpy as np
import pytest
import torch

from classroom.checks import (
    CheckFailed,
    expect,
    expect_dict,
    expect_refusal,
    expect_that,
    expect_unchanged,
    gradient,
    told_change,
)


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
    assert "is a slice" in message(slice(1), 1.0)
    assert "expected numbers, an array or a dense tensor" in message(torch.eye(2).to_sparse(), np.eye(2))
    assert "shape is (1, 2); expected (2,)" in message([[1, 2]], [1, 2])


@pytest.mark.parametrize(
    "text", ["1.0", ["1", "2"], [["1"], ["2"]], np.array(["1", "2"]), np.array([1.0, "2"], dtype=object), b"1"]
)
def test_numbers_as_text_are_refused(text):
    assert "the answer is text" in message(text, [1.0, 2.0])


@pytest.mark.parametrize("kind", [complex, np.complex64, lambda z: np.array([z]), lambda z: torch.tensor([z])])
def test_a_complex_number_counts_only_without_an_imaginary_part(kind):
    want = [1.0] if kind not in (complex, np.complex64) else 1.0
    expect("it", kind(1 + 0j), want)
    for wrong in (1 + 1e-3j, complex(1, math.nan)):
        assert "imaginary part" in message(kind(wrong), want)


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


def test_a_call_that_changes_its_arguments_is_told():
    logits, weights = torch.tensor([1.0, 2.0]), {"a": torch.ones(2), "b": [1, (2.0, None)]}

    def told(change) -> str:
        with pytest.raises(CheckFailed) as failure:
            expect_unchanged("it", change, logits, weights)
        return str(failure.value)

    for honest in (lambda x, w: x * 2, lambda x, w: x.add_(8.1).sub_(8.1), lambda x, w: {**w, "c": 1}):
        expect_unchanged("it", honest, logits, weights)
    assert "changes its argument number 1. Work on a copy" in told(lambda x, w: x.div_(2))
    for change in (
        lambda x, w: w["a"].zero_(),
        lambda x, w: w.pop("b"),
        lambda x, w: w.update(c=1),
        lambda x, w: w["b"].append(1),
        lambda x, w: w.update(b=w.pop("b"), a=w.pop("a")),
        lambda x, w: w.__setitem__("a", torch.ones(2, 1)),
        lambda x, w: w.__setitem__("a", "text"),
        lambda x, w: w["b"].__setitem__(1, (2.0, 0)),
    ):
        assert "changes its argument number 2" in told(change)
    assert torch.equal(logits, torch.tensor([1.0, 2.0]))
    assert "changes its argument k" in told_change("it", [[], {"k": 1}], [[], {"k": 2}])
    for junk in (None, 5, [], [[]], [{}, [], 3], [5, 5], [[], {}]):
        assert "changes its argument" in told_change("it", [[1.0], {}], junk)


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
