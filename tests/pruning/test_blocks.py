"""Transformers of ``transformers`` made smaller without tracing: against zeros, and through save and load."""

import copy
import warnings

import pytest
import torch
from torch.testing import assert_close

from benchmarks.zoo import OverWhatIsLeft
from course_lib.models.encoder import Encoder
from course_lib.pruning.blocks import find_attentions, find_feed_forwards, stream
from course_lib.pruning.depth import remove_layers
from course_lib.pruning.graph import rebuild, structure_of
from course_lib.pruning.heads import remove_heads
from course_lib.pruning.width import remove_neurons, remove_width

transformers = pytest.importorskip("transformers")
TOKENS = torch.randint(3, 40, (2, 7), generator=torch.Generator().manual_seed(0))
PICTURES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 32, "num_hidden_layers": 3, "vocab_size": 40}
WORDS = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
# Each: the model and its settings, and what it takes. "says": whether the settings hold the size of a head by itself.
MODELS = {
    "bert": ("BertForSequenceClassification", "BertConfig", SIZES, False),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {**SIZES, **WORDS, "n_embd": 24, "n_positions": 32}, False),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, **WORDS, "num_key_value_heads": 2}, True),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**SIZES, **WORDS, "num_key_value_heads": 2}, True),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {**SIZES, **WORDS, "num_key_value_heads": 4}, True),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        {**SIZES, "image_size": 8, "patch_size": 4, "num_labels": 3},
        True,
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 24, "d_ff": 32, "d_kv": 5, "num_heads": 4, "num_layers": 3, "vocab_size": 40}
        | {"decoder_start_token_id": 0, "eos_token_id": None, "feed_forward_proj": "gated-gelu"},
        True,
    ),
}
LISTS = {"bert": "bert.encoder.layer", "gpt2": "transformer.h", "vit": "vit.layers", "t5": "decoder.block"}
LISTS |= dict.fromkeys(("llama", "mistral", "qwen2"), "model.layers")
WRITE = [name for name in MODELS if name not in ("bert", "vit")]


def build(name):
    """A small random model, with weights large enough that every part has something to say."""
    kind, settings, sizes, _ = MODELS[name]
    config = getattr(transformers, settings)(
        **{key: value for key, value in sizes.items() if key != "vocab_size" or name != "vit"}
    )
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config).eval()
    for key, parameter in model.named_parameters():
        if "norm" not in key.lower() and "ln_" not in key:
            parameter.data.normal_(std=0.3)
    return model


def example(name):
    if name == "vit":
        return {"pixel_values": PICTURES}
    return {"input_ids": TOKENS, "decoder_input_ids": TOKENS} if name == "t5" else {"input_ids": TOKENS}


def logits(model, name):
    with torch.no_grad():
        return model(**example(name)).logits


def assert_comes_back(model, name, folder):
    """Saved and loaded as its users do, with the same numbers; text is written with a cache and without alike."""
    model.save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = type(model).from_pretrained(folder).eval()
    assert torch.equal(logits(again, name), logits(model, name))
    if name in WRITE:
        texts = [
            each.generate(TOKENS, max_new_tokens=5, do_sample=False, use_cache=cache)
            for each in (model, again)
            for cache in (True, False)
        ]
        assert all(torch.equal(text, texts[0]) for text in texts)


def silence(layer, axis, places):
    """Zeros along an axis of a weight."""
    layer.weight.data.index_fill_(axis, torch.tensor(places), 0)


@pytest.mark.parametrize("name", MODELS)
def test_heads(name, tmp_path):
    model = build(name)
    silent, full = copy.deepcopy(model), logits(model, name)
    attentions = find_attentions(model)
    assert len(attentions) == {"t5": 9}.get(name, 3)
    gone = {each: [attention.heads - 1] for each, attention in attentions.items()}
    for attention in attentions.values():
        size = attention.head_dim * attention.queries
        layer = silent.get_submodule(attention.output)
        silence(layer, 0 if name == "gpt2" else 1, list(range((attention.heads - 1) * size, attention.heads * size)))
    assert remove_heads(model, gone) is model
    assert_close(logits(model, name), logits(silent, name))
    assert not torch.allclose(logits(model, name), full, atol=1e-2)
    if name in ("llama", "mistral"):
        assert (model.config.num_key_value_heads, model.config.num_attention_heads) == (1, 2)
    if MODELS[name][3]:
        assert_comes_back(model, name, tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_neurons(name, tmp_path):
    model = build(name)
    silent, full = copy.deepcopy(model), logits(model, name)
    parts = find_feed_forwards(model)
    assert len(parts) == {"t5": 6}.get(name, 3) or name == "gpt2"
    gone = {each: [0, 5, 30] for each in parts}
    for part in parts.values():
        silence(silent.get_submodule(part.reader), 0 if name == "gpt2" else 1, [0, 5, 30])
    assert remove_neurons(model, gone) is model
    assert_close(logits(model, name), logits(silent, name))
    assert not torch.allclose(logits(model, name), full, atol=1e-2)
    assert_comes_back(model, name, tmp_path)


def as_over_what_is_left(model, kept):
    """The root mean square of Llama and T5 over the channels that are left; the others are 0."""
    for module in model.modules():
        if "RMSNorm" in type(module).__name__ or type(module).__name__ == "T5LayerNorm":
            eps = module.variance_epsilon

            def forward(states, weight=module.weight, eps=eps):
                return weight * states * torch.rsqrt(states.square().sum(-1, keepdim=True) / len(kept) + eps)

            module.forward = forward


@pytest.mark.parametrize("name", MODELS)
def test_width(name, tmp_path):
    """As the large network with zeros in everything of a removed channel, and norms over those that are left."""
    model = build(name)
    gone = [0, 3, 7, 8, 20, 23, 1, 2] if MODELS[name][3] else [0, 3, 7, 8, 20, 23]
    kept = [channel for channel in range(24) if channel not in gone]
    silent = copy.deepcopy(model)
    width, places = stream(silent)
    assert width == 24
    layer_norms = {}
    for tensor in silent.parameters():
        for axis in places.get(id(tensor), ()):
            tensor.data.index_fill_(axis, torch.tensor(gone), 0)
    for module in silent.modules():
        if isinstance(module, torch.nn.LayerNorm):
            layer_norms[id(module.weight)] = torch.tensor(kept)
    as_over_what_is_left(silent, kept)
    if name == "t5":
        silent.config.d_model = silent.model_dim = 16  # T5 divides the words' scores by the root of the width
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        remove_width(model, gone)
    with OverWhatIsLeft(layer_norms):
        wanted = logits(silent, name)
    assert_close(logits(model, name), wanted, rtol=1e-4, atol=1e-5)
    assert model.config.hidden_size == len(kept)
    if MODELS[name][3]:
        assert_comes_back(model, name, tmp_path)
    else:
        assert "4 heads for a width of 18, and a head here has 6" in str(told[-1].message)
        again = rebuild(build(name), structure_of(model))
        again.load_state_dict(model.state_dict())
        assert torch.equal(logits(again, name), logits(model, name))
        remove_heads(model, {each: [1] for each in find_attentions(model)})  # 3 heads of 6 are 18
        assert_comes_back(model, name, tmp_path)


@pytest.mark.parametrize("gone", [[1], [0, 2]])
@pytest.mark.parametrize("name", MODELS)
def test_layers(name, gone, tmp_path):
    model = build(name)
    remove_layers(model, LISTS[name], gone, example(name))
    assert len(model.get_submodule(LISTS[name])) == 3 - len(gone)
    assert_comes_back(model, name, tmp_path)


def test_everything_at_once(tmp_path):
    model = build("llama")
    remove_layers(model, "model.layers", [1], example("llama"))
    remove_neurons(model, {name: range(16) for name in find_feed_forwards(model)})
    remove_heads(model, {name: [0] for name in find_attentions(model)})
    remove_width(model, range(12))
    config = model.config
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (12, 16, 2)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 6)
    assert_comes_back(model, "llama", tmp_path)


def test_the_courses_encoder():
    model, tokens = Encoder(40, 3, width=12, layers=2, heads=3, hidden=16).eval(), TOKENS
    silent = copy.deepcopy(model)
    remove_neurons(model, {"blocks.0": [1, 2]})
    silence(silent.blocks[0].down, 1, [1, 2])
    assert_close(model(tokens), silent(tokens))
    remove_width(model, [0, 5])
    assert model(tokens).shape == (2, 3) and model.blocks[1].down.weight.shape == (10, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: remove_neurons(m, {"model.layers.0": [0]}),
            "expected a feed-forward part with layers named gate_proj",
        ),
        (lambda m: remove_neurons(m, {"model.layers.0.mlp": [32]}), "hold 32; expected numbers from 0 to 31"),
        (lambda m: remove_neurons(m, {"model.layers.0.mlp": range(32)}), "all 32 neurons"),
        (lambda m: remove_width(m, [24]), "channels hold 24"),
        (lambda m: remove_width(m, range(24)), "all 24 channels"),
        (lambda m: remove_heads(m, {"model.layers.0.self_attn": [2]}), "hold 2; expected numbers from 0 to 1"),
        (lambda m: remove_width(m.model.norm, [0]), "has no blocks of a known kind"),
    ],
)
def test_refused_and_unchanged(change, message):
    model = build("llama")
    ids, settings = [id(p) for p in model.parameters()], model.config.to_dict()
    with pytest.raises(ValueError, match=message):
        change(model)
    assert [id(p) for p in model.parameters()] == ids and model.config.to_dict() == settings
