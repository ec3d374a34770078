"""``evaluate`` and ``predict_logits``: by hand, against NumPy, and what they leave as it was."""

import math

import pytest
import torch
from scipy.special import log_softmax
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from course_lib.evaluation import check_data, evaluate, predict_logits
from course_lib.models.vision import mlp

# the identity: what goes in are the logits
LOGITS = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)], [0.0, 0.0], [2.0, 1.0]])
LABELS = torch.tensor([1, 0, 0, 0])


def test_by_hand():
    # probabilities of the labels: 3/4, 1/4, 1/2 and 1 / (1 + 1/e); the second is wrong, a tie goes to the first class
    result = evaluate(nn.Identity(), TensorDataset(LOGITS, LABELS))
    loss = (math.log(4 / 3) + math.log(4) + math.log(2) + math.log(1 + 1 / math.e)) / 4
    assert result.loss == pytest.approx(loss, rel=1e-6)
    assert (result.accuracy, result.errors, result.count) == (0.75, 1, 4)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 1000])
def test_the_size_of_the_batches_changes_nothing(batch_size):
    data = TensorDataset(LOGITS, LABELS)
    expected = evaluate(nn.Identity(), data)
    for result in (
        evaluate(nn.Identity(), data, batch_size=batch_size),
        evaluate(nn.Identity(), DataLoader(data, batch_size=batch_size)),
    ):
        assert result.loss == pytest.approx(expected.loss, rel=1e-6)
        assert (result.accuracy, result.errors, result.count) == (expected.accuracy, expected.errors, expected.count)


def test_against_numpy():
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(50, 6, generator=generator), torch.arange(50) % 4
    model = mlp([6, 8, 4])
    logits = predict_logits(model, TensorDataset(inputs), batch_size=7)
    assert torch.equal(logits, model(inputs).detach()) or torch.allclose(logits, model(inputs), atol=1e-6)
    logs = log_softmax(logits.double().numpy(), axis=1)
    result = evaluate(model, TensorDataset(inputs, labels), batch_size=7)
    assert result.loss == pytest.approx(-logs[range(50), labels.numpy()].mean(), rel=1e-5)
    assert result.errors == int((logs.argmax(1) != labels.numpy()).sum())


def test_labels_may_be_any_integers():
    expected = evaluate(nn.Identity(), TensorDataset(LOGITS, LABELS))
    for dtype in (torch.int32, torch.uint8):
        assert evaluate(nn.Identity(), TensorDataset(LOGITS, LABELS.to(dtype))) == expected


class Fails(nn.Module):
    """Dropout, batch norm in eval mode, and an error at the second batch."""

    def __init__(self, at=2):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
        self.body[1].eval()
        self.left, self.seen = at, []

    def forward(self, inputs):
        self.left -= 1
        if not self.left:
            raise RuntimeError("out of order")
        self.seen.append((self.training, torch.is_grad_enabled()))
        return self.body(inputs)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("ask", [evaluate, predict_logits])
@pytest.mark.parametrize("at", [2, 0])
def test_the_model_is_left_as_it_was_even_by_an_error_midway(ask, at, grad):
    model = Fails(at)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    data = TensorDataset(LOGITS, LABELS)
    with torch.set_grad_enabled(grad):
        if at:
            with pytest.raises(RuntimeError, match="out of order"):
                ask(model, data, batch_size=1)
        else:
            ask(model, data, batch_size=1)
        assert torch.is_grad_enabled() == grad
    assert set(model.seen) == {(False, False)}
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_model_goes_back_to_its_device_even_after_an_error(monkeypatch):
    model, places = nn.Linear(2, 2), []
    monkeypatch.setattr(model, "to", places.append)
    with pytest.raises(ValueError, match="labels"):
        evaluate(model, TensorDataset(LOGITS, LABELS + 7))
    assert places == [torch.device("cpu")] * 2


def test_predictions_do_not_hang_on_the_graph():
    logits = predict_logits(nn.Linear(2, 3), TensorDataset(LOGITS))
    assert not logits.requires_grad and logits.shape == (4, 3) and logits.device.type == "cpu"


@pytest.mark.parametrize("ask", [evaluate, predict_logits])
def test_empty_data(ask):
    nothing = TensorDataset(torch.zeros(0, 2), torch.zeros(0).long())
    with pytest.raises(ValueError, match="data is empty"):
        ask(nn.Identity(), nothing)
    with pytest.raises(ValueError, match="data is empty"):
        ask(nn.Identity(), DataLoader(TensorDataset(LOGITS, LABELS), batch_size=5, drop_last=True))


@pytest.mark.parametrize("ask", [evaluate, predict_logits])
def test_data_of_another_type(ask):
    with pytest.raises(TypeError, match="model is a function; expected a torch.nn.Module"):
        evaluate(lambda inputs: inputs, TensorDataset(torch.zeros(2, 2)))
    with pytest.raises(TypeError, match="data is a tuple; expected a TensorDataset or a DataLoader"):
        ask(nn.Identity(), (LOGITS, LABELS))


def test_a_stream_without_a_length():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(TypeError, match="train has no length"):
        check_data("train", DataLoader(Stream()))


@pytest.mark.parametrize("label", [-1, 2, -100])
def test_labels_out_of_range(label):
    labels = torch.tensor([0, 1, label, 0])
    with pytest.raises(ValueError, match=f"labels hold {label}; expected 0 to 1"):
        evaluate(nn.Identity(), TensorDataset(LOGITS, labels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_labels_of_another_type(dtype):
    with pytest.raises(TypeError, match=f"labels are {dtype}; expected class numbers"):
        evaluate(nn.Identity(), TensorDataset(LOGITS, torch.ones(4, dtype=dtype)))


def test_labels_of_another_shape():
    with pytest.raises(ValueError, match=r"labels are \(4, 1\) and the logits \(4, 2\)"):
        evaluate(nn.Identity(), TensorDataset(LOGITS, LABELS[:, None]))


def test_no_labels():
    with pytest.raises(ValueError, match="data holds no labels"):
        evaluate(nn.Identity(), TensorDataset(LOGITS))


def test_batch_size():
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluate(nn.Identity(), TensorDataset(LOGITS, LABELS), batch_size=0)
