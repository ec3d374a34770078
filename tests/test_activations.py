"""Hooks: found by name, there while they are needed, gone afterwards."""

import pytest
import torch
from torch import nn

from course_lib.activations import capture, forward_to, layer_outputs
from course_lib.layers import find_layer
from course_lib.models.vision import SmallConvNet, mlp


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


class TwoOutputs(nn.Module):
    """A layer that answers with a tuple, as attention layers do."""

    def forward(self, inputs):
        return inputs + 1, "extra"


class Skips(nn.Module):
    """A network one of whose layers is never run."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.used(inputs)


def test_captured_output_by_hand():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    model[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    with capture(model, ["0", "1"]) as seen:
        model(torch.tensor([[3.0, 5.0]]))
    assert seen["0"].tolist() == [[3.0, -5.0]]
    assert seen["1"].tolist() == [[3.0, 0.0]]


def test_capture_changes_nothing_and_leaves_nothing():
    model, inputs = SmallConvNet((4, 8)).eval(), torch.randn(3, 1, 8, 8)
    plain = model(inputs)
    with capture(model, ["blocks.0", "blocks.1.0"]) as seen:
        assert hooks(model) == 2
        watched = model(inputs)
    assert torch.equal(plain, watched) and torch.equal(plain, model(inputs))
    assert hooks(model) == 0
    assert seen["blocks.0"].shape == (3, 4, 4, 4) and seen["blocks.1.0"].shape == (3, 8, 4, 4)


def test_hooks_go_when_something_fails():
    model = mlp([4, 5, 3])
    with pytest.raises(RuntimeError, match="stop here"), capture(model, ["1"]):
        raise RuntimeError("stop here")
    assert hooks(model) == 0
    with pytest.raises(ValueError), capture(model, ["1", "no such layer"]):
        pass
    assert hooks(model) == 0


def test_hooks_of_others_stay():
    model = mlp([4, 5, 3])
    theirs = model[1].register_forward_hook(lambda module, inputs, output: None)
    with capture(model, ["1"]):
        model(torch.randn(2, 4))
    assert hooks(model) == 1
    theirs.remove()


def test_gradients_flow_through_a_captured_output():
    model = mlp([4, 5, 3])
    with capture(model, ["1"]) as seen:
        model(torch.randn(2, 4))
    seen["1"].sum().backward()
    assert model[1].weight.grad is not None and model[3].weight.grad is None


def test_each_pass_fills_anew():
    model = nn.Sequential(nn.Flatten())
    with capture(model, ["0"]) as seen:
        model(torch.zeros(1, 2))
        model(torch.ones(1, 2))
    assert seen["0"].tolist() == [[1.0, 1.0]]


def test_first_tensor_of_a_tuple():
    model = nn.Sequential(TwoOutputs())
    with capture(model, ["0"]) as seen:
        model(torch.zeros(1, 2))
    assert seen["0"].tolist() == [[1.0, 1.0]]


def test_unknown_name_lists_names_near_it():
    with pytest.raises(ValueError, match=r"no layer named 'block\.0' in SmallConvNet; near it: .*blocks\.0"):
        find_layer(SmallConvNet(), "block.0")


def test_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError, match=r"it has: 0, 1, 2, 3$"):
        find_layer(mlp([4, 5, 3]), "transformer")


def test_bad_arguments():
    with pytest.raises(TypeError, match="model is a list; expected a torch.nn.Module"):
        find_layer([], "0")
    with pytest.raises(ValueError, match="no layer named ''"):
        find_layer(mlp([4, 3]), "")
    with pytest.raises(TypeError, match="the string 'blocks'; expected a list"), capture(SmallConvNet(), "blocks"):
        pass


def test_a_layer_without_a_tensor():
    model = nn.Sequential(nn.Identity())
    with pytest.raises(TypeError, match="layer '0' gives a str; expected a tensor"), capture(model, ["0"]):
        model("text")
    assert hooks(model) == 0


# forward_to


def test_forward_to_is_the_captured_output():
    model, inputs = mlp([4, 5, 3]), torch.randn(2, 4)
    with capture(model, ["2"]) as seen:
        model(inputs)
    assert torch.equal(forward_to(model, "2", inputs), seen["2"])
    assert hooks(model) == 0


def test_forward_to_runs_nothing_behind_the_layer():
    model = SmallConvNet((4, 8)).train()
    forward_to(model, "blocks.0", torch.randn(3, 1, 8, 8)).sum().backward()
    assert model.blocks[0][1].num_batches_tracked == 1
    assert model.blocks[1][1].num_batches_tracked == 0, "batch normalisation behind the layer saw the batch"
    assert model.blocks[0][0].weight.grad is not None and model.classifier.weight.grad is None
    assert hooks(model) == 0


def test_forward_to_a_layer_that_is_never_run():
    model = Skips()
    with pytest.raises(ValueError, match="'unused' was not run"):
        forward_to(model, "unused", torch.randn(2, 4))
    assert hooks(model) == 0


def test_forward_to_passes_other_errors_on():
    model = mlp([4, 5, 3])
    with pytest.raises(RuntimeError, match="shapes"):
        forward_to(model, "3", torch.randn(2, 7))
    assert hooks(model) == 0


# layer_outputs


def test_outputs_of_all_rows_whatever_the_batches():
    model, inputs = SmallConvNet((4, 8)), torch.randn(11, 1, 8, 8)
    outputs = layer_outputs(model, inputs, ["blocks.0", "classifier"], batch_size=4)
    with torch.no_grad():
        model.eval()
        torch.testing.assert_close(outputs["blocks.0"], model.blocks[0](inputs))
        torch.testing.assert_close(outputs["classifier"], model(inputs))
    assert not outputs["classifier"].requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_outputs_leave_the_model_as_it_was(training):
    model = SmallConvNet((4, 8)).train(training)
    model.blocks[1].train(not training)  # a mixture of modes is put back too
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layer_outputs(model, torch.randn(5, 1, 8, 8), ["blocks.1"])
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert hooks(model) == 0


def test_outputs_bad_input():
    with pytest.raises(ValueError, match="inputs is empty; expected at least one row"):
        layer_outputs(mlp([4, 3]), torch.zeros(0, 4), ["1"])
    with pytest.raises(TypeError, match="inputs is a list; expected a tensor or a TensorDataset"):
        layer_outputs(mlp([4, 3]), [[0.0] * 4], ["1"])
    with pytest.raises(ValueError, match="'unused' was not run"):
        layer_outputs(Skips(), torch.zeros(2, 4), ["unused"])
