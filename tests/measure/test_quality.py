"""Accuracy and perplexity: by hand, then against scikit-learn and PyTorch."""

import math
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import accuracy_score

from course_lib.measure import accuracy, perplexity


def test_accuracy_by_hand():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 0.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 0])) == 0.75
    assert accuracy(logits, torch.tensor([0, 1, -100, 0])) == 1.0


def test_accuracy_against_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 5, generator=generator)
    labels = torch.randint(5, (200,), generator=generator)
    assert accuracy(logits, labels) == pytest.approx(accuracy_score(labels, logits.argmax(1)))


def test_perplexity_by_hand():
    chances = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]])
    # Labels with chances 1/2 and 1/8: the mean of ln 2 and ln 8 is ln 4.
    assert perplexity(chances.log(), torch.tensor([0, 0])) == pytest.approx(4.0)
    assert perplexity(torch.zeros(3, 7), torch.tensor([1, 2, 3])) == pytest.approx(7.0)  # seven equal choices


def test_padding_does_not_count():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, -100], [0, -100, -100]])
    by_hand = -sum(logits[i, j].log_softmax(0)[labels[i, j]].item() for i, j in [(0, 0), (0, 1), (1, 0)]) / 3
    assert perplexity(logits, labels) == pytest.approx(math.exp(by_hand))
    peer = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert perplexity(logits, labels) == pytest.approx(peer.exp().item())
    logits[1, 2] = float("nan")  # whatever stands at a padded place
    assert perplexity(logits, labels) == pytest.approx(math.exp(by_hand))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_class_156_is_no_padding_in_any_type(dtype):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 40, 200, generator=generator), torch.randint(200, (2, 40), generator=generator)
    labels[0, :20] = 156  # -100 in eight bits without a sign
    logits[0, :20] -= 9 * torch.nn.functional.one_hot(labels[0, :20], 200)
    by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).exp().item()
    assert perplexity(logits, labels.to(dtype)) == pytest.approx(by_hand)
    assert accuracy(logits, labels.to(dtype)) == (logits.argmax(-1) == labels).float().mean().item()


def test_what_a_model_gives_is_taken_too():
    logits, labels = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2, 3])
    for output in (SimpleNamespace(loss=1.0, logits=logits), {"logits": logits}, (logits, "cache")):
        assert perplexity(output, labels) == perplexity(logits, labels)
        assert accuracy(output, labels) == accuracy(logits, labels)


@pytest.mark.parametrize("measure", [accuracy, perplexity])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), r"\(2, 3\) and labels \(3,\)"),
        (torch.zeros(3), torch.tensor(1), "expected"),
        (torch.zeros(2, 3), torch.zeros(2), "torch.float32; expected integers"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "run from 0 to 3; expected 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([-1, 2]), "run from -1 to 2"),
        (torch.zeros(2, 3), torch.tensor([-100, -100]), "all of the 2 labels are padding"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "all of the 0 labels"),
        (torch.full((2, 3), float("nan")), torch.tensor([0, 1]), "nan or infinite"),
    ],
)
def test_bad_input(measure, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        measure(logits, labels)
