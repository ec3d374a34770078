"""Shapes worked out by hand are those that PyTorch gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from course_lib.pruning.graph.network import output_shapes


def shapes(function, *inputs):
    """What ``function`` gives, on shapes alone."""

    class Model(nn.Module):
        def forward(self, *args):
            return function(*args)

    return output_shapes(Model(), tuple(inputs), {}, None)


def same(function, *inputs):
    try:
        wanted = [tuple(function(*inputs).shape)]
    except RuntimeError:
        with pytest.raises(ValueError, match="cannot be run on the shape"):
            shapes(function, *inputs)
    else:
        if 0 in wanted[0]:  # some kernels of PyTorch give nothing, others refuse
            return
        assert shapes(function, *inputs) == wanted


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_convolutions_and_pools(data):
    one = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    dims, groups = one(1, 3), one(1, 2)
    each = lambda low, high: tuple(one(low, high) for _ in range(dims))  # noqa: E731
    value = torch.zeros(2, 4, *each(1, 7))
    kernel, stride, padding, dilation = each(1, 3), each(1, 3), each(0, 1), each(1, 2)
    weight = torch.zeros(6, 4 // groups, *kernel)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    same(lambda x: convolve(x, weight, None, stride, padding, dilation, groups), value)
    if stride == (1,) * dims:
        same(lambda x: convolve(x, weight, padding="same", groups=groups, dilation=dilation), value)
    transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
    back = torch.zeros(4, 3, *kernel)
    more = tuple(min(1, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
    same(lambda x: transposed(x, back, None, stride, padding, more, groups, dilation), value)
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    above = data.draw(st.booleans())
    largest = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    same(lambda x: largest(x, kernel, stride, padding, dilation, ceil_mode=above), value)
    mean = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dims - 1]
    if dims < 3:  # in three dimensions PyTorch refuses a kernel that fits only with padding
        same(lambda x: mean(x, kernel, stride, padding, above), value)
    adaptive = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[dims - 1]
    same(lambda x: adaptive(x, 2), value)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + x[:, :1],
        lambda x: (x > 0).float(),
        lambda x: F.layer_norm(x, (5,)),
        lambda x: F.linear(x, torch.zeros(7, 5)),
        lambda x: F.linear(x, torch.zeros(7, 6)),
        lambda x: F.softmax(x, 1),
        lambda x: x.half().to(torch.float64),
        lambda x: F.scaled_dot_product_attention(x, x, x[..., :2]),
        lambda x: F.max_pool2d(x[:, None], 2),
        lambda x: x.clone().add_(1).mul(x),
    ],
)
def test_other_operations(function):
    same(function, torch.zeros(2, 3, 5))
