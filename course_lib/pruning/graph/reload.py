"""A pruned model comes back: its sizes, to be saved beside its weights.

A state dict holds tensors, and no sizes of layers: it does not load into a model that still has its full size. The
structure says how large each tensor is, what whole numbers each module keeps (``in_features``, ``num_heads``), and
which layers of each list are left, as plain data for JSON. ``rebuild`` gives a freshly made model that structure::

    save_file(model.state_dict(), "model.safetensors")
    Path("structure.json").write_text(json.dumps(structure_of(model)))
    ...
    model = rebuild(resnet18(), json.loads(Path("structure.json").read_text()))
    model.load_state_dict(load_file("model.safetensors"))
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from course_lib.checking import near_names
from course_lib.device import check_model
from course_lib.pruning.checks import check_no_masks
from course_lib.pruning.graph.cut import Cut

Model = TypeVar("Model", bound=nn.Module)
LISTS = (nn.ModuleList, nn.Sequential)
PARTS = {"layers", "sizes", "shapes"}
_KEPT = "kept_layers"  # the attribute in which a shortened list remembers which of its first layers are left


def structure_of(model: nn.Module) -> dict[str, dict]:
    """What pruning changes in a model, as plain data: ``{"layers": ..., "sizes": ..., "shapes": ...}``.

    ``layers`` has the lists that ``remove_layers`` shortened: name -> the first numbers of the layers that are left;
    ``sizes`` the whole numbers of each module: name -> attribute -> number; ``shapes`` that of each tensor by name.

    Raises:
        TypeError: ``model`` is not a module.
    """
    check_model(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    shortened = {name: list(getattr(module, _KEPT)) for name, module in modules.items() if hasattr(module, _KEPT)}
    shapes = {name: list(tensor.shape) for name, tensor in _tensors(modules).items()}
    return {
        "layers": shortened,
        "sizes": {name: sizes for name, module in modules.items() if (sizes := _sizes(module))},
        "shapes": shapes,
    }


def rebuild(model: Model, structure: Mapping[str, Mapping]) -> Model:
    """Give a freshly made ``model`` a structure, in place; returns the model, ready for ``load_state_dict``.

    Each tensor is the first part of the fresh one. To train the small network from scratch instead of loading it,
    reset its layers (``reset_parameters``) first: the scale of an initialisation depends on the size of the layer.

    Args:
        model: made as the pruned one was before it was pruned.
        structure: what ``structure_of`` gave for the pruned one.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: a tensor that only one of the two has, or one that is smaller in ``model``. It is then as it was.
    """
    check_model(model)
    check_no_masks(model)
    if not isinstance(structure, Mapping) or set(structure) != PARTS:
        raise ValueError(f"structure is {structure!r:.80}; expected a dict of {sorted(PARTS)}, from structure_of")
    left = dict(_left(model, "", structure["layers"]))
    lists = {name: left.get(name) for name in structure["layers"]}
    tensors, shapes = _tensors(left), structure["shapes"]
    for name in [*(name for name, module in lists.items() if module is None), *(shapes.keys() ^ tensors.keys())]:
        here = "only in the model" if name in tensors else "only in the structure"
        raise ValueError(f"{name!r} is {here}; {near_names(name, [*tensors, *left])}")
    smaller = {
        id(tensor): part for name, tensor in tensors.items() if (part := _part(name, tensor, shapes[name])) is not None
    }
    for name, module in lists.items():
        shorten(module, structure["layers"][name])
    Cut(smaller, {}).make(model)
    for name, sizes in structure["sizes"].items():
        for attribute, size in sizes.items():
            if hasattr(left.get(name), attribute):
                setattr(left[name], attribute, tuple(size) if isinstance(size, list) else size)
    return model


def shorten(layers: nn.Module, kept: Sequence[int]) -> None:
    """Leave only some layers of a list, in place, numbered anew; ``kept`` are their first numbers."""
    found = _children(layers, kept, "")
    for key in list(layers._modules):
        delattr(layers, key)
    for index, layer in enumerate(found):
        layers.add_module(str(index), layer)
    setattr(layers, _KEPT, list(kept))


def first_numbers(layers: nn.Module) -> list[int]:
    """For each layer of a list the number that it had before the list was shortened."""
    return list(getattr(layers, _KEPT, range(len(layers))))


def _left(module: nn.Module, name: str, layers: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, nn.Module]]:
    """What is left of a module after its lists are shortened, by the names that it then has."""
    yield name, module
    children = {key: child for key, child in module._modules.items() if child is not None}
    if name in layers and isinstance(module, LISTS):
        children = {str(index): child for index, child in enumerate(_children(module, layers[name], name))}
    for key, child in children.items():
        yield from _left(child, f"{name}.{key}" if name else key, layers)


def _children(layers: nn.Module, kept: Sequence[int], name: str) -> list[nn.Module]:
    there = dict(zip(first_numbers(layers), layers.children(), strict=True))
    if missing := [number for number in kept if number not in there]:
        raise ValueError(f"layer {missing[0]} of {name!r} is not there; expected some of {list(there)}")
    return [there[number] for number in kept]


def _tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The parameters and buffers of modules, by every name that they have."""
    return {
        f"{name}.{key}" if name else key: tensor
        for name, module in modules.items()
        for key, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }


def _sizes(module: nn.Module) -> dict[str, int | list[int]]:
    """The whole numbers that a module keeps in attributes, and the shape that a normalisation runs over."""
    found = {key: value for key, value in vars(module).items() if type(value) is int and not key.startswith("_")}
    shape = vars(module).get("normalized_shape")
    return found | ({"normalized_shape": list(shape)} if isinstance(shape, tuple) else {})


def _part(name: str, tensor: Tensor, shape: Sequence[int]) -> Tensor | None:
    """The first part of a tensor that has this shape; None if that is all of it."""
    if list(tensor.shape) == list(shape):
        return None
    if len(shape) != tensor.dim() or any(new > old for new, old in zip(shape, tensor.shape, strict=True)):
        raise ValueError(
            f"{name!r} has shape {tuple(tensor.shape)}; expected at least {tuple(shape)}: "
            "a model as large as the one that was pruned"
        )
    part = tensor.detach()[tuple(slice(size) for size in shape)].clone()
    return nn.Parameter(part, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else part
