"""The shapes of what operations give, worked out where PyTorch takes long: on "meta" tensors many of its operations
run through Python, and the first one imports a compiler."""

from collections.abc import Callable

import torch
from torch import Tensor

ELEMENTWISE = frozenset(
    "relu relu6 leaky_relu rrelu threshold elu selu celu gelu silu mish softplus softsign softshrink hardshrink "
    "tanhshrink sigmoid hardsigmoid logsigmoid hardswish hardtanh tanh clamp clip clamp_min clamp_max exp exp2 expm1 "
    "log log1p log2 sqrt rsqrt square abs neg reciprocal pow sin cos erf sign floor ceil round nan_to_num dropout "
    "dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout add sub mul div multiply "
    "divide subtract true_divide rsub maximum minimum where masked_fill lerp addcmul addcdiv fmod remainder bernoulli "
    "zero fill eq ne lt le gt ge logical_and logical_or logical_not isnan isfinite isinf and or invert xor zeros_like "
    "ones_like empty_like full_like rand_like randn_like copy".split()
)
COMPARES = frozenset("eq ne lt le gt ge logical_and logical_or logical_not isnan isfinite isinf".split())
SAME = frozenset(
    "contiguous clone detach to float double half bfloat16 type type_as cuda cpu data alias requires_grad_ "
    "float_power positive".split()
)
SOFTMAX = frozenset("softmax log_softmax softmin cumsum".split())
NORMS = frozenset("batch_norm instance_norm group_norm layer_norm rms_norm prelu".split())
_REVERSED = {"radd": "add", "rsub": "rsub", "rmul": "mul", "rdiv": "div", "rtruediv": "div", "rpow": "pow"}
_PLAIN = {"truediv": "div", "pow": "pow", "matmul": "matmul", "rmatmul": "matmul", "mm": "matmul", "bmm": "matmul"}


def plain_name(function: object) -> str:
    """The name of an operation: "add" for ``add_``, ``__iadd__`` and ``__radd__``; of a property its own."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        return function.__self__.__name__
    if name.startswith("__"):
        inner = name.strip("_")
        if inner in _REVERSED or inner in _PLAIN:
            return _REVERSED.get(inner) or _PLAIN[inner]
        if inner[:1] == "i" and inner[1:] in ("add", "sub", "mul", "truediv", "div", "pow", "and", "or"):
            return _PLAIN.get(inner[1:], inner[1:])
        return inner if inner in ELEMENTWISE else name
    return name.rstrip("_") if name != "requires_grad_" else name


def broadcast(tensors: list[Tensor]) -> torch.Size:
    """The shape of what these tensors give together."""
    first = tensors[0].shape
    if all(tensor.shape == first for tensor in tensors[1:]):
        return first
    return torch.broadcast_shapes(*(tensor.shape for tensor in tensors))


def all_hollow(value: object) -> object:
    """Every tensor in ``value`` without its numbers."""
    if isinstance(value, Tensor):
        return value if value.is_meta else value.to("meta")
    if isinstance(value, (tuple, list)):
        return type(value)(map(all_hollow, value)) if type(value) in (tuple, list) else value
    return value


def _elementwise(call: object, args: tuple, named: dict) -> Tensor:
    shape = broadcast(call.tensors)
    like = next((t for t in call.tensors if t.is_floating_point()), call.tensors[0])
    dtype = torch.bool if call.name in COMPARES else named.get("dtype") or like.dtype
    return torch.empty(shape, dtype=dtype, device="meta")


def _same(call: object, args: tuple, named: dict) -> Tensor:
    first = args[0] if args else call.tensors[0]
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    by_name = dict(zip(("float", "double", "half", "bfloat16"), kinds, strict=True))
    dtype = next((a for a in (*args[1:], *named.values()) if isinstance(a, torch.dtype)), by_name.get(call.name))
    return torch.empty(first.shape, dtype=dtype or first.dtype, device="meta")


def _normalised(call: object, args: tuple, named: dict) -> Tensor:
    first = call.tensors[0]
    for other in call.tensors[1:]:
        over = 1 if call.name in ("batch_norm", "instance_norm", "group_norm", "prelu") else -1
        if other.dim() == 1 and len(other) not in (1, first.shape[over]):
            raise RuntimeError(f"it takes {len(other)} channels and not {first.shape[over]}")
    return torch.empty(first.shape, dtype=first.dtype, device="meta")


def _linear(call: object, args: tuple, named: dict) -> Tensor:
    value, weight = call.arg(0, "input"), call.arg(1, "weight")
    if value.shape[-1] != weight.shape[-1]:
        raise RuntimeError(f"it takes {weight.shape[-1]} numbers and not {value.shape[-1]}")
    return torch.empty((*value.shape[:-1], *weight.shape[:-1]), dtype=value.dtype, device="meta")


def _convolution(call: object, args: tuple, named: dict) -> Tensor:
    value, weight = call.arg(0, "input"), call.arg(1, "weight")
    transposed, dims = "transpose" in call.name, weight.dim() - 2
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    names = names if transposed else ("stride", "padding", "dilation", "groups")
    given = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0, "groups": 1}
    given |= dict(zip(names, args[3:], strict=False)) | {key: named[key] for key in names if key in named}
    inputs = weight.shape[0] if transposed else weight.shape[1] * given["groups"]
    if value.shape[-1 - dims] != inputs:
        raise RuntimeError(f"it takes {inputs} channels and not {value.shape[-1 - dims]}")
    stride, padding, dilation, more = (_each(given[key], dims) for key in (*names[:2], "dilation", "output_padding"))
    places = []
    for axis in range(dims):
        size, reach = value.shape[axis - dims], dilation[axis] * (weight.shape[axis + 2] - 1)
        if transposed:
            size = (size - 1) * stride[axis] - 2 * padding[axis] + reach + more[axis] + 1
        elif padding[axis] != "same":
            size = (size + 2 * (0 if padding[axis] == "valid" else padding[axis]) - reach - 1) // stride[axis] + 1
        places.append(size)
    if min(places) < 1:
        raise RuntimeError(f"its kernel does not fit into {tuple(value.shape)}")
    makes = weight.shape[1] * given["groups"] if transposed else weight.shape[0]
    return value.new_empty((*value.shape[: -1 - dims], makes, *places), device="meta")


def _adaptive(call: object, args: tuple, named: dict) -> Tensor:
    value = args[0]
    dims = int(call.name[-2])
    sizes = _each(call.arg(1, "output_size"), dims)
    sizes = [old if new is None else new for old, new in zip(value.shape[-dims:], sizes, strict=True)]
    return value.new_empty((*value.shape[:-dims], *sizes), device="meta")


def _pool(call: object, args: tuple, named: dict) -> Tensor:
    value, dims, largest = args[0], int(call.name[-2]), call.name.startswith("max")
    kernel = _each(call.arg(1, "kernel_size"), dims)
    stride = _each(call.arg(2, "stride") or kernel, dims)
    padding = _each(call.arg(3, "padding", 0), dims)
    dilation = _each(call.arg(4, "dilation", 1) if largest else 1, dims)
    above = call.arg(5 if largest else 4, "ceil_mode", False)
    places = []
    for axis, size in enumerate(value.shape[-dims:]):
        room = size + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        count = room // stride[axis] + 1
        if above and room % stride[axis] and count * stride[axis] < size + padding[axis]:  # the last one starts inside
            count += 1
        places.append(count)
    if min(places) < 1:
        raise RuntimeError(f"its kernel does not fit into {tuple(value.shape)}")
    return value.new_empty((*value.shape[:-dims], *places), device="meta")


def _each(value: object, dims: int) -> tuple:
    value = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(value) * dims if len(value) == 1 else tuple(value)


def _attention(call: object, args: tuple, named: dict) -> Tensor:
    query, value = call.arg(0, "query"), call.arg(2, "value")
    return torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device="meta")


def _embedding(call: object, args: tuple, named: dict) -> Tensor:
    index, weight = call.arg(0, "input"), call.arg(1, "weight")
    return torch.empty((*index.shape, weight.shape[1]), dtype=weight.dtype, device="meta")


def _whole_attention(call: object, args: tuple, named: dict) -> tuple[Tensor, Tensor | None]:
    query, key = call.arg(0, "query"), call.arg(1, "key")
    attended = torch.empty((query.shape[-2], query.shape[0], key.shape[0]), dtype=query.dtype, device="meta")
    return torch.empty(query.shape, dtype=query.dtype, device="meta"), attended


BY_HAND: dict[str, Callable] = dict.fromkeys(ELEMENTWISE, _elementwise) | dict.fromkeys(SAME, _same)
BY_HAND |= dict.fromkeys(NORMS, _normalised) | dict.fromkeys(SOFTMAX, _same)
BY_HAND |= {"linear": _linear, "embedding": _embedding, "scaled_dot_product_attention": _attention}
BY_HAND |= dict.fromkeys((f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)), _convolution)
BY_HAND |= dict.fromkeys((f"adaptive_{kind}_pool{dims}d" for kind in ("avg", "max") for dims in (1, 2, 3)), _adaptive)
BY_HAND |= dict.fromkeys((f"{kind}_pool{dims}d" for kind in ("avg", "max") for dims in (1, 2, 3)), _pool)
BY_HAND |= {"multi_head_attention_forward": _whole_attention}
