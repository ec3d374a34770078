"""Learning from a teacher of which only the answers can be seen.

Black box: nothing here takes a module. A teacher is any function from inputs to labels: an API over a
network, a person, or ``answers_of(model)``, which hides everything of a model but its answer. So the code
cannot look at more than the box shows.

What is lost against ``hinton.py`` is everything but the largest logit: which other classes were likely, and
how sure the teacher was.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from course_lib.evaluation import predict_logits

Answers = Callable[[Tensor], Tensor]


def answers_of(teacher: nn.Module) -> Answers:
    """A function from inputs (N, ...) to the teacher's labels (N,), int64: the teacher with a closed lid.

    The teacher answers in eval mode without gradients, and is left in the mode that it was in.
    """

    def answer(inputs: Tensor) -> Tensor:
        return predict_logits(teacher, TensorDataset(inputs)).argmax(dim=-1)  # (N, C) -> (N,)

    return answer


def label_with_teacher(answer: Answers, inputs: Tensor, *, batch_size: int = 256) -> TensorDataset:
    """Ask for a label for every input, a batch at a time: the transfer set (inputs, the teacher's labels).

    No label of ours goes in: the inputs need none. Train on the result as on any labelled data.

    Args:
        answer: function from inputs (n, ...) to labels (n,) of an integer type.
        inputs: (N, ...).

    Returns:
        TensorDataset of inputs (N, ...) and labels (N,), int64.

    Raises:
        TypeError: ``answer`` is a module (wrap it: ``answers_of(model)``), or its answers are not integers.
        ValueError: no inputs, or an answer that is not one label for each input.
    """
    if isinstance(answer, nn.Module):
        raise TypeError("answer is a module; expected a function that returns labels only: answers_of(module)")
    if len(inputs) == 0:
        raise ValueError("inputs is empty; expected at least one")
    labels = []
    for batch in inputs.split(batch_size):
        got = answer(batch)
        if got.is_floating_point() or got.is_complex() or got.dtype == torch.bool:
            raise TypeError(f"the answers are {got.dtype}; expected integer labels: a black box gives no scores")
        if got.shape != (len(batch),):
            raise ValueError(f"the answers are {tuple(got.shape)}; expected ({len(batch)},), a label for each input")
        labels.append(got.to("cpu", torch.int64))
    return TensorDataset(inputs, torch.cat(labels))
