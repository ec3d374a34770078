"""How good a model is, from its logits: accuracy and perplexity."""

import torch
from torch import Tensor, nn

from course_lib.evaluation import logits_of


def accuracy(logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> float:
    """Share of the labels at which the largest logit stands; labels equal to ``ignore_index`` do not count.

    Shapes: logits ``(N, C)`` and labels ``(N,)``, or ``(N, L, V)`` and ``(N, L)``. Instead of the logits, what a model
    gives: see ``evaluation.logits_of``.

    Raises:
        ValueError: shapes that do not fit, labels that are no classes of the logits, logits that are not finite,
            or nothing that counts.
    """
    logits, labels, counted = _checked(logits, labels, ignore_index)
    return (logits.argmax(-1) == labels)[counted].float().mean().item()


def perplexity(logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> float:
    """``exp`` of the mean negative log-likelihood of the labels: 10 means unsure as among 10 equal choices.

    Padding, the labels equal to ``ignore_index``, does not count. Labels stand at the position of the logits
    that predict them: nothing is shifted here. Do not average the perplexities of batches; pass all at once.

    Shapes: logits ``(N, C)`` and labels ``(N,)``, or ``(N, L, V)`` and ``(N, L)``. Instead of the logits, what a model
    gives: see ``evaluation.logits_of``.

    Raises:
        ValueError: as ``accuracy``.
    """
    logits, labels, counted = _checked(logits, labels, ignore_index)
    return nn.functional.cross_entropy(logits[counted].float(), labels[counted]).exp().item()


def _checked(logits: object, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Check shapes and values: the logits, the labels as int64, and where they count, shaped like the labels."""
    logits = logits_of(logits)
    if logits.ndim < 2 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
            "expected (N, C) with (N,), or (N, L, V) with (N, L)"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype}; expected integers, the index of the right class")
    labels = labels.long()  # before the padding is looked for: in uint8, -100 would be 156
    counted = labels != ignore_index
    if not counted.any():
        raise ValueError(f"all of the {labels.numel()} labels are padding (ignore_index is {ignore_index})")
    lowest, highest = labels[counted].min().item(), labels[counted].max().item()
    if lowest < 0 or highest >= logits.shape[-1]:
        raise ValueError(f"labels run from {lowest} to {highest}; expected 0 to {logits.shape[-1] - 1}")
    if not logits[counted].isfinite().all():
        raise ValueError("logits hold nan or infinite values; the model has diverged or divided by zero")
    return logits, labels, counted
