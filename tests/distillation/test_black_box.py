"""Answers only: nothing but labels comes out of the box."""

import pytest
import torch
from torch import nn

from course_lib.distillation.black_box import answers_of, label_with_teacher
from course_lib.models.vision import mlp


def test_answers_by_hand():
    # the largest of three logits, row by row
    answer = answers_of(nn.Identity())
    got = answer(torch.tensor([[0.1, 0.7, 0.2], [5.0, -1.0, 4.9]]))
    assert got.tolist() == [1, 0] and got.dtype == torch.int64


def test_labels_are_the_answers_in_order_whatever_the_batches():
    inputs = torch.randn(23, 4)
    by_sign = label_with_teacher(lambda rows: (rows[:, 0] > 0).long(), inputs, batch_size=5)
    assert torch.equal(by_sign.tensors[0], inputs)
    assert torch.equal(by_sign.tensors[1], (inputs[:, 0] > 0).long())


def test_the_teacher_is_left_as_it_was_and_answers_without_dropout():
    teacher = mlp([4, 16, 3], dropout=0.5).train()
    inputs = torch.randn(50, 4)
    first = label_with_teacher(answers_of(teacher), inputs).tensors[1]
    assert torch.equal(first, label_with_teacher(answers_of(teacher), inputs).tensors[1])
    assert all(module.training for module in teacher.modules())


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (nn.Linear(4, 3), TypeError, "is a module; .*answers_of"),
        (lambda rows: rows.softmax(-1), TypeError, "float32; expected integer labels"),
        (lambda rows: torch.zeros(len(rows) + 1, dtype=torch.int64), ValueError, r"are \(7,\); expected \(6,\)"),
        (lambda rows: torch.zeros(len(rows), 1, dtype=torch.int64), ValueError, r"are \(6, 1\); expected \(6,\)"),
    ],
)
def test_bad_answers(answer, error, message):
    with pytest.raises(error, match=message):
        label_with_teacher(answer, torch.randn(6, 4))


def test_no_inputs():
    with pytest.raises(ValueError, match="at least one"):
        label_with_teacher(lambda rows: rows.long(), torch.zeros(0, 4))
