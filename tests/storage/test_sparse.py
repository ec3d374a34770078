"""COO and CSR: by hand, against PyTorch and scipy, and the bytes against the tensors' own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.storage.sparse import (
    COO,
    break_even_density,
    coo_to_csr,
    csr_product,
    csr_to_coo,
    dense_to_coo,
    dense_to_csr,
    layout_bytes,
    storage_bytes,
    to_matrix,
)

# Four rows, the third of them empty; seven of twenty values are not zero.
MATRIX = torch.tensor([[5.0, 0, 0, 0, 1], [0, 8, 0, 2, 0], [0, 0, 0, 0, 0], [0, 6, 3, 0, 4]])


@st.composite
def matrices(draw) -> torch.Tensor:
    """Up to 6 × 7, in float32 or float64, with any pattern of zeros: full, empty, one row, one column."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    values = draw(st.lists(st.sampled_from([0, 0, 1, -2, 3.5]), min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(values, dtype=draw(st.sampled_from([torch.float32, torch.float64]))).view(rows, columns)


# By hand


def test_coo_by_hand():
    coo = dense_to_coo(MATRIX)
    assert coo.indices.tolist() == [[0, 0, 1, 1, 3, 3, 3], [0, 4, 1, 3, 1, 2, 4]]
    assert coo.values.tolist() == [5, 1, 8, 2, 6, 3, 4]
    assert coo.shape == (4, 5)


def test_csr_by_hand():
    csr = dense_to_csr(MATRIX)
    assert csr.row_starts.tolist() == [0, 2, 4, 4, 7]  # the third row begins where it ends
    assert csr.columns.tolist() == [0, 4, 1, 3, 1, 2, 4]
    assert csr.values.tolist() == [5, 1, 8, 2, 6, 3, 4]


def test_product_by_hand():
    vector = torch.tensor([1.0, 2, 3, 4, 5])
    assert csr_product(dense_to_csr(MATRIX), vector).tolist() == [5 + 5, 16 + 8, 0, 12 + 9 + 20]


def test_bytes_by_hand():
    assert storage_bytes(MATRIX) == 20 * 4
    assert storage_bytes(MATRIX, "coo") == 7 * (4 + 8 + 8)
    assert storage_bytes(MATRIX, "csr") == 7 * (4 + 8) + 5 * 8
    assert storage_bytes(MATRIX, "csr", value_bytes=2, index_bytes=4) == 7 * (2 + 4) + 5 * 4
    assert storage_bytes(MATRIX != 0, "coo") == storage_bytes(MATRIX, "coo")  # a mask, or the weight
    assert storage_bytes(torch.eye(4), "2:4") == 8 * 4 + 2


def test_2_4_takes_nine_sixteenths_in_half_precision():
    kept, shape = 512 * 512 // 2, (512, 512)
    assert layout_bytes(shape, kept, "2:4", value_bytes=2) * 16 == 9 * layout_bytes(shape, kept, "dense", value_bytes=2)
    assert layout_bytes(shape, kept, "2:4") * 32 == 17 * layout_bytes(shape, kept, "dense")  # float32


@pytest.mark.parametrize(("index_bytes", "coo", "csr"), [(8, 1 / 5, 1 / 3), (4, 1 / 3, 1 / 2)])
def test_break_even_by_hand(index_bytes, coo, csr):
    shape = (1000, 1000)
    assert break_even_density(shape, "coo", index_bytes=index_bytes) == pytest.approx(coo)  # 4 / (4 + 2i)
    below = csr * (1 - 1001 * index_bytes / 4e6)  # the starts of the rows have to be saved as well
    assert break_even_density(shape, "csr", index_bytes=index_bytes) == pytest.approx(below)


def test_a_sparse_layout_at_half_density_is_larger_than_dense():
    dense = layout_bytes((256, 256), 256 * 128, "dense")
    assert layout_bytes((256, 256), 256 * 128, "csr") > dense
    assert layout_bytes((256, 256), 256 * 128, "coo") > dense
    assert layout_bytes((256, 256), 256 * 128, "csr", index_bytes=4) > dense  # by the starts of the rows


def test_rows_of_one_value_never_pay():
    assert break_even_density((1000, 1), "csr") == 0


# Against others


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_against_torch(matrix):
    coo, csr, their_coo, their_csr = (
        dense_to_coo(matrix),
        dense_to_csr(matrix),
        matrix.to_sparse(),
        matrix.to_sparse_csr(),
    )
    assert torch.equal(coo.indices, their_coo.indices()) and torch.equal(coo.values, their_coo.values())
    assert torch.equal(csr.row_starts, their_csr.crow_indices())
    assert torch.equal(csr.columns, their_csr.col_indices()) and torch.equal(csr.values, their_csr.values())
    assert torch.equal(to_matrix(coo), matrix) and torch.equal(to_matrix(csr), matrix)
    assert torch.equal(csr_to_coo(csr).indices, coo.indices)


@settings(max_examples=40, deadline=None)
@given(matrices(), st.integers(0, 3))
def test_products_against_torch(matrix, batch):
    vectors = torch.arange(1.0, 1 + matrix.shape[1] * max(batch, 1), dtype=matrix.dtype).view(matrix.shape[1], -1)
    vectors = vectors if batch else vectors[:, 0]
    torch.testing.assert_close(csr_product(dense_to_csr(matrix), vectors), matrix @ vectors)


@settings(max_examples=30, deadline=None)
@given(matrices())
def test_against_scipy(matrix):
    scipy = pytest.importorskip("scipy.sparse")
    csr, theirs = dense_to_csr(matrix), scipy.csr_matrix(matrix.numpy())
    assert csr.row_starts.tolist() == theirs.indptr.tolist()
    assert csr.columns.tolist() == theirs.indices.tolist()
    assert csr.values.tolist() == theirs.data.tolist()


@settings(max_examples=40, deadline=None)
@given(matrices())
def test_bytes_against_the_tensors_of_torch(matrix):
    def held(*tensors):
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    coo, csr, size = matrix.to_sparse(), matrix.to_sparse_csr(), matrix.element_size()
    assert storage_bytes(matrix, "coo", value_bytes=size) == held(coo.indices(), coo.values())
    assert storage_bytes(matrix, "csr", value_bytes=size) == held(csr.crow_indices(), csr.col_indices(), csr.values())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([4, 8]), st.sampled_from(["coo", "csr"]))
def test_the_break_even_is_where_the_bytes_cross(rows, columns, index_bytes, layout):
    density = break_even_density((rows, columns), layout, index_bytes=index_bytes)
    for count in range(rows * columns + 1):
        smaller = layout_bytes((rows, columns), count, layout, index_bytes=index_bytes) < 4 * rows * columns
        assert smaller == (count / (rows * columns) < density - 1e-12)


# Odd input


def test_entries_in_any_order_and_twice():
    coo = COO(torch.tensor([[1, 0, 1, 1], [2, 1, 0, 2]]), torch.tensor([1.0, 2, 3, 4]), (2, 3))
    csr = coo_to_csr(coo)
    assert (csr.row_starts.tolist(), csr.columns.tolist(), csr.values.tolist()) == (
        [0, 1, 4],
        [1, 0, 2, 2],
        [2, 3, 1, 4],
    )
    expected = torch.sparse_coo_tensor(*coo).to_dense()
    assert torch.equal(to_matrix(coo), expected) and torch.equal(to_matrix(csr), expected)
    assert csr_product(csr, torch.ones(3)).tolist() == [2, 8]


def test_a_convolution_is_a_matrix_of_as_many_rows_as_filters():
    weight = torch.zeros(4, 3, 2, 2)
    weight[0, 0, 0, 0] = 1
    assert storage_bytes(weight, "csr") == storage_bytes(weight.flatten(1), "csr") == 12 + 5 * 8


def test_nan_and_infinity_are_kept_and_a_negative_zero_is_not():
    odd = torch.tensor([[float("nan"), 0.0, -0.0, float("inf")]])
    assert dense_to_coo(odd).indices.tolist() == [[0, 0], [0, 3]]
    assert to_matrix(dense_to_csr(odd))[0, 0].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.bool])
def test_any_type_of_number(dtype):
    matrix = MATRIX.to(dtype)
    assert to_matrix(dense_to_coo(matrix)).dtype == dtype
    assert torch.equal(to_matrix(dense_to_csr(matrix)), matrix)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([[1.0]], TypeError, "matrix is a list; expected a tensor"),
        (torch.ones(3), ValueError, r"matrix is \(3,\), torch.strided; expected a dense tensor \(R, C\)"),
        (torch.ones(2, 2, 2), ValueError, "expected a dense tensor"),
        (torch.eye(2).to_sparse(), ValueError, "torch.sparse_coo; expected a dense tensor"),
    ],
)
def test_what_is_no_matrix(wrong, error, message):
    with pytest.raises(error, match=message):
        dense_to_coo(wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layout_bytes((2, 2), 1, "bsr"), "layout is 'bsr'; expected 'dense', 'coo', 'csr' or '2:4'"),
        (lambda: layout_bytes((4,), 1, "coo"), r"shape is \(4,\); expected \(R, C\)"),
        (lambda: layout_bytes((4, 0), 0, "coo"), "each 1 or more"),
        (lambda: layout_bytes((2, 2), 5, "csr"), "nonzero is 5; expected a whole number from 0 to 4"),
        (lambda: layout_bytes((2, 2), -1, "csr"), "nonzero is -1"),
        (
            lambda: layout_bytes((2, 2), 1, "csr", index_bytes=0),
            "index_bytes is 0; expected a whole number",
        ),
        (lambda: layout_bytes((2, 6), 1, "2:4"), "that 4 divides"),
        (lambda: layout_bytes((2, 4), 5, "2:4"), "at most half of the values"),
        (lambda: break_even_density((2, 2), "2:4"), "layout is '2:4'; expected 'coo' or 'csr'"),
        (lambda: csr_product(dense_to_csr(MATRIX), torch.ones(4)), r"vectors is \(4,\); expected \(5,\) or \(5, B\)"),
    ],
)
def test_numbers_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_only_tensors_are_stored():
    with pytest.raises(TypeError, match="kept is a list; expected a mask or a weight"):
        storage_bytes([[1, 0]], "coo")
