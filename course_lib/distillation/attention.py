"""Attention transfer: where in the picture the teacher's features are strong, rather than what they say.

White box: needs the teacher's modules, for what its convolutional layers give out.

Zagoruyko and Komodakis, "Paying More Attention to Attention: Improving the Performance of Convolutional
Neural Networks via Attention Transfer" (ICLR 2017, arXiv 1612.03928), activation-based. For the features A
(C, H, W) of a layer,

    Q = vec( mean_c |A_c|^2 )                                            one number a place in the H x W grid

    L_AT = sum_j || Q_S^j / ||Q_S^j||_2 - Q_T^j / ||Q_T^j||_2 ||_2       j: the pairs of layers

The mean over channels needs no regressor: student and teacher may have different numbers of them. Features of
a fully connected layer have no places, so there is no attention map of them.

The norm is averaged over the examples of a batch. The authors' own code, and RepDistiller's, take the mean of
the squared differences instead of the norm: their beta of 1,000 is not comparable with one here. ::

    data = with_features(teacher, with_teacher_logits(teacher, train), ["layer1", "layer2"])
    loss = soft_and_attention_loss(["block1", "block2"], temperature=4, alpha=0.9, beta=1)    # the student's layers
    fit(student, data, config, loss=loss)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.activations import capture
from course_lib.checking import check_number
from course_lib.distillation.hinton import batch_loss
from course_lib.evaluation import Batch
from course_lib.training import Loss


def attention_map(features: Tensor) -> Tensor:
    """Q / ||Q||_2 of each example: features (N, C, H, W) to (N, H*W), each row of length 1.

    An example whose features are all zero gives a row of zeros.

    Raises:
        ValueError: features that are not (N, C, H, W).
    """
    if features.dim() != 4:
        raise ValueError(
            f"features are {tuple(features.shape)}; expected (N, C, H, W): an attention map needs places in a picture"
        )
    strength = features.square().mean(dim=1)  # (N, C, H, W) -> (N, H, W)
    return F.normalize(strength.flatten(1), dim=1)  # (N, H, W) -> (N, H*W)


def attention_transfer_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """L_AT of one pair of layers, averaged over the examples; between 0 and the square root of 2.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C', H, W); no gradient goes into them.

    Raises:
        ValueError: features that are not (N, C, H, W), or grids that differ.
    """
    maps = attention_map(student_features), attention_map(teacher_features.detach())  # (N, H*W) each
    if student_features.shape[2:] != teacher_features.shape[2:]:
        raise ValueError(
            f"height and width are {tuple(student_features.shape[2:])} in the student and "
            f"{tuple(teacher_features.shape[2:])} in the teacher: choose layers where they agree, or pool the larger"
        )
    return torch.linalg.vector_norm(maps[0] - maps[1], dim=1).mean()


def soft_and_attention_loss(layers: Sequence[str], *, temperature: float, alpha: float, beta: float) -> Loss:
    """``distillation_loss`` + ``beta`` L_AT for ``training.fit``.

    Batches are (inputs, labels, teacher logits, features ...): a column of the teacher's features for each of
    ``layers``, which are the student's, by name, in the same order.

    Raises:
        TypeError, ValueError: no layers; an argument is no number or out of range; ``beta`` is 0 (plain distillation)
            or above. When it is called, also for an unknown layer (near names are listed).
    """
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    if not layers:
        raise ValueError("layers is empty; expected the name of at least one layer of the student")
    check_number("temperature", temperature, above=0)
    check_number("alpha", alpha, least=0, most=1)
    check_number("beta", beta, least=0)

    def loss(student: nn.Module, batch: Batch) -> Tensor:
        (*known, teacher_logits), features = batch[: -len(layers)], batch[-len(layers) :]
        with capture(student, layers) as seen:
            soft = batch_loss(student, known, teacher_logits, temperature=temperature, alpha=alpha)
        pairs = [(seen[name], there) for name, there in zip(layers, features, strict=True)]
        return soft + beta * sum(attention_transfer_loss(here, there) for here, there in pairs)

    return loss
