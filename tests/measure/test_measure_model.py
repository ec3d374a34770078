"""One call that measures everything: each number is that of the function behind it."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from course_lib import measure
from course_lib.models.vision import mlp


def test_a_row_by_hand():
    model = mlp([3, 4, 2])
    row = measure.measure_model("tiny", model, torch.randn(5, 3), quality={"perplexity": 7.0}, repeats=3)
    assert (row.name, row.quality, row.parameters, row.nonzero) == ("tiny", {"perplexity": 7.0}, 26, 26)
    assert (row.bytes_in_memory, row.flops, row.example) == (104, 5 * 40, "5×3")
    assert row.bytes_on_disk == measure.bytes_on_disk(model)
    assert row.peak_memory == 2 * 5 * 4 * 4
    assert row.latency.repeats == 3
    assert row.device == f"CPU, {torch.get_num_threads()} threads"
    assert model.training


def test_accuracy_on_data_by_hand():
    model = mlp([2, 2])
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(2))
        model[1].bias.zero_()
    data = TensorDataset(torch.tensor([[1.0, 0], [0, 1], [2, 1], [1, 3]]), torch.tensor([0, 1, 1, 1]))
    row = measure.measure_model("eye", model, data.tensors[0], data, quality={"note": 1.0}, timed=False)
    assert row.quality == {"accuracy": 0.75, "note": 1.0}
    assert row.latency is None


def test_a_model_with_several_inputs():
    row = measure.measure_model("bilinear", nn.Bilinear(2, 3, 4), (torch.randn(5, 2), torch.randn(5, 3)), timed=False)
    assert row.example == "5×2, 5×3"


def test_only_models():
    with pytest.raises(TypeError, match="model is a str"):
        measure.measure_model("tiny", "tiny", torch.randn(1))
