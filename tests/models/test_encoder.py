"""The encoder: the formula written out, PyTorch's own layer, padding, removed heads, what the course does with it."""

import math
from itertools import product

import pytest
import torch
from torch import fx, nn
from torch.utils.data import TensorDataset

from course_lib.data.text import MASK, PADDING
from course_lib.distillation.hinton import distill
from course_lib.evaluation import evaluate, predict_logits
from course_lib.measure import compare_models, flops
from course_lib.models.encoder import Block, Encoder, SelfAttention
from course_lib.training import FitConfig, fit


def sentences(count=6, length=7, vocabulary=20, seed=0):
    """Token numbers (count, length) without padding, with one mask a row."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, vocabulary, (count, length), generator=generator)
    return tokens.scatter(1, torch.randint(length, (count, 1), generator=generator), MASK)


def everything_present(count, length):
    return torch.ones(count, 1, 1, length, dtype=torch.bool)


# ---- attention


def test_attention_by_hand():
    """One head, two positions, weights of one: scores 0 and log 3 / 0, so the weights are 1/2, 1/2 and 1/4, 3/4."""
    attention = SelfAttention(1, 1)
    for layer in (attention.query, attention.key, attention.value, attention.output):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    high = math.sqrt(math.log(3))
    states = torch.tensor([[[0.0], [high]]])
    expected = torch.tensor([[[high / 2], [high * 3 / 4]]])
    torch.testing.assert_close(attention(states, everything_present(1, 2)), expected)
    only_first = torch.tensor([[[[True, False]]]])
    torch.testing.assert_close(attention(states, only_first), torch.zeros(1, 2, 1))


def test_attention_is_the_formula_head_by_head():
    torch.manual_seed(0)
    attention = SelfAttention(12, 3).double()
    states = torch.randn(2, 5, 12, dtype=torch.float64)
    present = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    expected = torch.zeros(2, 5, 12, dtype=torch.float64)
    for row, head in product(range(2), range(3)):
        part = slice(4 * head, 4 * head + 4)
        query, key, value = (
            states[row] @ layer.weight[part].T + layer.bias[part]
            for layer in (attention.query, attention.key, attention.value)
        )
        for place in range(5):
            scores = [query[place] @ key[other] / math.sqrt(4) for other in range(5) if present[row, other]]
            total = sum(score.exp() for score in scores)
            mixed = sum(score.exp() / total * value[other] for other, score in enumerate(scores))
            expected[row, place] += attention.output.weight[:, part] @ mixed
    expected += attention.output.bias
    torch.testing.assert_close(attention(states, present[:, None, None]), expected)


def test_a_block_is_pytorch_s_encoder_layer():
    torch.manual_seed(0)
    block = Block(16, 4, 24)
    for norm in (block.attention_norm, block.norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    peer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, activation="gelu", batch_first=True)
    projections = (block.attention.query, block.attention.key, block.attention.value)
    copied = {
        "self_attn.in_proj_weight": torch.cat([layer.weight for layer in projections]),
        "self_attn.in_proj_bias": torch.cat([layer.bias for layer in projections]),
    }
    pairs = {
        "self_attn.out_proj": block.attention.output,
        "linear1": block.up,
        "linear2": block.down,
        "norm1": block.attention_norm,
        "norm2": block.norm,
    }
    for name, layer in pairs.items():
        copied |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    peer.load_state_dict(copied)
    states, present = torch.randn(3, 6, 16), torch.rand(3, 6) < 0.7
    present[:, 0] = True
    ours, theirs = block(states, present[:, None, None]), peer(states, src_key_padding_mask=~present)
    torch.testing.assert_close(ours[present], theirs[present])


def test_a_head_taken_out_is_a_head_that_says_nothing():
    torch.manual_seed(0)
    whole, small = SelfAttention(12, 3), SelfAttention(12, 3)
    kept = [0, 1, 2, 3, 8, 9, 10, 11]  # heads 0 and 2
    small.num_heads = 2
    for name in ("query", "key", "value"):
        layer = getattr(whole, name)
        replacement = nn.Linear(12, 8)
        replacement.load_state_dict({"weight": layer.weight[kept], "bias": layer.bias[kept]})
        setattr(small, name, replacement)
    small.output = nn.Linear(8, 12)
    small.output.load_state_dict({"weight": whole.output.weight[:, kept], "bias": whole.output.bias})
    with torch.no_grad():
        whole.output.weight[:, 4:8] = 0
    states = torch.randn(2, 5, 12)
    torch.testing.assert_close(small(states, everything_present(2, 5)), whole(states, everything_present(2, 5)))


# ---- the model


def test_the_model_step_by_step():
    model, tokens = Encoder(20, 5, width=8, layers=2, heads=2, max_length=9), sentences()
    states = model.token.weight[tokens] + model.position.weight[:7]
    states = model.embedding_norm(states)
    for block in model.blocks:
        states = block(states, everything_present(6, 7))
    answers = torch.stack([row[place] for row, place in zip(states, (tokens == MASK).nonzero()[:, 1], strict=True)])
    torch.testing.assert_close(model(tokens), answers @ model.classifier.weight.T + model.classifier.bias)


def test_without_a_mask_the_first_token_answers_and_of_two_the_first():
    model, tokens = Encoder(20, 5, width=8, layers=1, heads=2), torch.tensor([[5, 6, 7], [MASK, 6, 7]])
    seen = []
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    states = []
    model.blocks[0].register_forward_hook(lambda module, inputs, output: states.append(output))
    model(tokens)
    torch.testing.assert_close(seen[0], states[0][:, 0])
    model(torch.tensor([[5, MASK, MASK]]))
    torch.testing.assert_close(seen[1], states[1][:, 1])


def test_padding_changes_nothing():
    model, tokens = Encoder(20, 5, max_length=12), sentences()
    padded = nn.functional.pad(tokens, (0, 5), value=PADDING)
    torch.testing.assert_close(model(padded), model(tokens))
    mixed = torch.cat([padded, sentences(length=12, seed=1)])  # beside longer sentences
    torch.testing.assert_close(model(mixed)[:6], model(tokens))


def test_the_order_of_the_words_counts():
    model, tokens = Encoder(20, 5), torch.tensor([[MASK, 5, 6, 7], [MASK, 7, 6, 5]])
    first, second = model(tokens)
    assert not torch.allclose(first, second)


def test_sizes_by_hand():
    model = Encoder(20, 5, width=8, layers=3, heads=2, hidden=24, max_length=9)
    block = 4 * (8 * 8 + 8) + (8 * 24 + 24) + (24 * 8 + 8) + 2 * 2 * 8
    assert sum(p.numel() for p in model.parameters()) == 20 * 8 + 9 * 8 + 2 * 8 + 3 * block + (8 * 5 + 5)
    assert Encoder(20, 5, width=8, heads=2).blocks[0].up.out_features == 16


def test_a_seed_gives_its_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = Encoder(20, 5, seed=3), Encoder(20, 5, seed=3), Encoder(20, 5, seed=4)
    assert torch.equal(torch.rand(3), expected)
    weights = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["blocks.0.up.weight"], weights[2]["blocks.0.up.weight"])
    assert not torch.equal(weights[0]["blocks.0.up.weight"], weights[0]["blocks.1.up.weight"])
    assert weights[0]["token.weight"].std().item() == pytest.approx(0.02, rel=0.1)  # as in BERT
    assert not weights[0]["blocks.0.up.bias"].any()


def test_every_parameter_learns():
    model, tokens = Encoder(20, 5, width=8, layers=2, heads=2, max_length=7), sentences()
    model(tokens).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # what a key's bias adds is the same for every position that is looked at, and softmax takes it away again
    assert [name for name in without if not name.endswith("key.bias")] == []


# ---- what the course does with a model


def test_it_can_be_traced():
    model, tokens = Encoder(20, 5, width=8, layers=2, heads=2), sentences()
    traced = fx.symbolic_trace(model)
    torch.testing.assert_close(traced(tokens), model(tokens))
    shorter = nn.functional.pad(sentences(3, 4), (0, 1))  # nothing of the example is baked in
    torch.testing.assert_close(traced(shorter), model(shorter))
    called = {node.target for node in traced.graph.nodes if node.op == "call_module"}
    layers = {name for name, module in model.named_modules() if not list(module.children())}
    assert called == layers


def test_it_is_measured_trained_and_distilled():
    tokens = sentences(40)
    labels = (tokens == MASK).int().argmax(1)  # where the mask stands
    data = TensorDataset(tokens, labels)
    teacher, student = Encoder(20, 7, width=16, layers=1), Encoder(20, 7, width=8, layers=1, heads=2)
    history = fit(teacher, data, FitConfig(epochs=30, learning_rate=3e-3, batch_size=20), progress=False)
    assert evaluate(teacher, data).accuracy == 1 and history.train_loss[-1] < history.train_loss[0]
    distill(student, teacher, data, FitConfig(epochs=1), temperature=4, alpha=0.9, progress=False)
    assert predict_logits(student, data).shape == (40, 7)
    (row,) = compare_models({"teacher": teacher}, tokens[:1], data, timed=False).rows
    assert row.quality == {"accuracy": 1.0} and row.parameters == sum(p.numel() for p in teacher.parameters())
    # a multiply-add is two operations: four projections, two linear layers, two products of attention, the head
    by_hand = 2 * 7 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 2 * 7 * 7 * 16 + 2 * 16 * 7
    assert flops(teacher, tokens[:1]) == by_hand


# ---- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": 2}, "vocabulary is 2; expected 3 or more"),
        ({"classes": 0}, "classes is 0; expected 1 or more"),
        ({"width": 0}, "width is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"hidden": -1}, "hidden is -1"),
        ({"max_length": 0}, "max_length is 0"),
        ({"heads": 0}, "heads is 0 and width 64"),
        ({"heads": 3}, "heads is 3 and width 64; expected a width that is a multiple of the heads"),
    ],
)
def test_sizes_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Encoder(**{"vocabulary": 20, "classes": 5} | settings)


def test_tokens_that_it_cannot_read():
    model = Encoder(20, 5, max_length=4)
    with pytest.raises(ValueError, match=r"tokens have shape \(1, 5\); expected \(N, L\) with L from 1 to 4"):
        model(torch.ones(1, 5, dtype=torch.int64))
    for shape in ((4,), (2, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="tokens have shape"):
            model(torch.ones(shape, dtype=torch.int64))
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(TypeError, match=f"tokens are {dtype}"):
            model(torch.ones(1, 4, dtype=dtype))
