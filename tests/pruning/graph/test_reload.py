"""A pruned model comes back from a JSON text and a state dict, bit for bit."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.testing import assert_close

from benchmarks.zoo import expected
from course_lib.models.encoder import Encoder
from course_lib.models.vision import SmallConvNet, mlp, resnet_small
from course_lib.pruning.criteria import unit_norm
from course_lib.pruning.depth import remove_layers
from course_lib.pruning.heads import remove_heads
from course_lib.pruning.structured import groups, lowest_units, rebuild, remove_units, structure_of


def reload(model, fresh, folder):
    """Through files, into another model that was made anew."""
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "structure.json").write_text(json.dumps(structure_of(model)))
    again = rebuild(fresh, json.loads((folder / "structure.json").read_text()))
    assert again is fresh
    again.load_state_dict(load_file(folder / "model.safetensors"))
    return again.eval()


def test_structure_by_hand():
    model = mlp([4, 6, 3])
    remove_units(model, {"1": [0]}, torch.zeros(1, 4))
    assert structure_of(model) == {
        "layers": {},
        "sizes": {
            "0": {"start_dim": 1, "end_dim": -1},
            "1": {"in_features": 4, "out_features": 5},
            "3": {"in_features": 5, "out_features": 3},
        },
        "shapes": {"1.weight": [5, 4], "1.bias": [5], "3.weight": [3, 5], "3.bias": [3]},
    }
    fresh = mlp([4, 6, 3], seed=5)
    first = fresh[3].weight.detach().clone()
    assert torch.equal(rebuild(fresh, structure_of(model))[3].weight, first[:, :5])  # the first part of the fresh one
    assert (fresh[1].out_features, fresh[3].in_features) == (5, 5)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_torchvision_comes_back(name, tmp_path):
    models = pytest.importorskip("torchvision.models")
    model, pictures = models.get_model(name, num_classes=4).eval(), torch.randn(2, 3, 64, 64)
    units = lowest_units(unit_norm(model), 0.4, tied=groups(model, pictures))
    remove_units(model, units, pictures)
    again = reload(model, models.get_model(name, num_classes=4), tmp_path)
    assert torch.equal(again(pictures), model(pictures))
    assert structure_of(again) == structure_of(model) and str(again) == str(model)


def test_units_heads_and_layers_together(tmp_path):
    tokens = torch.randint(2, 20, (3, 5))
    model = Encoder(20, 3, width=12, layers=5, heads=3).eval()
    remove_layers(model, "blocks", [1, 3], tokens)
    remove_heads(model, {"blocks.1.attention": [0], "blocks.2.attention": [1, 2]})
    remove_units(model, {"blocks.0.up": [3], "token": [5]}, tokens)
    remove_layers(model, "blocks", [1], tokens)
    structure = structure_of(model)
    assert structure["layers"] == {"blocks": [0, 4]}
    assert structure["sizes"]["blocks.1.attention"] == {"num_heads": 1, "head_dim": 4}
    assert structure["sizes"]["blocks.1.norm"] == {"normalized_shape": [11]}
    again = reload(model, Encoder(20, 3, width=12, layers=5, heads=3, seed=9), tmp_path)
    assert torch.equal(again(tokens), model(tokens))
    assert structure_of(again) == structure
    rebuild(again, structure)  # once more: nothing happens
    assert structure_of(again) == structure and torch.equal(again(tokens), model(tokens))


def test_bert_comes_back(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 3}
    build = lambda: transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=20, **sizes))  # noqa: E731
    tokens = torch.randint(2, 20, (3, 5))
    model = build().eval()
    remove_heads(model, {"bert.encoder.layer.2.attention": [1]})
    remove_layers(model, "bert.encoder.layer", [0], {"input_ids": tokens})
    again = reload(model, build(), tmp_path)
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    sizes = structure_of(again)["sizes"]["bert.encoder.layer.1.attention.self"]
    assert (sizes["num_attention_heads"], sizes["attention_head_size"], sizes["all_head_size"]) == (1, 4, 4)


def test_a_copy_and_a_pickle_keep_their_structure(tmp_path):
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
    remove_layers(model, "", [1], torch.zeros(1, 3))
    torch.save(model, tmp_path / "model.pt")
    for other in (copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)):
        assert structure_of(other)["layers"] == {"": [0, 2]}


def test_stages_of_a_resnet_that_differ(tmp_path):
    """The second block of a stage has no convolution beside it: the right one has to go in the fresh model too."""
    model, pictures = resnet_small(blocks=(2, 3, 1, 1)).eval(), torch.randn(2, 1, 16, 16)
    remove_layers(model, "layer2", [1], pictures)
    remove_units(model, {"layer2.1.conv1": range(10)}, pictures)
    again = reload(model, resnet_small(blocks=(2, 3, 1, 1), seed=3), tmp_path)
    assert structure_of(model)["layers"] == {"layer2": [0, 2]}
    assert torch.equal(again(pictures), model(pictures))


SMALLER = structure_of(SmallConvNet((4, 4)))


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ({}, r"structure is {}; expected a dict of \['layers', 'shapes', 'sizes'\]"),
        ([], r"expected a dict of \['layers', 'shapes', 'sizes'\]"),
        (structure_of(SmallConvNet((4, 4, 4))), "'blocks.2.[01].*' is only in the structure"),
        (structure_of(SmallConvNet((4,))), "'blocks.1.[01].*' is only in the model"),
        (structure_of(SmallConvNet((6, 5))), "has shape .*expected at least .*as large as the one that was pruned"),
        (SMALLER | {"layers": {"blocks": [0, 2]}}, "layer 2 of 'blocks' is not there"),
        (SMALLER | {"layers": {"block": [0]}}, "'block' is only in the structure; near it: blocks"),
        (SMALLER | {"shapes": SMALLER["shapes"] | {"classifier.bias": [2, 5]}}, "'classifier.bias' has shape"),
    ],
)
def test_another_model_is_refused(structure, message):
    model = SmallConvNet((5, 5))
    ids, text = [id(p) for p in model.parameters()], str(model)
    with pytest.raises(ValueError, match=message):
        rebuild(model, structure)
    assert [id(p) for p in model.parameters()] == ids and str(model) == text


class Gained(nn.Linear):
    """A linear layer with a gain for each unit, low-rank factors beside the weight, and a mask of its size."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.gain = nn.Parameter(torch.rand(outputs))
        self.one, self.other = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.randn(outputs, 2))
        self.register_buffer("mask", (torch.rand(outputs, inputs) > 0.5))

    def forward(self, inputs):
        low_rank = nn.functional.linear(nn.functional.linear(inputs, self.one), self.other)
        return self.gain * (nn.functional.linear(inputs, self.weight * self.mask, self.bias) + low_rank)


def gained():
    return nn.Sequential(Gained(4, 6), nn.ReLU(), Gained(6, 5), nn.ReLU(), nn.Linear(5, 3))


def masked():
    model = mlp([4, 6, 3])
    prune.l1_unstructured(model[3], "weight", 0.5)
    return model


def normalised():
    return mlp([4, 6, 3]).apply(lambda m: parametrizations.weight_norm(m) if getattr(m, "out_features", 0) == 6 else m)


@pytest.mark.parametrize("build", [gained, masked, normalised])
def test_tensors_beside_weight_and_bias_are_cut_and_come_back(build, tmp_path):
    torch.manual_seed(0)
    model, inputs = build(), torch.randn(5, 4)
    first = next(name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    torch.manual_seed(0)
    wanted = expected(build(), inputs, {first: [0, 2]})
    remove_units(model, {first: [0, 2]}, inputs)
    if build is not normalised:  # a row of zeros has no norm
        assert_close(model(inputs), wanted)
    again = reload(model, build(), tmp_path)
    assert torch.equal(again(inputs), model(inputs)) and structure_of(again) == structure_of(model)
    if build is gained:
        assert model[0].gain.shape == (4,) and model[0].mask.shape == (4, 4) and model[2].mask.shape == (5, 4)
        assert model[0].other.shape == (4, 2) and model[2].one.shape == (2, 4)


class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.again = nn.Sequential(self.head)

    def forward(self, inputs):
        return self.again(self.body(inputs).relu())


def test_a_module_under_two_names_comes_back():
    model, inputs = TwoNames(), torch.randn(5, 4)
    remove_units(model, {"body": [0, 2]}, inputs)
    assert model.head is model.again[0] and model.head.in_features == 4
    again = rebuild(TwoNames(), json.loads(json.dumps(structure_of(model))))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(inputs), model(inputs)) and again.head.weight is again.again[0].weight


def test_no_model():
    for function in (structure_of, lambda model: rebuild(model, SMALLER)):
        with pytest.raises(TypeError, match="expected a torch.nn.Module"):
            function(None)
