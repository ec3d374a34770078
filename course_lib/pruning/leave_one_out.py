r"""The oracle: take each weight or unit out, one at a time, and measure the loss.

.. math:: \Delta_i = L(\text{without } i) - L

Every criterion guesses what happens to the loss; this one looks (Molchanov et al. 2017 call it the oracle). It costs a
pass through the data for each weight or unit, so it is for small networks, and for judging the other criteria. It is
exact for one that goes alone. Two that go together may change the loss by more or less than the sum: where one neuron
copies another, either can go, and not both.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.checking import check_choice, check_finite
from course_lib.device import evaluating, pick_device, placed
from course_lib.evaluation import Batch, batches
from course_lib.gates import Gate, find_gates, gated, unit_layers
from course_lib.layers import Targets, prunable_weights
from course_lib.progress import bar
from course_lib.training import Loss, hard_label_loss


def leave_one_out(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    targets: Targets | None = None,
    *,
    of: Literal["weights", "units"] = "weights",
    loss: Loss = hard_label_loss,
    after: Mapping[str, str] | None = None,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """The loss with each weight, or unit, alone taken out, minus the loss with all: with its sign, so below 0 it falls.

    The model is in eval mode meanwhile, and then as it was, to the bit.

    Args:
        data: what the loss takes; read once and held in memory, so that all are measured on the same batches.
        of: ``weights`` sets each weight to 0: parameter name -> a tensor of its shape. ``units`` closes each unit's
            gate: layer name -> ``(units,)``.
        loss: takes the model and a batch, returns a scalar: a mean over the examples of the batch.
        after: for units, as for ``unit_taylor``.
        progress: a bar, if it takes longer than two seconds.

    Raises:
        TypeError, ValueError: as ``layers.prunable_weights`` or ``gates.unit_layers``, ``gates.find_gates`` and
            ``evaluation.batches``; another ``of`` than there is; a loss that is not finite with all weights in.
    """
    check_choice("of", of, ("weights", "units"))
    if of == "weights" and after:
        raise ValueError("after is for units; expected none with of='weights'")
    layers = unit_layers(model, targets) if of == "units" else {}
    weights = {name: layer.weight for name, layer in layers.items()} if layers else prunable_weights(model, targets)
    check_finite(weights)
    homes = {name: (w.device, torch.promote_types(w.dtype, torch.float32)) for name, w in weights.items()}
    device = pick_device(device)
    held = list(batches(data, batch_size, device))
    with placed(model, device), evaluating(model), torch.no_grad():
        gates = find_gates(model, layers, after, lambda: loss(model, held[0])) if layers else {}
        total = (
            sum(g.units for g in gates.values()) if layers else sum(int(w.count_nonzero()) for w in weights.values())
        )
        with bar(total=total, unit="pass", show=progress) as passes:

            def change() -> float:
                passes.update()
                return _mean_loss(model, held, loss) - whole

            whole = _mean_loss(model, held, loss)
            if not math.isfinite(whole):
                raise ValueError(f"the loss is {whole}; expected a finite number: look for nan in the data and weights")
            found = _without_units(gates, change, device) if layers else _without_weights(weights, change)
    return {name: scores.to(*homes[name]) for name, scores in found.items()}


def _without_weights(weights: Mapping[str, nn.Parameter], change: Callable[[], float]) -> dict[str, Tensor]:
    """What ``change`` says while each weight is 0; a weight that is 0 already changes nothing."""
    found = {}
    for name, weight in weights.items():
        inside = weight.detach()  # the same memory, and no gradient looks on
        scores = torch.zeros(inside.shape, dtype=torch.float64)  # on the CPU: not every GPU has so many digits
        for place in inside.nonzero().tolist():
            place = tuple(place)
            value = inside[place].clone()
            try:
                inside[place] = 0
                scores[place] = change()
            finally:
                inside[place] = value
        found[name] = scores
    return found


def _without_units(gates: Mapping[str, Gate], change: Callable[[], float], device: torch.device) -> dict[str, Tensor]:
    """What ``change`` says while each unit's gate is closed."""
    found = {}
    for name, gate in gates.items():
        open_gates, scores = torch.ones(gate.units, device=device), []
        with gated(gates, {name: open_gates}):
            for unit in range(gate.units):
                open_gates[unit] = 0
                scores.append(change())
                open_gates[unit] = 1
        found[name] = torch.tensor(scores, dtype=torch.float64)
    return found


def _mean_loss(model: nn.Module, held: list[Batch], loss: Loss) -> float:
    """The mean over all examples; the sums are Python's, in double precision."""
    total = sum(len(batch[0]) * float(loss(model, batch)) for batch in held)
    return total / sum(len(batch[0]) for batch in held)
