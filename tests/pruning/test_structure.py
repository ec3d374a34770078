"""A pruned model comes back from a JSON text and a state dict, bit for bit."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

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
        "sizes": {"1": {"in_features": 4, "out_features": 5}, "3": {"in_features": 5, "out_features": 3}},
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
    assert structure["sizes"]["blocks.1.attention"] == {"num_heads": 1}
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
    assert structure_of(again)["sizes"]["bert.encoder.layer.1.attention.self"] == {
        "num_attention_heads": 1,
        "all_head_size": 4,
    }


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
        ({}, "structure is {}; expected a dict of 'layers' and 'sizes'"),
        ([], "expected a dict of 'layers' and 'sizes'"),
        (structure_of(SmallConvNet((4, 4, 4))), "layer 'blocks.2.[01]' is only in the structure"),
        (structure_of(SmallConvNet((4,))), "layer 'blocks.1.[01]' is only in the model"),
        (structure_of(SmallConvNet((6, 5))), "has shape .*expected at least .*as large as the one that was pruned"),
        (SMALLER | {"layers": {"blocks": [0, 2]}}, "layer 2 of 'blocks' is not there"),
        (SMALLER | {"layers": {"block": [0]}}, "layer 'block' is only in the structure; near it: blocks"),
        (
            SMALLER | {"sizes": SMALLER["sizes"] | {"classifier": {"out_features": 10}}},
            "layer 'classifier' has the sizes",
        ),
    ],
)
def test_another_model_is_refused(structure, message):
    model = SmallConvNet((5, 5))
    ids, text = [id(p) for p in model.parameters()], str(model)
    with pytest.raises(ValueError, match=message):
        rebuild(model, structure)
    assert [id(p) for p in model.parameters()] == ids and str(model) == text


def test_no_model():
    for function in (structure_of, lambda model: rebuild(model, SMALLER)):
        with pytest.raises(TypeError, match="expected a torch.nn.Module"):
            function(None)
