"""Whole layers removed: what is left runs on, or all is as it was."""

import copy

import pytest
import torch
from torch import nn

from course_lib.models.encoder import Encoder
from course_lib.models.vision import mlp, resnet_small
from course_lib.pruning.depth import remove_layers
from course_lib.pruning.held import hold_masks
from course_lib.pruning.masks import global_masks

TOKENS = torch.randint(2, 20, (2, 5), generator=torch.Generator().manual_seed(0))


def test_blocks_by_hand():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    kept, inputs = [model[0], model[3]], torch.randn(2, 3)
    assert remove_layers(model, "", [1, 2], inputs) is model
    assert list(model) == kept and list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert torch.equal(model(inputs), kept[1](kept[0](inputs)))


def test_blocks_of_an_encoder():
    model = Encoder(20, 3, width=8, layers=4, heads=2).eval()
    other = copy.deepcopy(model)
    other.blocks = nn.ModuleList([other.blocks[0], other.blocks[3]])
    remove_layers(model, "blocks", torch.tensor([2, 1]), TOKENS)
    assert len(model.blocks) == 2 and model.blocks[-1] is list(model.blocks)[1]
    assert torch.equal(model(TOKENS), other(TOKENS))


def test_blocks_of_a_resnet():
    model, pictures = resnet_small(blocks=(2, 2, 1, 1)).train(), torch.randn(2, 1, 8, 8)
    before = model.bn1.running_mean.clone()
    remove_layers(model, "layer1", [0], pictures)
    remove_layers(model, "layer2", [1], pictures)
    assert len(model.layer1) == len(model.layer2) == 1 and model.training
    assert torch.equal(model.bn1.running_mean, before)  # running it to check has taught it nothing


def test_layers_of_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_attention_heads=2, intermediate_size=8, num_hidden_layers=3
    )
    model = transformers.BertForSequenceClassification(config).eval()
    remove_layers(model, "bert.encoder.layer", [1], {"input_ids": TOKENS})
    assert len(model.bert.encoder.layer) == 2 and model(TOKENS).logits.shape == (2, 2)


class Counting(nn.Module):
    """Names its layers one by one, so that a missing one is missed."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def forward(self, inputs):
        return self.layers[2](self.layers[0](inputs))


@pytest.mark.parametrize(
    ("build", "name", "indices", "example", "error", "message"),
    [
        (
            lambda: mlp([4, 5, 3]),
            "",
            [1],
            torch.zeros(1, 4),
            ValueError,
            "without layers .1. of '' the shapes do not fit",
        ),
        (
            lambda: mlp([4, 5, 3]),
            "",
            [3],
            torch.zeros(1, 4),
            ValueError,
            r"has shape \[\(1, 5\)\] and not \[\(1, 3\)\]",
        ),
        (
            resnet_small,
            "layer2",
            [0],
            torch.zeros(1, 1, 8, 8),
            ValueError,
            "of 'layer2' the shapes do not fit: Runtime",
        ),
        (Counting, "layers", [1], torch.zeros(1, 3), ValueError, "shapes do not fit: IndexError"),
        (Counting, "layers", [0, 1, 2], torch.zeros(1, 3), ValueError, "all 3 layers of 'layers' would be removed"),
        (Counting, "layers", [3], torch.zeros(1, 3), ValueError, "hold 3; expected numbers from 0 to 2"),
        (Counting, "layers", [1, 1], torch.zeros(1, 3), ValueError, "hold 1 twice"),
        (Counting, "layers", [1.0], torch.zeros(1, 3), TypeError, "hold 1.0"),
        (Counting, "layer", [1], torch.zeros(1, 3), ValueError, "near it: layers"),
        (Counting, "layers.0", [0], torch.zeros(1, 3), ValueError, "'layers.0' is a Linear; expected an nn.ModuleList"),
        (Counting, "layers", [1], torch.zeros(1, 4), ValueError, "the model does not run with the example"),
    ],
)
def test_refused_and_unchanged(build, name, indices, example, error, message):
    model = build().train()
    values, children = copy.deepcopy(model.state_dict()), list(model.named_modules())
    ids, names = [id(p) for p in model.parameters()], [set(vars(m)) for m in model.modules()]
    with pytest.raises(error, match=message):
        remove_layers(model, name, indices, example)
    assert list(model.named_modules()) == children and all(m.training for m in model.modules())
    assert [id(p) for p in model.parameters()] == ids and [set(vars(m)) for m in model.modules()] == names
    assert list(model.state_dict()) == list(values)
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())


def test_masks_come_off_first():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    hold_masks(model, global_masks({name: p.abs() for name, p in model.named_parameters() if p.dim() == 2}, 0.5))
    with pytest.raises(ValueError, match="holds masks"):
        remove_layers(model, "", [0], torch.zeros(1, 3))
