"""FLOPs: by hand, against what torchvision publishes of its models, and with everything put back."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.measure import count_parameters, flops
from course_lib.models.vision import mlp


class Calls(nn.Module):
    """A function as a model."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


@pytest.fixture(autouse=True)
def nothing_left_out():
    """A count that leaves something out is an error, where a test does not expect the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the FLOPs of")
        yield


def test_linear_by_hand():
    assert flops(nn.Linear(3, 4), torch.randn(2, 3)) == 2 * 2 * 3 * 4  # 2 examples, a multiply-add is 2
    assert flops(mlp([3, 4, 2]), torch.randn(1, 3)) == 2 * (3 * 4 + 4 * 2) == 40


def test_convolution_by_hand():
    picture = torch.randn(1, 2, 6, 6)
    assert flops(nn.Conv2d(2, 5, 3, padding=1), picture) == 2 * (5 * 6 * 6) * (2 * 3 * 3)
    assert flops(nn.Conv2d(2, 5, 3), picture) == 2 * (5 * 4 * 4) * (2 * 3 * 3)  # no padding: 4 × 4 places
    assert flops(nn.Conv2d(2, 4, 3, padding=1, groups=2), picture) == 2 * (4 * 6 * 6) * (1 * 3 * 3)


# A matrix (4, 6) with 4 values in its upper half, which are one block of 2 × 2.
MATRIX = torch.zeros(4, 6)
MATRIX[:2, 2:4] = torch.arange(1.0, 5.0).view(2, 2)
COO, CSR, CSC, BSR = MATRIX.to_sparse(), MATRIX.to_sparse_csr(), MATRIX.to_sparse_csc(), MATRIX.to_sparse_bsr((2, 2))
RIGHT, VECTOR, INPUTS = torch.randn(6, 5), torch.randn(6), torch.randn(3, 6)


@pytest.mark.parametrize("matrix", [COO, CSR, CSC, BSR], ids=["COO", "CSR", "CSC", "BSR"])
@pytest.mark.parametrize(
    ("product", "columns"),
    [
        (lambda matrix: matrix @ RIGHT, 5),
        (lambda matrix: torch.sparse.mm(matrix, RIGHT), 5),
        (lambda matrix: torch.addmm(torch.zeros(4, 5), matrix, RIGHT), 5),
        (lambda matrix: torch.sparse.addmm(torch.zeros(4, 5), matrix, RIGHT), 5),
        (lambda matrix: matrix @ VECTOR, 1),
        (lambda matrix: F.linear(INPUTS, matrix), 3),
    ],
    ids=["@", "sparse.mm", "addmm", "sparse.addmm", "vector", "linear"],
)
def test_a_sparse_product_counts_what_the_matrix_keeps(product, columns, matrix):
    assert flops(Calls(product), matrix) == 2 * 4 * columns
    if product(MATRIX) is not None:
        assert flops(Calls(product), MATRIX) == 2 * 24 * columns


@pytest.mark.parametrize(
    ("product", "multiply_adds"),
    [
        (lambda: torch.addmv(torch.zeros(4), CSR, VECTOR), 4),
        (lambda: torch.sparse.mm(CSR, RIGHT, "sum"), 4 * 5),
        (lambda: torch.sparse.sampled_addmm(CSR, torch.randn(4, 7), torch.randn(7, 6)), 4 * 7),
        (lambda: torch.bmm(torch.stack([COO, COO]), torch.randn(2, 6, 5)), 2 * 4 * 5),
        (lambda: torch.hspmm(COO, RIGHT), 4 * 5),
        (lambda: torch.smm(COO, RIGHT), 4 * 5),
    ],
    ids=["addmv", "sum", "sampled", "batch", "hspmm", "smm"],
)
def test_other_sparse_products(product, multiply_adds):
    assert flops(Calls(product)) == 2 * multiply_adds


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_two_sparse_matrices_count_the_pairs_that_meet(layout):
    torch.manual_seed(0)
    left, right = (torch.randn(size) * (torch.rand(size) < 0.4) for size in ((5, 6), (6, 7)))
    meet = sum(bool(left[i, k] != 0 and right[k, j] != 0) for i in range(5) for k in range(6) for j in range(7))
    inputs = left.to_sparse(layout=layout), right.to_sparse(layout=layout)
    assert 0 < meet < 5 * 6 * 7
    assert flops(Calls(torch.matmul), *inputs) == 2 * meet


def test_fused_attention_by_hand():
    q = torch.randn(1, 2, 16, 8)  # 1 example, 2 heads, 16 places, 8 numbers each
    scores, mixing = 2 * 2 * 16 * 16 * 8, 2 * 2 * 16 * 16 * 8
    assert flops(Calls(F.scaled_dot_product_attention), q, q, q) == scores + mixing


ATTENTION = 2 * 4 * 8 * 24 + 2 * (2 * 4 * 4 * 8) + 2 * 4 * 8 * 8  # in: q, k, v; scores and mixing; out


def test_multihead_attention_by_hand():
    class SelfAttention(nn.Module):
        def __init__(self, need_weights):
            super().__init__()
            self.inner, self.need_weights = nn.MultiheadAttention(8, 2, batch_first=True), need_weights

        def forward(self, x):
            return self.inner(x, x, x, need_weights=self.need_weights)

    x = torch.randn(1, 4, 8)
    assert flops(SelfAttention(True), x) == flops(SelfAttention(False), x) == ATTENTION == 2560


def test_transformer_layer_by_hand_in_either_mode():
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    for mode in (True, False):
        assert flops(layer.train(mode), torch.randn(1, 4, 8)) == ATTENTION + 2 * (2 * 4 * 8 * 16)
    stack = nn.TransformerEncoder(layer, 3)
    assert flops(stack, torch.randn(1, 4, 8)) == 3 * (ATTENTION + 2 * (2 * 4 * 8 * 16))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(1, 5))
def test_flops_of_any_perceptron(sizes, batch):
    products = sum(n_in * n_out for n_in, n_out in zip(sizes, sizes[1:], strict=False))
    assert flops(mlp(sizes), torch.randn(batch, sizes[0])) == 2 * batch * products


# Products that PyTorch's counter takes for nothing

BFLOAT = {"dtype": torch.bfloat16}


@pytest.mark.parametrize(
    ("product", "multiply_adds"),
    [
        (lambda: torch.mv(torch.zeros(3, 4), torch.zeros(4)), 3 * 4),
        (lambda: torch.addmv(torch.zeros(3), torch.zeros(3, 4), torch.zeros(4)), 3 * 4),
        (lambda: torch.dot(torch.zeros(4), torch.zeros(4)), 4),
        (lambda: torch.vdot(torch.zeros(4), torch.zeros(4)), 4),
        (lambda: torch.addbmm(torch.zeros(3, 5), torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)), 2 * 3 * 4 * 5),
        (lambda: torch.zeros(3, 5).addmm_(torch.zeros(3, 4), torch.zeros(4, 5)), 3 * 4 * 5),
        (lambda: torch.zeros(3).addmv_(torch.zeros(3, 4), torch.zeros(4)), 3 * 4),
        (lambda: torch.zeros(2, 3, 5).baddbmm_(torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)), 2 * 3 * 4 * 5),
        (lambda: torch.mm(torch.zeros(3, 4), torch.zeros(4, 5), out=torch.zeros(3, 5)), 3 * 4 * 5),
        # 2 examples, 3 and 4 inputs, 5 outputs: first 2 × 5 × 4 sums of 3, then 2 × 5 sums of 4.
        (lambda: nn.Bilinear(3, 4, 5)(torch.zeros(2, 3), torch.zeros(2, 4)), 2 * 5 * 4 * 3 + 2 * 5 * 4),
        (lambda: torch.conv_tbc(torch.zeros(9, 2, 3), torch.zeros(2, 3, 4), torch.zeros(4)), 8 * 2 * 4 * 2 * 3),
        (
            lambda: F.embedding_bag(
                torch.tensor([[1, 2, 0], [3, 4, 0]]), torch.zeros(9, 6), mode="sum", per_sample_weights=torch.ones(2, 3)
            ),
            2 * 3 * 6,
        ),
        (lambda: torch._int_mm(torch.zeros(32, 16).char(), torch.zeros(16, 8).char()), 32 * 16 * 8),
        (
            lambda: torch._weight_int8pack_mm(
                torch.zeros(8, 16, **BFLOAT), torch.zeros(4, 16).char(), torch.ones(4, **BFLOAT)
            ),
            8 * 16 * 4,
        ),
        (
            lambda: F.grouped_mm(
                torch.zeros(8, 16, **BFLOAT), torch.zeros(2, 16, 8, **BFLOAT), offs=torch.tensor([4, 8]).int()
            ),
            8 * 16 * 8,
        ),
        (lambda: F.grouped_mm(torch.zeros(2, 8, 16, **BFLOAT), torch.zeros(2, 16, 8, **BFLOAT)), 2 * 8 * 16 * 8),
        (
            lambda: F.grouped_mm(
                torch.zeros(16, 8, **BFLOAT).t(), torch.zeros(16, 8, **BFLOAT), offs=torch.tensor([8, 16]).int()
            ),
            8 * 16 * 8,
        ),
    ],
)
def test_products_by_hand(product, multiply_adds):
    assert flops(Calls(product)) == 2 * multiply_adds


@pytest.mark.parametrize(
    ("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1), (nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)]
)
def test_recurrent_layers_by_hand(layer, gates):
    # Each gate has a product of the input (5 × 6) and one of the state (6 × 6), at 7 places or for 7 examples.
    inputs = torch.randn(7, 5) if layer.__name__.endswith("Cell") else torch.randn(7, 1, 5)
    assert flops(layer(5, 6), inputs) == 7 * 2 * gates * (5 * 6 + 6 * 6)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: torch.linalg.qr(torch.eye(3)), "aten.linalg_qr"),
        (lambda: torch.linalg.inv(torch.eye(3)), "aten.linalg_inv_ex"),
        (lambda: torch.linalg.svd(torch.eye(3)), "aten._linalg_svd"),
        (lambda: torch.linalg.cholesky(torch.eye(3)), "aten.linalg_cholesky_ex"),
        (lambda: torch.linalg.solve(torch.eye(3), torch.ones(3)), "aten._linalg_solve_ex"),
        (lambda: torch.cholesky_solve(torch.ones(3, 1), torch.eye(3)), "aten.cholesky_solve"),
        (lambda: torch.fft.fft(torch.zeros(8)), "aten._fft_r2c"),
        (lambda: torch.stft(torch.zeros(99), 8, window=torch.ones(8), return_complex=True), "aten._fft_r2c"),
        (lambda: torch.cdist(torch.zeros(3, 4), torch.zeros(5, 4)), "aten._cdist_forward"),
        (lambda: torch.cdist(torch.zeros(30, 4), torch.zeros(50, 4)), "aten._euclidean_dist"),
        (lambda: F.pdist(torch.zeros(3, 4)), "aten._pdist_forward"),
        (lambda: torch.ops._test.scaled_product(torch.zeros(2, 3), torch.zeros(3, 2)), "_test.scaled_product"),
    ],
)
def test_what_is_not_known_is_named(call, name):
    with torch.library._scoped_library("_test", "FRAGMENT") as library:
        library.define("scaled_product(Tensor left, Tensor right) -> Tensor")
        library.impl("scaled_product", lambda left, right: 2 * left @ right, "CompositeExplicitAutograd")
        with pytest.warns(UserWarning, match=rf"the FLOPs of {name} \(called 2×\) are not known"):
            assert flops(Calls(lambda x: (call(), call(), x @ x)), torch.zeros(2, 2)) == 2 * 2 * 2 * 2


def test_what_has_no_products_is_not_named():
    picture = torch.randn(2, 3, 8, 8)
    layers = [
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Softmax(1),
    ]
    assert flops(nn.Sequential(*layers, nn.Softmax(1), nn.Flatten(), nn.LayerNorm(192), nn.Dropout()), picture) == 0
    assert flops(nn.EmbeddingBag(10, 6), torch.tensor([[1, 2], [3, 4]])) == 0
    vector = torch.randn(3, 4)
    assert (
        flops(Calls(lambda x: (x.cumsum(0), x.cummax(0), torch.lgamma(x), x.norm(), x.sort(), x.conj())), vector) == 0
    )


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 224), ("mobilenet_v2", 224), ("vit_b_16", 224), ("swin_v2_t", 256)]
)
def test_against_what_torchvision_publishes(name, size):
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    published = models.get_model_weights(name).DEFAULT
    with torch.device("meta"):  # shapes without numbers
        model, picture = models.get_model(name), torch.empty(1, 3, size, size)
    assert count_parameters(model) == published.meta["num_params"]
    assert flops(model, picture) == pytest.approx(2e9 * published.meta["_ops"], rel=2e-3)  # they give multiply-adds


def test_counting_puts_everything_back():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flops(model, torch.randn(8, 4))
    assert [module.training for module in model.modules()] == [True, True, True, False]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("fast_path", [True, False])
def test_switches_are_put_back_even_after_an_error(fast_path):
    def switches():
        mkldnn, cudnn = torch.backends.mkldnn, torch.backends.cudnn
        sdp = (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled())
        return (torch.backends.mha.get_fastpath_enabled(), mkldnn.enabled, cudnn.enabled, cudnn.benchmark, *sdp)

    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast_path)
    try:
        before = switches()
        with pytest.raises(RuntimeError):
            flops(nn.Linear(3, 4), torch.randn(2, 5))
        assert switches() == before
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def test_only_a_model_has_flops():
    with pytest.raises(TypeError, match="model is a builtin_function_or_method"):
        flops(torch.relu, torch.randn(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu():
    assert flops(nn.Linear(256, 512).cuda(), torch.randn(64, 256, device="cuda")) == 2 * 64 * 256 * 512
    q = torch.randn(1, 2, 16, 8, device="cuda")
    assert flops(Calls(F.scaled_dot_product_attention), q, q, q) == 2 * (2 * 2 * 16 * 16 * 8)
    assert flops(nn.LSTM(5, 6).cuda(), torch.randn(7, 1, 5, device="cuda")) == 7 * 2 * 4 * (5 * 6 + 6 * 6)
