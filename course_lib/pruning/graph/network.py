"""What a network leaves open: which channels go together, and what has to be cut with them."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin

from course_lib.device import check_model
from course_lib.pruning.graph.channels import Axes, Verdict
from course_lib.pruning.graph.follow import Pass
from course_lib.pruning.graph.hollow import hollow

Example = Tensor | tuple | Mapping[str, object]
UNITS = ("out_features", "out_channels", "embedding_dim")  # where a layer keeps the number of its units


@dataclass(frozen=True)
class Network:
    """What a network leaves open: which channels go together, and what has to be cut with them.

    Attributes:
        tensors: id of a parameter or buffer -> the channels along each of its axes.
        plain: (module, attribute) -> the same for tensors that a module computes before it runs, and keeps.
        sizes: (module, attribute, place) -> the channels whose number stands there; the place in a tuple, or None.
        units: layer -> the channel that each of its units makes (units,).
        scaled: (id of a parameter, rows, channels): rows to be multiplied so that the square root of the number of
            these channels, by which they are divided in the end, does not matter.
        verdict: what is tied and fixed.
        output: the shapes of what the network gives.
    """

    tensors: dict[int, Axes]
    plain: dict[tuple[str, str], Axes]
    sizes: dict[tuple[str, str, int | None], Tensor]
    units: dict[str, Tensor]
    scaled: list[tuple[int, int, Tensor]]
    verdict: Verdict
    output: list[tuple[int, ...]]


def follow(model: nn.Module, example: Example) -> Network:
    """Follow ``model`` on the shape of ``example``; no weight is read, and the model is left as it was.

    The forward pass is followed in the present mode, and in the other one (training or eval) too if there are layers
    that this one does not run.

    Args:
        example: what the model takes: a tensor, a tuple of arguments, or a dict of named ones. Small is fine if it has
            the shape that the model is used with; only its shape counts, and whole numbers in it.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: the path of the forward pass depends on numbers, or the example does not fit.
    """
    check_model(model)
    positional, named = _arguments(model, example)
    tensors = {}
    for name, module in model.named_modules():
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if isinstance(tensor, UninitializedTensorMixin):
                raise ValueError(f"{name}.{key} has no shape yet; call the model once with an input first")
            if tensor is not None and id(tensor) not in tensors:
                tensors[id(tensor)] = hollow(tensor)
    try:
        run = Pass(tensors, own_numbers=True)
        run.forward(model, positional, named)
    except Exception:  # perhaps because of a stand-in for a number
        run = Pass(tensors, own_numbers=False)
        run.forward(model, positional, named)
    shapes_given = run.output
    if run.has_left_out():
        run.forward(model, positional, named, other_mode=True)  # a head that only training has: the same units again
    run.fix_used_elsewhere()
    verdict = run.channels.verdict(run.sizes)
    known = {key: run.known[id(t)][1] for key, t in tensors.items() if id(t) in run.known}
    units = {name: numbers for (name, key, _), numbers in run.sizes.items() if key in UNITS}
    return Network(known, run.plain, run.sizes, units, run.scaled, verdict, shapes_given)


def output_shapes(model: nn.Module, example: Example, tensors: Mapping[int, Tensor], prepare: object) -> list[tuple]:
    """The shapes of what ``model`` would give with ``tensors`` for its own, changed by ``prepare(copy)`` before."""
    run = Pass(tensors, own_numbers=False, following=False)
    run.forward(model, *_arguments(model, example), prepare=prepare)
    return run.output


def _arguments(model: nn.Module, example: Example) -> tuple[tuple, dict]:
    """The arguments of the forward pass, positional and named."""
    positional = (example,) if isinstance(example, Tensor) else example if isinstance(example, tuple) else ()
    named = dict(example) if isinstance(example, Mapping) else {}
    if not positional and not named:
        kind = type(example).__name__
        raise ValueError(f"example is a {kind}; expected a tensor, a tuple of arguments, or a dict of named ones")
    try:
        inspect.signature(model.forward).bind(*positional, **named)
    except TypeError as error:
        raise ValueError(f"the example does not fit {type(model).__name__}.forward: {error}") from error
    return positional, named
