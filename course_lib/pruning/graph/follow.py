"""One pass through a network, which finds for every axis of every tensor in it which channels lie along it.

The forward pass is run on a copy whose tensors have shapes and no numbers (``hollow.py``). PyTorch hands every
operation to ``Pass`` first, which works out the shapes, asks the rule of the operation which channels the result has
and which have to be tied for it, and remembers the answer for each tensor. To the rules, parameters are tensors with
channels like all others; so a bias, a class token, the scale beside a layer or a mask as large as a weight is followed
without being known. An operation without a rule needs all channels that come into it.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from course_lib.pruning.checks import first_line
from course_lib.pruning.graph import arithmetic, moves, shapes, weights
from course_lib.pruning.graph.call import Call
from course_lib.pruning.graph.channels import Attribute, Axes, Channels
from course_lib.pruning.graph.hollow import hollow, hollow_copy
from course_lib.pruning.graph.sizes import Number, Sizes, plain, value_of

RULES = arithmetic.RULES | moves.RULES | weights.RULES
SIZED = moves.SIZED | weights.SIZED
# What the code may look at without a consequence for channels, and what it may not look at: numbers that are not there.
METADATA = frozenset(
    "dim ndim dtype device layout is_cuda is_cpu is_meta is_mps is_sparse is_quantized is_nested is_leaf requires_grad "
    "is_floating_point is_complex is_contiguous grad grad_fn names requires_grad_ get_device is_tensor ndimension "
    "_is_view is_inference register_hook has_names retain_grad is_mkldnn is_xpu _version".split()
)
NUMBERS = frozenset(
    "item tolist numpy __bool__ __int__ __float__ __index__ __complex__ __array__ __contains__ equal allclose "
    "is_nonzero nonzero unique unique_consecutive masked_select".split()
)


class NeedsNumbers(Exception):
    """The forward pass looks at numbers, which are not there."""


class Pass(TorchFunctionMode):
    """Sees every operation while it is entered.

    Args:
        tensors: for the parameters and buffers of the model, by id, those that the copy is to have.
        own_numbers: whether whole numbers that modules keep in attributes may change with the channels that they count.
        following: whether channels are followed; otherwise only shapes are worked out.
    """

    def __init__(self, tensors: Mapping[int, Tensor], *, own_numbers: bool, following: bool = True) -> None:
        super().__init__()
        self.tensors, self.own_numbers, self.following = tensors, own_numbers, following
        self.channels = Channels()
        self.known: dict[int, tuple[Tensor, Axes]] = {}  # by id; the tensor is kept so that its id is
        self.originals = {id(copy): key for key, copy in tensors.items()}
        self.owners: dict[int, list[tuple[str, str]]] = {}
        self.plain: dict[tuple[str, str], Axes] = {}
        self.sizes: dict[tuple[str, str, int | None], Tensor] = {}
        self.scaled: list[tuple[int, int, Tensor]] = []
        self.modules: dict[str, nn.Module] = {}  # those of the copy
        self.real: dict[str, nn.Module] = {}  # and those of the model
        self.running = [""]  # the names of the modules that are being called, outermost first
        self.operation: str | None = None
        self.output: list[tuple[int, ...]] = []
        self._attributes: dict[tuple[int, str], Attribute] = {}

    def forward(
        self,
        model: nn.Module,
        positional: Sequence,
        named: Mapping,
        *,
        other_mode: bool = False,
        prepare: object = None,
    ) -> None:
        """Follow the forward pass of ``model``, on a copy."""
        self.real = dict(model.named_modules()) if self.following else {}
        names = {id(module): name for name, module in self.real.items()}
        copy = hollow_copy(model, self.tensors, self._number(names) if self.own_numbers else None)
        if prepare is not None:
            prepare(copy)
        if other_mode:
            copy.train(not copy.training)
        self.modules = dict(copy.named_modules()) if self.following else {}
        self.owners = {}
        for name, module in self.modules.items():
            for key, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    self.owners.setdefault(id(tensor), []).append((name, key))
            module._forward_pre_hooks[self] = lambda module, inputs, name=name: self.running.append(name)
            module._forward_hooks[self] = self._leave
        self.running, self.operation = [""], None
        try:
            with torch.no_grad(), self:
                output = copy(*map(self._input, positional), **{key: self._input(part) for key, part in named.items()})
        except NeedsNumbers as error:
            raise ValueError(
                f"{type(model).__name__} cannot be followed: {self.where()} looks at the numbers in a tensor; "
                "expected a forward pass whose path does not depend on its input. A submodule that can be followed can "
                "be pruned by itself"
            ) from error
        except Exception as error:  # a forward pass may do anything
            raise ValueError(
                f"{self.where()} cannot be run on the shape of the example ({first_line(error)}); "
                "expected an example that the model takes"
            ) from error
        given = list(leaves(output, into_objects=True))
        self.output = [tuple(tensor.shape) for tensor in given]
        if self.following:
            for tensor in given:
                for numbers in self.axes_of(tensor):
                    self.channels.fix_output(numbers)
            self._keep_plain()

    def has_left_out(self) -> bool:
        """Whether the model has layers, with channels to lose, none of whose tensors has been used so far."""
        return any(
            isinstance(module, weights.KINDS) and own and not any(id(self.tensors[id(t)]) in self.known for t in own)
            for module in self.real.values()
            if (own := [tensor for tensor in module._parameters.values() if tensor is not None])
        )

    def fix_used_elsewhere(self) -> None:
        """A layer whose weight was read without the layer being run keeps its size: the layer would not know."""
        noted = {name for name, _, _ in self.sizes}
        for name, module in self.real.items():
            weight = module._parameters.get("weight")
            if isinstance(module, weights.KINDS) and weight is not None and name not in noted:
                for numbers in self.known.get(id(self.tensors[id(weight)]), (None, ()))[1]:
                    self.channels.fix(numbers, f"'{name}.weight' is used outside of its layer")

    def axes_of(self, tensor: Tensor) -> Axes:
        """The channels along each axis of a tensor."""
        found = self.known.get(id(tensor))
        if found is not None:
            return found[1]
        if id(tensor) in self.tensors:  # the model itself, reached by a reference that was not copied
            return self.axes_of(self.tensors[id(tensor)])
        if id(tensor) in self.originals:
            return self.remember(tensor, tuple(self.channels.fresh(size) for size in tensor.shape))
        if tensor.is_meta:
            raise RuntimeError("a tensor comes from an operation that PyTorch does not show, such as a compiled one")
        return (None,) * tensor.dim()

    def remember(self, tensor: Tensor, axes: Axes) -> Axes:
        """From now on ``tensor`` has these channels."""
        self.known[id(tensor)] = (tensor, axes)
        return axes

    def where(self) -> str:
        """The place of what is being done, for a message."""
        name = self.running[-1]
        module = self.modules.get(name)
        if name and module is not None and type(module).forward.__module__.startswith("torch.nn."):
            return f"layer {name!r}"
        what = f"the operation {self.operation.strip('_')!r}" if self.operation else "the forward pass"
        return what + (f" in {name!r}" if name else "")

    def size(self, tensor: Tensor, axis: int) -> int | Number:
        """The size of an axis; a ``Number`` if it may lose channels."""
        numbers = self.axes_of(tensor)[axis]
        size = tensor.shape[axis]
        return size if numbers is None else Number(size, [(Fraction(1), numbers)], self.channels, self.where)

    def __torch_function__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Any operation of PyTorch comes here."""
        named = kwargs or {}
        name = shapes.plain_name(function)
        if name in METADATA:
            return function(*args, **named)
        self.operation = name
        tensors = []
        for part in (*args, *named.values()):
            if isinstance(part, Tensor):
                tensors.append(part)
            elif part.__class__ in (tuple, list) and part and part[0].__class__ is not int:
                tensors += leaves(part)
        if not self.following:
            hollow_ones = [tensor.is_meta for tensor in tensors]
            return self._run(function, Call(self, name, args, named, tensors, []), _as_it_is, hollow_ones)
        rule = RULES.get(name)
        call = Call(self, name, args, named, tensors, [self.axes_of(tensor) for tensor in tensors])
        if name in ("shape", "size", "numel", "nelement", "__len__"):
            return self._measured(call)
        hollow_ones = [tensor.is_meta for tensor in tensors]
        if name in NUMBERS and any(hollow_ones):
            raise NeedsNumbers(name)
        sized = name in SIZED
        call.output = self._run(function, call, value_of if sized else plain, hollow_ones)
        axes = None
        if sized or any(numbers is not None for axes in call.axes for numbers in axes):
            axes = rule(call) if rule is not None and "out" not in named else None
            if axes is None:
                for part in call.axes:
                    for numbers in part:
                        call.fix(numbers)
        self._remember_all(call.output, axes)
        return call.output

    def _run(self, function: object, call: Call, numbers: object, hollow_ones: list[bool]) -> object:
        """The result of an operation: its shape if it works on shapes, the real one otherwise."""
        args, named = numbers(call.args), {key: numbers(part) for key, part in call.named.items()}
        if not any(hollow_ones):
            return function(*args, **named)
        by_hand = shapes.BY_HAND.get(call.name)
        if by_hand is not None:
            return by_hand(call, args, named)
        if not all(hollow_ones):
            args, named = shapes.all_hollow(args), {key: shapes.all_hollow(part) for key, part in named.items()}
        return function(*args, **named)

    def _remember_all(self, output: object, axes: object) -> None:
        if isinstance(output, Tensor):
            self.remember(output, (None,) * output.dim() if axes is None else axes)
        elif isinstance(output, (tuple, list)):
            alike = isinstance(axes, list)  # one entry for each part
            for place, part in enumerate(output):
                self._remember_all(part, axes[place] if alike else axes)

    def _measured(self, call: Call) -> object:
        """The sizes of a tensor."""
        tensor, dim = call.args[0], plain(call.arg(1, "dim"))
        if isinstance(self.modules.get(self.running[-1]), weights.KINDS) and self.where().startswith("layer"):
            return (
                tensor.size(dim) if call.name == "size" and dim is not None else tensor.shape
            )  # it knows its own sizes
        if call.name == "__len__":
            return plain(self.size(tensor, 0))
        if call.name == "size" and dim is not None:
            return self.size(tensor, dim)
        if all(numbers is None for numbers in call.axes[0]):
            return tensor.shape if call.name in ("shape", "size") else tensor.numel()
        sizes = Sizes(self.size(tensor, axis) for axis in range(tensor.dim()))
        return sizes if call.name in ("shape", "size") else sizes.numel()

    def _input(self, value: object) -> object:
        if isinstance(value, Tensor):
            result = hollow(value)
            self.remember(result, (None,) * result.dim())
            return result
        if isinstance(value, Mapping):
            return {key: self._input(part) for key, part in value.items()}
        return type(value)(map(self._input, value)) if type(value) in (list, tuple) else value

    def _leave(self, module: nn.Module, inputs: object, output: object) -> None:
        self.running.pop()

    def _number(self, names: Mapping[int, str]) -> object:
        """Gives a stand-in for a whole number that a module keeps: the number of some channels, perhaps."""

        def stand_in(module: nn.Module, key: str, value: int) -> object:
            if value < 2 or key.startswith("_"):
                return value
            if (id(module), key) not in self._attributes:
                attribute = Attribute(names.get(id(module), ""), key, [])
                self._attributes[id(module), key] = attribute
                self.channels.attributes.append(attribute)
            amount = [(Fraction(1), self._attributes[id(module), key])]
            return Number(value, amount, self.channels, self.where)

        return stand_in

    def _keep_plain(self) -> None:
        """Weights that a module computes before it runs, as PyTorch's own pruning does, are kept in an attribute."""
        for name, module in self.real.items():
            for key, value in vars(module).items():
                if value.__class__ is Tensor and id(computed := vars(self.modules[name]).get(key)) in self.known:
                    if computed.shape == value.shape and id(value) not in self.tensors:
                        self.plain[name, key] = self.axes_of(computed)


def leaves(value: object, *, into_objects: bool = False) -> Iterator[Tensor]:
    """The tensors in what a function gives or takes; those in attributes of objects too if asked for."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from leaves(part, into_objects=into_objects)
    elif isinstance(value, Mapping):
        yield from leaves(tuple(value.values()), into_objects=into_objects)
    elif into_objects and hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module, FunctionType)):
        yield from leaves(tuple(vars(value).values()), into_objects=True)


def _as_it_is(value: object) -> object:
    return value
