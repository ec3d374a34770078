r"""Storing a matrix that is mostly zeros: COO, CSR and 2:4, their bytes, and how each is made.

A matrix of R rows and C columns with n values that are not zero, v bytes a value and i bytes an index:

======  ===================================================================  ==============================
layout  what it keeps                                                        bytes
======  ===================================================================  ==============================
dense   every value                                                          R·C·v
COO     the n values, and of each its row and its column                     n·(v + 2i)
CSR     the n values, of each its column, and where every row begins         n·(v + i) + (R + 1)·i
2:4     two values of every four neighbours, and of each its place: 2 bits   R·C·v/2 + R·C/8
======  ===================================================================  ==============================

COO and CSR take any pattern of zeros, 2:4 (Mishra et al. 2021, arXiv 2104.08378) only its own: at most two of every
four neighbours in a row are not zero. Then the places need so few bits that half the zeros make 9/16 of the bytes in
fp16. COO and CSR with their whole numbers as indices are larger than the dense matrix at that density.

PyTorch's ``to_sparse`` and ``to_sparse_csr`` store indices of 8 bytes. CSR may have indices of 4, COO may not.
``two_four.py`` packs 2:4, ``linear.py`` has the layers that compute with these matrices.

Simplified: one matrix, no blocks, no batches. A negative zero is a zero, and comes back as a positive one.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from course_lib.checking import check_choice, check_number, check_type

Layout = Literal["dense", "coo", "csr", "2:4"]
LAYOUTS = ("dense", "coo", "csr", "2:4")


class COO(NamedTuple):
    """Coordinates: ``indices`` (2, n) holds the rows and the columns of ``values`` (n,); ``shape`` is (R, C)."""

    indices: Tensor
    values: Tensor
    shape: tuple[int, int]


class CSR(NamedTuple):
    """Compressed sparse rows: the entries of row r are ``row_starts[r]`` to ``row_starts[r + 1]``, without the last.

    ``row_starts`` (R + 1,), ``columns`` (n,), ``values`` (n,); ``shape`` is (R, C).
    """

    row_starts: Tensor
    columns: Tensor
    values: Tensor
    shape: tuple[int, int]


def dense_to_coo(matrix: Tensor) -> COO:
    """The entries of ``matrix`` (R, C) that are not zero, row by row, each from left to right. A nan is no zero.

    Raises:
        TypeError: ``matrix`` is no tensor.
        ValueError: it does not have two dimensions, or is sparse already.
    """
    check_matrix(matrix)
    rows, columns = matrix.nonzero(as_tuple=True)  # each (n,)
    return COO(torch.stack([rows, columns]), matrix[rows, columns], tuple(matrix.shape))


def coo_to_csr(matrix: COO) -> CSR:
    """The same entries, with a start for each row in place of a row for each entry; the order of entries is free."""
    rows, columns = matrix.indices  # each (n,)
    order = (rows * matrix.shape[1] + columns).argsort(stable=True)
    in_each_row = torch.bincount(rows, minlength=matrix.shape[0])  # (R,)
    row_starts = torch.cat([in_each_row.new_zeros(1), in_each_row.cumsum(0)])  # (R + 1,)
    return CSR(row_starts, columns[order], matrix.values[order], matrix.shape)


def dense_to_csr(matrix: Tensor) -> CSR:
    """``matrix`` (R, C) as CSR. Raises as ``dense_to_coo``."""
    return coo_to_csr(dense_to_coo(matrix))


def csr_to_coo(matrix: CSR) -> COO:
    """The same entries in the same order, with the row of each written out."""
    rows = torch.arange(matrix.shape[0], device=matrix.columns.device).repeat_interleave(matrix.row_starts.diff())
    return COO(torch.stack([rows, matrix.columns]), matrix.values, matrix.shape)


def to_matrix(matrix: COO | CSR) -> Tensor:
    """The dense matrix (R, C). Entries at the same place are added up, as PyTorch does."""
    coo = csr_to_coo(matrix) if isinstance(matrix, CSR) else matrix
    dense = coo.values.new_zeros(coo.shape)
    return dense.index_put((coo.indices[0], coo.indices[1]), coo.values, accumulate=True)


def csr_product(matrix: CSR, vectors: Tensor) -> Tensor:
    """``matrix @ vectors`` in plain loops, to be read: only entries that are not zero are multiplied.

    Shapes: ``vectors`` (C,) -> (R,), or (C, B) -> (R, B).

    Raises:
        ValueError: ``vectors`` has not C rows.
    """
    if vectors.dim() not in (1, 2) or len(vectors) != matrix.shape[1]:
        raise ValueError(f"vectors is {tuple(vectors.shape)}; expected ({matrix.shape[1]},) or ({matrix.shape[1]}, B)")
    starts, columns = matrix.row_starts.tolist(), matrix.columns.tolist()
    result = vectors.new_zeros(matrix.shape[0], *vectors.shape[1:])  # (R, B)
    for row in range(matrix.shape[0]):
        for place in range(starts[row], starts[row + 1]):
            result[row] += matrix.values[place] * vectors[columns[place]]
    return result


def layout_bytes(
    shape: Sequence[int], nonzero: int, layout: Layout, *, value_bytes: int = 4, index_bytes: int = 8
) -> int:
    """Bytes of a weight of this shape with ``nonzero`` values that are not zero: the table at the top of this file.

    Args:
        shape: (R, C), or (R, ...): a convolution's weight is stored as a matrix of R rows.
        layout: ``dense``, ``coo``, ``csr`` or ``2:4``.
        value_bytes: 4 for float32, 2 for float16.
        index_bytes: 8 as PyTorch makes them, 4 if they are converted; 2:4 has indices of 2 bits whatever this says.

    Raises:
        ValueError: an unknown layout, a shape without columns, more values than places, or for 2:4 columns that 4 does
            not divide, or more than half of the places filled.
    """
    _check_sizes(shape, nonzero, layout, value_bytes, index_bytes)
    places = math.prod(shape)
    if layout == "dense":
        return places * value_bytes
    if layout == "coo":
        return nonzero * (value_bytes + 2 * index_bytes)
    if layout == "csr":
        return nonzero * (value_bytes + index_bytes) + (shape[0] + 1) * index_bytes
    if shape[1] % 4 or 2 * nonzero > places:
        raise ValueError(
            f"shape is {tuple(shape)}, with {nonzero} values that are not zero; expected for 2:4 a number of columns "
            "that 4 divides, and at most half of the values"
        )
    return places // 2 * value_bytes + math.ceil(places / 8)  # (kept values) + (2 bits for each)


def storage_bytes(kept: Tensor, layout: Layout = "dense", *, value_bytes: int = 4, index_bytes: int = 8) -> int:
    """``layout_bytes`` of a mask, or of a weight with zeros in it: (R, C) or (R, ...).

    Raises:
        TypeError: ``kept`` is no tensor.
        ValueError: as ``layout_bytes``. The pattern is not looked at: for 2:4 it is enough that half are zero.
    """
    check_type("kept", kept, Tensor, "a mask or a weight, a tensor")
    count = int(kept.count_nonzero())
    return layout_bytes(tuple(kept.shape), count, layout, value_bytes=value_bytes, index_bytes=index_bytes)


def break_even_density(
    shape: Sequence[int], layout: Literal["coo", "csr"], *, value_bytes: int = 4, index_bytes: int = 8
) -> float:
    """The density (share of values that are not zero) below which ``layout`` takes fewer bytes than dense.

    Raises:
        ValueError: as ``layout_bytes``, or another layout.
    """
    check_choice("layout", layout, ("coo", "csr"))  # whose bytes depend on the density
    sizes = {"value_bytes": value_bytes, "index_bytes": index_bytes}
    places, fixed = math.prod(shape), layout_bytes(shape, 0, layout, **sizes)
    full = layout_bytes(shape, places, layout, **sizes) - fixed  # of all values, if each is stored one by one
    return max(0.0, (places * value_bytes - fixed) / full)


def check_matrix(matrix: object) -> None:
    """Raise a ``TypeError`` or ``ValueError`` unless ``matrix`` is a dense tensor (R, C)."""
    check_type("matrix", matrix, Tensor, "a tensor (R, C)")
    if matrix.dim() != 2 or matrix.layout != torch.strided:
        raise ValueError(f"matrix is {tuple(matrix.shape)}, {matrix.layout}; expected a dense tensor (R, C)")


def _check_sizes(shape: Sequence[int], nonzero: int, layout: str, value_bytes: int, index_bytes: int) -> None:
    check_choice("layout", layout, LAYOUTS)
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"shape is {tuple(shape)}; expected (R, C) or (R, ...), each 1 or more")
    check_number("nonzero", nonzero, whole=True, least=0, most=math.prod(shape))
    check_number("value_bytes", value_bytes, whole=True, least=1)
    check_number("index_bytes", index_bytes, whole=True, least=1)
