"""Looking inside a network: what a layer, found by its name, takes in and gives out.

    with capture(model, ["layer1"]) as seen: ...    # what it gives, at each forward pass
    run_to(model, "layer1", inputs)                 # the same for one pass, which ends there
    layer_outputs(model, data, ["layer1"])          # for a whole data set, kept
    layer_inputs(model, data, ["layer1"])           # what comes into it, kept
    watch_inputs(model, data, {"layer1": function}) # not kept: handed to a function, batch by batch
    gram(model, data, ["layer1"])                   # the mean of x xᵀ over all that comes into it

White box: all this needs the modules of a network, not only its logits. Names are those of ``model.named_modules()``:
"0", "layer2.1.conv1", "encoder.layer.3".

PyTorch calls a forward hook each time a module has computed its output, a forward pre-hook before that. Hooks are
attached for a while and then removed, also when something fails in between, so the network is then what it was before.

Data are a tensor of inputs, a ``TensorDataset`` whose first tensor they are, or a ``DataLoader`` whose batches are
sequences, with the inputs first, or dicts of the model's arguments. Where a dict has an ``attention_mask`` (N, L),
padding is left out of what comes into a layer, in ``layer_inputs``, ``watch_inputs`` and ``gram``: inputs (N, L, D) or
(N L, D) become (positions, D). Inputs of another form, and those of convolutions, stay whole.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.data import DataLoader, TensorDataset

from course_lib.device import evaluating, pick_device, placed
from course_lib.evaluation import Batch, batches, output_of
from course_lib.layers import find_layer
from course_lib.progress import bar

Data = Tensor | TensorDataset | DataLoader


@contextmanager
def capture(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A dict from layer name to that layer's output, filled anew at each forward pass inside the ``with``.

    The network goes on with a copy of it: a later layer that works in place (``nn.ReLU(inplace=True)``) does not change
    it, and what follows depends on it, so that gradients can be asked for at it. Of a tuple or a dict the first tensor
    is taken. A layer that is called twice in a pass leaves its last output.

    Raises:
        TypeError: ``names`` is a single string, or a layer's output holds no tensor.
        ValueError: an unknown name.
    """
    layers, seen = _find(model, names), {}

    def keep(name: str, module: nn.Module, inputs: tuple, output: object) -> object:
        first = seen[name] = _first_tensor(output, f"layer {name!r} gives")
        if isinstance(output, Tensor):
            return first.clone()
        if type(output) is tuple:
            return (first.clone(), *output[1:])
        seen[name] = first.clone()  # of an object that cannot be made anew: a copy, which nothing else depends on
        return None

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(partial(keep, name)))
        yield seen


class _Reached(Exception):
    """Carries a layer's output out of a forward pass that need not go on."""

    def __init__(self, output: Tensor):
        super().__init__("layer reached")
        self.output = output


def run_to(model: nn.Module, name: str, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The output of one layer, with gradients; the forward pass ends there.

    The layers after it are not run. So nothing behind the layer is touched, the running statistics of a later batch
    normalisation included.

    Args:
        inputs: (N, ...), as the model takes them, or a dict of its arguments.

    Raises:
        ValueError: an unknown name, or a forward pass that does not come by that layer.
    """

    def stop(module: nn.Module, args: tuple, output: object) -> None:
        raise _Reached(_first_tensor(output, f"layer {name!r} gives"))

    with find_layer(model, name).register_forward_hook(stop):
        try:
            output_of(model, inputs if isinstance(inputs, Mapping) else (inputs,))
        except _Reached as reached:
            return reached.output
    raise ValueError(_not_run(model, name))


def layer_outputs(
    model: nn.Module,
    data: Data,
    names: Sequence[str],
    *,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """The outputs of the named layers for all of ``data``, on the CPU, in float32 or more: name -> (N, ...).

    They are computed in eval mode, without gradients; the model is left as it was. Worth the memory where the same
    outputs are used in every epoch, as a teacher's are.

    Raises:
        TypeError, ValueError: as ``capture`` and ``evaluation.batches``; ValueError when a layer is never run.
    """
    with capture(model, names) as seen, _ready(model, data, batch_size, device, progress) as in_order:
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for batch in in_order:
            seen.clear()
            output_of(model, batch)
            for name, part in parts.items():
                if name not in seen:
                    raise ValueError(_not_run(model, name))
                part.append(_kept(seen[name]))
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def layer_inputs(
    model: nn.Module,
    data: Data,
    names: Sequence[str],
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """What comes into the named layers, for all of ``data``, on the CPU, in float32 or more: name -> (N, ...).

    Raises:
        TypeError, ValueError: as ``watch_inputs``.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in _find(model, names)}
    keep = {name: lambda x, part=part: part.append(_kept(x.clone())) for name, part in parts.items()}
    watch_inputs(model, data, keep, batch_size=batch_size, device=device, progress=progress)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def watch_inputs(
    model: nn.Module,
    data: Data,
    functions: Mapping[str, Callable[[Tensor], None]],
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> None:
    """Run ``model`` over ``data`` and call ``functions[name]`` with each input of the layer ``name``: nothing is kept.

    In eval mode, without gradients; the model is left as it was. An input is the layer's first argument; to keep it, a
    function has to copy it, since a layer may work in place.

    Raises:
        TypeError, ValueError: as ``evaluation.batches``; an unknown name, an input that is no tensor, a layer that is
            never run, an attention mask that is not (N, L).
    """
    layers, ran, mask = _find(model, list(functions)), set(), None

    def hand_over(name: str, layer: nn.Module, args: tuple, named: dict) -> None:
        x = _first_tensor((*args, *named.values()), f"layer {name!r} takes")
        functions[name](x if isinstance(layer, _ConvNd) else _without_padding(x, mask))
        ran.add(name)

    with ExitStack() as hooks, _ready(model, data, batch_size, device, progress) as in_order:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(hand_over, name), with_kwargs=True))
        for batch in in_order:
            mask = _mask_of(batch)
            output_of(model, batch)
    if never := [name for name in layers if name not in ran]:
        raise ValueError(_not_run(model, never[0]))


def gram(
    model: nn.Module,
    data: Data,
    names: Sequence[str],
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """The mean of x xᵀ over all inputs x of each named layer: name -> (D, D), in float64 on the CPU.

    For a layer W the mean squared error of its outputs, when W becomes V, is then the trace of (V - W) G (V - W)ᵀ. Each
    position of a sequence or a picture counts as one input. Memory does not grow with ``data``.

    Shapes: (in, in) for a linear layer, and for any other whose features lie in the last dimension. For a convolution
    x is the patch that a filter sees, as in ``torch.nn.functional.unfold``: (in · kernel, in · kernel), and with groups
    one such matrix for each, (groups, in / groups · kernel, in / groups · kernel).

    Raises:
        TypeError, ValueError: as ``watch_inputs``; a transposed convolution; inputs that are whole numbers; no position
            that counts.
    """
    layers = _find(model, names)
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)
    if transposed := [name for name, layer in layers.items() if getattr(layer, "transposed", False)]:
        raise ValueError(f"layer {transposed[0]!r} is a transposed convolution; expected a plain one or a linear layer")

    def add(name: str, x: Tensor) -> None:
        if not x.is_floating_point():
            raise TypeError(f"layer {name!r} takes {x.dtype}; expected floating-point inputs")
        layer = layers[name]
        rows = _patches(layer, x) if isinstance(layer, _ConvNd) else x.reshape(1, -1, x.shape[-1])
        rows = rows.to(torch.promote_types(x.dtype, torch.float32))  # (groups, positions, D)
        # within a batch in float32, the sum over batches in float64, which GPUs of Apple do not have
        product = (rows.mT @ rows).to("cpu" if x.device.type == "mps" else x.device, torch.float64)
        sums[name] = sums[name].add_(product) if name in sums else product
        counts[name] += rows.shape[1]

    functions = {name: partial(add, name) for name in layers}
    watch_inputs(model, data, functions, batch_size=batch_size, device=device, progress=progress)
    if empty := [name for name, count in counts.items() if not count]:
        raise ValueError(f"layer {empty[0]!r} has no input that counts: all of it is padding")
    return {name: (total / counts[name]).squeeze(0).cpu() for name, total in sums.items()}


def _find(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    if isinstance(names, str):
        raise TypeError(f"names is the string {names!r}; expected a list of names")
    if not names:
        raise ValueError("names is empty; expected the name of at least one layer")
    return {name: find_layer(model, name) for name in names}


@contextmanager
def _ready(
    model: nn.Module, data: Data, batch_size: int, device: str | torch.device | None, progress: bool
) -> Iterator[Iterable[Batch]]:
    """The batches of ``data``, and inside the model in eval mode on the device, without gradients."""
    device = pick_device(device)
    in_order = batches(TensorDataset(data) if isinstance(data, Tensor) else data, batch_size, device)
    with placed(model, device), evaluating(model), torch.no_grad():
        yield bar(in_order, unit="batch", show=progress)


def _not_run(model: nn.Module, name: str) -> str:
    return f"layer {name!r} was not run in a forward pass of {type(model).__name__}"


def _first_tensor(values: object, what: str) -> Tensor:
    """``values``, or the first of them, if that is a tensor."""
    first = list(values.values()) if isinstance(values, Mapping) else values
    if isinstance(first, (tuple, list)) and first:
        first = first[0]
    if not isinstance(first, Tensor):
        raise TypeError(f"{what} a {type(first).__name__}; expected a tensor, or a tuple or dict that begins with one")
    return first


def _kept(values: Tensor) -> Tensor:
    return values.to("cpu", torch.promote_types(values.dtype, torch.float32))


def _mask_of(batch: Batch) -> Tensor | None:
    """Which positions of a batch count (N, L); None: all."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if mask is not None and mask.dim() != 2:
        raise ValueError(f"attention_mask is {tuple(mask.shape)}; expected (N, L), with a 0 for padding")
    return None if mask is None else mask.bool()


def _without_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """The positions of ``x`` (N, L, ...) or (N L, ...) that ``mask`` (N, L) counts: (positions, ...)."""
    if mask is None:
        return x
    if x.dim() > 2 and x.shape[:2] == mask.shape:
        return x[mask]
    return x[mask.flatten()] if len(x) == mask.numel() else x


def _patches(layer: _ConvNd, x: Tensor) -> Tensor:
    """What each filter sees at each place: (N, in, ...) -> (groups, positions, in / groups · kernel)."""
    axes = len(layer.kernel_size)
    x = x if x.dim() == axes + 2 else x.unsqueeze(0)  # a single example
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    for axis, (size, step, gap) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        x = x.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]  # (N, in, places ..., kernel ...)
    x = x.unflatten(1, (layer.groups, -1)).movedim((1, 2), (0, 2 + axes))
    return x.flatten(2 + axes).flatten(1, 1 + axes)  # (groups, N, places ..., in / groups, kernel ...)
