"""One call that measures everything: each number is that of the function behind it."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from course_lib import measure
from course_lib.models.vision import mlp
from course_lib.table import ComparisonTable


def row_of(model, example, data=None):
    """The only row of a table of one model, not timed."""
    (row,) = measure.compare_models({"tiny": model}, example, data, timed=False).rows
    return row


def test_a_row_by_hand():
    model = mlp([3, 4, 2])
    (row,) = measure.compare_models({"tiny": model}, torch.randn(5, 3)).rows
    assert (row.name, row.quality, row.parameters, row.nonzero) == ("tiny", {}, 26, 26)
    assert (row.bytes_in_memory, row.flops, row.example) == (104, 5 * 40, "5×3")
    assert row.bytes_on_disk == measure.bytes_on_disk(model)
    assert row.peak_memory == 2 * 5 * 4 * 4
    assert row.latency.repeats == 30
    assert row.device.startswith("CPU, ")
    assert model.training


def test_accuracy_on_data_by_hand():
    model = mlp([2, 2])
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(2))
        model[1].bias.zero_()
    data = TensorDataset(torch.tensor([[1.0, 0], [0, 1], [2, 1], [1, 3]]), torch.tensor([0, 1, 1, 1]))
    row = row_of(model, data.tensors[0], data)
    assert row.quality == {"accuracy": 0.75}
    assert row.latency is None


def test_a_model_with_several_inputs():
    row = row_of(nn.Bilinear(2, 3, 4), (torch.randn(5, 2), torch.randn(5, 3)))
    assert row.example == "5×2, 5×3"
    assert row.flops == 2 * 5 * (4 * 3 * 2 + 4 * 3)


def test_only_models():
    with pytest.raises(TypeError, match="model is a str"):
        measure.compare_models({"tiny": "tiny"}, torch.randn(1))


def test_a_table_of_models_is_their_rows_timed_in_turns():
    models, x = {"tiny": mlp([3, 4, 2]), "large": mlp([3, 40, 2])}, torch.randn(5, 3)
    table = measure.compare_models(models, x)
    assert [row.name for row in table.rows] == ["tiny", "large"]
    assert all(row.latency.repeats == 30 for row in table.rows)
    untimed = measure.compare_models(models, x, timed=False)
    assert [row.parameters for row in untimed.rows] == [26, 242]
    assert str(untimed) == str(ComparisonTable([replace(row, latency=None) for row in table.rows]))
    assert "latency" not in str(untimed)
    assert repr(table) == str(table)


def test_threads_are_named():
    before = torch.get_num_threads()
    try:
        for count, name in ((1, "CPU, 1 thread"), (2, "CPU, 2 threads")):
            torch.set_num_threads(count)
            assert row_of(mlp([3, 2]), torch.randn(1, 3)).device == name
    finally:
        torch.set_num_threads(before)


def test_no_models():
    with pytest.raises(ValueError, match="expected one or more rows"):
        measure.compare_models({}, torch.randn(1, 3))
