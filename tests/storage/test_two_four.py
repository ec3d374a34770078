"""2:4: packed by hand, against PyTorch's own packing, and on a GPU against its kernels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.device import seeded
from course_lib.layers import prunable_weights
from course_lib.measure import bytes_in_memory, bytes_on_disk, latencies
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.pruning.held import apply_masks
from course_lib.pruning.masks import n_m_masks
from course_lib.storage.linear import TwoFourLinear
from course_lib.storage.sparse import layout_bytes
from course_lib.storage.two_four import pack_2_4, to_semi_structured, unpack_2_4


def two_four(rows: int, columns: int, *, seed: int = 0, zeros: float = 0.0) -> torch.Tensor:
    """A random 2:4 matrix, with some more zeros."""
    with seeded(seed):
        matrix = torch.randn(rows, columns)
        matrix = matrix * n_m_masks({"m": matrix.abs()})["m"]
        return matrix * (torch.rand(rows, columns) >= zeros)


def test_packing_by_hand():
    matrix = torch.tensor([[0, 7.0, 0, 8, 1, 0, 2, 0], [0, 0, 0, 0, 0, 0, 3, 0]])
    values, places = pack_2_4(matrix)
    assert values.tolist() == [[7, 8, 1, 2], [0, 0, 0, 3]]  # where there are fewer, the first zeros come along
    # places 1, 3, 0, 2 and 0, 1, 0, 2: the first in the lowest two bits
    assert places.tolist() == [1 + 4 * 3 + 16 * 0 + 64 * 2, 0 + 4 * 1 + 16 * 0 + 64 * 2]
    assert torch.equal(unpack_2_4(values, places), matrix)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0]))
def test_there_and_back(rows, groups, seed, zeros):
    matrix = two_four(rows, 4 * groups, seed=seed, zeros=zeros)
    values, places = pack_2_4(matrix)
    assert values.shape == (rows, 2 * groups) and places.dtype == torch.uint8
    assert values.numel() * 4 + len(places) == layout_bytes(matrix.shape, int(matrix.count_nonzero()), "2:4")
    assert torch.equal(unpack_2_4(values, places), matrix)


def test_values_against_the_packing_of_pytorch():
    conversions = pytest.importorskip("torch.sparse._semi_structured_conversions")
    matrix = two_four(32, 128).half()
    values, places = pack_2_4(matrix)
    theirs, meta = conversions.sparse_semi_structured_from_dense_cutlass(matrix)
    assert torch.equal(values, theirs)
    assert places.numel() == meta.numel() * meta.element_size()  # the same 2 bits, in another order
    packed, dense = values.numel() * 2 + places.numel(), matrix.numel() * 2
    assert packed * 16 == dense * 9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_any_type_of_number(dtype):
    matrix = (4 * two_four(3, 8)).to(dtype)
    assert torch.equal(unpack_2_4(*pack_2_4(matrix)), matrix)


def test_nan_is_kept():
    values, places = pack_2_4(torch.tensor([[0.0, float("nan"), 0, 1]]))
    assert unpack_2_4(values, places).isnan().tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(2, 6), r"matrix is \(2, 6\); expected a number of columns that 4 divides"),
        (torch.tensor([[1.0, 0, 0, 1, 1, 1, 1, 0]]), "row 0 has 3 values that are not zero in columns 4 to 7"),
        (torch.ones(8), r"expected a dense tensor \(R, C\)"),
        (torch.ones(2, 4).to_sparse(), "expected a dense tensor"),
    ],
)
def test_what_is_not_2_4(matrix, message):
    with pytest.raises(ValueError, match=message):
        pack_2_4(matrix)


@pytest.mark.parametrize(
    ("values", "places", "message"),
    [
        (torch.ones(2, 3), torch.zeros(2, dtype=torch.uint8), r"values is \(2, 3\); expected \(R, C/2\)"),
        (torch.ones(2, 4), torch.zeros(3, dtype=torch.uint8), r"places is \(3,\), torch.uint8; expected \(2,\)"),
        (torch.ones(2, 4), torch.zeros(2), r"places is \(2,\), torch.float32; expected \(2,\), torch.uint8"),
    ],
)
def test_what_was_never_packed(values, places, message):
    with pytest.raises(ValueError, match=message):
        unpack_2_4(values, places)


def test_layer_answers_as_the_dense_one_in_fewer_bytes():
    linear = nn.Linear(64, 48)
    linear.weight.data = two_four(48, 64)
    layer, x = TwoFourLinear.from_linear(linear), torch.randn(2, 3, 64)
    assert torch.equal(layer(x), linear(x))
    expected = layout_bytes((48, 64), 48 * 32, "2:4") + 48 * 4
    assert bytes_in_memory(layer) == expected and expected < bytes_on_disk(layer) < expected + 500
    half = TwoFourLinear.from_linear(linear.half())
    assert bytes_in_memory(half) - 48 * 2 == 48 * 64 * 2 * 9 // 16
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert str(layer) == "TwoFourLinear(in_features=64, out_features=48, bias=True)"


@pytest.mark.parametrize(
    ("make", "targets", "message"),
    [
        (lambda: mlp([64, 64]), None, "layer '1' lies on cpu; expected a CUDA GPU"),
        (SmallConvNet, nn.Conv2d, "layer 'blocks.0.0' is a Conv2d; expected an nn.Linear"),
        (nn.ReLU, None, "ReLU has no layer of the types Linear"),
    ],
)
def test_what_no_tensor_core_takes(make, targets, message):
    model = make()
    with pytest.raises(ValueError, match=message):
        to_semi_structured(model, targets)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_tensor_cores():
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("needs a GPU of the Ampere generation or later")
    model = mlp([4096, 4096, 4096]).half().cuda()
    with pytest.raises(ValueError, match="matrix is not 2:4"):
        to_semi_structured(model)
    apply_masks(model, n_m_masks({name: weight.abs() for name, weight in prunable_weights(model).items()}))
    dense = mlp([4096, 4096, 4096]).half().cuda()
    dense.load_state_dict(model.state_dict())
    x = torch.randn(4096, 4096, device="cuda", dtype=torch.half)
    to_semi_structured(model)
    with torch.no_grad():
        torch.testing.assert_close(model(x), dense(x), rtol=1e-2, atol=1e-2)
    times = latencies({"dense": dense, "2:4": model}, x)
    print({name: str(time) for name, time in times.items()})  # told, not asserted: it depends on the GPU
    with pytest.raises(ValueError, match="expected torch.float16 or torch.bfloat16"):
        to_semi_structured(dense.float())
