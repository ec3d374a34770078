"""Looking inside a network: what a layer, found by its name, gives out.

White box: everything here, and in ``hints.py`` and ``attention.py`` above it, needs the modules of the
teacher, not only its logits.

A forward hook is a function that PyTorch calls each time a module has computed its output. Hooks are attached
for a while and then removed, also when something fails in between, so the network is afterwards what it was
before. Names are those of ``model.named_modules()``: "0", "layer2.1.conv1", "encoder.layer.3".
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.device import evaluating, pick_device, placed
from course_lib.layers import find_layer


@contextmanager
def capture(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A dict from layer name to that layer's output, filled anew at each forward pass inside the ``with``.

    The outputs are the tensors themselves, not copies: gradients flow through them, and a next layer that
    works in place (``nn.ReLU(inplace=True)``) changes them. Where a layer gives a tuple, its first tensor is
    taken. A layer that is called twice in a pass leaves its last output. The hooks are gone when the block
    ends, however it ends.

    Args:
        model: any module.
        names: names as in ``model.named_modules()``.

    Raises:
        TypeError: ``names`` is a single string, or a layer's output holds no tensor.
        ValueError: an unknown name.
    """
    if isinstance(names, str):
        raise TypeError(f"names is the string {names!r}; expected a list of names")
    layers = {name: find_layer(model, name) for name in names}  # all are checked before any hook is attached
    seen: dict[str, Tensor] = {}
    handles = []
    try:
        for name, layer in layers.items():

            def keep(module: nn.Module, inputs: tuple, output: object, name: str = name) -> None:
                seen[name] = _first_tensor(output, name)

            handles.append(layer.register_forward_hook(keep))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class _Reached(Exception):
    """Carries a layer's output out of a forward pass that need not go on."""

    def __init__(self, output: Tensor):
        super().__init__("layer reached")
        self.output = output


def forward_to(model: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """The output of one layer, with gradients; the forward pass ends there.

    The layers after it are not run. So nothing behind the layer is touched, the running statistics of a later
    batch normalisation included.

    Args:
        model: any module.
        name: a layer, as in ``model.named_modules()``.
        inputs: (N, ...), as the model takes them.

    Raises:
        ValueError: an unknown name, or a forward pass that does not come by that layer.
    """

    def stop(module: nn.Module, args: tuple, output: object) -> None:
        raise _Reached(_first_tensor(output, name))

    handle = find_layer(model, name).register_forward_hook(stop)
    try:
        model(inputs)
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise ValueError(f"layer {name!r} was not run in a forward pass of {type(model).__name__}")


def layer_outputs(
    model: nn.Module,
    inputs: Tensor | TensorDataset,
    names: Sequence[str],
    *,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
) -> dict[str, Tensor]:
    """The outputs of the named layers for all inputs, on the CPU: name -> (N, ...).

    They are computed in eval mode, without gradients; the model is left as it was. Worth the memory where the
    same outputs are used in every epoch, as a teacher's are.

    Args:
        model: any module.
        inputs: (N, ...), or a data set whose first tensor they are.
        names: names as in ``model.named_modules()``.
        device: where to compute, ``pick_device()`` if none.

    Raises:
        TypeError, ValueError: as ``capture``; TypeError also for inputs of another type, ValueError when there
            are none or a layer is never run.
    """
    if isinstance(inputs, TensorDataset):
        inputs = inputs.tensors[0]
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs is a {type(inputs).__name__}; expected a tensor or a TensorDataset")
    if len(inputs) == 0:
        raise ValueError("inputs is empty; expected at least one row")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    device = pick_device(device)
    with capture(model, names) as seen, placed(model, device), evaluating(model), torch.no_grad():
        for batch in inputs.split(batch_size):
            seen.clear()
            model(batch.to(device))
            for name in names:
                if name not in seen:
                    raise ValueError(f"layer {name!r} was not run in a forward pass of {type(model).__name__}")
                parts[name].append(seen[name].float().cpu())
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def _first_tensor(output: object, name: str) -> Tensor:
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise TypeError(f"layer {name!r} gives a {type(output).__name__}; expected a tensor, or a tuple of tensors")
    return output
