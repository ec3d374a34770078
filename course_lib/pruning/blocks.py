"""Who makes and who reads what in a transformer, said outright: nothing has to be followed.

Forward passes of ``transformers`` are too free to be followed as a whole, but their blocks are of few kinds, and each
keeps its layers under names of its own. Known are BERT, GPT-2, the Llama type (Llama, Mistral, Qwen2), ViT, T5, and
this course's encoder. In each of them

- the *width* is the number of channels of the stream that all blocks read and write;
- an *attention* has projections whose rows are its heads, one after the other, and an output whose columns are;
- a feed-forward part has *neurons* between the layers that make them and the one that reads them.

``heads``, ``width`` and ``depth`` remove them, and tell the model's ``config``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.device import check_model
from course_lib.layers import find_layer
from course_lib.pruning.graph import Cut, smaller

# The names of query, key, value and output inside an attention; with one name for the first three they are one matrix.
ATTENTIONS = (
    (("query", "key", "value"), "output"),  # this course
    (("self.query", "self.key", "self.value"), "output.dense"),  # BERT
    (("q_proj", "k_proj", "v_proj"), "o_proj"),  # Llama, ViT
    (("q", "k", "v"), "o"),  # T5
    (("c_attn",), "c_proj"),  # GPT-2
)
# The layers that make neurons, and the one that reads them.
FEED_FORWARDS = (
    (("gate_proj", "up_proj"), "down_proj"),  # Llama
    (("fc1",), "fc2"),  # ViT
    (("c_fc",), "c_proj"),  # GPT-2
    (("wi_0", "wi_1"), "wo"),  # T5, later versions
    (("wi",), "wo"),  # T5
    (("intermediate.dense",), "output.dense"),  # BERT
    (("up",), "down"),  # this course
)
COUNTS = ("num_heads", "num_attention_heads", "n_heads")  # where an attention keeps the number of its heads
SIZES = ("head_dim", "attention_head_size", "key_value_proj_dim")  # and that of the numbers of one head
COLUMNS = ("all_head_size", "inner_dim", "split_size")  # and that of all heads together
WIDTHS = ("hidden_size", "embed_dim", "d_model", "model_dim", "dim")  # where modules keep the width
ANSWERS = ("classifier", "lm_head", "score", "qa_outputs", "seq_relationship", "predictions.decoder")  # not the stream


@dataclass(frozen=True)
class Attention:
    """An attention layer.

    Attributes:
        projections: the names of the layers that make queries, keys and values; one layer makes all in GPT-2.
        output: the name of the layer that reads what comes of all heads.
        keeper: the module that keeps the numbers below in attributes.
        heads: how many; where several queries share a key and a value, how many keys there are.
        queries: how many queries each key has.
        head_dim: how many numbers a head has.
    """

    projections: tuple[str, ...]
    output: str
    keeper: nn.Module
    heads: int
    queries: int
    head_dim: int


@dataclass(frozen=True)
class FeedForward:
    """A feed-forward part: the names of the layers that make its neurons, and of the one that reads them."""

    makers: tuple[str, ...]
    reader: str
    neurons: int


def sides(layer: nn.Module) -> tuple[int, int] | None:
    """The axes of a layer's weight along which its outputs and its inputs lie; None if it is of no known kind.

    ``Conv1D`` of GPT-2 is a linear layer whose weight is (in, out).
    """
    if isinstance(layer, nn.Linear) or isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == 1:
        return (0, 1)
    return (1, 0) if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf") else None


def find_attention(model: nn.Module, name: str) -> Attention:
    """The parts of the attention layer of that name.

    Raises:
        TypeError, ValueError: as ``layers.find_layer``; ValueError for a layer that is not of a known kind.
    """
    module, layers = find_layer(model, name), dict(model.named_modules())
    if isinstance(module, nn.MultiheadAttention):
        raise ValueError(
            f"{name!r} is a MultiheadAttention: its heads are always its width divided by their number, so none can "
            "go; expected an attention with separate query, key, value and output layers"
        )
    for projections, output in ATTENTIONS:
        parts = [layers.get(f"{name}.{part}") for part in (*projections, output)]
        if all(part is not None and sides(part) for part in parts):
            keeper = layers[f"{name}.{projections[0]}".rpartition(".")[0]]
            return _attention(name, parts, tuple(f"{name}.{p}" for p in projections), f"{name}.{output}", keeper)
    known = "; ".join(f"{', '.join(projections)} and {output}" for projections, output in ATTENTIONS)
    raise ValueError(f"{name!r} is a {type(module).__name__}; expected an attention with linear layers named {known}")


def _attention(
    name: str, parts: Sequence[nn.Module], projections: tuple[str, ...], output: str, keeper: nn.Module
) -> Attention:
    rows = [part.weight.shape[sides(part)[0]] for part in parts[:-1]]
    rows = [rows[0] // 3] * 3 if len(rows) == 1 else rows  # GPT-2
    behind = parts[-1].weight.shape[sides(parts[-1])[1]]
    sizes = _numbers(keeper, SIZES)
    heads = next(iter(_numbers(keeper, COUNTS).values()), 0)
    head_dim = next(iter(sizes.values()), 0) or (rows[0] // heads if heads else 0)
    if head_dim < 1 or any(count % head_dim for count in rows):
        raise ValueError(f"{name!r} keeps no number of heads; expected one of {', '.join((*COUNTS, *SIZES))}")
    if not rows[1] == rows[2] or rows[0] != behind or rows[0] % rows[1]:
        raise ValueError(f"the heads of {name!r} differ in query, key and value: they have {rows} columns")
    keys = rows[1] // head_dim
    if heads and rows[0] != rows[1] and not hasattr(keeper, "num_key_value_groups"):
        raise ValueError(f"the heads of {name!r} differ in query, key and value; expected one key and value a query")
    return Attention(projections, output, keeper, keys, rows[0] // rows[1], head_dim)


def find_attentions(model: nn.Module) -> dict[str, Attention]:
    """All attention layers of known kinds, by name."""
    check_model(model)
    return dict(_found(model, find_attention))


def find_feed_forward(model: nn.Module, name: str) -> FeedForward:
    """The feed-forward part of that name: the module that holds its layers, such as "h.0.mlp" or a BERT layer.

    Raises:
        TypeError, ValueError: as ``layers.find_layer``; ValueError for a module that is not of a known kind.
    """
    module, layers = find_layer(model, name), dict(model.named_modules())
    for makers, reader in FEED_FORWARDS:
        parts = [layers.get(f"{name}.{part}") for part in (*makers, reader)]
        if all(part is not None and sides(part) for part in parts):
            counts = {part.weight.shape[sides(part)[0]] for part in parts[:-1]}
            behind = parts[-1].weight.shape[sides(parts[-1])[1]]
            if counts == {behind}:
                return FeedForward(tuple(f"{name}.{part}" for part in makers), f"{name}.{reader}", behind)
    known = "; ".join(f"{', '.join(makers)} and {reader}" for makers, reader in FEED_FORWARDS)
    raise ValueError(f"{name!r} is a {type(module).__name__}; expected a feed-forward part with layers named {known}")


def find_feed_forwards(model: nn.Module) -> dict[str, FeedForward]:
    """All feed-forward parts of known kinds, by name."""
    check_model(model)
    return dict(_found(model, find_feed_forward))


def _found(model: nn.Module, find: object) -> Iterator[tuple[str, object]]:
    for name, module in model.named_modules():
        if name and next(module.children(), None) is not None and not isinstance(module, nn.MultiheadAttention):
            try:
                yield name, find(model, name)
            except ValueError:
                continue


def stream(model: nn.Module) -> tuple[int, dict[int, tuple[int, ...]]]:
    """The width of a transformer, and where it is: id of a parameter -> the axes that have it.

    The width is what the embeddings give. It is along every axis of that size but those of heads, neurons, words and
    classes.

    Raises:
        TypeError, ValueError: ``model`` is not a module; ValueError for one without known blocks.
    """
    attentions, parts = find_attentions(model), find_feed_forwards(model)
    if not attentions or not parts:
        raise ValueError(
            f"{type(model).__name__} has no blocks of a known kind; expected a transformer as in blocks.py"
        )
    layers = dict(model.named_modules())
    made = {name for each in attentions.values() for name in each.projections}
    made |= {name for part in parts.values() for name in part.makers}
    read = {each.output for each in attentions.values()} | {part.reader for part in parts.values()}
    writer = layers[next(iter(parts.values())).reader]
    width = writer.weight.shape[sides(writer)[0]]
    found: dict[int, tuple[int, ...]] = {}
    for name, layer in layers.items():
        axes = sides(layer)
        for key, tensor in layer.named_parameters(recurse=False):
            if axes is not None:
                answers = name.endswith(ANSWERS) or layer is _answer(model)
                out, inside = name not in made and not answers, name not in read
                places = [axes[0] * out if key == "weight" else 0] if out else []
                places += [axes[1]] if inside and key == "weight" else []
            elif isinstance(layer, nn.Embedding):
                places = [] if name.endswith("relative_attention_bias") else [1]
            else:  # norms, and tokens that stand in a module by themselves
                places = [tensor.dim() - 1]
            places = [axis for axis in places if tensor.shape[axis] == width]
            if places:
                found[id(tensor)] = tuple(sorted({*places, *found.get(id(tensor), ())}))
    return width, found


def _answer(model: nn.Module) -> nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    return get() if get is not None else None


def apply(model: nn.Module, places: Mapping[int, Mapping[int, Tensor]], numbers: Mapping[tuple, int]) -> None:
    """Keep only some places along axes of parameters, in place, and write sizes into attributes.

    Args:
        places: id of a parameter -> axis -> the places that are kept.
        numbers: (module name, attribute) -> its new value; the sizes of layers are found here.
    """
    tensors, sizes = {}, {(name, key, None): value for (name, key), value in numbers.items()}
    parameters = {id(tensor): tensor for tensor in model.parameters()}
    for key, axes in places.items():
        tensors[key] = smaller(parameters[key], axes)
    for name, layer in model.named_modules():
        weight = tensors.get(id(getattr(layer, "weight", None)))
        if weight is None:
            continue
        axes = sides(layer)
        if axes is not None:
            kinds = (("out_features", "in_features"), ("out_channels", "in_channels"), ("nf", "nx"))
            sizes |= {
                (name, key, None): weight.shape[axis]
                for kind in kinds
                for key, axis in zip(kind, axes, strict=True)
                if hasattr(layer, key)
            }
        elif isinstance(layer, nn.Embedding):
            sizes[name, "embedding_dim", None] = weight.shape[1]
        elif isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
            sizes[name, "normalized_shape", 0] = len(weight)
    Cut(tensors, sizes).make(model)


def name_of(model: nn.Module, module: nn.Module) -> str:
    """The name of a module of the model."""
    return next(name for name, other in model.named_modules() if other is module)


def _numbers(module: nn.Module, names: Sequence[str]) -> dict[str, int]:
    """Those of these attributes that a module keeps as whole numbers."""
    return {name: getattr(module, name) for name in names if type(getattr(module, name, None)) is int}


def configs(model: nn.Module) -> list[object]:
    """The settings that the model and its parts keep, each once; a model of this course has none."""
    found = {
        id(config): config for module in model.modules() if (config := getattr(module, "config", None)) is not None
    }
    return list(found.values())


def tell_configs(model: nn.Module, names: Sequence[str], before: int, after: int) -> None:
    """Write a new size into the settings, wherever they have the old one under one of these names."""
    for config in configs(model):
        for name in names:
            if getattr(config, name, None) == before:
                setattr(config, name, after)


def settle_configs(model: nn.Module) -> str | None:
    """Write into the settings what they leave to be worked out from the width; a problem that is left, in words."""
    neurons = {part.neurons for part in find_feed_forwards(model).values()}
    for attention in find_attentions(model).values():
        for config in configs(model):
            width, heads = getattr(config, "hidden_size", 0), getattr(config, "num_attention_heads", 0)
            if not width or not heads or hasattr(config, "d_kv"):
                continue
            if getattr(config, "n_inner", 0) is None and len(neurons) == 1 and 4 * width not in neurons:  # GPT-2
                config.n_inner = next(iter(neurons))
            own = hasattr(attention.keeper, "head_dim") and not hasattr(attention.keeper, "split_size")
            if own and (width // heads != attention.head_dim or getattr(config, "head_dim", None) is not None):
                config.head_dim = attention.head_dim
            if width % heads or not own and width // heads != attention.head_dim:
                return (
                    f"the settings have {heads} heads for a width of {width}, and a head here has {attention.head_dim} "
                    "numbers: reload with structure_of and rebuild, or remove as many heads"
                )
    return None


def indices_left(gone: Sequence[int], count: int) -> Tensor:
    """The numbers from 0 to below ``count`` that are not ``gone``."""
    kept = torch.ones(count, dtype=torch.bool)
    kept[list(gone)] = False
    return kept.nonzero().squeeze(1)
