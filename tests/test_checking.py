"""The shared checks: what passes, what does not, and the words in which that is said."""

import math

import numpy as np
import pytest
import torch

from course_lib.checking import check_choice, check_finite, check_number, check_share, check_type, near_names


@pytest.mark.parametrize(
    ("value", "limits"),
    [(3, {}), (-0.5, {}), (np.float32(0.5), {"above": 0}), (np.int64(2), {"whole": True, "least": 2}),
     (0, {"least": 0}), (1, {"least": 0, "most": 1}), (0.999, {"least": 0, "below": 1})],
)  # fmt: skip
def test_numbers_within_the_limits(value, limits):
    check_number("x", value, **limits)


@pytest.mark.parametrize(
    ("value", "limits", "message"),
    [
        (0, {"above": 0}, "x is 0; expected a finite number above 0"),
        (math.inf, {"above": 0}, "x is inf; expected a finite number above 0"),
        (math.nan, {}, "x is nan; expected a finite number"),
        (-1, {"whole": True, "least": 0}, "x is -1; expected a whole number of at least 0"),
        (1.5, {"least": 0, "most": 1}, "x is 1.5; expected a number from 0 to 1"),
        (1, {"least": 0, "below": 1}, "x is 1; expected a finite number of at least 0 and below 1"),
        (2, {"above": 0, "most": 1}, "x is 2; expected a finite number above 0 and of at most 1"),
        (5, {"whole": True, "least": 0, "most": 4}, "x is 5; expected a whole number from 0 to 4"),
    ],
)
def test_numbers_outside_of_the_limits(value, limits, message):
    with pytest.raises(ValueError) as error:
        check_number("x", value, **limits)
    assert str(error.value) == message


@pytest.mark.parametrize("value", ["3", None, True, [3], 1j, torch.tensor(3.0)])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=f"x is .*, a {type(value).__name__}; expected a finite number above 0"):
        check_number("x", value, above=0)


@pytest.mark.parametrize("value", [3.0, 0.5, True])
def test_what_is_no_whole_number(value):
    with pytest.raises(TypeError, match=f"x is {value}, a {type(value).__name__}; expected a whole number"):
        check_number("x", value, whole=True)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, "0.5", None, True])
def test_shares(share):
    for right in (0, 0.5, 1, np.float32(0.5)):
        check_share("x", right)
    with pytest.raises(ValueError, match="x is .*; expected a share of the weights, from 0 to 1"):
        check_share("x", share)


@pytest.mark.parametrize(
    ("known", "expected"), [(("a",), "'a'"), (("a", "b"), "'a' or 'b'"), (("a", "b", "c"), "'a', 'b' or 'c'")]
)
def test_choices(known, expected):
    check_choice("x", "a", known)
    with pytest.raises(ValueError) as error:
        check_choice("x", "d", known)
    assert str(error.value) == f"x is 'd'; expected {expected}"


def test_types():
    check_type("x", torch.ones(1), torch.Tensor, "a tensor")
    with pytest.raises(TypeError, match="^x is a list; expected a tensor$"):
        check_type("x", [1.0], torch.Tensor, "a tensor")


def test_finite():
    check_finite({"0": torch.ones(3), "1": torch.zeros(0)})
    with pytest.raises(ValueError, match="^the weights of 1 hold 2 numbers that are not finite"):
        check_finite({"0": torch.ones(3), "1": torch.tensor([1.0, math.nan, -math.inf])})
    with pytest.raises(ValueError, match="^logits hold 1 numbers"):
        check_finite({"logits": torch.tensor([math.inf])}, what="")


def test_near_names():
    assert near_names("encodr.0", ["encoder.0", "head"]) == "near it: encoder.0"
    assert near_names("encoder", ["encoder.0", "encoder.1", "head"]) == "near it: encoder.1, encoder.0"
    assert near_names("x", [f"layer{i}" for i in range(9)]).endswith("layer6, layer7, ...")
    assert near_names("x", []) == "it has none"
