"""The rules of operations that move numbers and leave them as they are: view, permute, cat, indices.

Channels are moved as the tensor is. Where they are laid out on two axes, as by ``x.view(n, 2, channels // 2, h, w)``,
each part has to lose the same ones: they are tied. A size that the code writes as a number does not change: those
channels are fixed. What a rule gives is said in ``arithmetic.py``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.pruning.graph.arithmetic import meet
from course_lib.pruning.graph.call import Call
from course_lib.pruning.graph.channels import Attribute, Axes
from course_lib.pruning.graph.sizes import Number, value_of

MAKERS = frozenset("zeros ones empty full rand randn new_zeros new_ones new_empty new_full".split())
PLACES = (2, 3, 5, 7, 11, 13, 17, 19)  # sizes that tell axes apart


def reshape(call: Call) -> Axes | None:
    """Another shape. Sizes that the code writes as numbers, and those that it takes from elsewhere, are looked at."""
    axes, before, after = call.axes[0], call.tensors[0].shape, call.output.shape
    sizes = _written(call, len(after))
    if sizes is None or 0 in before:
        return None
    if all(numbers is None for numbers in axes) and not any(isinstance(size, Number) for size in sizes):
        return (None,) * len(after)
    result: list[Tensor | None] = [None] * len(after)
    for old, new in _segments(before, after):
        held = [axis for axis in old if axes[axis] is not None]
        if len(held) > 1:
            held = [axis for axis in held if before[axis] > 1] or held[:1]
        for axis in old:
            if axes[axis] is not None and (axis not in held or len(held) > 1):
                call.fix(axes[axis])
        if len(held) != 1:
            for axis in new:
                if isinstance(sizes[axis], Number):
                    call.expect(None, sizes[axis])
            continue
        layout = [-1 if axis == held[0] else 1 for axis in old]
        numbers = axes[held[0]].view(layout).expand([before[axis] for axis in old])
        _lay_out(call, numbers.reshape([after[axis] for axis in new]), new, sizes, result)
    return tuple(result)


def _lay_out(call: Call, numbers: Tensor, new: Sequence[int], sizes: Sequence[object], result: list) -> None:
    """Put channels on the one of the ``new`` axes that is free to shrink; those along the others are tied."""
    varying = [place for place in range(len(new)) if numbers.shape[place] > 1 and not _constant(numbers, place)]
    free = varying[0] if len(varying) == 1 else None
    for kind in (_counts_channels, _left_open, _is_attribute):
        found = [place for place in varying if kind(sizes[new[place]])]
        if free is None and len(found) == 1:
            free = found[0]
        elif found:
            break
    if not varying and numbers.numel() == 1 and 1 in [numbers.shape[place] for place in range(len(new))]:
        free = 0
    if free is None:
        written = ", ".join(str(sizes[axis]) for axis in new if sizes[axis] is not None)
        call.fix(numbers, f": the code writes their number, {written}" if written else "")
    for place, axis in enumerate(new):
        if place != free and isinstance(sizes[axis], Number):
            call.expect(None, sizes[axis])
    if free is None:
        return
    for place in varying:
        if place != free:
            call.channels.tie(numbers.narrow(place, 0, 1), numbers)
    for _ in range(len(new) - 1 - free):
        numbers = numbers.select(-1, 0)
    for _ in range(free):
        numbers = numbers.select(0, 0)
    result[new[free]] = numbers
    if not _left_open(sizes[new[free]]):
        call.expect(numbers, sizes[new[free]])


def _written(call: Call, dims: int) -> list[object] | None:
    """For each axis of the result the size that the code writes: a number, a ``Number``, or None if it is left open."""
    source = call.tensors[0]
    if call.name in ("flatten", "squeeze", "unsqueeze", "ravel"):
        return [None] * dims
    if call.name in ("view_as", "reshape_as"):
        return [call.run.size(call.tensors[1], axis) for axis in range(dims)]
    if call.name == "unflatten":
        dim, sizes = (
            value_of(call.arg(1, "dim")) % source.dim(),
            call.arg(2, "sizes", call.named.get("unflattened_size")),
        )
        return [*[None] * dim, *sizes, *[None] * (dims - dim - len(sizes))]
    sizes = call.args[1:] or (call.named.get("shape", call.named.get("size")),)
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    return list(sizes) if len(sizes) == dims and not any(isinstance(size, torch.dtype) for size in sizes) else None


def _segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]]:
    """The axes of two shapes, in stretches that hold equally many elements."""
    result, old, new = [], 0, 0
    while old < len(before) or new < len(after):
        first, start = old, new
        left = right = 1
        if old < len(before):
            left, old = before[old], old + 1
        if new < len(after):
            right, new = after[new], new + 1
        while left != right:
            if left < right:
                left, old = left * before[old], old + 1
            else:
                right, new = right * after[new], new + 1
        result.append((range(first, old), range(start, new)))
    return result


def _constant(numbers: Tensor, axis: int) -> bool:
    return torch.equal(numbers, numbers.narrow(axis, 0, 1).expand_as(numbers))


def _counts_channels(size: object) -> bool:
    return isinstance(size, Number) and not _is_attribute(size)


def _left_open(size: object) -> bool:
    return size is None or type(size) is int and size == -1


def _is_attribute(size: object) -> bool:
    return isinstance(size, Number) and any(isinstance(source, Attribute) for _, source in size.amount)


def moved(call: Call) -> Axes | None:
    """Axes in another order: seen on a tensor whose axes have different sizes."""
    source = call.tensors[0]
    if source.dim() > len(PLACES):
        return None
    probe = torch.empty(PLACES[: source.dim()], device="meta")
    names = {"T": "t", "mT": "mT", "H": "mT", "mH": "mT"}
    name = names.get(call.name, call.name)
    if call.name == "T" and source.dim() > 2:
        order = probe.permute(*reversed(range(source.dim())))
    elif name == "mT":
        order = probe.mT
    else:
        args = [value_of(part) for part in call.args if part is not source]
        named = {key: value_of(part) for key, part in call.named.items() if part is not source}
        order = getattr(probe, name)(*args, **named)
    return tuple(call.axes[0][PLACES.index(size)] for size in order.shape)


def expanded(call: Call) -> Axes | None:
    """Broadcast to a written shape, or to that of another tensor."""
    source, dims = call.tensors[0], call.output.dim()
    if call.name == "expand_as":
        sizes = [call.run.size(call.tensors[1], axis) for axis in range(dims)]
    elif (sizes := _written(call, dims)) is None:
        return None
    axes = (*[None] * (dims - source.dim()), *call.axes[0])
    shape = (*[1] * (dims - source.dim()), *source.shape)
    result = []
    for axis, numbers in enumerate(axes):
        if shape[axis] != call.output.shape[axis]:
            call.fix(numbers, ": it spreads one over many")
            numbers = made(call, sizes[axis])
        elif not _left_open(sizes[axis]) and (numbers is not None or isinstance(sizes[axis], Number)):
            call.expect(numbers, sizes[axis])
        result.append(numbers)
    return tuple(result)


def made(call: Call, size: object) -> Tensor | None:
    """The channels along an axis of a tensor that is all alike: those that its size counts."""
    if isinstance(size, Number):
        if len(size.amount) == 1 and isinstance(size.amount[0][1], Tensor) and len(size.amount[0][1]) == size.value:
            return size.amount[0][1]
        size.plain()
    return None


def maker(call: Call) -> Axes:
    """A new tensor of a written shape."""
    sizes = call.named.get("size", call.args[1 if call.name.startswith("new_") else 0 :])
    sizes = sizes[0] if len(sizes) and isinstance(sizes[0], (tuple, list)) else sizes
    return tuple(made(call, size) for size in [*sizes][: call.output.dim()])


def repeated(call: Call) -> Axes | None:
    """Copies beside each other: along an axis with channels only one."""
    dims = call.output.dim()
    axes = (*[None] * (dims - len(call.axes[0])), *call.axes[0])
    shape = (*[1] * (dims - len(call.axes[0])), *call.tensors[0].shape)
    for numbers, old, new in zip(axes, shape, call.output.shape, strict=True):
        if old != new:
            call.fix(numbers)
    return tuple(n if old == new else None for n, old, new in zip(axes, shape, call.output.shape, strict=True))


# --- parts of tensors -----------------------------------------------------------------------------------------------


def indexed(call: Call) -> Axes | None:
    """``x[...]``: axes that are kept whole keep their channels."""
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    axes, shape = call.axes[0], call.tensors[0].shape
    if any(isinstance(part, bool) or isinstance(part, Tensor) and part.dtype == torch.bool for part in index):
        return None
    used = sum(part is not None and part is not Ellipsis for part in index)
    at = next((place for place, part in enumerate(index) if part is Ellipsis), len(index))
    index = (*index[:at], *[slice(None)] * (len(shape) - used), *index[at + 1 :])
    result: list[Tensor | None] = []
    picked, spots, axis = [], [], 0  # tensors as indices, and where they stand
    for place, part in enumerate(index):
        if part is None:
            result.append(None)
            continue
        numbers, size, axis = axes[axis], shape[axis], axis + 1
        if isinstance(part, slice):
            whole = range(*part.indices(size)) == range(size)
            if not whole:
                call.fix(numbers)
            result.append(numbers if whole else None)
            continue
        call.fix(numbers)
        if isinstance(part, (Tensor, list, range)):
            picked.append(torch.Size(part.shape) if isinstance(part, Tensor) else torch.Size([len(part)]))
            spots.append((place, len(result)))
    if picked:
        together = spots[-1][0] - spots[0][0] == len(spots) - 1
        start = spots[0][1] if together else 0
        result[start:start] = [None] * len(torch.broadcast_shapes(*picked))
    return tuple(result) if len(result) == call.output.dim() else None


def selected(call: Call) -> Axes | list[Axes]:
    """One place of an axis, or each by itself: the axis goes."""
    dim = call.arg(1, "dim", 0) % call.tensors[0].dim()
    axes = call.axes[0]
    call.fix(axes[dim])
    left = (*axes[:dim], *axes[dim + 1 :])
    return left if isinstance(call.output, Tensor) else [left] * len(call.output)


def cut_up(call: Call) -> list[Axes] | None:
    """Into parts along an axis. If these are equal, each has to lose the same, or the cuts would be elsewhere."""
    parts, axes = call.output, call.axes[0]
    dim = value_of(call.arg(2, "dim", 0)) % call.tensors[0].dim()
    numbers, asked = (
        axes[dim],
        call.arg(1, "chunks" if call.name == "chunk" else "split_size", call.named.get("sections")),
    )
    pieces: Sequence[Tensor | None] = [None] * len(parts)
    if numbers is not None:
        pieces = numbers.split([part.shape[dim] for part in parts])
        alike = len({len(piece) for piece in pieces}) == 1
        if isinstance(asked, (tuple, list)):
            for piece, size in zip(pieces, asked, strict=True):
                call.expect(piece, size)
        elif not alike or call.name == "chunk" and len(parts) != value_of(asked):
            return None
        else:
            for piece in pieces[1:]:
                call.channels.tie(pieces[0], piece)
            if call.name != "chunk":
                call.expect(pieces[0], asked)
    elif call.name != "chunk":
        for size in asked if isinstance(asked, (tuple, list)) else [asked]:
            if isinstance(size, Number):
                call.expect(None, size)
    return [(*axes[:dim], piece, *axes[dim + 1 :]) for piece in pieces]


def glu(call: Call) -> Axes:
    """One half of the channels times a function of the other half."""
    dim = call.arg(1, "dim", -1) % call.tensors[0].dim()
    axes = list(call.axes[0])
    if axes[dim] is not None:
        half, other = axes[dim].chunk(2)
        axes[dim] = call.tie(half, other)
    return tuple(axes)


def joined(call: Call) -> Axes:
    """Side by side along an axis; along the others the tensors go on with each other's channels: tied."""
    dims = call.output.dim()
    dim = call.arg(1, "dim", call.named.get("axis", 0)) % dims
    shapes = [tensor.shape for tensor in call.tensors]
    if call.name == "stack":
        parts = [(*axes[:dim], None, *axes[dim:]) for axes in call.axes]
        return meet(call, parts, [(*shape[:dim], 1, *shape[dim:]) for shape in shapes])
    kept = [(axes, shape) for axes, shape in zip(call.axes, shapes, strict=True) if len(shape) == dims]
    others = [(*axes[:dim], None, *axes[dim + 1 :]) for axes, _ in kept]
    result = list(meet(call, others, [(*shape[:dim], 1, *shape[dim + 1 :]) for _, shape in kept]))
    if any(axes[dim] is not None for axes, _ in kept):
        pieces = []
        for axes, shape in kept:
            numbers = axes[dim]
            if numbers is None:  # such as the picture itself
                numbers = call.channels.fresh(shape[dim])
                call.channels.fix(numbers, f"{call.run.where()} puts it beside channels that stay")
            pieces.append(numbers)
        result[dim] = torch.cat(pieces)
    return tuple(result)


def taken(call: Call) -> Axes | None:
    """``take_along_dim``: places are picked, the same ones for all channels."""
    source, index = call.tensors[0], call.tensors[1]
    dim = call.arg(2, "dim")
    if dim is None or source.dim() != index.dim():
        return None
    result = []
    for axis, numbers in enumerate(call.axes[0]):
        if numbers is not None and (axis == dim % source.dim() or index.shape[axis] != 1):
            call.fix(numbers)
            numbers = None
        result.append(numbers)
    return tuple(result)


RULES = dict.fromkeys("flatten squeeze unsqueeze ravel view reshape view_as reshape_as unflatten".split(), reshape)
RULES |= dict.fromkeys("permute transpose swapaxes swapdims movedim moveaxis t T mT H mH".split(), moved)
RULES |= dict.fromkeys(("expand", "expand_as", "broadcast_to"), expanded) | dict.fromkeys(MAKERS, maker)
RULES |= dict.fromkeys(("chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split"), cut_up)
RULES |= dict.fromkeys(("cat", "concat", "concatenate", "stack"), joined)
RULES |= dict.fromkeys(("select", "unbind"), selected)
RULES |= {"__getitem__": indexed, "take_along_dim": taken, "glu": glu, "repeat": repeated, "tile": repeated}
# Those that look at the sizes in the code themselves; for the others a ``Number`` in the arguments needs all channels.
SIZED = MAKERS | {name for name, rule in RULES.items() if rule in (reshape, expanded, cut_up)}
