"""How channels pass through the operations of a network: what each does to the labels of ``channels.py``.

- Element by element (ReLU, dropout, the sum of two branches): labels stay, and tensors that meet are tied. This ties
  all layers that write into one residual stream.
- Over the picture (pooling, padding): labels stay.
- Changes of shape (flatten, permute, view, cat, chunk): the labels are moved as the tensor is.
- Anything else: its channels are fixed, and the reason names the operation.

A size written into the code, as in ``x.view(-1, 400)``, would not fit any more after a removal: those channels are
fixed too. Where channels are laid out on two axes and one size may change, as in ``x.view(n, 2, channels // 2, h, w)``,
each part has to lose the same ones: they are tied.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.pruning.channels import Channels, Labels, gather, padded, spread, varying

# By the name of the function, method or operator; "add_" and "iadd" are "add".
ELEMENTWISE = frozenset(
    "relu relu6 leaky_relu elu selu celu gelu silu mish softplus softsign sigmoid hardsigmoid logsigmoid hardswish "
    "hardtanh tanh clamp exp log sqrt rsqrt square abs neg pow dropout dropout1d dropout2d dropout3d alpha_dropout "
    "feature_dropout feature_alpha_dropout stochastic_depth add sub mul div truediv maximum minimum where".split()
)
SPATIAL = re.compile(r"((adaptive_)?(max|avg)|lp)_pool[123]d|pad|interpolate|upsample")
SAME = frozenset("contiguous clone detach to float double half bfloat16 type_as".split())
MOVES = frozenset("permute transpose swapaxes swapdims movedim moveaxis unsqueeze squeeze t".split())
RESHAPES = frozenset("flatten view reshape unflatten".split())
SOFTMAXES = frozenset("softmax log_softmax".split())


@dataclass(frozen=True)
class Call:
    """One operation as it was called, on values that have a shape and no numbers.

    Attributes:
        name: "add".
        where: its place, for messages.
        tensors, labels: the tensors among its arguments, in order, and the labels of each.
        output: what it gives.
        rest, named: the arguments after the first one as the code writes them; one that is computed is no number.
        on: calls it with another tensor in the place of the first argument.
    """

    name: str
    where: str
    tensors: Sequence[Tensor]
    labels: Sequence[Labels]
    output: object
    rest: Sequence[object]
    named: Mapping[str, object]
    on: Callable[[Tensor], object]

    def given(self, name: str, default: object = None) -> object:
        """The argument of that name, or the one right after the tensor."""
        return self.named.get(name, self.rest[0] if self.rest else default)


def follow(channels: Channels, call: Call) -> object:
    """The labels of what ``call`` gives: none, labels, or a tuple of them for a tuple of tensors."""
    if all(labels is None for labels in call.labels) or not _holds_tensors(call.output):
        return None  # x.shape and x.size(0) cost no channel anything
    if call.name in ("cat", "concat", "concatenate"):
        passed = _concatenated(channels, call)
    elif call.name in ELEMENTWISE:
        passed = _elementwise(channels, call)
    elif call.labels[0] is None or len(call.tensors) > 1 and call.name != "take_along_dim":
        passed = None
    elif not isinstance(call.output, Tensor) and call.name != "chunk":  # such as pooling that also says where
        passed = None
    else:
        rule = _rule(call.name)
        passed = rule(channels, call, call.labels[0]) if rule else None
    if passed is None:
        for labels in call.labels:
            channels.fix(labels, f"{call.where} needs all of them")
    return passed


def _rule(name: str) -> Callable[[Channels, Call, Tensor], object] | None:
    if SPATIAL.fullmatch(name):
        return _spatial
    rules = {"chunk": _chunked, "getitem": _indexed, "expand": _expanded, "take_along_dim": _taken, "mean": _mean}
    rules |= dict.fromkeys(SAME, _same) | dict.fromkeys(MOVES, _moved) | dict.fromkeys(RESHAPES, _reshaped)
    return (rules | dict.fromkeys(SOFTMAXES, _softmax)).get(name)


def _holds_tensors(output: object) -> bool:
    if isinstance(output, (tuple, list)):
        return any(_holds_tensors(part) for part in output)
    return isinstance(output, Tensor)


# Each of these gives the labels of the output, or none if the operation needs all channels.


def _elementwise(channels: Channels, call: Call) -> Labels:
    """What meets is tied. One channel that meets many stays, and so does what meets channels that stay."""
    dims = call.output.dim()
    found = [padded(labels, dims) for labels in call.labels if labels is not None]
    result = max(found, key=Tensor.numel)
    for labels in found:
        if labels.shape == result.shape:
            channels.tie(result, labels)
        elif labels.numel() == 1:
            channels.fix(labels, f"{call.where} spreads it over many channels")
        else:
            return None
    for value, labels in zip(call.tensors, call.labels, strict=True):
        sizes = (1,) * (dims - value.dim()) + tuple(value.shape)
        if labels is None and any(sizes[axis] > 1 for axis in varying(result)):
            return None
    return result


def _concatenated(channels: Channels, call: Call) -> Labels:
    """Side by side along the channels; along another axis the tensors go on with each other's channels: tied."""
    dims = call.output.dim()
    dim = call.given("dim", 0)
    if not isinstance(dim, int):
        return None
    dim %= dims
    changing = {axis for labels in call.labels if labels is not None for axis in varying(labels)}
    if changing - {dim}:
        first = call.labels[0]
        if dim in changing or any(labels is None or labels.shape != first.shape for labels in call.labels):
            return None
        for labels in call.labels:
            channels.tie(first, labels)
        return first
    parts = []
    for value, labels in zip(call.tensors, call.labels, strict=True):
        if labels is None:  # such as the picture itself
            labels = channels.fresh(value.shape[dim])
            channels.fix(labels, f"{call.where} puts it beside channels that stay")
        shape = [1] * dims
        shape[dim] = value.shape[dim]
        parts.append(labels.reshape(-1).expand(value.shape[dim]).view(shape))
    return torch.cat(parts, dim)


def _same(channels: Channels, call: Call, labels: Tensor) -> Labels:
    return labels


def _spatial(channels: Channels, call: Call, labels: Tensor) -> Labels:
    """Works on the last axes, as many as its name says, and leaves the others."""
    before, after = call.tensors[0].shape, call.output.shape
    digit = re.search(r"([123])d$", call.name)
    first = len(before) - (int(digit.group(1)) if digit else len(before) - 2)
    fits = len(before) == len(after) and all(axis < first and before[axis] == after[axis] for axis in varying(labels))
    return labels if fits else None


def _moved(channels: Channels, call: Call, labels: Tensor) -> Labels:
    return gather(call.on(spread(labels, call.tensors[0].shape)))


def _reshaped(channels: Channels, call: Call, labels: Tensor) -> Labels:
    """Reshape the labels as well. Of the axes along which they then change, exactly one has to be free to shrink."""
    result = gather(spread(labels, call.tensors[0].shape).reshape(call.output.shape))
    changing = varying(result)
    free = [axis for axis in changing if not _is_written(call, axis)]
    if changing and len(free) != 1:
        return None
    for axis in set(changing) - set(free):
        channels.tie(result.narrow(axis, 0, 1), result)
    return result


def _is_written(call: Call, axis: int) -> bool:
    """Whether the code writes the size of this axis of the output as a number."""
    sizes, start = call.rest, 0
    if call.name == "flatten":
        return False
    if call.name == "unflatten":  # unflatten(dim, sizes)
        start, sizes = call.rest[0] % call.tensors[0].dim(), call.rest[1]
    elif len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):  # view((a, b)) is view(a, b)
        sizes = sizes[0]
    if not 0 <= axis - start < len(sizes):
        return call.name == "reshape" and not sizes  # named arguments: not looked into
    size = sizes[axis - start]
    return isinstance(size, int) and size != -1


def _mean(channels: Channels, call: Call, labels: Tensor) -> Labels:
    """Over places, not over channels."""
    dims = _dims(call)
    if not dims or {dim % labels.dim() for dim in dims} & set(varying(labels)):
        return None
    return labels.amax(dims, keepdim=call.output.dim() == labels.dim())


def _softmax(channels: Channels, call: Call, labels: Tensor) -> Labels:
    dims = _dims(call)
    return labels if dims and not {dim % labels.dim() for dim in dims} & set(varying(labels)) else None


def _dims(call: Call) -> tuple[int, ...]:
    """The axes that an operation works on, as the code writes them; empty if it does not say."""
    dims = call.given("dim")
    dims = dims if isinstance(dims, (tuple, list)) else (dims,)
    return tuple(dims) if all(type(dim) is int for dim in dims) else ()


def _chunked(channels: Channels, call: Call, labels: Tensor) -> tuple[Labels, ...] | None:
    """Into as many parts as asked for, of equal size: each has to lose the same, or the cuts would be elsewhere."""
    parts = tuple(gather(part) for part in call.on(spread(labels, call.tensors[0].shape)))
    if len(parts) != call.given("chunks") or len({part.shape for part in parts}) > 1:
        return None
    for part in parts:
        channels.tie(parts[0], part)
    return parts


def _indexed(channels: Channels, call: Call, labels: Tensor) -> Labels:
    """A part of the tensor that still has all channels, in their order."""
    index = call.rest[0] if isinstance(call.rest[0], tuple) else (call.rest[0],)
    if any(isinstance(part, (list, Tensor)) for part in index):
        return None
    result = gather(call.on(spread(labels, call.tensors[0].shape)))
    return result if torch.equal(result.unique(), labels.unique()) else None


def _expanded(channels: Channels, call: Call, labels: Tensor) -> Labels:
    labels = padded(labels, call.output.dim())
    return None if any(_is_written(call, axis) for axis in varying(labels)) else labels


def _taken(channels: Channels, call: Call, labels: Tensor) -> Labels:
    """Picks places, the same ones for all channels."""
    fits = all(call.output.shape[axis] == labels.shape[axis] for axis in varying(labels))
    alike = all(call.tensors[1].shape[axis] == 1 for axis in varying(labels))
    return labels if fits and alike and len(call.tensors) == 2 else None
