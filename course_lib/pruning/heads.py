"""Attention heads removed for real.

Michel, Levy, Neubig 2019, "Are Sixteen Heads Really Better than One?" (arXiv 1905.10650): many heads can go at little
cost. A head is a block of ``head_dim`` rows in the query, key and value projections, and the same block of columns in
the projection behind them. Without them the attention computes exactly what it computes when the columns are zero.

Where several queries share a key and a value (Llama 3, Mistral, Qwen2), a head is a key, its value, and all queries
that read them. Which attentions are known is said in ``blocks.py``. ``nn.MultiheadAttention`` cannot lose a head: it
takes the size of a head to be its width divided by the number of heads. Build the model with a known one instead.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from course_lib.pruning.blocks import (
    COLUMNS,
    COUNTS,
    Attention,
    apply,
    find_attention,
    find_attentions,
    indices_left,
    name_of,
    settle_configs,
    sides,
    tell_configs,
)
from course_lib.pruning.checks import check_no_masks, check_numbers

Model = TypeVar("Model", bound=nn.Module)


def remove_heads(model: Model, heads: Mapping[str, Sequence[int]]) -> Model:
    """Remove attention heads of ``model``, in place; returns the model.

    The settings of a model of ``transformers`` are changed when all its attentions have lost equally many heads. Only
    then, and only if the settings have a size of a head by itself (Llama, ViT, T5), ``from_pretrained`` can load what
    ``save_pretrained`` wrote; otherwise reload with ``structure_of`` and ``rebuild``.

    Args:
        heads: name of an attention layer -> the numbers of its heads that go, counted from 0.

    Raises:
        TypeError: ``model`` is not a module, or a number is no integer.
        ValueError: an unknown name, a layer that is no attention of a known kind, a head that is not there or named
            twice, all heads of a layer; weights that are shared or have a mask. The model is then as it was.
    """
    found = {name: find_attention(model, name) for name in heads}
    check_no_masks(model)
    before = {(each.heads, each.queries) for each in find_attentions(model).values()} if found else set()
    layers = dict(model.named_modules())
    users = Counter(id(tensor) for layer in layers.values() for tensor in layer.parameters(recurse=False))
    places: dict[int, dict[int, Tensor]] = {}
    numbers = {}
    for name, attention in found.items():
        gone = check_numbers(heads[name], attention.heads, f"heads of {name!r}")
        if len(gone) == attention.heads:
            raise ValueError(f"all {attention.heads} heads of {name!r} would be removed; expected one to be left")
        kept = indices_left(gone, attention.heads)
        for layer, axis, columns in _columns(layers, attention, kept):
            for key, tensor in layers[layer].named_parameters(recurse=False):
                if key == "weight" or axis == sides(layers[layer])[0]:
                    at = axis if key == "weight" else 0
                    if users[id(tensor)] > 1:
                        raise ValueError(
                            f"the {key} of layer {layer!r} is also that of another; expected one of its own"
                        )
                    places[id(tensor)] = {at: columns}
        keeper = name_of(model, attention.keeper)
        bias = layers.get(f"{name}.relative_attention_bias")  # T5: a number for each head
        if bias is not None:
            places[id(bias.weight)] = {1: kept}
        for key in COUNTS:
            numbers[keeper, key] = len(kept) * attention.queries
        numbers |= {(keeper, key): len(kept) * attention.queries * attention.head_dim for key in COLUMNS}
    apply(model, places, {(name, key): value for (name, key), value in numbers.items() if hasattr(layers[name], key)})
    after = {(each.heads, each.queries) for each in find_attentions(model).values()} if found else set()
    if len(before) == len(after) == 1:
        (old, queries), (new, _) = before.pop(), after.pop()
        tell_configs(model, ("num_key_value_heads",), old, new)
        tell_configs(model, ("num_attention_heads",), old * queries, new * queries)
    settle_configs(model)
    return model


def _columns(layers: Mapping[str, nn.Module], attention: Attention, kept: Tensor) -> list[tuple[str, int, Tensor]]:
    """For each layer of an attention the axis along which its heads lie, and the places there that are kept."""
    size, fused = attention.head_dim, len(attention.projections) == 1
    keys = _blocks(kept, size)
    queries = _blocks(kept, size * attention.queries)  # the queries of one key stand side by side
    rows = [queries, keys, keys]
    if fused:  # queries, keys and values one after the other
        width = attention.heads * size
        rows = [torch.cat([keys, keys + width, keys + 2 * width])]
    found = [(name, sides(layers[name])[0], row) for name, row in zip(attention.projections, rows, strict=True)]
    return [*found, (attention.output, sides(layers[attention.output])[1], queries)]


def _blocks(kept: Tensor, size: int) -> Tensor:
    """The places of blocks of ``size``: block 2 of size 3 stands at 6, 7, 8."""
    return (kept[:, None] * size + torch.arange(size)).flatten()
