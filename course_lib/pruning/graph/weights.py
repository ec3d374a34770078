"""The rules of operations with weights: what each of them ties together.

==============================  =================================  ====================================================
operation                       weight                             what it ties
==============================  =================================  ====================================================
linear                          (out, in)                          inputs to what comes in; its units are new channels
convolution                     (out, in / groups, kernel)         the same; in groups: the same ones of each group
depthwise convolution           (out, 1, kernel)                   each filter to the one channel that it reads
transposed convolution          (in, out / groups, kernel)         as the convolution
embedding                       (words, out)                       nothing
batch, instance norm; PReLU     (channels,)                        one number to each channel
layer norm, RMS norm            (channels,)                        the same, though all channels share mean and variance
group norm                      (channels,)                        the same, and the same ones of each group
attention of PyTorch            (3 · width, width)                 the width to itself, the same ones of each head
==============================  =================================  ====================================================

A layer whose weights are cut also has its sizes in attributes, such as ``in_features``: ``call.note`` finds them.
"""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from course_lib.pruning.graph.call import Call
from course_lib.pruning.graph.channels import Axes
from course_lib.pruning.graph.sizes import Number, value_of

MAKERS = (nn.Linear, _ConvNd, nn.Embedding)  # layers with units: each makes a new channel
KINDS = (*MAKERS, _BatchNorm, _InstanceNorm, nn.PReLU, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def linear(call: Call) -> Axes:
    """(..., in) by (out, in)."""
    value, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    reads = call.of(value)[-1]
    makes, inputs = call.of(weight)
    if reads is not None:
        call.note(weight, "in_features", call.tie(reads, inputs))
    else:
        call.fix(inputs, ": they read channels that stay")
    if bias is not None:
        makes = call.tie(makes, call.of(bias)[0])
    call.note(weight, "out_features", makes)
    return (*call.of(value)[:-1], makes)


def convolution(call: Call) -> Axes | None:
    """(N, in, places) by (out, in / groups, kernel), or (in, out / groups, kernel) for a transposed one."""
    value, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    transposed = "transpose" in call.name
    written = call.arg(6, "groups", 1)
    groups = value_of(written)
    place = value.dim() - weight.dim() + 1  # the axis of the channels; 0 without a batch
    axes, (first, second) = call.of(value), call.of(weight)[:2]
    reads = axes[place]
    if first is None or second is None:
        return None
    for numbers in axes[place + 1 :]:
        call.fix(numbers)
    if 1 < groups == value.shape[place]:
        makes = _depthwise(call, weight, reads, first, second, written, transposed)
    else:
        makes = _grouped(call, reads, first, second, groups, transposed)
        call.note(weight, "in_channels", reads)
    if bias is not None:
        makes = call.tie(makes, call.of(bias)[0])
    call.note(weight, "out_channels", makes)
    return (*axes[:place], makes, *[None] * (value.dim() - place - 1))


def _grouped(call: Call, reads: Tensor | None, first: Tensor, second: Tensor, groups: int, transposed: bool) -> Tensor:
    """The channels that a convolution makes."""
    second = second.repeat(groups) if groups > 1 else second
    inputs, makes = (first, second) if transposed else (second, first)
    if reads is not None:
        call.tie(reads, inputs)
    else:
        call.fix(inputs, ": they read channels that stay")
    if groups > 1:  # every group loses the same
        for numbers in (inputs, makes):
            call.channels.tie_rows(numbers, groups)
    return makes


def _depthwise(
    call: Call, weight: Tensor, reads: Tensor | None, first: Tensor, second: Tensor, groups: object, transposed: bool
) -> Tensor:
    """Filter k · m + j reads channel k, with m filters a channel."""
    filters = len(second) if transposed else len(first) // value_of(groups)
    makes = first.repeat_interleave(filters) if transposed else first
    call.fix(second)
    call.note(weight, "in_channels", reads)
    if not call.note(weight, "groups", reads):
        call.expect(reads, groups)
    if reads is None:
        call.fix(makes, ": each of them reads one channel that stays")
    else:
        call.channels.tie(makes.view(-1, filters), reads[:, None])
        call.tie(first if transposed else reads, reads)
    return makes


def embedding(call: Call) -> Axes:
    """Rows of (words, out), looked up by number."""
    index, weight = call.arg(0, "input"), call.arg(1, "weight")
    words, makes = call.of(weight)
    call.fix(words, ": they are looked up by number")
    call.note(weight, "embedding_dim", makes)
    return (*call.of(index), makes)


def one_for_each(call: Call) -> Axes:
    """Batch norm, instance norm, group norm, PReLU: tensors (channels,) beside (N, channels, places)."""
    value = call.tensors[0]
    numbers = call.axes[0][1] if value.dim() > 1 else None
    for part, axes in zip(call.tensors[1:], call.axes[1:], strict=True):
        if len(part) > 1 or value.shape[1] == 1:
            numbers = call.tie(numbers, axes[0])
    if call.name == "group_norm":
        groups = call.arg(1, "num_groups")
        if numbers is not None and value_of(groups) < value.shape[1]:
            call.channels.tie_rows(numbers, value_of(groups))
        elif numbers is not None and not call.note(call.arg(2, "weight"), "num_groups", numbers):
            call.expect(numbers, groups)
    weight = (
        call.arg(1, "weight") if call.name == "prelu" else call.arg(2 if call.name == "group_norm" else 3, "weight")
    )
    for name in ("num_features", "num_channels", "num_parameters"):
        call.note(weight, name, numbers)
    return (call.axes[0][0], numbers, *call.axes[0][2:]) if value.dim() > 1 else call.axes[0]


def over_channels(call: Call) -> Axes:
    """Layer norm and RMS norm take mean and variance over the last axes, with a weight for each place."""
    sizes, axes = call.arg(1, "normalized_shape"), list(call.axes[0])
    sizes = list(sizes) if isinstance(sizes, (tuple, list)) else [sizes]
    weight = call.arg(2, "weight")
    for place, size in enumerate(sizes):
        axis = len(axes) - len(sizes) + place
        for part in call.axes[1:]:
            axes[axis] = call.tie(axes[axis], part[place])
        noted = call.note(weight, "normalized_shape", axes[axis], place)
        if not noted and (axes[axis] is not None or isinstance(size, Number)):
            call.expect(axes[axis], size)
    return tuple(axes)


def attention(call: Call) -> Axes | None:
    """softmax(Q Kᵀ) V on (..., heads, places, numbers): it divides by the root of how many numbers a query has."""
    (*batch, rows, query), (*others, places, key), (*more, behind, value) = call.axes[:3]
    if call.named.get("scale") is None:
        call.fix(query, ": it divides by the root of their number")
        call.fix(key, ": it divides by the root of their number")
    else:
        call.tie(query, key)
    if len({tensor.shape[:-2] for tensor in call.tensors[:3]}) > 1:
        return None
    for numbers in (places, behind, *(n for axes in call.axes[3:] for n in axes)):
        call.fix(numbers)
    heads = [call.tie(call.tie(one, two), three) for one, two, three in zip(batch, others, more, strict=True)]
    return (*heads, rows, value)


def whole_attention(call: Call) -> list[Axes] | None:
    """``nn.MultiheadAttention``: the width that comes in is that of all heads, and is kept as one number.

    So both lose the same channels, and the same ones of each head. It divides by the root of the size of a head: the
    queries are scaled so that this stays as it was.
    """
    weight, bias, behind = call.arg(5, "in_proj_weight"), call.arg(6, "in_proj_bias"), call.arg(11, "out_proj_weight")
    heads = value_of(call.arg(4, "num_heads"))
    if weight is None or call.arg(7, "bias_k") is not None or call.named.get("use_separate_proj_weight"):
        return None
    width = call.tensors[0].shape[-1]
    rows, columns = call.of(weight)
    out, inner = call.of(behind)
    reads = columns
    for axes in call.axes[:3]:
        reads = call.tie(reads, axes[-1])
    if reads is None:
        for numbers in (rows, columns, out, inner):
            call.fix(numbers)
        return None
    table = rows.view(3, heads, -1)  # (3, H, D): every projection and every head lose the same
    call.channels.tie(table[:1, :1], table)
    call.tie(rows[:width], reads)
    call.tie(rows[2 * width :], inner)
    call.tie(out, reads)
    if bias is not None:
        call.tie(rows, call.of(bias)[0])
    if (last := call.arg(12, "out_proj_bias")) is not None:
        call.tie(out, call.of(last)[0])
    sizes = {"embed_dim": reads, "kdim": reads, "vdim": reads, "head_dim": table[0, 0]}
    noted = [call.note(None, name, numbers) for name, numbers in sizes.items()]
    call.note(behind, "in_features", inner)
    call.note(behind, "out_features", out)
    if not all(noted):
        call.fix(reads)
    for part in (weight, bias):
        if part is not None and id(part) in call.run.originals:
            call.run.scaled.append((call.run.originals[id(part)], width, table[0, 0]))
    return [(*call.axes[0][:-1], out), (None, None, None)]


_CONVOLUTIONS = [f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)]
RULES = {"linear": linear, "embedding": embedding, "scaled_dot_product_attention": attention}
RULES |= {"multi_head_attention_forward": whole_attention} | dict.fromkeys(_CONVOLUTIONS, convolution)
RULES |= dict.fromkeys(("batch_norm", "instance_norm", "group_norm", "prelu"), one_for_each)
RULES |= dict.fromkeys(("layer_norm", "rms_norm"), over_channels)
SIZED = frozenset((*_CONVOLUTIONS, "group_norm", "layer_norm", "rms_norm"))
