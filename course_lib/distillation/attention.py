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
the squared differences instead of the norm: their beta of 1,000 is not comparable with one here.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.activations import capture, layer_outputs
from course_lib.checking import check_number
from course_lib.distillation.hinton import distillation_loss, with_teacher_logits
from course_lib.layers import find_layer
from course_lib.training import FitConfig, History, fit


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


def attention_transfer_loss(student_features: Tensor, teacher_features: Tensor, *, pool: bool = False) -> Tensor:
    """L_AT of one pair of layers, averaged over the examples; between 0 and the square root of 2.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C', H, W); no gradient goes into them.
        pool: for different heights and widths, average the larger features over the smaller grid first.

    Raises:
        ValueError: features that are not (N, C, H, W), or grids that differ without ``pool``.
    """
    student_grid, teacher_grid = student_features.shape[2:], teacher_features.shape[2:]
    if student_grid != teacher_grid and student_features.dim() == teacher_features.dim() == 4:
        if not pool:
            raise ValueError(
                f"height and width are {tuple(student_grid)} in the student and {tuple(teacher_grid)} in the "
                "teacher: choose layers where they agree, or say pool=True"
            )
        grid = [min(sizes) for sizes in zip(student_grid, teacher_grid, strict=True)]
        student_features = F.adaptive_avg_pool2d(student_features, grid)
        teacher_features = F.adaptive_avg_pool2d(teacher_features, grid)
    difference = attention_map(student_features) - attention_map(teacher_features.detach())  # (N, H*W)
    return torch.linalg.vector_norm(difference, dim=1).mean()


def distill_with_attention(
    student: nn.Module,
    teacher: nn.Module,
    train: TensorDataset,
    config: FitConfig | None = None,
    *,
    layers: Mapping[str, str],
    beta: float,
    temperature: float,
    alpha: float,
    pool: bool = False,
    validation: TensorDataset | None = None,
    progress: bool = True,
) -> History:
    """Train the student, in place, on the distillation loss plus beta times the attention transfer loss.

    The teacher is asked once for each input, in eval mode without gradients, and left as it was.

    Args:
        student, teacher: any modules that take the inputs of ``train``.
        train: inputs (N, ...), labels (N,).
        layers: student's layer -> teacher's layer, names as in ``named_modules()``.
        beta: weight of L_AT, not negative; 0 is plain distillation.
        temperature, alpha: as in ``hinton.distillation_loss``.
        pool: as in ``attention_transfer_loss``.
        validation: inputs and labels, scored after each epoch by ``training.fit``.

    Raises:
        ValueError: no pair of layers, an unknown layer (near names are listed), layers that have no attention
            map, a bad beta.
    """
    if not layers:
        raise ValueError("layers is empty; expected at least one pair of a student's and a teacher's layer")
    check_number("beta", beta, least=0)
    for name in layers:
        find_layer(student, name)
    shown = layer_outputs(teacher, train, list(layers.values()), progress=progress)
    features = [shown[name] for name in layers.values()]  # in the order of ``layers``
    data = TensorDataset(*with_teacher_logits(teacher, train).tensors, *features)
    with capture(student, list(layers)) as seen:

        def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
            inputs, labels, teacher_logits, *teacher_features = batch
            student_logits = model(inputs)  # also fills seen
            soft = distillation_loss(student_logits, teacher_logits, labels, temperature=temperature, alpha=alpha)
            pairs = [(seen[name], there) for name, there in zip(layers, teacher_features, strict=True)]
            return soft + beta * sum(attention_transfer_loss(here, there, pool=pool) for here, there in pairs)

        return fit(student, data, config or FitConfig(), validation=validation, loss=loss, progress=progress)
