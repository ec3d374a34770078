"""Transformers made narrower for real: neurons of the feed-forward parts, channels of the stream that all blocks share.

A neuron is a row of the layers that make it and a column of the one that reads it; without it the feed-forward part
computes exactly what it computes when the column is zero. A channel of the stream is in everything that reads or
writes it: embeddings, norms, projections, the head. Norms then take their mean over the channels that are left, so that
is not what the large network computes with zeros: it has to be trained, as Minitron does (Muralidharan et al. 2024,
"Compact Language Models via Pruning and Knowledge Distillation", arXiv 2407.14679).

Which blocks are known is said in ``blocks.py``.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from course_lib.pruning.blocks import (
    WIDTHS,
    apply,
    find_feed_forward,
    find_feed_forwards,
    indices_left,
    settle_configs,
    sides,
    stream,
    tell_configs,
)
from course_lib.pruning.checks import check_no_masks, check_numbers

Model = TypeVar("Model", bound=nn.Module)


def remove_neurons(model: Model, neurons: Mapping[str, Sequence[int]]) -> Model:
    """Remove neurons of feed-forward parts of ``model``, in place; returns the model.

    The settings of a model of ``transformers`` are changed when all parts have the same number of neurons left.

    Args:
        neurons: name of a feed-forward part -> the numbers of its neurons that go, counted from 0.

    Raises:
        TypeError: ``model`` is not a module, or a number is no integer.
        ValueError: an unknown name, a module that is no feed-forward part of a known kind, a neuron that is not there
            or named twice, all neurons of a part; a model that holds masks. The model is then as it was.
    """
    found = {name: find_feed_forward(model, name) for name in neurons}
    check_no_masks(model)
    layers = dict(model.named_modules())
    before = {part.neurons for part in find_feed_forwards(model).values()} if found else set()
    places: dict[int, dict[int, Tensor]] = {}
    numbers = {}
    for name, part in found.items():
        gone = check_numbers(neurons[name], part.neurons, f"neurons of {name!r}")
        if len(gone) == part.neurons:
            raise ValueError(f"all {part.neurons} neurons of {name!r} would be removed; expected one to be left")
        kept = indices_left(gone, part.neurons)
        for maker in part.makers:
            for key, tensor in layers[maker].named_parameters(recurse=False):
                places[id(tensor)] = {sides(layers[maker])[0] if key == "weight" else 0: kept}
        reader = layers[part.reader]
        places[id(reader.weight)] = {sides(reader)[1]: kept}
        if hasattr(layers[name], "intermediate_size"):
            numbers[name, "intermediate_size"] = len(kept)
    apply(model, places, numbers)
    after = {part.neurons for part in find_feed_forwards(model).values()} if found else set()
    if len(before) == len(after) == 1:
        (old,), (new,) = before, after
        tell_configs(model, ("intermediate_size", "d_ff", "n_inner"), old, new)
    settle_configs(model)
    return model


def remove_width(model: Model, channels: Sequence[int]) -> Model:
    """Remove channels of the stream of a transformer, in place, from all that reads or writes them; returns the model.

    The settings of a model of ``transformers`` are changed. Those of BERT and GPT-2 take the size of a head to be the
    width divided by the number of heads, and Llama's want to divide it by that number: there ``from_pretrained`` can
    load what is left only if as many heads are removed that this is so, and a warning says so otherwise.

    Args:
        channels: the numbers of the channels that go, counted from 0.

    Raises:
        TypeError: ``model`` is not a module, or a number is no integer.
        ValueError: no known blocks, a channel that is not there or named twice, all channels; a model that holds masks.
            The model is then as it was.
    """
    width, found = stream(model)
    check_no_masks(model)
    gone = check_numbers(channels, width, "channels")
    if len(gone) == width:
        raise ValueError(f"all {width} channels would be removed; expected one to be left")
    kept = indices_left(gone, width)
    numbers = {
        (name, key): len(kept)
        for name, module in model.named_modules()
        for key in WIDTHS
        if getattr(module, key, None) == width and type(getattr(module, key)) is int
    }
    apply(model, {key: dict.fromkeys(axes, kept) for key, axes in found.items()}, numbers)
    tell_configs(model, ("hidden_size", "pooler_output_size"), width, len(kept))
    if problem := settle_configs(model):
        warnings.warn(problem, stacklevel=2)
    return model
