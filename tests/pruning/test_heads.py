"""Heads removed for real: equal to columns of zeros, in the course's attention and in that of BERT."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from course_lib.measure import count_parameters
from course_lib.models.encoder import Encoder, SelfAttention
from course_lib.pruning.heads import remove_heads


def encoder():
    return louder(Encoder(20, 3, width=12, layers=2, heads=3, seed=1).eval())


def louder(model):
    """The same with larger weights around the heads: at the usual start heads hardly differ."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "attention" in name and parameter.dim() == 2:
            parameter.data.normal_(generator=generator)
    return model


TOKENS = torch.randint(2, 20, (4, 6), generator=torch.Generator().manual_seed(0))


def bert():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 16, "num_hidden_layers": 2}
    torch.manual_seed(0)
    return louder(transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=20, **sizes)).eval())


def test_shapes_and_parameters_by_hand():
    model = encoder()
    before = copy.deepcopy(model.blocks[0].attention)
    count = count_parameters(model)
    assert remove_heads(model, {"blocks.0.attention": [1]}) is model
    attention = model.blocks[0].attention
    assert (attention.num_heads, attention.head_dim) == (2, 4)
    left = [0, 1, 2, 3, 8, 9, 10, 11]
    for part in ("query", "key", "value"):
        assert torch.equal(getattr(attention, part).weight, getattr(before, part).weight[left])
        assert torch.equal(getattr(attention, part).bias, getattr(before, part).bias[left])
    assert torch.equal(attention.output.weight, before.output.weight[:, left])
    assert torch.equal(attention.output.bias, before.output.bias)
    assert count - count_parameters(model) == 3 * (4 * 12 + 4) + 4 * 12
    assert model.blocks[1].attention.num_heads == 3


@pytest.mark.parametrize("gone", [[0], [2], [0, 1], [1, 2]])
def test_as_if_the_columns_behind_the_head_were_zero(gone):
    model = encoder()
    silent, full = copy.deepcopy(model), model(TOKENS)
    for head in gone:
        silent.blocks[1].attention.output.weight.data[:, 4 * head : 4 * head + 4] = 0
    remove_heads(model, {"blocks.1.attention": gone})
    assert_close(model(TOKENS), silent(TOKENS))
    assert not torch.allclose(model(TOKENS), full, atol=1e-2)


def test_in_bert():
    model = bert()
    silent = copy.deepcopy(model)
    for layer, head in ((0, 2), (1, 0), (1, 1)):
        silent.bert.encoder.layer[layer].attention.output.dense.weight.data[:, 4 * head : 4 * head + 4] = 0
    full = model(TOKENS).logits
    remove_heads(model, {"bert.encoder.layer.0.attention": [2], "bert.encoder.layer.1.attention": [0, 1]})
    assert_close(model(TOKENS).logits, silent(TOKENS).logits)
    assert not torch.allclose(model(TOKENS).logits, full, atol=1e-2)
    attention = model.bert.encoder.layer[1].attention.self
    assert (attention.num_attention_heads, attention.all_head_size, attention.attention_head_size) == (1, 4, 4)


def test_what_is_left_trains_and_frozen_weights_stay_frozen():
    model = encoder().train()
    model.blocks[0].attention.key.weight.requires_grad_(False)
    remove_heads(model, {"blocks.0.attention": [0, 2]})
    assert not model.blocks[0].attention.key.weight.requires_grad
    model(TOKENS).sum().backward()
    assert model.blocks[0].attention.value.weight.grad.shape == (4, 12)


@pytest.mark.parametrize(
    ("heads", "error", "message"),
    [
        ({"blocks.0.attention": [0, 1, 2]}, ValueError, "all 3 heads of 'blocks.0.attention' would be removed"),
        ({"blocks.0.attention": [3]}, ValueError, "heads of 'blocks.0.attention' hold 3; expected numbers from 0 to 2"),
        ({"blocks.0.attention": [1, 1]}, ValueError, "hold 1 twice"),
        ({"blocks.0.attention": [0], "blocks.1.attention": ["0"]}, TypeError, "hold '0'; expected whole numbers"),
        ({"blocks.0.atention": [0]}, ValueError, "no layer named 'blocks.0.atention'.*near it: blocks.0.attention"),
        ({"blocks.0.up": [0]}, ValueError, "'blocks.0.up' is a Linear; expected an attention with linear layers"),
    ],
)
def test_refused_and_unchanged(heads, error, message):
    model = encoder()
    before, ids = copy.deepcopy(model.state_dict()), [id(p) for p in model.parameters()]
    with pytest.raises(error, match=message):
        remove_heads(model, heads)
    assert [id(p) for p in model.parameters()] == ids
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.blocks[0].attention.num_heads == 3


def test_pytorchs_own_attention_cannot_lose_a_head():
    model = nn.TransformerEncoderLayer(8, 2)
    with pytest.raises(ValueError, match="'self_attn' is a MultiheadAttention: .* expected an attention with separate"):
        remove_heads(model, {"self_attn": [0]})


def test_one_key_for_several_queries():
    model = nn.ModuleDict({"attention": SelfAttention(12, 3)})
    model["attention"].key = nn.Linear(12, 4)
    with pytest.raises(ValueError, match="the heads of 'attention' differ in query, key and value"):
        remove_heads(model, {"attention": [0]})


def test_shared_projections():
    model = encoder()
    model.blocks[1].attention.query.weight = model.blocks[0].attention.query.weight
    with pytest.raises(ValueError, match="weight of layer 'blocks.0.attention.query' is also that of"):
        remove_heads(model, {"blocks.0.attention": [0]})
