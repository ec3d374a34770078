"""From scores to masks: which weights stay.

Unstructured pruning gives every weight w a mask m, and computes with m ⊙ w. Scores say which weights stay: those
with the higher ones. Three ways to cut (Frankle and Carbin 2019, section 2; Mishra et al. 2021 for N:M)::

    masks = global_masks(magnitude(model), 0.9)     # the smallest 90% of all weights together
    masks = local_masks(magnitude(model), 0.9)      # the smallest 90% of each layer
    masks = n_m_masks(magnitude(model), 2, 4)       # 2 of every 4 neighbours stay

What a mask does to a model is in ``held.py``.
``Scores`` and ``Masks`` are dicts from parameter name to a tensor of the parameter's shape; in a mask, true is kept.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from course_lib.checking import check_share, check_type, near_names
from course_lib.layers import match_names

Scores = Mapping[str, Tensor]
Masks = dict[str, Tensor]


def global_masks(scores: Scores, sparsity: float, *, within: Mapping[str, Tensor] | None = None) -> Masks:
    """Masks that prune the lowest scores of all layers together: exactly ``round(sparsity · N)`` of N weights.

    Of equal scores those that come first are pruned first, so the number is exact whatever the scores.

    Args:
        scores: for each weight, higher is kept longer; any shapes.
        sparsity: the share of all weights that is zero afterwards, from 0 to 1.
        within: earlier masks: what they prune stays pruned, and counts.

    Raises:
        ValueError: a sparsity outside [0, 1], no scores, a score that is nan, masks of other names or shapes, or more
            pruned already than asked for.
    """
    _check_scores(scores)
    check_share("sparsity", sparsity)
    pieces = _pushed_down(scores, within)
    return _keep_highest(pieces, _pruned_count(sparsity, pieces, within))


def local_masks(
    scores: Scores, sparsity: float | Mapping[str, float], *, within: Mapping[str, Tensor] | None = None
) -> Masks:
    """Masks that prune the lowest scores of each layer: exactly ``round(sparsity · n)`` of its n weights.

    Args:
        scores: as for ``global_masks``.
        sparsity: one share for all layers, or one for each name or pattern ("encoder.*"); layers that no pattern
            matches stay as they are, and where several match, the last one counts.
        within: earlier masks: what they prune stays pruned, and counts.

    Raises:
        ValueError: as ``global_masks``; a pattern that matches no name.
    """
    _check_scores(scores)
    shares = dict.fromkeys(scores, sparsity) if not isinstance(sparsity, Mapping) else _per_layer(scores, sparsity)
    masks = {}
    for name, piece in _pushed_down(scores, within).items():
        if name in shares:
            check_share(f"the sparsity of {name}", shares[name])
            alone = {name: piece}
            masks |= _keep_highest(alone, _pruned_count(shares[name], alone, within))
        else:
            masks[name] = (
                within[name].to(piece.device, copy=True) if within else torch.ones_like(piece, dtype=torch.bool)
            )
    return masks


def n_m_masks(scores: Scores, n: int = 2, m: int = 4, *, axis: int = 1) -> Masks:
    """Masks that keep the ``n`` highest scores of every ``m`` neighbours along one dimension: the inputs, if it is 1.

    2 of 4 is the pattern that the tensor cores of NVIDIA's GPUs can skip (Mishra et al. 2021, arXiv 2104.08378).

    Args:
        scores: shapes ``(outputs, inputs, ...)``, as linear layers and convolutions keep their weights.
        axis: the dimension of the inputs: 0 for transposed convolutions and for ``Conv1D`` of transformers' GPT-2.

    Raises:
        ValueError: no ``0 <= n <= m`` with ``m`` at least 1, inputs that ``m`` does not divide, a score that is nan.
    """
    _check_scores(scores)
    if isinstance(n, bool) or not isinstance(n, int) or not isinstance(m, int) or not 0 <= n <= m or m < 1:
        raise ValueError(f"n is {n!r} and m is {m!r}; expected whole numbers with 0 <= n <= m: n of every m are kept")
    masks = {}
    for name, score in scores.items():
        if score.dim() < 2 or score.shape[axis] % m:
            expected = f"two dimensions or more, with inputs a multiple of {m} at dimension {axis}"
            raise ValueError(f"{name} has shape {tuple(score.shape)}; expected {expected}")
        groups = score.transpose(axis, -1).unflatten(-1, (-1, m))  # (outputs, ..., inputs / m, m)
        order = groups.argsort(dim=-1, descending=True, stable=True)
        kept = torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order[..., :n], True)
        masks[name] = kept.flatten(-2).transpose(axis, -1).contiguous()  # (outputs, inputs, ...)
    return masks


def sparsity_of(masks: Mapping[str, Tensor]) -> float:
    """The share of the weights that ``masks`` prune, from 0 to 1.

    Raises:
        ValueError: there are no masks, or they are of no weights.
    """
    count = sum(mask.numel() for mask in masks.values())
    if not count:
        raise ValueError("masks are empty; expected a mask for at least one weight")
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / count


def _keep_highest(pieces: Mapping[str, Tensor], pruned: int) -> Masks:
    """Masks that are false at the ``pruned`` lowest of all scores together, of equal ones at the first."""
    if pruned == 0:
        return {name: torch.ones_like(piece, dtype=torch.bool) for name, piece in pieces.items()}
    threshold = _lowest(torch.cat([piece.flatten() for piece in pieces.values()]), pruned)  # the highest that is pruned
    masks = {name: piece > threshold for name, piece in pieces.items()}
    missing = sum(mask.numel() - int(mask.count_nonzero()) for mask in masks.values()) - pruned
    for name, piece in reversed(pieces.items()):  # some of those at the threshold stay: the last ones
        if missing:
            places = (piece == threshold).flatten().nonzero().squeeze(1)[-missing:]
            masks[name].view(-1)[places] = True
            missing -= len(places)
    return masks


def _lowest(scores: Tensor, count: int) -> Tensor:
    """The ``count``-th lowest of the scores (N,), which may be put into another order."""
    if scores.device.type != "cpu":
        return scores.kthvalue(count).values
    numbers = (scores.float() if scores.dtype == torch.bfloat16 else scores).detach()  # NumPy does not know bfloat16
    numbers.numpy().partition(count - 1)  # on a CPU it takes a tenth of the time of kthvalue
    return numbers[count - 1]


def _pushed_down(scores: Scores, within: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The scores, lowest of all where ``within`` prunes already."""
    if within is None:
        return dict(scores)
    check_masks(within, {name: score.shape for name, score in scores.items()}, "scores")
    if missing := [name for name in scores if name not in within]:
        raise ValueError(f"within has no mask for {missing[0]}; expected one for each of the scores")
    numbers = {name: score if score.is_floating_point() else score.double() for name, score in scores.items()}
    return {name: score.masked_fill(~within[name].to(score.device), -torch.inf) for name, score in numbers.items()}


def _pruned_count(sparsity: float, pieces: Mapping[str, Tensor], within: Mapping[str, Tensor] | None) -> int:
    """How many of the weights are to be zero."""
    count = sum(piece.numel() for piece in pieces.values())
    pruned, already = round(sparsity * count), sum(int((~within[name]).sum()) for name in pieces) if within else 0
    if pruned < already:
        raise ValueError(
            f"sparsity is {sparsity:g}, {pruned} weights of {count}, but within prunes {already} already; "
            "expected a sparsity that is not lower"
        )
    return pruned


def _per_layer(scores: Scores, sparsity: Mapping[str, float]) -> dict[str, float]:
    shares = {}
    for pattern, share in sparsity.items():
        shares |= dict.fromkeys(match_names(scores, pattern, argument="sparsity for"), share)
    return shares


def _check_scores(scores: Scores) -> None:
    check_type("scores", scores, Mapping, "a dict from parameter name to tensor")
    if not sum(score.numel() for score in scores.values()):
        raise ValueError("scores are empty; expected a score for at least one weight")
    for name, score in scores.items():
        if score.numel() and not score.min() > -torch.inf:  # the lowest of numbers of which one is nan is nan
            raise ValueError(f"the scores of {name} hold nan or -inf; expected numbers that can be put in order")


def check_masks(masks: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], of: str) -> None:
    """Raise unless ``masks`` are bool tensors, each of the shape that ``shapes`` has under its name.

    Raises:
        TypeError: a mask is of another type.
        ValueError: other names or shapes; ``of`` says in the message where the shapes come from.
    """
    if not isinstance(masks, Mapping) or not masks:
        raise ValueError("masks are empty; expected a dict from parameter name to mask, with at least one")
    for name, mask in masks.items():
        if name not in shapes:
            near = near_names(name, list(shapes))
            raise ValueError(f"mask {name!r}: among the {of} it matches none of the names; {near}")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            what = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"the mask of {name} is {what}; expected a tensor of torch.bool, true where kept")
        if mask.shape != shapes[name]:
            raise ValueError(f"the mask of {name} has shape {tuple(mask.shape)}; expected {tuple(shapes[name])}")
