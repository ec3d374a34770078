"""Linear layers whose weight is stored in fewer bytes, and a model turned into them and back.

    to_sparse(model, "csr")        # in place: every linear layer keeps only what is not zero
    to_dense(model)                # in place: linear layers again

PyTorch multiplies a sparse matrix by a dense one (``torch.sparse``), on a CPU and on a GPU. It has no sparse
convolution, so a convolution stays dense here: remove whole filters instead (``pruning.structured``).

The state dict of a stored layer holds plain tensors, which any file format takes. Those of a sparse layer have as many
entries as the weight, so a layer takes its sizes from what it loads::

    fresh = to_sparse(Net(), "csr")
    fresh.load_state_dict(saved)       # whatever the number of entries was

CSR has indices of 4 bytes here: PyTorch's kernels take them, and 8 are not needed below 2,147,483,648 weights. COO has
8, because PyTorch makes them so.
"""

import warnings
from collections.abc import Callable
from typing import Literal, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checking import check_choice, check_type
from course_lib.layers import Targets, find_layers, replace_layers
from course_lib.storage.sparse import coo_to_csr, dense_to_coo
from course_lib.storage.two_four import pack_2_4, unpack_2_4

Model = TypeVar("Model", bound=nn.Module)


class StoredLinear(nn.Module):
    """A linear layer that keeps its weight in another form. Each kind of it says how, in ``store`` and ``weight``.

    ``weight`` (out, in) is made anew each time it is read, with gradients where the layer has them. So modules that
    read it in place of calling the layer get the right numbers; writing into it changes nothing.

    Shapes: (..., in) -> (..., out).
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        """A layer whose weight and bias are zero, to load a state dict into."""
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.store(nn.Parameter(torch.zeros(out_features, in_features)))

    @classmethod
    def from_linear(cls, linear: nn.Linear, *options: object) -> Self:
        """A stored copy of ``linear``, which is left as it is; ``options`` are those of the kind, such as a layout.

        Raises:
            TypeError: ``linear`` is no ``nn.Linear``.
            ValueError: what the kind refuses.
        """
        check_type("linear", linear, nn.Linear, "an nn.Linear")
        layer = cls(linear.in_features, linear.out_features, *options, bias=linear.bias is not None)
        if linear.bias is not None:
            layer.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=linear.bias.requires_grad)
        layer.store(linear.weight)
        return layer.train(linear.training)

    def to_linear(self) -> nn.Linear:
        """A dense copy of this layer."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        trained = any(parameter.requires_grad for name, parameter in self.named_parameters() if name != "bias")
        linear.weight = nn.Parameter(self.weight.detach(), requires_grad=trained)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=self.bias.requires_grad)
        return linear.train(self.training)

    def store(self, weight: nn.Parameter) -> None:
        """Keep ``weight`` (out, in), which is left as it is."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """The dense weight (out, in), made of what is stored."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs`` (..., in) times the weight, plus the bias: (..., out)."""
        return F.linear(inputs, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes, as ``nn.Linear`` shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class SparseLinear(StoredLinear):
    """A linear layer whose weight is kept in COO or CSR: bytes and products for the values that are not zero.

    Parameters: ``values`` (n,) and ``bias`` (out,). They can be trained; a weight without an entry stays zero.
    Buffers: ``indices`` (2, n) in COO, ``row_starts`` (out + 1,) and ``columns`` (n,) in CSR.

    Raises:
        ValueError: another layout.
    """

    def __init__(
        self, in_features: int, out_features: int, layout: Literal["coo", "csr"] = "csr", *, bias: bool = True
    ) -> None:
        """A layer without entries, with a bias of zero, to load a state dict into."""
        check_choice("layout", layout, ("coo", "csr"))
        self.layout = layout  # the first weight is stored inside
        super().__init__(in_features, out_features, bias=bias)

    def store(self, weight: nn.Parameter) -> None:
        """Keep the values of ``weight`` that are not zero."""
        coo = dense_to_coo(weight.detach())
        self.values = nn.Parameter(coo.values, requires_grad=weight.requires_grad)
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

    def sparse_weight(self) -> Tensor:
        """The weight as PyTorch's sparse tensor (out, in), made of the layer's own tensors without a copy."""
        return self._matrix(self.values, *self._places().values())

    @property
    def weight(self) -> Tensor:
        """The dense weight (out, in), with its zeros."""
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
        """The sizes, the layout and the number of entries."""
        return f"{super().extra_repr()}, layout={self.layout!r}, entries={len(self.values)}"

    def _places(self) -> dict[str, Tensor]:
        names = ("indices",) if self.layout == "coo" else ("row_starts", "columns")
        return {name: getattr(self, name) for name in names}

    def _matrix(self, values: Tensor, *places: Tensor, check: bool = False) -> Tensor:
        """PyTorch's sparse tensor of these parts; with ``check`` it raises a RuntimeError if they make none."""
        size = (self.out_features, self.in_features)
        if self.layout == "coo":
            return torch.sparse_coo_tensor(*places, values, size, is_coalesced=True, check_invariants=check)
        return torch.sparse_csr_tensor(*places, values, size, check_invariants=check)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        """Take the number of entries from what is loaded; what no matrix of this layer's sizes can hold is refused."""
        own = {"values": self.values, **self._places()}
        loaded = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        if len(loaded) == len(own):  # what is missing is reported below
            values, *places = loaded.values()
            try:
                self._matrix(values, *(place.long() for place in places), check=True)
            except RuntimeError as error:
                errors.append(f"{prefix}{', '.join(own)}: {error}")
                return
            self.values = nn.Parameter(self.values.new_empty(values.shape), self.values.requires_grad)
            for name in list(own)[1:]:
                setattr(self, name, own[name].new_empty(loaded[name].shape))
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)


class TwoFourLinear(StoredLinear):
    """A linear layer whose weight is packed 2:4. It unpacks in every call: small in memory and on disk, not fast.

    The state dict holds plain tensors: ``values`` (out, in/2), ``places`` (uint8), and ``bias``. Frozen: a gradient
    could not move a value to another place.
    """

    def store(self, weight: nn.Parameter) -> None:
        """Pack ``weight``; raises a ValueError if it is not 2:4."""
        values, places = pack_2_4(weight.detach())
        self.values = nn.Parameter(values, requires_grad=False)
        self.register_buffer("places", places)
        self.requires_grad_(False)

    @property
    def weight(self) -> Tensor:
        """The dense weight (out, in), with its zeros."""
        return unpack_2_4(self.values, self.places)


def to_sparse(model: Model, layout: Literal["coo", "csr", "2:4"] = "csr", targets: Targets | None = None) -> Model:
    """Turn linear layers into ``SparseLinear`` (for 2:4 ``TwoFourLinear``), in place, and return the model.

    Smaller and faster only below the densities that ``crossover.crossover`` measures.

    Raises:
        TypeError, ValueError: as ``store_layers``; another layout, or a weight that is not 2:4.
    """
    check_choice("layout", layout, ("coo", "csr", "2:4"))
    if layout == "2:4":
        return store_layers(model, TwoFourLinear.from_linear, targets)
    return store_layers(model, lambda linear: SparseLinear.from_linear(linear, layout), targets)


def store_layers(model: Model, stored: Callable[[nn.Linear], StoredLinear], targets: Targets | None = None) -> Model:
    """Turn linear layers into what ``stored`` makes of them, in place, and return the model.

    Args:
        targets: as in ``layers.find_layers``; None: every layer of the type ``nn.Linear``, subclasses left out.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: nothing that matches a target, a layer that is not of the type ``nn.Linear`` or is the model itself,
            a weight that is computed or that another layer shares, hooks on a layer or its weight, as held masks have
            them, or what ``stored`` refuses. The model is then as it was.
    """
    layers = find_layers(model, targets, kinds=(nn.Linear,))
    if targets is None:
        layers = {name: layer for name, layer in layers.items() if type(layer) is nn.Linear}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no layer of the type nn.Linear itself: there is nothing to store")
    _check_layers(model, layers)
    new = {}
    for name, layer in layers.items():
        try:
            new[name] = stored(layer)
        except ValueError as error:
            raise ValueError(f"layer {name!r} cannot be stored: {error}") from error
    replace_layers(model, new)
    return model


def to_dense(model: Model) -> Model:
    """Turn the stored layers of ``model`` back into ``nn.Linear``, in place, and return the model.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: it has no stored layer, or is one itself: that has ``to_linear()``.
    """
    layers = find_layers(model, kinds=(StoredLinear,))
    replace_layers(model, {name: layer.to_linear() for name, layer in layers.items()})
    return model


def _check_layers(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Raise a ``ValueError`` unless each layer is a plain ``nn.Linear`` with a weight of its own and without hooks."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), []).append(name)
    for name, layer in layers.items():
        if type(layer) is not nn.Linear:
            kind = type(layer).__name__
            raise ValueError(f"layer {name!r} is a {kind}; expected nn.Linear: others have no kernel for this")
        if "weight" not in layer._parameters:
            raise ValueError(f"layer {name!r} has no parameter 'weight': take off what computes it (masks of prune)")
        if others := [owner for owner in owners[id(layer.weight)] if owner != name]:
            raise ValueError(f"layers {name!r} and {others[0]!r} share a weight; a stored copy would save no bytes")
        if layer._forward_pre_hooks or layer._forward_hooks or layer.weight._backward_hooks:
            raise ValueError(
                f"layer {name!r} or its weight has hooks, which a stored layer would lose; take them off first "
                "(held masks with release_masks: the zeros stay zero)"
            )
