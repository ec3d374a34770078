"""Layers that compute with a sparse weight, and a model turned into them and back.

    to_sparse(model, "csr")        # in place: every linear layer keeps only what is not zero
    to_dense(model)                # in place: linear layers again

PyTorch multiplies a sparse matrix by a dense one (``torch.sparse``), on a CPU and on a GPU. It has no sparse
convolution, so a convolution stays dense here: remove whole filters instead (``structured.py``).

The state dict of a sparse layer holds plain tensors, which any file format takes. Their sizes are those of the
entries, so a layer takes its sizes from what it loads::

    fresh = to_sparse(Net(), "csr")
    fresh.load_state_dict(saved)       # whatever the number of entries was

CSR has indices of 4 bytes here: PyTorch's kernels take them, and 8 are not needed below 2,147,483,648 weights. COO has
8, because PyTorch makes them so.
"""

import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from course_lib.layers import Targets, find_layers
from course_lib.storage.sparse import coo_to_csr, dense_to_coo
from course_lib.storage.two_four import TwoFourLinear

LAYOUTS = ("coo", "csr", "2:4")


class SparseLinear(nn.Module):
    """A linear layer whose weight is kept in COO or CSR: bytes and products for the values that are not zero.

    Parameters: ``values`` (n,) and ``bias`` (out,). They can be trained; a weight without an entry stays zero.
    Buffers: ``indices`` (2, n) in COO, ``row_starts`` (out + 1,) and ``columns`` (n,) in CSR.

    Shapes: (..., in) -> (..., out).

    Raises:
        ValueError: another layout.
    """

    def __init__(
        self, in_features: int, out_features: int, layout: Literal["coo", "csr"] = "csr", *, bias: bool = True
    ) -> None:
        """A layer without entries, with a bias of zero, to load a state dict into."""
        super().__init__()
        if layout not in ("coo", "csr"):
            raise ValueError(f"layout is {layout!r}; expected 'coo' or 'csr'")
        self.in_features, self.out_features, self.layout = in_features, out_features, layout
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self._keep(torch.zeros(out_features, in_features))

    @classmethod
    def from_linear(cls, linear: nn.Linear, layout: Literal["coo", "csr"] = "csr") -> "SparseLinear":
        """A sparse copy of ``linear``, which is left as it is.

        Raises:
            TypeError: ``linear`` is no ``nn.Linear``.
            ValueError: another layout.
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear is a {type(linear).__name__}; expected an nn.Linear")
        layer = cls(linear.in_features, linear.out_features, layout, bias=linear.bias is not None)
        layer._keep(linear.weight.detach(), requires_grad=linear.weight.requires_grad)
        if linear.bias is not None:
            layer.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=linear.bias.requires_grad)
        return layer.train(linear.training)

    def sparse_weight(self) -> Tensor:
        """The weight as PyTorch's sparse tensor (out, in), made of the layer's own tensors without a copy."""
        size = (self.out_features, self.in_features)
        if self.layout == "coo":
            return torch.sparse_coo_tensor(self.indices, self.values, size, is_coalesced=True, check_invariants=False)
        return torch.sparse_csr_tensor(self.row_starts, self.columns, self.values, size, check_invariants=False)

    def dense_weight(self) -> Tensor:
        """The weight (out, in), with its zeros."""
        return self.sparse_weight().to_dense()

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs`` (..., in) times the weight, plus the bias: (..., out)."""
        if inputs.shape[-1:] != (self.in_features,):
            raise ValueError(f"inputs is {tuple(inputs.shape)}; expected (..., {self.in_features})")
        columns = inputs.reshape(-1, self.in_features).T  # (in, N): PyTorch wants the sparse matrix on the left
        weight = self.sparse_weight()
        # (out, in) @ (in, N) -> (out, N)
        product = weight @ columns if self.bias is None else torch.addmm(self.bias[:, None], weight, columns)
        return product.T.contiguous().view(*inputs.shape[:-1], self.out_features)  # contiguous, as nn.Linear gives it

    def extra_repr(self) -> str:
        """The sizes, as ``nn.Linear`` shows them, the layout and the number of entries."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, layout={self.layout!r}, entries={len(self.values)}"

    def _keep(self, weight: Tensor, *, requires_grad: bool = True) -> None:
        coo = dense_to_coo(weight)
        self.values = nn.Parameter(coo.values, requires_grad=requires_grad)
        if self.layout == "coo":
            self.register_buffer("indices", coo.indices)
            return
        csr = coo_to_csr(coo)
        index = torch.int32 if weight.numel() < 2**31 else torch.int64
        self.register_buffer("row_starts", csr.row_starts.to(index))
        self.register_buffer("columns", csr.columns.to(index))
        with warnings.catch_warnings():  # PyTorch says once in a process that CSR is in beta: here, and not to a reader
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            self.sparse_weight()

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        """Take the number of entries from what is loaded; what no matrix of this layer's sizes can hold is refused."""
        names = ["values", *(["indices"] if self.layout == "coo" else ["columns"])]
        loaded = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
        if len(loaded) == len(names):
            if problem := self._problem(loaded, state_dict.get(prefix + "row_starts")):
                errors.append(f"{prefix}{problem}")
                return
            self.values = nn.Parameter(self.values.new_empty(loaded["values"].shape), self.values.requires_grad)
            setattr(self, names[1], getattr(self, names[1]).new_empty(loaded[names[1]].shape))
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)

    def _problem(self, loaded: dict[str, Tensor], row_starts: Tensor | None) -> str:
        """What is wrong with the entries that are to be loaded; an empty text if nothing is."""
        count = len(loaded["values"])
        if self.layout == "coo":
            rows_columns = loaded["indices"]
            limits = (self.out_features, self.in_features)
            if rows_columns.shape != (2, count):
                return f"indices is {tuple(rows_columns.shape)}; expected (2, {count}), as there are values"
            outside = any(((i < 0) | (i >= limit)).any() for i, limit in zip(rows_columns, limits, strict=True))
            return f"indices lie outside of {limits}, the sizes of this layer" if outside else ""
        columns = loaded["columns"]
        if columns.shape != (count,) or ((columns < 0) | (columns >= self.in_features)).any():
            return f"columns are not {count} numbers from 0 to {self.in_features - 1}"
        if row_starts is None:
            return ""  # reported as missing
        right = row_starts.shape == (self.out_features + 1,) and row_starts[0] == 0 and row_starts[-1] == count
        rising = right and not (row_starts.diff() < 0).any()
        return "" if rising else f"row_starts are not {self.out_features + 1} numbers that rise from 0 to {count}"


def to_sparse(
    model: nn.Module, layout: Literal["coo", "csr", "2:4"] = "csr", targets: Targets | None = None
) -> nn.Module:
    """Turn linear layers into ``SparseLinear`` (for 2:4 ``TwoFourLinear``), in place, and return the model.

    Smaller and faster only below the densities that ``crossover.crossover`` measures.

    Args:
        targets: as in ``layers.find_layers``; none: every layer of the type ``nn.Linear``, subclasses left out.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: another layout, nothing that matches a target, a layer that is not of the type ``nn.Linear`` or is
            the model itself, a weight that another layer shares, masks that are still held, or a weight that is not
            2:4. The model is then as it was.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; expected one of {', '.join(map(repr, LAYOUTS))}")
    layers = find_layers(model, targets, kinds=(nn.Linear,))
    if targets is None:
        layers = {name: layer for name, layer in layers.items() if type(layer) is nn.Linear}
    if hasattr(model, "_held_masks"):
        raise ValueError("the model holds masks; call release_masks(model) first: the zeros stay zero")
    for name, layer in layers.items():
        _check_layer(model, name, layer)
    kind = TwoFourLinear.from_linear if layout == "2:4" else (lambda layer: SparseLinear.from_linear(layer, layout))
    return _replace(model, {layer: kind(layer) for layer in layers.values()})


def to_dense(model: nn.Module) -> nn.Module:
    """Turn the sparse layers of ``model`` back into ``nn.Linear``, in place, and return the model.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: it has no sparse layer, or is one itself.
    """
    layers = find_layers(model, kinds=(SparseLinear, TwoFourLinear))
    if "" in layers:
        raise ValueError(f"model is a {type(model).__name__} itself; use its dense_weight()")
    return _replace(model, {layer: _linear(layer) for layer in layers.values()})


def _linear(layer: SparseLinear | TwoFourLinear) -> nn.Linear:
    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    trained = layer.values.requires_grad
    linear.weight = nn.Parameter(layer.dense_weight().detach(), requires_grad=trained)
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=layer.bias.requires_grad)
    return linear.train(layer.training)


def _replace(model: nn.Module, new: dict[nn.Module, nn.Module]) -> nn.Module:
    """Put the new modules where the old ones are, wherever that is."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # a child that stands under two names is in here twice
            if child in new:
                setattr(parent, name, new[child])
    return model


def _check_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    if not name:
        raise ValueError("model is the layer itself and cannot be replaced in place; use SparseLinear.from_linear")
    if type(layer) is not nn.Linear:
        raise ValueError(
            f"layer {name!r} is a {type(layer).__name__}; expected nn.Linear: others have no sparse kernel"
        )
    if "weight" not in layer._parameters:
        raise ValueError(f"layer {name!r} has no parameter 'weight': take off what computes it (masks of prune) first")
    for other, module in model.named_modules():
        if module is not layer and any(p is layer.weight for p in module._parameters.values()):
            raise ValueError(f"layers {name!r} and {other!r} share a weight; a sparse copy would save no bytes")
