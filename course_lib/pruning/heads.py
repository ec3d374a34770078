"""Attention heads removed for real.

Michel, Levy, Neubig 2019, "Are Sixteen Heads Really Better than One?" (arXiv 1905.10650): many heads can go at little
cost. A head is a block of ``head_dim`` rows in the query, key and value projections, and the same block of columns in
the projection behind them. Without them the attention computes exactly what it computes when the columns are zero.

Two layouts are known:

- this course's: ``query, key, value, output`` and ``num_heads`` on one module, such as "blocks.0.attention";
- that of BERT in ``transformers``: ``query, key, value`` and ``num_attention_heads`` on "….attention.self", and the
  projection in "….attention.output.dense"; "….attention" is the name to give.

``nn.MultiheadAttention`` cannot lose a head: it takes the size of a head to be its width divided by the number of
heads, and keeps three projections in one matrix. Build the model with one of the attentions above instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from course_lib.layers import find_layer
from course_lib.pruning.checks import check_no_masks, check_numbers, check_plain
from course_lib.pruning.resizing import cut

Model = TypeVar("Model", bound=nn.Module)
COUNTS = ("num_heads", "num_attention_heads")  # where a layout keeps the number of heads
WIDTHS = ("all_head_size",)  # and the columns of all heads together, if it does


@dataclass(frozen=True)
class Attention:
    """The parts of an attention layer: three projections, the one behind, and where the number of heads stands."""

    projections: tuple[str, str, str]  # names in the model
    output: str
    counter: nn.Module
    heads: int
    head_dim: int


def remove_heads(model: Model, heads: Mapping[str, Sequence[int]]) -> Model:
    """Remove attention heads of ``model``, in place; returns the model.

    Args:
        heads: name of an attention layer -> the numbers of its heads that go, counted from 0.

    Raises:
        TypeError: ``model`` is not a module, or a number is no integer.
        ValueError: an unknown name, a layer that is no attention of a known layout, a head that is not there or named
            twice, all heads of a layer; weights that are shared, computed or have a mask. The model is then as it was.
    """
    found = {name: find_attention(model, name) for name in heads}
    check_no_masks(model)
    plans, left = [], {}
    for name, attention in found.items():
        gone = check_numbers(heads[name], attention.heads, f"heads of {name!r}")
        if len(gone) == attention.heads:
            raise ValueError(f"all {attention.heads} heads of {name!r} would be removed; expected one to be left")
        kept = torch.ones(attention.heads, dtype=torch.bool)
        kept[gone] = False
        columns = kept.repeat_interleave(attention.head_dim)  # (H,) -> (H · D,): head after head
        layers = check_plain(model, (*attention.projections, attention.output))
        plans += [cut(layers[part], None, columns) for part in attention.projections]
        plans.append(cut(layers[attention.output], columns, None))
        left[name] = attention.heads - len(gone)
    for plan in plans:
        plan.make()
    for name, attention in found.items():
        for attribute in head_attributes(attention.counter):
            columns = 1 if attribute in COUNTS else attention.head_dim
            setattr(attention.counter, attribute, left[name] * columns)
    return model


def find_attention(model: nn.Module, name: str) -> Attention:
    """The parts of the attention layer of that name.

    Raises:
        TypeError, ValueError: as ``layers.find_layer``; ValueError for a layer that is not of a known layout.
    """
    module = find_layer(model, name)
    if isinstance(module, nn.MultiheadAttention):
        raise ValueError(
            f"{name!r} is a MultiheadAttention: its heads are always its width divided by their number, so none can "
            "go; expected an attention with separate query, key, value and output layers"
        )
    inner, output = (f"{name}.self", f"{name}.output.dense") if hasattr(module, "self") else (name, f"{name}.output")
    layers = dict(model.named_modules())
    counter = layers[inner]
    projections = tuple(f"{inner}.{part}" for part in ("query", "key", "value"))
    count = next((getattr(counter, key) for key in COUNTS if isinstance(getattr(counter, key, None), int)), 0)
    parts = [layers.get(part) for part in (*projections, output)]
    if count < 1 or not all(isinstance(part, nn.Linear) for part in parts):
        raise ValueError(
            f"{name!r} is a {type(module).__name__}; expected an attention with linear layers query, key, value and "
            f"output and one of the numbers {', '.join(COUNTS)}, or with these under self and output.dense"
        )
    query, key, value, behind = parts
    if not query.out_features == key.out_features == value.out_features == behind.in_features:
        raise ValueError(f"the heads of {name!r} differ in query, key and value; expected one key and value a query")
    return Attention(projections, output, counter, count, query.out_features // count)


def head_attributes(module: nn.Module) -> dict[str, int]:
    """The attributes in which an attention layer of a known layout keeps its heads; empty for any other module."""
    if not all(isinstance(getattr(module, part, None), nn.Linear) for part in ("query", "key", "value")):
        return {}
    found = {name: getattr(module, name, None) for name in (*COUNTS, *WIDTHS)}
    return {name: number for name, number in found.items() if isinstance(number, int)}
