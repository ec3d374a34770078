"""How many floating point operations a model takes: those of its products, as PyTorch calls them."""

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib.device import check_model, evaluating
from course_lib.measure.size import value_tensors


def flops(model: nn.Module, *inputs: object) -> int:
    """Floating point operations of one forward pass; a multiply-add counts as 2.

    Counted are products of matrices and vectors, convolutions and attention, by PyTorch's ``FlopCounterMode`` and the
    formulas below. Not counted is what works number by number (activations, normalisation, masks, adding a bias) or
    moves and sums numbers (pooling, interpolation, embeddings).
    Kernels that hide their products (fused attention, the fast path of transformer layers in eval mode, oneDNN's and
    cuDNN's recurrent layers) are switched off for the count. Of a sparse matrix only the values that it keeps count.

    An operation that has products but no formula (of linear algebra, a Fourier transform, a quantized kernel, one of
    another library) is left out, and a ``UserWarning`` names it. ``torch.utils.flop_counter.register_flop_formula``
    gives it a formula.
    """
    from torch.utils.flop_counter import FlopCounterMode

    check_model(model)
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    left_out = _LeftOut(counter.flop_registry)
    with evaluating(model), torch.no_grad(), _plain_kernels(), left_out, counter:
        model(*inputs)
    if left_out.calls:
        names = ", ".join(f"{name} (called {count}×)" for name, count in left_out.calls.items())
        warnings.warn(f"the FLOPs of {names} are not known and not in the count", stacklevel=2)
    return counter.get_total_flops()


class _LeftOut(TorchDispatchMode):
    """Keeps the names of operations that ``FlopCounterMode``, entered after it, hands on without having a formula."""

    supports_higher_order_operators = True

    def __init__(self, formulas: Mapping[object, object]) -> None:
        super().__init__()
        self.formulas, self.calls = formulas, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if isinstance(func, torch._ops.OpOverload) and func._overloadpacket not in self.formulas and _multiplies(func):
            self.calls[str(func._overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


# What names of PyTorch's own operations say where products are hidden inside. Not meant are the cells of recurrent
# layers, which get the products as inputs, and linear interpolation.
_PRODUCTS = re.compile(
    r"mm(_|$)|mv_?$|dot$|matmul|(^|_)linear(_|$)|conv(_|\dd|$)|convolution|attention|multi_head|transformer_encoder"
    r"|(rnn|lstm|gru)(?!_cell)|^_fft|linalg_(?!vector|cross|check)|cholesky|solve|geqrf|ormqr|[cp]dist|euclidean_dist"
)


def _multiplies(operation: torch._ops.OpOverload) -> bool:
    """Whether it may be made of products: by its name, or because it is another library's and gives a tensor."""
    if operation.namespace == "aten":
        return bool(_PRODUCTS.search(operation._overloadpacket.__name__))
    return any("Tensor" in str(result.type) for result in operation._schema.returns)


def _product(left: Tensor, right: Tensor, *_: object, out_val: Tensor, **__: object) -> int:
    """Of ``left @ right``, vectors, matrices or batches of them; sparse or not."""
    if left.layout == right.layout == torch.strided:
        return 2 * out_val.numel() * left.shape[-1]
    if right.layout == torch.strided:
        return 2 * _kept(left) * (right.shape[-1] if right.dim() > 1 else 1)
    if left.layout == torch.strided:
        return 2 * _kept(right) * (left.shape[-2] if left.dim() > 1 else 1)
    # Each value in column k of the left matrix meets each value in row k of the right one.
    from_left = left.to_sparse_coo().coalesce().indices()[-1].bincount(minlength=left.shape[-1])  # (K,)
    from_right = right.to_sparse_coo().coalesce().indices()[-2].bincount(minlength=left.shape[-1])  # (K,)
    return 2 * int(from_left @ from_right)


def _kept(sparse: Tensor) -> int:
    """How many values a sparse tensor stores."""
    return sum(part.numel() for part in value_tensors(sparse))


def _sum_with_product(added: Tensor, left: Tensor, right: Tensor, *_: object, out_val: Tensor, **__: object) -> int:
    """Of ``added + left @ right``; the addition does not count."""
    return _product(left, right, out_val=out_val)


def _sum_with_batch(added: Tensor, left: Tensor, right: Tensor, *_: object, **__: object) -> int:
    """Of ``addbmm``: the products of a batch (B, N, K) @ (B, K, M) summed."""
    return 2 * left.numel() * right.shape[-1]


def _sampled_product(sample: Tensor, left: Tensor, *_: object, **__: object) -> int:
    """Of ``left @ right`` where the sparse matrix ``sample`` has values."""
    return 2 * _kept(sample) * left.shape[-1]


def _packed_product(inputs: Tensor, *_: object, out_val: Tensor, **__: object) -> int:
    """Of inputs (M, K) and weights packed in a layout of the kernel's own; the result is (M, N)."""
    return 2 * out_val.numel() * inputs.shape[-1]


def _grouped_product(left: Tensor, right: Tensor, *_: object, out_val: Tensor, **__: object) -> int:
    """Each group of rows, or of columns, with a matrix of its own; of two matrices (M, K) and (K, N), groups of K."""
    groups = len(out_val) if left.dim() == right.dim() == 2 else 1
    return 2 * out_val.numel() * left.shape[-1] // groups


def _bilinear(left: Tensor, weight: Tensor, *_: object, **__: object) -> int:
    """Of ``nn.Bilinear``: left (N, I) · weight (O, I, J) is (N, O, J), and that · right (N, J) is (N, O)."""
    outputs, left_units, right_units = weight.shape
    return 2 * len(left) * outputs * (left_units * right_units + right_units)


def _convolution_over_time(inputs: Tensor, weight: Tensor, *_: object, out_val: Tensor, **__: object) -> int:
    """Of ``conv_tbc``: weight is (kernel, inputs, outputs)."""
    return 2 * out_val.numel() * math.prod(weight.shape[:2])


def _weighted_bag(weight: Tensor, indices: Tensor, *others: object, **__: object) -> int:
    """Of ``nn.EmbeddingBag``: a sum of rows; products only where the rows have weights, the fifth of the others."""
    return 2 * indices.numel() * weight.shape[1] if others[4:] and others[4] is not None else 0


def _by_operation() -> Iterator[tuple[object, object]]:
    """Operations of PyTorch, those that this version has, and our formulas, which take the tensors themselves."""
    names = {
        _product: "matmul mm bmm mv dot vdot _int_mm hspmm _sparse_sparse_matmul _sparse_mm_reduce_impl",
        _sum_with_product: "addmm addmm_ addmv addmv_ baddbmm baddbmm_ _addmm_activation _sparse_addmm sspaddmm",
        _sum_with_batch: "addbmm addbmm_",
        _sampled_product: "sparse_sampled_addmm",
        _packed_product: "_weight_int8pack_mm _weight_int4pack_mm _weight_int4pack_mm_for_cpu",
        _grouped_product: "_grouped_mm",
        _bilinear: "_trilinear",
        _convolution_over_time: "conv_tbc",
        _weighted_bag: "_embedding_bag _embedding_bag_forward_only",
    }
    for formula, operations in names.items():
        formula._get_raw = True
        for name in operations.split():
            if hasattr(torch.ops.aten, name):
                yield getattr(torch.ops.aten, name), formula


_FORMULAS = dict(_by_operation())


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Inside, products run one by one where ``FlopCounterMode`` sees them; after it all is as before."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # allow_tf32=None leaves that setting alone: touching it warns on a machine without an Intel GPU.
    switched_off = torch.backends.mkldnn.flags(enabled=False, allow_tf32=None)
    try:
        with sdpa_kernel(SDPBackend.MATH), switched_off, torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
