"""What a check cell calls: comparisons whose failure says what is probably wrong.

A check names the mistakes that people make here and the value each would give. When the answer matches one of them,
its message is shown; otherwise the expected and the received values are. Works in any Jupyter: only NumPy is needed,
and PyTorch where tensors are given.
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class CheckFailed(AssertionError):
    """An answer that does not pass. Shown in a notebook as its message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython calls this instead of printing a traceback
        return [f"Not yet. {self}"]


def expect(
    what: str,
    got: Any,
    want: Any,
    *,
    because: Mapping[str, Any] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """Compare an answer with the expected value.

    Args:
        what: what is being checked, for the message.
        got: the answer: number, list, array or tensor, of any shape and float type.
        want: the expected value. The shape must match; a float type need not.
        because: message -> the value that this mistake would give, to three digits. A nan matches any answer
            that holds one.
        rtol, atol: as in `numpy.allclose`.

    Raises:
        CheckFailed: the answer differs.
    """
    received, expected = _as_array(what, got), _as_array(what, want)
    if _close(received, expected, rtol, atol):
        return
    for message, wrong in (because or {}).items():
        if _matches(received, _as_array(what, wrong), max(rtol, 1e-3), atol):
            raise CheckFailed(f"{what}: {message}")
    if received.shape != expected.shape:
        raise CheckFailed(f"{what}: the shape is {received.shape}; expected {expected.shape}")
    if not np.isfinite(received).all() and np.isfinite(expected).all():
        raise CheckFailed(f"{what}: there is a nan or an inf in the answer: {_show(received)}")
    raise CheckFailed(f"{what}: got {_show(received)}; expected {_show(expected)}")


def expect_dict(
    what: str,
    got: Any,
    want: Mapping[str, Any],
    *,
    because: Mapping[str, Mapping[str, Any]] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """Compare a dict of numbers, arrays or tensors with the expected one: same keys, and the same values under each.

    Args:
        what: what is being checked, for the message.
        got: the answer.
        want: the expected dict.
        because: message -> the dict that this mistake would give.
        rtol, atol: as in `expect`.

    Raises:
        CheckFailed: the answer differs.
    """
    if got is None:
        _as_array(what, got)
    if not isinstance(got, Mapping):
        raise CheckFailed(f"{what}: the answer is a {type(got).__name__}; expected a dict with {_keys(want)}")
    received = {key: _as_array(f"{what}, {key}", value) for key, value in got.items()}

    def same(other: Mapping[str, Any], close: Callable[..., bool], rtol: float) -> bool:
        return received.keys() == other.keys() and all(
            close(received[key], _as_array(what, value), rtol, atol) for key, value in other.items()
        )

    if same(want, _close, rtol):
        return
    for message, wrong in (because or {}).items():
        if same(wrong, _matches, max(rtol, 1e-3)):
            raise CheckFailed(f"{what}: {message}")
    if received.keys() != want.keys():
        raise CheckFailed(f"{what}: the answer has {_keys(got)}; expected {_keys(want)}")
    for key, value in want.items():
        expect(f"{what}, {key}", got[key], value, rtol=rtol, atol=atol)


def expect_that(condition: bool, message: str) -> None:
    """Raise `CheckFailed` with the message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def expect_refusal(what: str, call: Callable[[], Any], error: type[Exception] = ValueError) -> None:
    """Check that a call with bad input raises the given error.

    Args:
        what: the bad input, for the message.
        call: a function without arguments that makes the call.
        error: the error that is expected.
    """
    try:
        call()
    except error:
        return
    except NotImplementedError:
        raise
    except Exception as other:
        raise CheckFailed(f"{what}: raised {type(other).__name__} ({other}); expected {error.__name__}") from None
    raise CheckFailed(f"{what}: was accepted; expected a {error.__name__} that says what is wrong")


def expect_unchanged(what: str, function: Callable[..., Any], *args: Any) -> None:
    """Check that a call leaves its arguments as they were.

    Args:
        what: the function, for the message.
        function, args: the call to make. It gets copies.
    """
    copies = copy.deepcopy(args)
    function(*copies)
    change = told_change(what, [list(args), {}], [list(copies), {}])
    expect_that(not change, change)


def told_change(what: str, before: list[Any], after: Any) -> str:
    """What is wrong if a call did not leave its arguments as they were, else "".

    Args:
        what: the function, for the message.
        before, after: the call's arguments, as [list of those by position, dict of those by name]. Numbers put back
            up to rounding count as unchanged.
    """
    if not isinstance(after, list) or len(after) != 2 or not all(map(isinstance, after, (list, dict))):
        return f"{what} changes its arguments. Work on copies"
    for was, now in zip(before, after, strict=True):
        named = was.items() if isinstance(was, dict) else enumerate(was, 1)
        values = now if isinstance(now, dict) else dict(enumerate(now, 1))
        for name, value in named:
            if name not in values or not _same(value, values[name]):
                number = f"number {name}" if isinstance(name, int) else name
                return f"{what} changes its argument {number}. Work on a copy (clone, or dict(...)), and return that"
    return ""


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, str) or a is None:
        return a == b
    try:
        return _close(_as_array("", a), _as_array("", b), 1e-5, 1e-5)
    except CheckFailed:
        return False


def gradient(function: Callable[..., Any], *args: Any, wrt: int = 0) -> Any:
    """Gradient of a scalar function with respect to one of its tensor arguments.

    Args:
        function: returns a scalar tensor.
        args: its arguments, tensors among them.
        wrt: which argument.

    Returns:
        A tensor of the argument's shape; zeros where the result does not depend on it.

    Raises:
        CheckFailed: the result is no tensor that gradients can flow through.
    """
    remote = getattr(function, "remote_gradient", None)
    if remote is not None:  # the grader's stand-in for a function that lives in another process
        return remote(args, wrt)
    import torch

    inputs = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in args]
    for value in inputs:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value.requires_grad_(True)
    result = function(*inputs)
    if not isinstance(result, torch.Tensor) or result.dim() != 0 or not result.requires_grad:
        raise CheckFailed(
            "the result must be a scalar tensor that gradients flow through. Is there an .item(), a .detach(), "
            "a NumPy call, or a sum or mean missing?"
        )
    (found,) = torch.autograd.grad(result, inputs[wrt], allow_unused=True)
    return torch.zeros_like(inputs[wrt]) if found is None else found


def is_number(value: Any) -> bool:
    """Whether the value is one real number: Python's, NumPy's, or a tensor without dimensions."""
    return isinstance(value, numbers.Real) or (hasattr(value, "detach") and value.dim() == 0 and not value.is_complex())


def passed(what: str) -> None:
    """Say that the visible checks of an exercise passed."""
    print(f"{what}: the checks in this cell pass.")


def _keys(mapping: Mapping[str, Any]) -> str:
    return f"the keys {', '.join(map(str, mapping))}" if mapping else "no keys"


def _as_array(what: str, value: Any) -> np.ndarray:
    if value is None:
        raise CheckFailed(f"{what}: the answer is None. Is there a return at the end of the function?")
    try:
        if hasattr(value, "detach"):
            dense = value.detach().cpu()
            value = (dense.double() if dense.is_floating_point() else dense).numpy()
        array = np.asarray(value)
        if array.dtype.kind in "US" or (array.dtype.kind == "O" and any(isinstance(v, str) for v in array.flat)):
            raise CheckFailed(f"{what}: the answer is text, {_short(value)}; expected numbers")
        if array.dtype.kind == "c":
            if np.any(array.imag != 0):  # a nan is not 0
                raise CheckFailed(f"{what}: there is an imaginary part in the answer; expected real numbers")
            array = array.real
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise CheckFailed(f"{what}: the answer is a {kind}; expected numbers, an array or a dense tensor") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:56] + " ..."


def _close(a: np.ndarray, b: np.ndarray, rtol: float, atol: float) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True))


def _matches(received: np.ndarray, wrong: np.ndarray, rtol: float, atol: float) -> bool:
    if wrong.ndim == 0 and np.isnan(wrong):
        return bool(np.isnan(received).any())
    return _close(received, wrong, rtol, atol)


def _show(array: np.ndarray) -> str:
    if array.ndim == 0:
        return f"{float(array):.6g}"
    text = np.array2string(array, precision=4, threshold=12, separator=", ")
    return f"an array of shape {array.shape}: {text}" if array.size > 12 else text
