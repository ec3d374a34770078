"""The rules of arithmetic: sums, activations, means and products. ``follow.py`` asks for them.

A rule gives the channels along each axis of the result, a list of such for a list of tensors, or None if the operation
needs all channels.

- Element by element (ReLU, the sum of two branches): tensors that are added must lose the same channels; if one is
  broadcast along them, none may go. This ties all layers that write into one residual stream.
- Over places (pooling, padding) and over some axes (mean, softmax): the channels of the other axes stay as they are.
- Products (matmul, einsum): the channels over which the sum runs are tied.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.pruning.graph.call import Call
from course_lib.pruning.graph.channels import Axes
from course_lib.pruning.graph.shapes import ELEMENTWISE, SAME
from course_lib.pruning.graph.sizes import value_of

OVER_AXES = frozenset(
    "softmax log_softmax softmin cumsum cumprod flip roll sort argsort mean sum amax amin prod std var logsumexp "
    "argmax argmin any all max min median norm".split()
)


def meet(call: Call, parts: Sequence[Axes], shapes: Sequence[torch.Size]) -> Axes:
    """Tensors element by element, broadcast: the channels that go on, after tying."""
    dims = max(map(len, shapes), default=0)
    result: list[Tensor | None] = [None] * dims
    for axis in range(-dims, 0):
        here = [(axes[axis], shape[axis]) for axes, shape in zip(parts, shapes, strict=True) if len(shape) >= -axis]
        size = max(size for _, size in here)
        full = [numbers for numbers, own in here if own == size and (size > 1 or numbers is not None)]
        numbers = full[0] if full else None
        for other in full[1:]:
            if other is not numbers:
                numbers = call.tie(numbers, other)
        for other, own in here:
            if own != size:
                call.fix(other, ": it spreads one over many")
        result[axis] = numbers
    return tuple(result)


def elementwise(call: Call) -> Axes:
    """The sum of two branches, an activation."""
    return meet(call, call.axes, [tensor.shape for tensor in call.tensors])


def same(call: Call) -> Axes:
    """Another form of the same tensor."""
    return call.axes[0]


def spatial(call: Call) -> Axes | None:
    """Over places: the last axes, as many as the name says."""
    if not isinstance(call.output, Tensor):
        return None
    digit = re.search(r"([123])d$", call.name)
    dims = call.output.dim()
    worked_on = int(digit.group(1)) if digit else dims - 2
    if call.name == "pad":
        worked_on = len(call.arg(1, "pad")) // 2
    for numbers in call.axes[0][dims - worked_on :]:
        call.fix(numbers)
    return (*call.axes[0][: dims - worked_on], *[None] * worked_on)


def over_axes(call: Call) -> Axes | list[Axes] | None:
    """Over the axes that ``dim`` says, which then may lose nothing."""
    source, axes = call.tensors[0], call.axes[0]
    dims = call.arg(2 if call.name == "norm" else 1, "dims" if call.name in ("flip", "roll") else "dim")
    dims = value_of(dims)
    dims = call.named.get("axis", dims)
    if call.name == "roll":
        dims = call.arg(2, "dims")
    output = call.output if isinstance(call.output, Tensor) else call.output[0]
    if dims is None or isinstance(dims, Tensor) or isinstance(dims, bool):
        return None
    dims = [dim % source.dim() for dim in (dims if isinstance(dims, (tuple, list)) else (dims,))]
    for dim in dims:
        call.fix(axes[dim])
    left = [None if axis in dims else numbers for axis, numbers in enumerate(axes)]
    if output.dim() < source.dim():
        left = [numbers for axis, numbers in enumerate(left) if axis not in dims]
    return tuple(left)


def weight_norm(call: Call) -> Axes | None:
    """``torch._weight_norm``: g · v / |v|, with the norm over all axes but ``dim``."""
    dim = call.arg(2, "dim", 0)
    value, gain = call.axes[:2]
    if dim == -1:
        return None
    for axis, numbers in enumerate(value):
        if axis != dim:
            call.fix(numbers, ": it takes the norm of the weights over them")
    return tuple(call.tie(numbers, gain[dim]) if axis == dim else numbers for axis, numbers in enumerate(value))


def contract(call: Call, terms: Sequence[tuple[str, Axes]], output: str) -> Axes:
    """A sum of products, as ``einsum`` writes it: a letter for each axis. The same letter means the same channels."""
    met: dict[str, Tensor | None] = {}
    seen: dict[str, int] = {}
    for letters, axes in terms:
        for letter, numbers in zip(letters, axes, strict=True):
            met[letter] = call.tie(met[letter], numbers) if letter in met else numbers
            seen[letter] = seen.get(letter, 0) + 1
    for letter, count in seen.items():
        if letter not in output and count == 1:
            call.fix(met[letter])  # a sum over one tensor's channels
    return tuple(met[letter] for letter in output)


def matmul(call: Call) -> Axes | None:
    """(..., i, j) @ (..., j, k)."""
    one, other = call.tensors[:2]
    if one.dim() < 2 or other.dim() < 2:
        return None
    product = contract(call, [("ij", call.axes[0][-2:]), ("jk", call.axes[1][-2:])], "ik")
    batch = meet(call, [axes[:-2] for axes in call.axes[:2]], [tensor.shape[:-2] for tensor in (one, other)])
    return (*batch, *product)


def addmm(call: Call) -> Axes:
    """bias + (i, j) @ (j, k)."""
    product = contract(call, [("ij", call.axes[1]), ("jk", call.axes[2])], "ik")
    return meet(call, [call.axes[0], product], [call.tensors[0].shape, call.output.shape])


def einsum(call: Call) -> Axes | None:
    """As the equation says."""
    equation = call.args[0].replace(" ", "")
    if "..." in equation or "->" not in equation:
        return None
    inputs, output = equation.split("->")
    return contract(call, list(zip(inputs.split(","), call.axes, strict=True)), output)


RULES = dict.fromkeys(ELEMENTWISE, elementwise) | dict.fromkeys(SAME, same) | dict.fromkeys(OVER_AXES, over_axes)
RULES |= {"matmul": matmul, "addmm": addmm, "einsum": einsum, "_weight_norm": weight_norm}
RULES |= {
    f"{prefix}{kind}_pool{dims}d": spatial
    for prefix in ("", "adaptive_")
    for kind in ("max", "avg", "lp")
    for dims in (1, 2, 3)
}
RULES |= dict.fromkeys(("pad", "interpolate", "upsample"), spatial)
