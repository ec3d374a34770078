"""Whole layers removed: fewer blocks in a row.

Where every block adds something to a stream that passes by it, as in transformers and within a stage of a ResNet, the
stream goes on without a block, and the shapes fit. Where a block changes the shape they do not: the example tells.
The settings of a model of ``transformers`` are changed with it, so that ``from_pretrained`` loads what is left, and its
layers get the numbers under which a cache keeps what they computed.
"""

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from course_lib.device import check_model, evaluating
from course_lib.layers import find_layer
from course_lib.pruning.blocks import configs
from course_lib.pruning.checks import check_no_masks, check_numbers, first_line, run_quietly
from course_lib.pruning.graph import Example, first_numbers, shorten

Model = TypeVar("Model", bound=nn.Module)


def remove_layers(model: Model, name: str, indices: Sequence[int], example: Example) -> Model:
    """Remove layers of a list in ``model``, in place; returns the model. What is left is numbered anew from 0.

    Args:
        name: of the ``nn.ModuleList`` or ``nn.Sequential`` that holds the layers, such as "blocks"; "" if the model
            itself is one.
        indices: which of them go, counted from 0.
        example: an input, on the device of the model: the model is run with it before and after.

    Raises:
        TypeError: ``model`` is not a module, or an index no integer.
        ValueError: an unknown name, something that is no list of layers, an index that is not there or named twice,
            every layer, a model that holds masks, or one that does not run any more or gives another shape than
            before. The model is then as it was.
    """
    check_model(model)
    layers = find_layer(model, name) if name else model
    if not isinstance(layers, (nn.ModuleList, nn.Sequential)):
        kind = type(layers).__name__
        raise ValueError(f"{name!r} is a {kind}; expected an nn.ModuleList or an nn.Sequential, a list of layers")
    gone = set(check_numbers(indices, len(layers), f"layers of {name!r}"))
    if len(gone) == len(layers):
        raise ValueError(f"all {len(layers)} layers of {name!r} would be removed; expected one to be left")
    check_no_masks(model)
    with evaluating(model):
        try:
            before = _shapes(run_quietly(model, example))
        except Exception as error:  # a forward pass may raise anything
            raise ValueError(f"the model does not run with the example ({first_line(error)})") from error
        children, numbers = dict(layers._modules), getattr(layers, "kept_layers", None)
        shorten(layers, [old for index, old in enumerate(first_numbers(layers)) if index not in gone])
        try:
            after = _shapes(run_quietly(model, example))
            problem = "" if after == before else f"the output has shape {after} and not {before}"
        except Exception as error:
            problem = first_line(error)
        except BaseException:  # stopped from the keyboard
            _restore(layers, children, numbers)
            raise
        if problem:
            _restore(layers, children, numbers)
            raise ValueError(f"without layers {sorted(gone)} of {name!r} the shapes do not fit: {problem}")
    _tell(model, name, list(children.values()), sorted(gone))
    return model


def _tell(model: nn.Module, name: str, before: Sequence[nn.Module], gone: Sequence[int]) -> None:
    """What models of ``transformers`` keep beside their layers: settings, and the number of each layer for a cache."""
    left = [layer for index, layer in enumerate(before) if index not in gone]
    for index, layer in enumerate(left):
        for module in layer.modules():
            if type(getattr(module, "layer_idx", None)) is int:
                module.layer_idx = index
    shared = [
        module for layer in before for module in layer.modules() if hasattr(module, "has_relative_attention_bias")
    ]
    first = next((module for module in shared if module in left[0].modules()), None)
    if first is not None and not first.has_relative_attention_bias:  # T5: the first layer looks up positions for all
        first.relative_attention_bias, first.has_relative_attention_bias = shared[0].relative_attention_bias, True
    top = getattr(model, "config", None)
    inner = model.get_submodule(name.rpartition(".")[0])
    decoder = getattr(top, "num_decoder_layers", None) is not None and name.split(".")[0] == "decoder"
    for config in configs(model):
        if decoder and config is top:
            config.num_decoder_layers = len(left)
        elif getattr(config, "num_hidden_layers", None) == len(before):
            if not hasattr(top, "num_decoder_layers") or config in (top, getattr(inner, "config", None)):
                config.num_hidden_layers = len(left)
        kinds = getattr(config, "layer_types", None)
        if isinstance(kinds, list) and len(kinds) == len(before):
            config.layer_types = [kind for index, kind in enumerate(kinds) if index not in gone]


def _restore(layers: nn.Module, children: dict[str, nn.Module], numbers: list[int] | None) -> None:
    for key in list(layers._modules):
        delattr(layers, key)
    for key, layer in children.items():
        layers.add_module(key, layer)
    if numbers is None:
        del layers.kept_layers
    else:
        layers.kept_layers = numbers


def _shapes(output: object) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
