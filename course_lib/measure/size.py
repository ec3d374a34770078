"""How large a model is: its parameters, its bytes in memory, its bytes on disk."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.device import check_model


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """How many numbers the model learns; a parameter used in two places counts once.

    Args:
        trainable_only: leave out the parameters that are frozen (``requires_grad`` is False).
    """
    check_model(model)
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def count_nonzero(model: nn.Module) -> int:
    """How many of the parameters are not zero. A mask kept beside a weight does not make the weight zero."""
    check_model(model)
    return sum(int(part.count_nonzero()) for p in model.parameters() for part in value_tensors(p))


def bytes_in_memory(model: nn.Module) -> int:
    """Bytes that parameters and buffers occupy in memory; memory that two tensors share counts once.

    Sparse tensors count with their values and their indices.
    """
    check_model(model)
    storages = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for _, part in plain_tensors(tensor):
            storage = part.untyped_storage()
            storages[part.device, storage.data_ptr() or id(part)] = storage.nbytes()
    return sum(storages.values())


def bytes_on_disk(model: nn.Module) -> int:
    """Size of the file that the model's state dict makes, really written with safetensors and then removed.

    A tensor that the state dict names twice is written once, a sparse tensor as its values and indices.

    Raises:
        ValueError: the state dict holds something that is not a tensor, which safetensors cannot store.
    """
    from safetensors.torch import save_file

    check_model(model)
    tensors: dict[object, tuple[str, Tensor]] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(f"the state dict holds {name!r} of type {type(value).__name__}; expected only tensors")
        for part_name, part in plain_tensors(value):
            same = (part.device, part.data_ptr() or object(), part.dtype, part.shape, part.stride())
            tensors.setdefault(same, (name + part_name, part))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        # The clone unties what is left of shared memory: two different views of one storage, for instance.
        save_file({name: part.detach().contiguous().clone() for name, part in tensors.values()}, path)
        return path.stat().st_size


def compression_ratio(before: float, after: float) -> float:
    """``before / after`` for any one measure: 4.0 says that a quarter is left.

    Raises:
        ValueError: one of them is not a finite number above 0.
    """
    for name, value in (("before", before), ("after", after)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; expected a finite number above 0")
    return before / after


def plain_tensors(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The dense tensors that a tensor is made of, each with what to add to its name."""
    if tensor.layout == torch.sparse_coo:
        parts = {"indices": tensor._indices(), "values": tensor._values()}
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = {"crow": tensor.crow_indices(), "col": tensor.col_indices(), "values": tensor.values()}
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = {"ccol": tensor.ccol_indices(), "row": tensor.row_indices(), "values": tensor.values()}
    elif hasattr(tensor, "__tensor_flatten__"):  # a subclass that wraps others, as torchao's quantized tensors do
        parts = {name: getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]}
    else:
        yield "", tensor
        return
    for name, part in parts.items():
        for inner, plain in plain_tensors(part):
            yield f".{name}{inner}", plain


def value_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The dense tensors that hold the numbers themselves: no indices."""
    return (part for name, part in plain_tensors(tensor) if name in ("", ".values"))
