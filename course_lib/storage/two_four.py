"""2:4 sparsity: of every four neighbours in a row at most two are not zero.

Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks" (arXiv 2104.08378). NVIDIA's tensor cores, from the
Ampere generation on, read two values of every four together with their places, and fetch only the inputs at these
places: half the products, half the values to read. ``masks.n_m_masks`` makes such masks.

Packed, a matrix (R, C) is ``values`` (R, C/2) and ``places``, 2 bits for each value, four in a byte, the first in the
lowest bits. In fp16 that is (2·16 + 2·2) / (4·16) = 9/16 of the dense bytes.

A CPU has no such unit. ``linear.TwoFourLinear`` saves the bytes there, and pays for it by unpacking in every call.
``to_semi_structured`` hands the weights to PyTorch's kernels on a GPU that has the unit.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.layers import Targets, find_layers
from course_lib.storage.sparse import check_matrix

PLACES_IN_A_BYTE = 4


def pack_2_4(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """``values`` (R, C/2) and ``places`` (R·C/8 rounded up, uint8) of a 2:4 matrix (R, C). A nan is no zero.

    Where a group of four has fewer than two values, its first zeros are kept along.

    Raises:
        TypeError: ``matrix`` is no tensor.
        ValueError: it is not (R, C), 4 does not divide C, or some group has more than two values that are not zero.
    """
    groups = _groups(matrix)  # (R, C/4, 4)
    # False sorts before True, and a stable sort keeps the order among equals: the two kept places come first.
    kept = (groups == 0).long().argsort(dim=-1, stable=True)[..., :2].sort(dim=-1).values  # (R, C/4, 2)
    values = groups.gather(-1, kept).flatten(1)  # (R, C/2)
    codes = kept.flatten().to(torch.uint8)  # (R·C/2,), each 0 to 3
    codes = F.pad(codes, (0, -len(codes) % PLACES_IN_A_BYTE)).view(-1, PLACES_IN_A_BYTE)
    return values, (codes << _shifts(codes.device)).sum(-1).to(torch.uint8)


def unpack_2_4(values: Tensor, places: Tensor) -> Tensor:
    """The matrix (R, C) that ``pack_2_4`` packed.

    Raises:
        ValueError: shapes or types that ``pack_2_4`` does not make.
    """
    if values.dim() != 2 or values.shape[1] % 2:
        raise ValueError(f"values is {tuple(values.shape)}; expected (R, C/2), with C a multiple of 4")
    expected = math.ceil(values.numel() / PLACES_IN_A_BYTE)
    if places.dtype != torch.uint8 or places.shape != (expected,):
        raise ValueError(f"places is {tuple(places.shape)}, {places.dtype}; expected ({expected},), torch.uint8")
    codes = (places[:, None] >> _shifts(places.device)) & 3  # (bytes, 4)
    kept = codes.flatten()[: values.numel()].view(len(values), -1, 2).long()  # (R, C/4, 2)
    groups = values.new_zeros(*kept.shape[:2], 4)
    return groups.scatter(-1, kept, values.view(kept.shape)).flatten(1)  # (R, C/4, 4) -> (R, C)


def to_semi_structured(model: nn.Module, targets: Targets | None = None) -> nn.Module:
    """Hand 2:4 weights to PyTorch's kernels for tensor cores, in place: really faster where the layers are large.

    The weights have to lie on a CUDA GPU of the Ampere generation or later, in float16 or bfloat16. They are frozen,
    and ``weight.to_dense()`` gives them back.

    Args:
        targets: as in ``layers.find_layers``; None: all linear layers.

    Raises:
        ValueError: a layer that is not linear, not on such a GPU, of another format, or not 2:4.
    """
    from torch.sparse import to_sparse_semi_structured

    layers = find_layers(model, targets, kinds=(nn.Linear,))
    for name, layer in layers.items():
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"layer {name!r} is a {type(layer).__name__}; expected an nn.Linear")
        weight = layer.weight
        if weight.device.type != "cuda" or torch.cuda.get_device_capability(weight.device) < (8, 0):
            raise ValueError(f"layer {name!r} lies on {weight.device}; expected a CUDA GPU with 2:4 tensor cores (8.0)")
        if weight.dtype not in (torch.float16, torch.bfloat16):
            raise ValueError(f"the weight of {name!r} is {weight.dtype}; expected torch.float16 or torch.bfloat16")
        _groups(weight)
    packed = {name: to_sparse_semi_structured(layer.weight.detach()) for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.weight = nn.Parameter(packed[name], requires_grad=False)
    return model


def _shifts(device: torch.device) -> Tensor:
    return torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=device)


def _groups(matrix: Tensor) -> Tensor:
    """The groups of four neighbours (R, C/4, 4) of a matrix that is 2:4."""
    check_matrix(matrix)
    if matrix.shape[1] % 4:
        raise ValueError(f"matrix is {tuple(matrix.shape)}; expected a number of columns that 4 divides")
    groups = matrix.unflatten(1, (-1, 4))
    count = groups.count_nonzero(dim=-1)  # (R, C/4)
    if (count > 2).any():
        row, group = (count > 2).nonzero()[0].tolist()
        raise ValueError(
            f"matrix is not 2:4: row {row} has {count[row, group]} values that are not zero in columns {4 * group} to "
            f"{4 * group + 3}; expected at most 2, see masks.n_m_masks"
        )
    return groups
