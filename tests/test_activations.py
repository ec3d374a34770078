"""What layers take in and give out, against PyTorch by hand; hooks are there while needed, and gone afterwards."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.activations import capture, gram, layer_inputs, layer_outputs, run_to, watch_inputs
from course_lib.device import seeded
from course_lib.layers import find_layer
from course_lib.measure.work import peak_memory
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


# run_to


def test_run_to_is_the_captured_output():
    model, inputs = mlp([4, 5, 3]), torch.randn(2, 4)
    with capture(model, ["2"]) as seen:
        model(inputs)
    assert torch.equal(run_to(model, "2", inputs), seen["2"])
    assert hooks(model) == 0


def test_run_to_runs_nothing_behind_the_layer():
    model = SmallConvNet((4, 8)).train()
    run_to(model, "blocks.0", torch.randn(3, 1, 8, 8)).sum().backward()
    assert model.blocks[0][1].num_batches_tracked == 1
    assert model.blocks[1][1].num_batches_tracked == 0, "batch normalisation behind the layer saw the batch"
    assert model.blocks[0][0].weight.grad is not None and model.classifier.weight.grad is None
    assert hooks(model) == 0


def test_run_to_a_layer_that_is_never_run():
    model = Skips()
    with pytest.raises(ValueError, match="'unused' was not run"):
        run_to(model, "unused", torch.randn(2, 4))
    assert hooks(model) == 0


def test_run_to_passes_other_errors_on():
    model = mlp([4, 5, 3])
    with pytest.raises(RuntimeError, match="shapes"):
        run_to(model, "3", torch.randn(2, 7))
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
    with pytest.raises(ValueError, match="data is empty"):
        layer_outputs(mlp([4, 3]), torch.zeros(0, 4), ["1"])
    with pytest.raises(TypeError, match="data is a list; expected a TensorDataset or a DataLoader"):
        layer_outputs(mlp([4, 3]), [[0.0] * 4], ["1"])
    with pytest.raises(ValueError, match="'unused' was not run"):
        layer_outputs(Skips(), torch.zeros(2, 4), ["unused"])
    with pytest.raises(ValueError, match="names is empty"):
        layer_outputs(Skips(), torch.zeros(2, 4), [])


def test_a_name_given_twice_counts_once():
    model, inputs = mlp([4, 3]), torch.randn(5, 4)
    assert layer_outputs(model, inputs, ["1", "1"])["1"].shape == (5, 3)
    assert torch.equal(gram(model, inputs, ["1", "1"])["1"], gram(model, inputs, ["1"])["1"])


def test_outputs_keep_their_digits():
    model, inputs = mlp([4, 3]).double(), torch.randn(2, 4, dtype=torch.float64)
    assert torch.equal(layer_outputs(model, inputs, ["1"])["1"], model(inputs))
    assert layer_outputs(mlp([4, 3]).bfloat16(), inputs.bfloat16(), ["1"])["1"].dtype == torch.float32


# A layer behind that works in place


def before_a_relu(inplace: bool) -> nn.Sequential:
    with seeded(3):
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(3 * 4 * 4, 2))


@pytest.mark.parametrize("how", ["capture", "run_to"])
def test_what_a_layer_gave_before_a_layer_in_place_with_its_gradients(how):
    with seeded(0):
        x, weights = torch.randn(5, 1, 6, 6), torch.randn(5, 3, 4, 4)
    found = {}
    for inplace in (False, True):
        model = before_a_relu(inplace)
        if how == "run_to":
            given, answer = run_to(model, "0", x), model(x)
        else:
            with capture(model, ["0"]) as seen:
                answer = model(x)
            given = seen["0"]
        ((given * weights).sum() + answer.square().sum()).backward()
        found[inplace] = [given, *(parameter.grad for parameter in model.parameters())]
    assert (found[False][0] < 0).any()
    for expected, gradient in zip(found[False], found[True], strict=True):
        assert torch.equal(gradient, expected)


def test_outputs_and_inputs_around_a_layer_in_place():
    x, plain, inplace = torch.randn(5, 1, 6, 6), before_a_relu(False), before_a_relu(True)
    with torch.no_grad():
        expected = F.conv2d(x, plain[0].weight, plain[0].bias)
    assert torch.equal(
        layer_outputs(inplace, x, ["0"], batch_size=2)["0"], layer_outputs(plain, x, ["0"], batch_size=2)["0"]
    )
    torch.testing.assert_close(layer_outputs(inplace, x, ["0"])["0"], expected)
    torch.testing.assert_close(layer_inputs(inplace, x, ["1", "3"])["1"], expected)
    torch.testing.assert_close(layer_inputs(inplace, x, ["1", "3"])["3"], expected.relu().flatten(1))


# What comes into a layer


def test_watched_inputs_by_hand():
    model, seen = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).train(), []
    model[0].load_state_dict({"weight": torch.tensor([[1.0, 0], [0, -1]]), "bias": torch.zeros(2)})
    data = DataLoader(TensorDataset(torch.tensor([[3.0, 5], [1, -2], [0, 4]]), torch.zeros(3)), batch_size=2)
    watch_inputs(model, data, {"1": lambda x: seen.append(x.tolist())})
    assert seen == [[[3, -5], [1, 2]], [[0, -4]]]
    assert model.training and hooks(model) == 0


def test_a_function_that_fails_leaves_no_hooks():
    model = mlp([4, 3]).train()
    with pytest.raises(ZeroDivisionError):
        watch_inputs(model, torch.zeros(2, 4), {"1": lambda x: 1 / 0})
    assert model.training and hooks(model) == 0


class Twice(nn.Module):
    """A layer that is called twice in a pass, the second time with its argument by name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs):
        return self.layer(input=self.layer(inputs))


def test_every_call_of_a_layer_counts():
    model, x = Twice().double(), torch.randn(4, 3, dtype=torch.float64)
    both = torch.cat([x, model.layer(x)]).detach()
    torch.testing.assert_close(layer_inputs(model, x, ["layer"])["layer"], both)
    torch.testing.assert_close(gram(model, x, ["layer"])["layer"], both.T @ both / 8)


# gram


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14), (torch.bfloat16, 1e-6)]
)
def test_gram_of_linear_layers(dtype, tolerance):
    with seeded(0):
        model, x = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).to(dtype), torch.randn(23, 3, 5).to(dtype)
    found = gram(model, TensorDataset(x, torch.zeros(23)), ["0", "2"], batch_size=4)
    hidden = torch.cat([model[1](model[0](part)) for part in x.split(4)])
    for name, inputs in (("0", x), ("2", hidden)):
        rows = inputs.detach().double().flatten(0, 1)
        torch.testing.assert_close(found[name], rows.T @ rows / 69, rtol=tolerance, atol=tolerance)
        assert found[name].dtype == torch.float64


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (2, 1)}, {"kernel_size": (1, 3), "stride": (2, 1)},
     {"groups": 2, "padding": 1}, {"groups": 4}],
)  # fmt: skip
def test_gram_of_convolutions_against_unfold(options):
    options = {"kernel_size": 3} | options
    with seeded(0):
        layer, x = nn.Conv2d(4, 8, **options), torch.randn(6, 4, 9, 8)
    patches = F.unfold(x.double(), layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # (N, C k, places)
    rows = (
        patches.unflatten(1, (layer.groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
    )  # (groups, positions, C / groups k)
    expected = (rows.mT @ rows / rows.shape[1]).squeeze(0)
    found = gram(nn.Sequential(layer), x, ["0"], batch_size=4)["0"]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(3, 4, 5, stride=2, padding=2), (3, 11)),
        (nn.Conv2d(3, 4, 4, padding="same", dilation=2), (3, 7, 9)),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", groups=2), (4, 6, 5)),
        (nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="circular"), (2, 6, 5)),
        (nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1), bias=False), (2, 3, 4, 5)),
        (nn.Linear(4, 3), (5, 4)),
    ],
)
def test_gram_gives_the_change_of_the_outputs(layer, shape):
    """The mean squared change of the outputs is the trace of D G Dᵀ, whatever the padding: a check without patches."""
    layer, x = layer.double(), torch.randn(7, *shape, dtype=torch.float64)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight.add_(torch.randn_like(other.weight))
        change = (other(x) - layer(x)).square()
    matrix = gram(nn.Sequential(layer), x, ["0"], batch_size=3)["0"]  # (D, D) or (groups, D, D)
    difference = (other.weight - layer.weight).detach().flatten(1)  # (out, D)
    groups = difference.view(getattr(layer, "groups", 1), -1, difference.shape[1])
    predicted = (groups @ matrix @ groups.mT).diagonal(dim1=-2, dim2=-1).sum()
    torch.testing.assert_close(predicted, change.sum() / (change.numel() / layer.weight.shape[0]))


def test_many_inputs_lose_no_digits():
    """In float32 alone, a sum of 2000 batches of ones beside a large one would lose them."""
    x = torch.ones(2001, 1)
    x[0] = 2.0**13  # its square, 2**26, is beyond the 24 digits of float32
    assert gram(nn.Sequential(nn.Linear(1, 1)), x, ["0"], batch_size=1)["0"].item() == (2.0**26 + 2000) / 2001


def test_memory_does_not_grow_with_the_data():
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    few, many = torch.randn(32, 32), torch.randn(32 * 60, 32)
    peaks = [
        peak_memory(lambda x=x: gram(model, x, ["0", "2"], batch_size=16, device="cpu", progress=False))
        for x in (few, many)
    ]
    assert peaks[1] <= peaks[0] + 1024 < many.numel() * 4


@pytest.mark.parametrize(
    ("model", "data", "names", "error", "message"),
    [
        (Skips(), torch.zeros(2, 4), ["used", "unused"], ValueError, "'unused' was not run in a forward pass of Skips"),
        (Skips(), torch.zeros(0, 4), ["used"], ValueError, "data is empty"),
        (Skips(), torch.zeros(2, 4), [], ValueError, "names is empty"),
        (Skips(), torch.zeros(2, 4), ["use"], ValueError, "no layer named 'use' in Skips; near it: used"),
        (nn.Sequential(nn.ConvTranspose2d(1, 1, 2)), torch.zeros(1, 1, 4, 4), ["0"], ValueError, "'0' is a transposed"),
        (nn.Sequential(nn.Embedding(3, 2)), torch.tensor([[1, 2]]), ["0"], TypeError, "'0' takes torch.int64"),
    ],
)
def test_gram_bad_input(model, data, names, error, message):
    with pytest.raises(error, match=message):
        gram(model, data, names)
    assert hooks(model) == 0


# Models of Hugging Face


@pytest.fixture(scope="module")
def llama():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    with seeded(0):
        return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def texts():
    """Six texts of different lengths as batches of dicts, with padding behind."""
    with seeded(1):
        tokens = torch.randint(50, (6, 9))
    mask = (torch.arange(9) < torch.tensor([9, 4, 7, 1, 9, 2])[:, None]).long()
    rows = [{"input_ids": t, "attention_mask": m, "labels": t} for t, m in zip(tokens, mask, strict=True)]
    return DataLoader(rows, batch_size=4), tokens, mask


def test_gram_of_a_language_model_without_its_padding(llama, texts):
    loader, tokens, mask = texts
    names = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    found = gram(llama, loader, names)
    double = copy.deepcopy(llama).double()
    rows: dict[str, list] = {name: [] for name in names}
    for text, kept in zip(tokens, mask.bool(), strict=True):  # each text alone, without padding
        states = double.model(text[kept][None], output_hidden_states=True).hidden_states
        first, second = double.model.layers
        rows[names[0]].append(first.input_layernorm(states[0])[0])
        before = []  # the second layer's own steps: attention, norm, and what its gate lets through
        hook = second.post_attention_layernorm.register_forward_hook(lambda m, i, o, into=before: into.append(o))
        double.model(text[kept][None])
        hook.remove()
        mlp_in = before[0][0]
        rows[names[1]].append(F.silu(mlp_in @ second.mlp.gate_proj.weight.T) * (mlp_in @ second.mlp.up_proj.weight.T))
    for name in names:
        x = torch.cat(rows[name]).detach()
        assert len(x) == mask.sum()
        torch.testing.assert_close(found[name], x.T @ x / len(x), rtol=1e-5, atol=1e-8)


def test_inputs_and_outputs_of_a_language_model(llama, texts):
    loader, tokens, mask = texts
    name = "model.layers.1"
    outputs = layer_outputs(llama, loader, [name])[name]
    assert outputs.shape == (6, 9, 16)  # whole, padding included
    inputs = layer_inputs(llama, loader, [name])[name]
    states = llama.model(tokens, attention_mask=mask, output_hidden_states=True).hidden_states
    torch.testing.assert_close(inputs, states[1].detach()[mask.bool()])
    batch = {"input_ids": tokens, "attention_mask": mask, "labels": tokens}
    torch.testing.assert_close(run_to(llama, name, batch), outputs)


def test_padding_that_cannot_be_told(llama):
    batch = {"input_ids": torch.ones(2, 3, dtype=torch.int64), "attention_mask": torch.ones(2, 1, 3, 3)}
    loader = DataLoader([batch], batch_size=None)
    with pytest.raises(ValueError, match=r"attention_mask is \(2, 1, 3, 3\); expected \(N, L\)"):
        gram(llama, loader, ["model.layers.0.mlp.up_proj"])
    batch["attention_mask"] = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="has no input that counts: all of it is padding"):
        gram(llama, loader, ["model.layers.0.mlp.up_proj"])


def test_layers_whose_features_come_last_whatever_their_kind():
    """GPT-2's layers are ``Conv1D`` of transformers: a linear layer with its weight turned."""
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    layer, x = conv1d(3, 5), torch.randn(4, 2, 5)
    rows = x.double().flatten(0, 1)
    torch.testing.assert_close(gram(nn.Sequential(layer), x, ["0"])["0"], rows.T @ rows / 8, rtol=1e-6, atol=1e-6)


def test_layers_that_a_fast_path_would_leave_out():
    """An encoder layer of PyTorch in eval mode calls one routine for all its layers, unless somebody is watching."""
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    x = torch.randn(3, 5, 8)
    hidden = layer_inputs(nn.Sequential(block), x, ["0.linear2"])["0.linear2"]
    attended = block.norm1(x + block.self_attn(x, x, x, need_weights=False)[0])  # (N, L, D)
    torch.testing.assert_close(hidden, block.linear1(attended).relu().detach())


class Pair(nn.Module):
    """Gives a tuple, as attention does."""

    def forward(self, x):
        return 2 * x, None


class First(nn.Module):
    def forward(self, pair):
        return pair[0].relu_().square()


@pytest.mark.parametrize("middle", [nn.Sequential(nn.Tanh(), nn.ReLU(inplace=True)), nn.Sequential(Pair(), First())])
def test_gradients_at_a_captured_output_are_those_of_all_that_follows(middle):
    model = nn.Sequential(nn.Linear(3, 4), middle, nn.Linear(4, 2))
    inputs = torch.randn(5, 3)
    with capture(model, ["1.0"]) as seen:
        loss = model(inputs).square().sum()
    (gradient,) = torch.autograd.grad(loss, seen["1.0"])
    value = seen["1.0"].detach().double().requires_grad_(True)
    after = value.relu() if isinstance(middle[0], nn.Tanh) else value.relu().square()
    weight, bias = model[2].weight.detach().double(), model[2].bias.detach().double()
    (after @ weight.T + bias).square().sum().backward()
    torch.testing.assert_close(gradient.double(), value.grad, rtol=1e-5, atol=1e-6)
