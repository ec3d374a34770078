"""One pass over a network's operations, which says for each layer which channels it reads and makes.

``torch.fx`` sends a stand-in through the forward pass and writes down what is done to it. Then each operation is run
once on tensors that have a shape and no numbers ("meta" tensors): this takes milliseconds whatever the size of the
model, and gives the shapes that views and sums need. Beside each tensor go its labels (``channels.py``).
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedParameter

from course_lib.device import check_model
from course_lib.pruning.channels import Channels, Labels
from course_lib.pruning.checks import first_line
from course_lib.pruning.operations import ELEMENTWISE, Call, follow
from course_lib.pruning.resizing import KINDS, PRODUCERS, Ends, tie_layer
from course_lib.pruning.shapes import as_function, layer_output, run_method, run_on, shape_only

Example = Tensor | tuple | Mapping[str, object]


def trace(model: nn.Module, example: Example) -> tuple[Channels, list[tuple[str, Ends]]]:
    """The labels of the whole network, and the ends of each layer that was run, in order.

    Raises:
        TypeError, ValueError: as ``dependencies.dependencies``.
    """
    check_model(model)
    walk = _Walk(model, _arguments(model, example))
    with torch.no_grad():
        walk.all_operations()
        if walk.has_left_out():
            with _other_mode(model):  # a head that only training has, or the other way round: the same units again
                walk.all_operations()
    walk.fix_borrowed()
    return walk.channels, list(walk.ends.items())


class _Tracer(fx.Tracer):
    """Looks into every module but PyTorch's own, subclasses of these with the same forward pass included."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        home = type(module).forward.__module__
        return home.startswith("torch.nn.") and home != "torch.nn.modules.container"


class _Walk:
    """Goes from operation to operation with the tensors, which are shapes, and with their labels."""

    def __init__(self, model: nn.Module, arguments: Mapping[str, object]) -> None:
        self.model, self.arguments = model, arguments
        self.modules = dict(model.named_modules())
        self.channels = Channels()
        self.ends: dict[str, Ends] = {}
        self.wholes: list[str] = []  # layers without ends of their own; what is inside them is not looked into
        self.borrowed: list[str] = []  # parameters and buffers that the forward pass uses by itself
        self.values: dict[fx.Node, object] = {}
        self.labels: dict[fx.Node, object] = {}

    def all_operations(self) -> None:
        """Trace the forward pass and go through it."""
        constants = {name: value for name, value in self.arguments.items() if not isinstance(value, Tensor)}
        with _unchanged(self.model):
            try:
                graph = _Tracer().trace(self.model, concrete_args=constants)
            except Exception as error:  # a forward pass may do anything
                raise ValueError(
                    f"torch.fx cannot trace {type(self.model).__name__} ({first_line(error)}); expected a forward pass "
                    "whose path does not depend on its input. A submodule that can be traced can be pruned by itself"
                ) from error
            for node in graph.nodes:
                try:
                    self._step(node)
                except (RuntimeError, NotImplementedError, IndexError, TypeError, AttributeError) as error:
                    raise ValueError(
                        f"{_where(node)} cannot be run on the shape of the example ({first_line(error)}); "
                        "expected an example that the model takes"
                    ) from error

    def has_left_out(self) -> bool:
        """Whether the model has layers, with channels to lose, that have not been run so far."""
        inside = tuple(f"{name}." for name in self.wholes)
        left_out = (
            name for name, module in self.modules.items() if isinstance(module, KINDS) and name not in self.ends
        )
        return any(not name.startswith(inside) for name in left_out)

    def fix_borrowed(self) -> None:
        """A layer whose weight is also used outside of it stays as it is."""
        for path in self.borrowed:
            name = path.rpartition(".")[0]
            ends = self.ends.get(name, Ends(None, None))
            for labels in (ends.inputs, ends.outputs):
                self.channels.fix(labels, f"{path!r} is also used outside of its layer")

    def _step(self, node: fx.Node) -> None:
        """Run one operation."""
        labels: object = None
        if node.op == "placeholder":
            name = re.sub(r"_\d+$", "", node.target) if node.target not in self.arguments else node.target
            value = shape_only(self.arguments.get(name))
        elif node.op == "get_attr":
            self.borrowed.append(node.target)
            value = shape_only(_attribute(self.model, node.target))
        elif node.op == "output":
            value = None
            for each in node.all_input_nodes:
                for _, part in _tensors(self.values[each], self.labels[each]):
                    self.channels.fix(part, "they are the network's output", output=True)
        elif node.op == "call_module" and isinstance(self.modules[node.target], KINDS):
            value, labels = self._layer(node)
        else:
            value, labels = self._operation(node)
        self.values[node], self.labels[node] = value, labels

    def _layer(self, node: fx.Node) -> tuple[object, object]:
        """A layer that can lose channels."""
        module, name = self.modules[node.target], node.target
        if isinstance(getattr(module, "weight", None), UninitializedParameter):
            raise ValueError(f"{name}.weight has no shape yet; call the model once with an input first")
        source = (node.args or tuple(node.kwargs.values()))[0]
        value, labels = self.values[source], self.labels[source]
        ends, passed = tie_layer(self.channels, module, f"layer {name!r}", labels, value.dim())
        if isinstance(module, PRODUCERS):
            value = layer_output(module, value)
        known = self.ends.setdefault(name, ends)
        if known is not ends:  # called before: the same units once more
            self._tie_calls(f"layer {name!r}", known, ends)
        return value, passed

    def _tie_calls(self, where: str, known: Ends, ends: Ends) -> None:
        for one, other in ((known.inputs, ends.inputs), (known.outputs, ends.outputs)):
            if one is not None and other is not None:
                self.channels.tie(one, other)
            for each in (one, other):
                if one is None or other is None:
                    self.channels.fix(each, f"{where} is called twice, once with channels that stay")

    def _operation(self, node: fx.Node) -> tuple[object, object]:
        """A function, a method, or a layer without channels of its own."""
        name, function, rest, named = self._called(node)
        args = fx.node.map_arg(node.args, self.values.get)
        keywords = dict(fx.node.map_arg(node.kwargs, self.values.get))
        if "input" in keywords:  # torch.relu(input=x)
            args = (keywords.pop("input"), *args)
        sources: list[fx.Node] = []
        fx.node.map_arg((node.args, node.kwargs), sources.append)
        pairs = [pair for each in sources for pair in _tensors(self.values[each], self.labels[each])]
        if name == "getitem" and isinstance(args[0], (tuple, list)):
            parts = self.labels[node.args[0]]
            return args[0][args[1]], parts[args[1]] if parts is not None else None
        if name in ELEMENTWISE and pairs:
            shapes = [tensor.shape for tensor, _ in pairs]
            output = pairs[0][0] if len(pairs) == 1 else pairs[0][0].new_empty(torch.broadcast_shapes(*shapes))
        else:
            output = function(*args, **keywords)
        tensors, labels = zip(*pairs, strict=True) if pairs else ((), ())
        on = partial(run_on, function, args[1:], keywords)
        return output, follow(self.channels, Call(name, _where(node), tensors, labels, output, rest, named, on))

    def _called(self, node: fx.Node) -> tuple[str, Callable, tuple, dict]:
        """The name of an operation, what runs it, and its arguments after the first one as the code writes them."""
        if node.op == "call_module":
            self.wholes.append(node.target)
            return as_function(self.modules[node.target])
        named = {key: value for key, value in node.kwargs.items() if key != "input"}
        rest = node.args if "input" in node.kwargs else node.args[1:]
        if node.op == "call_method":
            return node.target.removesuffix("_"), partial(run_method, node.target), rest, named
        name = re.sub(r"^i(?=(add|sub|mul|truediv)$)", "", node.target.__name__)
        return name.removesuffix("_"), node.target, rest, named


def _tensors(value: object, labels: object) -> list[tuple[Tensor, Labels]]:
    """The tensors in ``value``, each with its labels."""
    if isinstance(value, Tensor):
        return [(value, labels)]
    if not isinstance(value, (tuple, list)):
        return []
    each = labels if labels is not None else [None] * len(value)
    return [pair for one, other in zip(value, each, strict=True) for pair in _tensors(one, other)]


def _attribute(model: nn.Module, path: str) -> object:
    for part in path.split("."):
        model = getattr(model, part)
    return model


def _arguments(model: nn.Module, example: Example) -> dict[str, object]:
    """The arguments of the forward pass by name, those that the example leaves out at their defaults."""
    positional = (example,) if isinstance(example, Tensor) else example if isinstance(example, tuple) else ()
    named = example if isinstance(example, Mapping) else {}
    if not positional and not named:
        kind = type(example).__name__
        raise ValueError(f"example is a {kind}; expected a tensor, a tuple of arguments, or a dict of named ones")
    try:
        bound = inspect.signature(model.forward).bind(*positional, **named)
    except TypeError as error:
        raise ValueError(f"the example does not fit {type(model).__name__}.forward: {error}") from error
    bound.apply_defaults()
    return dict(bound.arguments)


@contextmanager
def _other_mode(model: nn.Module) -> Iterator[None]:
    """Inside, the model trains if it does not, and the other way round."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(not model.training)
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Afterwards every module has the attributes that it had: tracing leaves tensors and stand-ins on some."""
    before = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for attributes, kept in before:
            attributes.clear()
            attributes.update(kept)


def _where(node: fx.Node) -> str:
    """The place of an operation, for a message."""
    if node.op == "call_module":
        return f"layer {node.target!r}"
    stack = list(node.meta.get("nn_module_stack", {}))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.name)
    return f"the operation {name!r}" + (f" in {stack[-1]!r}" if stack and stack[-1] else "")
